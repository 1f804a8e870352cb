"""Damaged and foreign files for every reader: refused in siamcal's own words, or read right."""

"""Calibration of numbers alone: readings of any tool or network, in memory or in tables."""

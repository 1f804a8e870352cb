"""Files that ship with siamcal; ATTRIBUTION.md names source and licence of each."""

"""The calibrated network: made by name, cut in two, merged, read by a head."""

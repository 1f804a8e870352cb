"""Cropped faces of a data set: made once in parallel, kept in the cache, resumed."""

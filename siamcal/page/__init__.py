"""The page of `siamcal demo`: a camera or a video read in a browser on the same machine."""

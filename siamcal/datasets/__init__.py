"""Data sets: tables of frames, labels, folds and references, and their cropped faces.

`load_dataset(name, data_root)` reads a data set, `prepare(source, preprocessing)` crops its faces
once and keeps them in the cache. A new data set is one file in this folder with a function
registered by `@datasets.register("name")`.
"""

from siamcal.extras import needed_for

with needed_for("Reading data sets", "bench"):
    from siamcal.datasets.base import DatasetSource, FaceSet, load_dataset
    from siamcal.datasets.crops.prepare import prepare
    from siamcal.datasets.neutral import neutral_faces

__all__ = ["DatasetSource", "FaceSet", "load_dataset", "neutral_faces", "prepare"]

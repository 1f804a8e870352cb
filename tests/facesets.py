"""A small face set without faces: squares whose brightness is label plus a person's own offset.

It has exactly the property that calibration is for, and trains in seconds, so that the training
loop can be tested apart from rendering and face detection.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from siamcal.datasets.base import DatasetSource, FaceSet
from siamcal.preprocessing import Preprocessing
from siamcal.training.recipe import Augmentation, Recipe

AUS = (1, 12)

# Trains on `squares` in seconds.
RECIPE = Recipe(
    name="squares",
    dataset="squares",
    backbone="ir_tiny",
    backbone_options={"input_size": 32},
    merge_at="layer2",
    preprocessing=Preprocessing(size=32, contrast="none", mask="none"),
    steps=6,
    batch_size=8,
    learning_rate=1e-3,
    learning_rate_last=1e-3,
    augmentation=Augmentation(flip=0.0),
)


def squares(
    folder: Path, people: int = 6, frames: int = 16, size: int = 32, seed: int = 0
) -> FaceSet:
    generator = np.random.default_rng(seed)
    rows, images = [], []
    for person in range(people):
        offset = generator.normal(0, 1.5, len(AUS))
        for frame in range(frames):
            labels = np.zeros(2) if frame == 0 else generator.integers(0, 6, 2)
            image = generator.normal(90, 4, (size, size, 3))
            image[: size // 2] += 14 * (labels[0] + offset[0])
            image[size // 2 :] += 14 * (labels[1] + offset[1])
            images.append(np.clip(image, 0, 255).astype(np.uint8))
            rows.append(
                {
                    "participant": f"P{person:02d}",
                    "view": "front",
                    "sequence": "clip",
                    "frame": frame,
                    "source": f"P{person:02d}/{frame}.png",
                    "source_index": -1,
                    "is_reference": frame == 0,
                    "AU01": float(labels[0]),
                    "AU12": float(labels[1]),
                }
            )
    table = pd.DataFrame(rows)
    path = folder / "images.npy"
    np.save(path, np.stack(images))
    names = sorted(table["participant"].unique())
    source = DatasetSource(
        name="squares",
        intensity_aus=AUS,
        detection_aus=AUS,
        folds=(tuple(names[0::2]), tuple(names[1::2])),
        table=table,
    )
    first = table.groupby("participant")["frame"].transform(lambda g: g.index[0]).to_numpy()
    return FaceSet(
        source=source,
        preprocessing=Preprocessing(size=size, contrast="none", mask="none"),
        images_path=path,
        table=table,
        reference_rows=first.astype(np.int64),
        dropped=table.iloc[:0].assign(reason=""),
    )

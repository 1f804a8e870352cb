"""What names a cache: all that changes its content, and nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from facesets import RECIPE, squares
from test_datasets_prepare import make_source, picture, save

from siamcal.datasets.crops import fingerprints as of_files
from siamcal.datasets.crops.fingerprints import fingerprints
from siamcal.datasets.crops.prepare import missing_bytes
from siamcal.preprocessing import Preprocessing
from siamcal.training.frozen import Behind, keep_features
from siamcal.training.networks import build_network

OTHER = {
    "size": 24,
    "align": "ffhq_quad",
    "illumination": "csn_rgb",
    "contrast": "none",
    "mask": "none",
    "mean": (0.1, 0.0, 0.0),
    "std": (1.0, 2.0, 1.0),
    "detection": "once",
    "jpeg": 95,
}


@pytest.fixture
def rows(tmp_path):
    """Frames of two videos and one picture; the videos needn't be any to be named."""
    for name in ("a.avi", "b.avi"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    save(tmp_path / "c.png", picture(90))
    places = [("a.avi", 0), ("a.avi", 3), ("b.avi", 0), ("c.png", -1)]
    return [
        ["A", "v", "s", n, str(tmp_path / name), index, n == 0, 0, 1]
        for n, (name, index) in enumerate(places)
    ]


BASE = Preprocessing(size=16)


def folder(rows, cache, preprocessing=BASE):
    return missing_bytes(make_source(rows), preprocessing, cache)[0]


def test_every_setting_of_the_preprocessing_is_in_the_key_of_crops(rows, tmp_path) -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(Preprocessing)}
    places = {folder(rows, tmp_path / "cache")} | {
        folder(rows, tmp_path / "cache", dataclasses.replace(BASE, **{name: value}))
        for name, value in OTHER.items()
    }
    assert len(places) == 1 + len(OTHER)


def test_frames_and_their_order_are_in_the_key_of_crops(rows, tmp_path) -> None:
    def changed(row, column, value):
        other = [list(each) for each in rows]
        other[row][column] = value
        return other

    variants = {
        "same": rows,
        "another frame of the video": changed(1, 5, 4),
        "the same file, as a picture": changed(1, 5, -1),
        "another video": changed(2, 4, rows[0][4]),
        "a frame less": rows[:-1],
        "a frame twice": [*rows, rows[-1]],
        "pictures in another order": [rows[3], *rows[:3]],
    }
    places = {name: folder(each, tmp_path / "cache") for name, each in variants.items()}
    assert len(set(places.values())) == len(variants), places
    labels = changed(1, 7, 5.0)
    assert folder(labels, tmp_path / "cache") == places["same"]


def test_the_content_of_files_is_in_the_key_of_crops(rows, tmp_path) -> None:
    before = folder(rows, tmp_path / "cache")
    video = Path(rows[0][4])
    video.write_bytes(video.read_bytes()[:-1] + b"!")  # of the same size
    assert folder(rows, tmp_path / "cache") != before
    after = folder(rows, tmp_path / "cache")
    Path(rows[3][4]).unlink()
    assert folder(rows, tmp_path / "cache") not in (before, after)


def test_bytes_that_are_missing_are_those_of_all_frames(rows, tmp_path) -> None:
    assert missing_bytes(make_source(rows), BASE, tmp_path)[1] >= 4 * 16 * 16 * 3


def test_a_long_file_is_told_by_each_of_its_places(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(of_files, "_WHOLE", 1600)  # 16 places of 100 bytes
    file, size = tmp_path / "long", 16_000
    content, found = bytearray(size), set()
    for place in (None, 0, 99, 1065, size // 2, size - 100, size - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] = 1
        file.write_bytes(changed)
        (digest,) = fingerprints([str(file)], tmp_path / f"memory{place}").values()
        found.add(digest)
    file.write_bytes(content + b"\0")
    found |= set(fingerprints([str(file)], tmp_path / "longer").values())
    assert len(found) == 7  # but for the middle, which lies between two places


def test_kept_features_are_named_by_crops_and_preprocessing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "cache"))
    faces = squares(tmp_path, people=2, frames=3)
    recipe = dataclasses.replace(RECIPE, freeze_pre=1)
    behind = Behind(build_network(recipe, 2, calibrated=True), recipe)
    np.save(tmp_path / "other.npy", 255 - np.load(faces.images_path))
    brighter = dataclasses.replace(faces.preprocessing, mean=(0.1, 0.1, 0.1))
    variants = [
        faces,
        dataclasses.replace(faces, images_path=tmp_path / "other.npy"),
        dataclasses.replace(faces, preprocessing=brighter),
    ]
    kept = [keep_features(behind, each, recipe, 1).values for each in variants]
    assert len({str(values.filename) for values in kept}) == 3
    assert not any(np.array_equal(kept[0], other) for other in kept[1:])

"""Readers of data sets: labels, manifests, caches, rendered people, pictures and videos."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from videos import write_video

from fuzz.run import Reader
from siamcal.datasets import load_dataset
from siamcal.datasets.base import DatasetSource
from siamcal.datasets.crops import prepare as preparing
from siamcal.datasets.crops.fingerprints import fingerprints
from siamcal.datasets.pictures import count_frames
from siamcal.faces.media import open_media, read_image
from siamcal.paper import protocol
from siamcal.preprocessing import Preprocessing
from siamcal.synth import library
from siamcal.synth.plan import make_plan
from siamcal.training.kept import kept_rows

__all__ = ["READERS"]


def _touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _values(name: str, root: Path) -> Any:
    source = load_dataset(name, root)
    return source.table.to_numpy().tolist(), source.folds


def _disfa(folder: Path) -> Path:
    for au in protocol()["DISFA"]["aus_intensity"]:
        lines = "".join(f"{n},{(n + au) % 6}\n" for n in range(1, 9))
        path = _touch(folder / "ActionUnit_Labels" / "SN002" / f"SN002_au{au}.txt", lines)
    for n in range(1, 9):
        _touch(folder / "Images_LeftCamera" / "SN002" / f"{n}.jpg")
    return path


def _disfa_plus(folder: Path) -> Path:
    for n in range(4):
        _touch(folder / "Images" / "SN001" / "A1_AU1_TrailNo_1" / f"{n:03d}.jpg")
    for au in protocol()["DISFA+"]["aus"]:
        lines = "".join(f"{n:03d}.jpg     {(n + au) % 6}\r\n" for n in range(4))
        path = folder / "Labels" / "SN001" / "A1_AU1_TrailNo_1" / f"AU{au}.txt"
        _touch(path, f"Frame intensities\r\n----\r\n{lines}")
    return path


def _unbc(folder: Path) -> Path:
    sequence = "ll042t1aaaff"
    line = "   {}.0000000e+00   3.0000000e+00   0.0000000e+00   0.0000000e+00\n"
    for n in range(1, 4):
        _touch(folder / "Images" / "042-ll042" / sequence / f"{sequence}{n:03d}.png")
        facs = folder / "Frame_Labels" / "FACS" / "042-ll042" / sequence
        path = _touch(facs / f"{sequence}{n:03d}_facs.txt", line.format(4) + line.format(43))
    return path


def _manifest(folder: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for person in ("P1", "P2", "P3"):
        for frame in range(6):
            _touch(folder / person / f"{frame}.jpg", "x")
            labels = rng.integers(0, 6, 2) if frame else np.zeros(2, int)
            rows.append((f"{person}/{frame}.jpg", person, frame, int(not frame), *labels, "f"))
    names = ["path", "participant", "frame", "is_reference", "AU01", "AU12", "sex"]
    return pd.DataFrame(rows, columns=names)


def _manifest_csv(folder: Path) -> Path:
    _manifest(folder).to_csv(folder / "frames.csv", index=False)
    return folder / "frames.csv"


def _manifest_parquet(folder: Path) -> Path:
    _manifest(folder).to_parquet(folder / "frames.parquet")
    return folder / "frames.parquet"


@functools.cache
def _source(folder: Path) -> DatasetSource:
    table = _manifest(folder)
    table["source"] = [str(folder / path) for path in table.pop("path")]
    table = table.assign(
        view="front", sequence="s", source_index=-1, is_reference=table["frame"] == 0
    )
    return DatasetSource("fuzz", (1, 12), (1, 12), (("P1",), ("P2", "P3")), table)


def _crop(
    units: list[Any], preprocessing: Preprocessing, folder: Path, workers: int
) -> Iterator[int]:
    """What `crop_units` writes, with pictures that need no face: one of five isn't found."""
    for position, unit in enumerate(units):
        lines, crops = [], b""
        for source, _ in unit.frames:
            number = int(Path(source).stem)
            lines.append("no face found" if number == 4 else "ok")
            if number != 4:
                person = Path(source).parent.name.encode()
                crops += (person * preprocessing.size**2 * 3)[: preprocessing.size**2 * 3]
        (folder / f"{unit.key}.u8").write_bytes(crops)
        (folder / f"{unit.key}.txt").write_text("".join(f"{line}\n" for line in lines))
        yield position


@contextlib.contextmanager
def _without_faces() -> Iterator[None]:
    module: Any = sys.modules[preparing.__module__] if callable(preparing) else preparing
    before = module.crop_units, module._UNIT_IMAGES
    module.crop_units, module._UNIT_IMAGES = _crop, 4
    try:
        yield
    finally:
        module.crop_units, module._UNIT_IMAGES = before


SMALL = Preprocessing(size=8, contrast="none", mask="none")


def _prepared(path: Path) -> Any:
    root = next(p for p in path.parents if (p / "P1").is_dir())
    with _without_faces():
        faces = preparing.prepare(_source(root), SMALL, cache=root / "cache", workers=1)
    kept, dropped = faces.table.to_numpy().tolist(), faces.dropped.to_numpy().tolist()
    return np.array(faces.images).tobytes(), kept, dropped, faces.reference_rows.tolist()


def _cache(folder: Path, name: str) -> Path:
    (folder / "P1").mkdir()
    _prepared(folder / "x")
    return next((folder / "cache").rglob(name))


def _features(folder: Path) -> Path:
    _kept(folder / "progress.json")
    return folder / "features.f32"


def _kept(path: Path) -> Any:
    def compute(places: np.ndarray) -> np.ndarray:
        return np.outer(places + 1, np.arange(4)).astype(np.float32)

    return kept_rows(path.parent, (12, 4), 5, compute).tobytes()


def _known_files(folder: Path) -> Path:
    _manifest(folder)
    _digests(folder / "memory.parquet")
    return folder / "memory.parquet"


def _digests(path: Path) -> Any:
    return fingerprints(sorted(map(str, path.parent.glob("P*/*.jpg"))), path)


PLAN = make_plan("tiny", participants=1, frames=2, length=8, clips=1, image_size=64)


def _rendered(folder: Path, name: str) -> Path:
    return library.ensure_rendered(PLAN, folder, 1) / name


def _tables(path: Path) -> Any:
    table, people = library.read_tables(path.parent)
    return table.to_csv(), people.to_csv()


def _verified(path: Path) -> Any:
    folder = path.parent if path.name == "manifest.json" else path.parents[1]
    return library.verify(folder)


def _joined(path: Path) -> Any:
    """The tables made again from the parts, as after a kill before the manifest was written."""
    folder = path.parents[1]
    (folder / "manifest.json").unlink(missing_ok=True)
    return _tables(library.ensure_rendered(PLAN, folder.parent, 1) / "frames.parquet")


def _picture(folder: Path, name: str) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / name)
    return folder / name


def _video(folder: Path, name: str, codec: str, pixels: str) -> Path:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(6)]
    return write_video(folder / name, frames, codec, pix_fmt=pixels)


# tests/test_media_inputs.py has every other way in, by which no pipe is waited for.
PREDICTED = "siamcal predict PIPE reads what another program writes, and can't know when it begins"


def _streamed(path: Path) -> Any:
    return [(frame.index, frame.problem) for frame in open_media(path)]


READERS = (
    Reader("labels of DISFA", "text", _disfa, lambda p: _values("disfa", p.parents[2])),
    Reader("labels of DISFA+", "text", _disfa_plus, lambda p: _values("disfa-plus", p.parents[3])),
    Reader(
        "labels of UNBC-McMaster",
        "text",
        _unbc,
        lambda p: _values("unbc", p.parents[4]),
        made_again=True,
    ),
    Reader("manifest, CSV", "text", _manifest_csv, lambda p: _values("manifest", p)),
    Reader(
        "manifest, Parquet",
        "parquet",
        _manifest_parquet,
        lambda p: _values("manifest", p),
        before=32,
    ),
    Reader(
        "crop cache, crops",
        "bytes",
        lambda f: _cache(f, "images.u8"),
        _prepared,
        exact=True,
        made_again=True,
    ),
    Reader(
        "crop cache, status",
        "text",
        lambda f: _cache(f, "status.txt"),
        _prepared,
        exact=True,
        before=625,
        made_again=True,
    ),
    Reader(
        "crop cache, progress",
        "json",
        lambda f: _cache(f, "progress.json"),
        _prepared,
        exact=True,
        made_again=True,
    ),
    Reader(
        "memory of known files", "own parquet", _known_files, _digests, exact=True, made_again=True
    ),
    Reader("kept features", "bytes", _features, _kept, exact=True, made_again=True),
    Reader(
        "kept features, progress",
        "json",
        lambda f: _features(f).with_name("progress.json"),
        _kept,
        exact=True,
        made_again=True,
    ),
    Reader(
        "rendered people, frames",
        "own parquet",
        lambda f: _rendered(f, "frames.parquet"),
        _tables,
        exact=True,
    ),
    Reader(
        "rendered people, manifest",
        "json",
        lambda f: _rendered(f, "manifest.json"),
        _verified,
        named=False,
    ),
    Reader("picture, PNG", "bytes", lambda f: _picture(f, "a.png"), lambda p: read_image(p).shape),
    Reader("picture, JPEG", "bytes", lambda f: _picture(f, "a.jpg"), lambda p: read_image(p).shape),
    Reader("picture, TIFF", "bytes", lambda f: _picture(f, "a.tif"), lambda p: read_image(p).shape),
    Reader(
        "video, MP4",
        "bytes",
        lambda f: _video(f, "a.mp4", "libx264", "yuv420p"),
        _streamed,
        waits=PREDICTED,
    ),
    Reader(
        "video, AVI",
        "bytes",
        lambda f: _video(f, "a.avi", "mjpeg", "yuvj420p"),
        _streamed,
        waits=PREDICTED,
    ),
    Reader(
        "video, number of frames",
        "bytes",
        lambda f: _video(f, "a.avi", "mjpeg", "yuvj420p"),
        count_frames,
        made_again=True,
    ),
)

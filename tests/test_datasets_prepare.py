import dataclasses
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from siamcal.datasets import DatasetSource, FaceSet, prepare
from siamcal.datasets.crops import units
from siamcal.datasets.crops.fingerprints import fingerprints
from siamcal.datasets.crops.prepare import _units, drop_report
from siamcal.datasets.crops.units import Unit, crop_unit
from siamcal.errors import DataNotFoundError, FaceNotFoundError, SiamcalError
from siamcal.parallel import in_processes
from siamcal.preprocessing import Preprocessing

SMALL = Preprocessing(size=16)


def picture(value, size=48):
    """A picture whose brightness tells which one it is."""
    rgb = np.full((size, size, 3), value, np.uint8)
    rgb[: size // 4] //= 2
    return rgb


def save(path, rgb):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


def save_video(path, values):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuvj420p"
        for value in values:
            frame = av.VideoFrame.from_ndarray(picture(value), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_source(rows, **changes):
    table = pd.DataFrame(
        rows, columns=["participant", "view", "sequence", "frame", "source", "source_index",
                       "is_reference", "AU01", "AU12"],
    )  # fmt: skip
    people = sorted(set(table["participant"]))
    values = {
        "name": "tiny",
        "intensity_aus": (1, 12),
        "detection_aus": (12,),
        "folds": (tuple(people[:1]), tuple(people[1:])),
        "table": table,
    }
    return DatasetSource(**{**values, **changes})


class FakePipeline:
    """Stands for the face pipeline: any picture holds a face, save one of brightness 13."""

    calls = 0
    stop_after = None

    def __init__(self, preprocessing):
        self.preprocessing = preprocessing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def crop(self, rgb):
        if FakePipeline.stop_after is not None and FakePipeline.calls >= FakePipeline.stop_after:
            raise KeyboardInterrupt
        FakePipeline.calls += 1
        if rgb[-1, -1, 0] == 222:
            raise ValueError("a freak\npicture")
        if abs(int(rgb[-1, -1, 0]) - 13) <= 1:
            raise FaceNotFoundError("no face")
        size = self.preprocessing.size
        return np.full((size, size, 3), rgb[-1, -1], np.uint8)


@pytest.fixture
def fake(monkeypatch):
    import siamcal.faces

    monkeypatch.setattr(siamcal.faces, "FacePipeline", FakePipeline)
    FakePipeline.calls, FakePipeline.stop_after = 0, None
    return FakePipeline


@pytest.fixture
def mixed(tmp_path):
    """Two people: one in a video (left view) and images (right view), one in images only."""
    save_video(tmp_path / "a.avi", [40, 60, 80, 100, 120])
    rows = []
    for index in (0, 1, 2, 3, 4, 5):  # frame 6 of 5: the video is too short
        video = str(tmp_path / "a.avi")
        rows.append(["A", "left", "s", index + 1, video, index, index == 1, 0, index])
    for frame, value in enumerate([150, 13, 1, 170], 1):  # 13: no face, 1: black
        save(tmp_path / "a" / f"{frame}.png", picture(value))
        image = str(tmp_path / "a" / f"{frame}.png")
        rows.append(["A", "right", "s", frame, image, -1, frame == 4, 0, 2])
    for frame, value in enumerate([200, 210, 220], 1):
        save(tmp_path / "b" / f"{frame}.png", picture(value))
        image = str(tmp_path / "b" / f"{frame}.png")
        rows.append(["B", "left", "s", frame, image, -1, frame == 1, np.nan, -1])
    rows.append(["B", "left", "s", 4, str(tmp_path / "b" / "4.png"), -1, False, 0, 0])
    (tmp_path / "b" / "5.png").write_bytes(b"not a picture")
    rows.append(["B", "left", "s", 5, str(tmp_path / "b" / "5.png"), -1, False, 0, 0])
    return make_source(rows)


def brightness(faces):
    return [round(float(v)) for v in np.asarray(faces.images)[:, 0, 0, 0]]


def test_crops_line_up_with_rows_and_drops_are_explained(fake, mixed, tmp_path):
    faces = prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)
    assert isinstance(faces, FaceSet)
    assert faces.images.shape == (10, 16, 16, 3)
    assert isinstance(faces.images, np.memmap)
    np.testing.assert_allclose(
        brightness(faces), [40, 60, 80, 100, 120, 150, 170, 200, 210, 220], atol=3
    )
    assert faces.table["frame"].tolist() == [1, 2, 3, 4, 5, 1, 4, 1, 2, 3]
    reasons = faces.dropped.set_index(["participant", "view", "frame"])["reason"]
    assert reasons["A", "left", 6] == "the video ends after 5 frames"
    assert reasons["A", "right", 2] == "no face found"
    assert reasons["A", "right", 3] == "black frame"
    assert reasons["B", "left", 4] == "file missing"
    assert reasons["B", "left", 5].startswith("unreadable: 5.png")
    assert faces.reference_rows.tolist() == [1] * 5 + [6, 6] + [7] * 3
    assert "Left out 5 of 15 frames" in drop_report(faces.dropped, 15)


def test_labels_of_a_face_set(fake, mixed, tmp_path):
    faces = prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)
    labels = faces.labels((12, 1))
    assert labels.dtype == np.float32
    assert labels[:3].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert labels[-1].tolist() == [-1, -1]  # NaN and -1 are both invalid
    assert faces.detection_labels((12,))[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, -1, -1, -1]
    train, validation = faces.fold(1)
    assert set(faces.participants[train]) == {"A"}
    assert set(faces.participants[validation]) == {"B"}


def test_the_cache_is_read_again_and_changes_with_content_and_settings(fake, mixed, tmp_path):
    cache = tmp_path / "cache"
    first = prepare(mixed, SMALL, cache=cache, workers=1)
    calls = fake.calls
    again = prepare(mixed, SMALL, cache=cache, workers=1)
    assert fake.calls == calls
    assert brightness(again) == brightness(first)
    # Other labels and references: same crops.
    other = mixed.table.assign(AU12=3.0, is_reference=mixed.table["frame"] == 1)
    relabelled = prepare(dataclasses.replace(mixed, table=other), SMALL, cache=cache, workers=1)
    assert fake.calls == calls
    assert relabelled.labels((12,))[0] == 3
    assert relabelled.reference_rows[0] == 0
    # Another size: new crops.
    larger = prepare(mixed, Preprocessing(size=24), cache=cache, workers=1)
    assert larger.images.shape[1:] == (24, 24, 3)
    assert fake.calls > calls
    # Another picture in one file: new crops.
    save(Path(mixed.table["source"].iloc[6]), picture(77))
    changed = prepare(mixed, SMALL, cache=cache, workers=1)
    assert 77 in brightness(changed)


def test_a_moved_copy_of_the_data_finds_its_cache(fake, mixed, tmp_path):
    cache = tmp_path / "cache"
    prepare(mixed, SMALL, cache=cache, workers=1)
    calls = fake.calls
    import shutil

    for name in ("a", "b"):
        shutil.copytree(tmp_path / name, tmp_path / "moved" / name)
    shutil.copy(tmp_path / "a.avi", tmp_path / "moved" / "a.avi")
    moved = mixed.table.assign(
        source=mixed.table["source"].str.replace(str(tmp_path), str(tmp_path / "moved"))
    )
    faces = prepare(dataclasses.replace(mixed, table=moved), SMALL, cache=cache, workers=1)
    assert fake.calls == calls
    assert len(faces) == 10


def test_a_damaged_cache_is_made_anew(fake, mixed, tmp_path):
    cache = tmp_path / "cache"
    expected = brightness(prepare(mixed, SMALL, cache=cache, workers=1))
    (images,) = cache.rglob("images.u8")
    with images.open("r+b") as stream:
        stream.truncate(1000)
    assert brightness(prepare(mixed, SMALL, cache=cache, workers=1)) == expected


@pytest.mark.parametrize("stop_after", [1, 4, 6, 9])
def test_an_interrupted_run_goes_on_where_it_stopped(
    fake, mixed, tmp_path, stop_after, monkeypatch
):
    from siamcal.datasets.crops import units

    monkeypatch.setattr(units, "_FLUSH", 2)
    expected = brightness(prepare(mixed, SMALL, cache=tmp_path / "other", workers=1))
    FakePipeline.calls, FakePipeline.stop_after = 0, stop_after
    with pytest.raises(KeyboardInterrupt):
        prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)
    FakePipeline.stop_after = None
    assert brightness(prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)) == expected
    whole = 11  # frames that reach the pipeline
    assert FakePipeline.calls <= whole + 2  # at most what wasn't flushed is cropped twice


def test_a_unit_that_was_finished_but_not_taken_over_is_not_cropped_again(
    fake, tmp_path, monkeypatch
):
    from siamcal.datasets.crops.store import Store

    save(tmp_path / "0.png", picture(60))
    source = make_source([["A", "left", "s", 0, str(tmp_path / "0.png"), -1, True, 0, 0]])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, SMALL, cache=tmp_path / "cache", workers=1)
    calls = fake.calls
    faces = prepare(source, SMALL, cache=tmp_path / "cache", workers=1)
    assert brightness(faces) == [60]
    assert fake.calls == calls
    assert list(faces.table.columns) == list(source.table.columns)


def test_torn_files_of_a_killed_unit_are_cut_to_what_belongs_together(tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.png", picture(50 + 10 * number))
    unit = Unit("u", tuple((str(tmp_path / f"{n}.png"), -1) for n in range(6)))
    crop_bytes = 16 * 16 * 3
    for lines, crops in [("ok\nok\no", 5), ("ok\nok\nok\n", 1.5), ("", 3), ("ok\n", 0)]:
        (tmp_path / "u.txt.part").write_text(lines)
        good = b"".join(bytes([50 + 10 * n] * crop_bytes) for n in range(6))
        (tmp_path / "u.u8").write_bytes(good[: int(crops * crop_bytes)])
        crop_unit(unit, FakePipeline(SMALL), tmp_path)
        assert (tmp_path / "u.txt").read_text().split() == ["ok"] * 6
        found = np.frombuffer((tmp_path / "u.u8").read_bytes(), np.uint8).reshape(6, -1)
        assert found[:, 0].tolist() == [50, 60, 70, 80, 90, 100]
        (tmp_path / "u.txt").unlink()
        (tmp_path / "u.u8").unlink()


def test_a_lost_reference_is_replaced_by_the_nearest_neutral_frame(fake, tmp_path, caplog):
    rows = []
    for frame, (value, au) in enumerate([(60, 3), (70, 0), (13, 0), (90, 1), (100, 0)], 1):
        save(tmp_path / f"{frame}.png", picture(value))
        image = str(tmp_path / f"{frame}.png")
        rows.append(["A", "left", "s", frame, image, -1, frame == 3, 0, au])
    faces = prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)
    assert faces.reference_rows.tolist() == [1, 1, 1, 1]  # frame 2, a step from frame 3
    assert faces.replaced_references["frame"].tolist() == [2]
    assert "reference frame of A can't be used" in caplog.text


def test_of_several_references_of_a_view_the_first_is_taken(fake, tmp_path):
    rows = []
    for number, (view, marked) in enumerate(
        [("left", 0), ("left", 1), ("right", 1), ("left", 1), ("right", 1)]
    ):
        save(tmp_path / f"{number}.png", picture(60 + 9 * number))
        image = str(tmp_path / f"{number}.png")
        rows.append(["A", view, "s", number, image, -1, bool(marked), 0, 0])
    faces = prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)
    assert faces.reference_rows.tolist() == [1, 1, 2, 1, 2]
    assert faces.replaced_references.empty


def test_a_view_without_reference_uses_the_other_views(fake, tmp_path):
    rows = []
    for number, view in enumerate(["left", "left", "right"]):
        save(tmp_path / f"{number}.png", picture(60 + number))
        image = str(tmp_path / f"{number}.png")
        rows.append(["A", view, "s", number, image, -1, number == 1, 0, 0])
    faces = prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)
    assert faces.reference_rows.tolist() == [1, 1, 1]
    rows[1][6] = False
    with pytest.raises(DataNotFoundError, match=r"no reference frame of A.*--references auto"):
        prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)


def test_no_usable_frame_is_an_error_with_the_reasons(fake, tmp_path):
    save(tmp_path / "1.png", picture(13))
    source = make_source([["A", "left", "s", 1, str(tmp_path / "1.png"), -1, True, 0, 0]])
    with pytest.raises(DataNotFoundError, match="no face found"):
        prepare(source, SMALL, cache=tmp_path / "cache", workers=1)


def test_a_freak_picture_is_left_out_with_its_reason(fake, tmp_path):
    rows = []
    for frame, value in enumerate([60, 222]):
        save(tmp_path / f"{frame}.png", picture(value))
        image = str(tmp_path / f"{frame}.png")
        rows.append(["A", "left", "s", frame, image, -1, frame == 0, 0, 0])
    faces = prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)
    assert faces.dropped["reason"].tolist() == ["cropping failed: a freak picture"]


def test_too_small_a_disk_is_said_before_cropping(fake, mixed, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SiamcalError, match="SIAMCAL_CACHE"):
        prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)
    assert fake.calls == 0


def test_units_keep_the_order_and_gather_a_video():
    rows = [["A", "v", "s", i, "x.avi", i, False, 0, 0] for i in (2, 0)]
    rows += [["A", "v", "s", i, f"{i}.png", -1, False, 0, 0] for i in range(300)]
    rows += [
        ["A", "v", "s", 9, "x.avi", 1, False, 0, 0],
        ["B", "v", "s", 0, "y.avi", 0, True, 0, 0],
    ]
    table = make_source(rows).table
    order, units = _units(table)
    assert sorted(order) == list(range(len(rows)))
    assert [len(u.frames) for u in units] == [3, 128, 128, 44, 1]
    assert units[0].frames == (("x.avi", 0), ("x.avi", 1), ("x.avi", 2))
    assert units[1].frames[0] == ("0.png", -1)
    assert table.iloc[order]["source"].tolist()[:3] == ["x.avi"] * 3


def test_fingerprints_remember_and_notice_changes(tmp_path):
    files = [str(tmp_path / f"{n}.bin") for n in range(3)]
    for n, file in enumerate(files[:2]):
        Path(file).write_bytes(bytes([n]) * 100)
    memory = tmp_path / "memory.parquet"
    first = fingerprints(files, memory)
    assert first[files[2]] == "missing"
    assert first[files[0]] != first[files[1]]
    assert fingerprints(files, memory) == first
    memory.write_bytes(b"damaged")
    assert fingerprints(files, memory) == first
    Path(files[0]).write_bytes(b"x" * 100)
    assert fingerprints(files, memory)[files[0]] != first[files[0]]
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(9 << 20))
    before = fingerprints([str(large)], memory)
    with large.open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        stream.write(b"abc")
    assert fingerprints([str(large)], memory) != before


def test_a_face_set_pickles_without_its_images(fake, mixed, tmp_path):
    import pickle

    faces = prepare(mixed, SMALL, cache=tmp_path / "cache", workers=1)
    faces.images[0]
    stored = pickle.dumps(faces)
    assert len(stored) < 20_000
    assert brightness(pickle.loads(stored)) == brightness(faces)


@pytest.fixture(scope="module")
def astronaut_clip(tmp_path_factory):
    """A real face (public domain) as a video of 12 frames and as images; the fifth is black."""
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("astronaut")
    rows = []
    for number in range(12):
        rgb = np.roll(astronaut()[:300, 60:360], number, axis=1) if number != 4 else None
        save(folder / f"{number}.png", np.zeros((300, 300, 3), np.uint8) if rgb is None else rgb)
        image = str(folder / f"{number}.png")
        person = "A" if number < 6 else "B"
        rows.append([person, "left", "s", number, image, -1, number % 6 == 0, 0, number % 3])
    return make_source(rows)


@pytest.mark.slow
def test_worker_processes_give_what_one_process_gives(astronaut_clip, tmp_path, monkeypatch):
    from siamcal.datasets import prepare as _  # noqa: F401

    monkeypatch.setattr(sys.modules["siamcal.datasets.crops.prepare"], "_UNIT_IMAGES", 4)
    alone = prepare(astronaut_clip, SMALL, cache=tmp_path / "one", workers=1)
    many = prepare(astronaut_clip, SMALL, cache=tmp_path / "two", workers=2)
    assert len(alone) == 11
    assert alone.dropped["reason"].tolist() == ["black frame"]
    assert np.array_equal(alone.images, many.images)
    assert alone.table.equals(many.table)
    assert not list((tmp_path / "two").rglob("units"))


def crop_and_count(numbered, folder):
    from siamcal.datasets.crops import units

    units._crop_in_worker(numbered, SMALL, folder)
    return units._pipeline.cache_info().misses


@pytest.mark.slow
def test_a_worker_makes_its_pipeline_once(astronaut_clip, tmp_path):
    _, (unit,) = _units(astronaut_clip.table)
    pieces = [Unit(f"{n}", unit.frames[3 * n : 3 * n + 3]) for n in range(4)]
    work = functools.partial(crop_and_count, folder=tmp_path)
    assert set(in_processes(work, enumerate(pieces), 2, "crops faces")) == {1}


def test_the_bar_moves_within_a_video(fake, tmp_path, monkeypatch):
    from siamcal.datasets.crops import units

    module = sys.modules["siamcal.datasets.crops.prepare"]
    bars, seen = [], []
    make_bar = module.progress_bar
    monkeypatch.setattr(module, "progress_bar", lambda **k: bars.append(make_bar(**k)) or bars[-1])
    monkeypatch.setattr(module, "_LOOK", 0.001)
    monkeypatch.setattr(units, "_FLUSH", 1)

    class Waiting(FakePipeline):
        def crop(self, rgb):
            while bars[0].n < FakePipeline.calls:  # frames before this one
                time.sleep(0.001)
            seen.append(bars[0].n)
            return super().crop(rgb)

    monkeypatch.setattr(sys.modules["siamcal.faces"], "FacePipeline", Waiting)
    video = str(tmp_path / "a.avi")
    save_video(tmp_path / "a.avi", [40, 60, 80, 100])
    rows = [["A", "left", "s", n, video, n, n == 0, 0, 0] for n in range(4)]
    prepare(make_source(rows), SMALL, cache=tmp_path / "cache", workers=1)
    assert seen == [0, 1, 2, 3]
    assert bars[0].n == 4


def test_disfa_videos_from_labels_to_crops(tmp_path):
    """The licensed layout with a real face: both views, one sideways shift a frame."""
    import av
    from skimage.data import astronaut

    from siamcal.datasets import load_dataset

    people = {"SN002": (0, 5), "SN006": (60, 1)}  # shift, the protocol's reference frame
    for participant, (shift, _) in people.items():
        for au in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26):
            path = tmp_path / "ActionUnit_Labels" / participant / f"{participant}_au{au}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{n},{n % 2}\n" for n in range(1, 7)))
        for view in ("Left", "Right"):
            name = tmp_path / f"Videos_{view}Camera" / f"{view}Video{participant}_comp.avi"
            name.parent.mkdir(exist_ok=True)
            with av.open(str(name), "w") as container:
                stream = container.add_stream("mjpeg", rate=20)
                stream.width = stream.height = 320
                stream.pix_fmt = "yuvj420p"
                for n in range(6):
                    rgb = astronaut()[:320, 40 + shift // 4 + n : 360 + shift // 4 + n]
                    rgb = rgb if view == "Left" else rgb[:, ::-1]
                    rgb = np.ascontiguousarray(rgb if n != 2 else np.zeros_like(rgb))
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
                container.mux(stream.encode())
    source = load_dataset("disfa", tmp_path)
    faces = prepare(source, Preprocessing(size=48), cache=tmp_path / "cache", workers=1)
    assert len(faces) == 2 * 2 * 5
    assert set(faces.dropped["frame"]) == {3}
    assert set(faces.dropped["reason"]) == {"black frame"}
    references = faces.table.iloc[faces.reference_rows]
    assert (references["participant"].to_numpy() == faces.table["participant"].to_numpy()).all()
    assert (references["view"].to_numpy() == faces.table["view"].to_numpy()).all()
    assert set(references["frame"][references["participant"] == "SN002"]) == {5}
    assert set(references["frame"][references["participant"] == "SN006"]) == {1}
    assert faces.labels((12,))[:5, 0].tolist() == [1, 0, 0, 1, 0]
    # The crops of one view show the same face, those of the other its mirror image.
    crops = faces.images.astype(float)
    same = np.abs(crops[0] - crops[1]).mean()
    assert same < np.abs(crops[0] - crops[5]).mean()
    assert np.abs(crops[0] - crops[5][:, ::-1]).mean() < np.abs(crops[0] - crops[5]).mean()


KILLED = """
import pickle, sys
from pathlib import Path
from siamcal.datasets import prepare
from siamcal.datasets.crops import units
from siamcal.preprocessing import Preprocessing
units._FLUSH = 1
sys.modules["siamcal.datasets.crops.prepare"]._UNIT_IMAGES = 4
prepare(pickle.loads(Path(sys.argv[1]).read_bytes()), Preprocessing(size=16),
        cache=sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_and_resume_give_the_same_crops(astronaut_clip, tmp_path, monkeypatch, workers):
    import pickle

    (tmp_path / "source.pkl").write_bytes(pickle.dumps(astronaut_clip))
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(KILLED))
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "source.pkl", tmp_path / "cache", str(workers)],
        stderr=subprocess.DEVNULL,
    )
    # Kill it as soon as it has written some, but not all, of the crops.
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*.u8")) >= 3 * 768:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr(sys.modules["siamcal.datasets.crops.prepare"], "_UNIT_IMAGES", 4)
    resumed = prepare(astronaut_clip, SMALL, cache=tmp_path / "cache", workers=workers)
    whole = prepare(astronaut_clip, SMALL, cache=tmp_path / "whole", workers=1)
    assert np.array_equal(resumed.images, whole.images)


def test_a_unit_that_a_dying_worker_still_writes_is_waited_for(tmp_path):
    """The worker of a killed run lives a moment longer; two writers would mix their crops."""
    fcntl = pytest.importorskip("fcntl")
    part = tmp_path / "u.txt.part"
    waited = []
    with part.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def second():
            with part.open("a") as stream, units._alone(stream):
                waited.append(part.exists())

        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        assert not waited
        part.rename(tmp_path / "u.txt")  # the dying worker finished it after all
    thread.join(10)
    assert waited == [False]

"""`--overlay`: what is drawn is what the table says, at the table's times, beside the table."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from PIL import ImageColor
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import damage, head, moved_frames, write_video

from siamcal.calibrators.config import CalibratorConfig
from siamcal.errors import ConfigError
from siamcal.faces import FaceDetector
from siamcal.faces.media import open_media
from siamcal.inference import Predictor, load_model, predict_to_table
from siamcal.inference.overlay import own_overlay
from siamcal.inference.overlay_picture import OverlayPicture
from siamcal.inference.overlay_video import OverlayVideo
from siamcal.inference.prediction import FrameResult
from siamcal.inference.traces import RAW, READING, REFERENCE

AUS = (1, 4, 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    av.VideoFrame.from_ndarray(head(), format="rgb24").to_image().save(folder / "neutral.png")
    frames = [*moved_frames(5), np.full((256, 256, 3), 90, np.uint8)]
    with av.open(str(folder / "uneven.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for stamp, frame in zip((0, 40, 47, 300, 1000, 2500), frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return folder


def times(path):
    return [frame.timestamp for frame in open_media(path)]


def config(task="intensity"):
    return CalibratorConfig(merge_at="layer4", task=task, aus=AUS)


def amount(picture, colour, tolerance=0):
    """(H,) pixels of a colour in each row."""
    apart = np.abs(picture.astype(int) - ImageColor.getrgb(colour)).max(2)
    return (apart <= tolerance).sum(1)


# --- the picture ---------------------------------------------------------------------------------


def panel_of(drawer, picture):
    """The panel without its legend, and how long a full bar is."""
    layout = drawer._layout
    end = int(1.75 * layout.row + layout.pitch * len(AUS))
    return picture[:end, -layout.panel :], layout.panel - 2 * (layout.row // 2)


def bars(picture, colour):
    """Longest line of a colour in each block of rows that holds it."""
    rows = amount(picture, colour)
    starts = np.flatnonzero(np.diff((rows > 0).astype(int), prepend=0) == 1)
    ends = np.flatnonzero(np.diff((rows > 0).astype(int), append=0) == -1) + 1
    return [int(rows[a:b].max()) for a, b in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("size", [(240, 320), (1080, 1920), (333, 201)])
def test_bars_are_as_long_as_the_table_says(size):
    drawer = OverlayPicture(config(), raw=True)
    values, raw = np.array([-0.8, 1.25, 7.0]), np.array([5.0, 2.5, 0.0])
    result = FrameResult(0, 0.0, "x", values.astype(np.float32), raw=raw.astype(np.float32))
    picture = drawer.draw(np.full((*size, 3), 90, np.uint8), [result])
    panel, whole = panel_of(drawer, picture)
    drawn = bars(panel, READING), bars(panel, RAW)
    # The mark of the threshold, two pixels at most, lies on a bar that goes beyond it.
    assert len(drawn[0]) == 2
    assert np.abs(np.array(drawn[0]) / whole - (0.25, 1)).max() < 6 / whole
    assert np.abs(np.array(drawn[1]) / whole - (1, 0.5)).max() < 6 / whole
    assert (np.diff((amount(panel, REFERENCE) > 0).astype(int)) == 1).sum() == 3


def test_frame_face_and_sizes():
    frame = next(iter(moved_frames(2)))[:, :241]  # an odd width
    with FaceDetector() as detector:
        (face,) = detector.detect(frame)
    found = FrameResult(0, 0.0, "x", np.zeros(3, np.float32), face=face)
    drawer = OverlayPicture(config(), raw=False)
    picture = drawer.draw(frame, [found])
    assert [side % 2 for side in picture.shape[:2]] == [0, 0]
    assert len(picture) == 512  # doubled
    outline = amount(picture[:, : drawer._layout.width], READING) > 0
    top, bottom = np.flatnonzero(outline)[[0, -1]] / 2
    expected = face.landmarks[:, 1]
    assert abs(top - expected.min()) < 4
    assert abs(bottom - expected.max()) < 4
    # A recording may change its size; its video can't.
    assert drawer.draw(head(100), [replace(found, face=None)]).shape == picture.shape


def test_what_is_wrong_stands_in_the_picture_and_nothing_is_read():
    drawer = OverlayPicture(config(), raw=True)
    grey = np.full((480, 640, 3), 90, np.uint8)
    failed = FrameResult(3, 0.12, "x", None, problem="no face")
    sound = drawer.draw(grey, [FrameResult(3, 0.12, "x", np.full(3, 3.0, np.float32))])
    for rgb in (grey, None):
        picture = drawer.draw(rgb, [failed])
        strip = picture[-30:, :640]
        assert strip.max() > 200  # the words
        assert strip.mean() < 60
        assert bars(panel_of(drawer, picture)[0], READING) == []
    assert len(bars(panel_of(drawer, sound)[0], READING)) == 3
    assert sound[-30:, :640].max() == 90


def test_detection_draws_probabilities():
    drawer = OverlayPicture(config("detection"), raw=False)
    result = FrameResult(0, 0.0, "x", np.array([0.0, -800, 800], np.float32))
    picture = drawer.draw(np.full((480, 640, 3), 90, np.uint8), [result])
    panel, whole = panel_of(drawer, picture)
    drawn = bars(panel, READING)
    assert np.abs(np.array(drawn) / whole - (0.5, 1)).max() < 6 / whole


# --- the video -----------------------------------------------------------------------------------

COMMAND = ("uneven.mp4", "--reference", "neutral.png", "--overlay", "-o")


def test_frames_have_the_times_of_the_table(run, tmp_path):  # noqa: F811
    assert run(*COMMAND, tmp_path / "aus.csv")[0] == 0
    table = pd.read_csv(tmp_path / "aus.csv")
    assert list(table["success"]) == [1] * 5 + [0]
    np.testing.assert_allclose(times(tmp_path / "aus.mp4"), table["timestamp"], atol=1e-4)
    with av.open(str(tmp_path / "aus.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    last = [frame.rgb for frame in open_media(tmp_path / "aus.mp4")][-1]
    assert last[490:, :500].max() > 180  # "no face"
    # Only what is read is shown, from the start of the part that is read on.
    assert run(*COMMAND, tmp_path / "b.csv", "--every", 2, "--start", 0.04)[0] == 0
    read = pd.read_csv(tmp_path / "b.csv")
    assert list(read["timestamp"]) == [0.04, 0.3, 2.5]
    np.testing.assert_allclose(times(tmp_path / "b.mp4"), read["timestamp"] - 0.04, atol=1e-4)


def test_the_table_is_the_same_with_and_without(run, tmp_path):  # noqa: F811
    assert run(*COMMAND, tmp_path / "a.csv", "--smooth", 3)[0] == 0
    command = [text for text in COMMAND if text != "--overlay"]
    assert run(*command, tmp_path / "b.csv", "--smooth", 3)[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_damaged_frames_and_pictures(run, folder, tmp_path):  # noqa: F811
    damage(write_video(folder / "bad.mp4", moved_frames(12), g="4", bf="0"), 0)
    for name, options in {"bad.mp4": (), "neutral.png": (), "pictures": ("--fps", 5)}.items():
        if name == "pictures":
            (folder / name).mkdir()
            for number, side in enumerate((256, 200, 300)):
                image = av.VideoFrame.from_ndarray(head(side), format="rgb24").to_image()
                image.save(folder / name / f"{number}.png")
        output = tmp_path / f"{name}.csv"
        command = (name, "--reference", "neutral.png", "--overlay", "-o", output)
        assert run(*command, *options)[0] == 0
        table = pd.read_csv(output)
        video = output.with_suffix(".mp4")
        np.testing.assert_allclose(times(video), table["timestamp"], atol=1e-4)


def test_nobodys_video_is_lost(run, folder, tmp_path):  # noqa: F811
    output, video = tmp_path / "aus.csv", tmp_path / "aus.mp4"
    video.write_bytes((folder / "uneven.mp4").read_bytes())
    for extra in ((), ("--overwrite",), ("--resume",)):
        code, _, err = run(*COMMAND, output, *extra)
        assert code == 2
        assert "aus.mp4 is there already, and siamcal didn't write it" in err
    assert video.read_bytes() == (folder / "uneven.mp4").read_bytes()
    code, _, err = run(*COMMAND, "uneven.csv")
    assert code == 2
    assert "uneven.mp4 is an input" in err
    video.unlink()
    assert run(*COMMAND, output)[0] == 0
    assert own_overlay(video)
    code, _, err = run(*COMMAND, output)
    assert "--overwrite replaces it" in err
    first = video.read_bytes()
    assert run(*COMMAND, output, "--overwrite")[0] == 0
    assert video.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aus.csv", "aus.json", "aus.mp4"]


def test_resume_makes_a_missing_video(run, tmp_path):  # noqa: F811
    assert run(*COMMAND, f"{tmp_path}/")[0] == 0
    video = tmp_path / "uneven.mp4"
    written = video.stat().st_mtime_ns
    assert run(*COMMAND, f"{tmp_path}/", "--resume")[0] == 0
    assert video.stat().st_mtime_ns == written
    video.unlink()
    assert run(*COMMAND, f"{tmp_path}/", "--resume")[0] == 0
    assert own_overlay(video)


def test_what_cannot_be_read_twice_is_refused(run, folder, tmp_path, model):  # noqa: F811
    code, _, err = run(*COMMAND[:-1])
    assert code == 2
    assert "beside a table" in err
    code, _, err = run("camera:0", *COMMAND[1:], tmp_path / "a.csv")
    assert code == 2
    with Predictor(load_model(model)) as predictor:
        for stream, output in (([head()], tmp_path / "a.csv"), (folder / "uneven.mp4", 7)):
            with pytest.raises(ConfigError, match=r"read only once|beside a table"):
                predict_to_table(
                    stream, output, predictor=predictor, reference=head(), overlay=True
                )
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_both_up_to_there(folder, tmp_path, model, monkeypatch):
    with Predictor(load_model(model), batch_size=2) as predictor:
        read = Predictor.results

        def stopped(self, *args):
            for number, result in enumerate(read(self, *args)):
                if number == 3:
                    raise KeyboardInterrupt
                yield result

        monkeypatch.setattr(Predictor, "results", stopped)
        summary = predict_to_table(
            folder / "uneven.mp4",
            tmp_path / "aus.csv",
            predictor=predictor,
            reference=head(),
            overlay=True,
        )
    assert (summary.status, summary.frames) == ("interrupted", 3)
    assert len(times(tmp_path / "aus.mp4")) == 3


def test_the_same_pictures_give_the_same_file(tmp_path):
    """Of a size and length with which x264's usual way gives other files in most runs."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (74, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    result = FrameResult(0, 0.0, "x", np.full(3, 2.5, np.float32))
    files = set()
    for attempt in range(6):
        path = tmp_path / f"{attempt}.mp4"
        with OverlayVideo(path, path, OverlayPicture(config(), raw=False), 25.0) as video:
            for number in range(60):
                video.write(
                    np.roll(blocks, (3 * number, 2 * number), (0, 1)), [result], number / 25
                )
        files.add(path.read_bytes())
    assert len(files) == 1

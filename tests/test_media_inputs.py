"""Whatever people name as an input: odd names, pipes, addresses, arrays, and what is no input."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from heic import write_grid
from PIL import Image
from videos import head, moved_frames, write_video

from siamcal.datasets.crops.units import Unit, _frames
from siamcal.errors import ConfigError, MediaError, SiamcalError
from siamcal.faces.media import Frame, FrameStream, open_camera, open_media, read_frame, read_image
from siamcal.faces.media.files import refuse_live
from siamcal.inference import load_profile, read_reference
from siamcal.inference.calibrator import Calibrator
from siamcal.inference.recordings import Asked, find_recordings

ODD_NAMES = [
    "Zoë 表情 clip",
    os.fsdecode(b"M\xfcller"),  # Latin-1, from an old disk: no UTF-8
    "2026-11-25T10:30:00",
    "-dash",
    "f%03d",
    "C:\\Users\\x\\clip",
    "http:",
    "concat:a|b",
    "#1 [take *?]'\"",
    "camera:0",
    "new\nline",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mkv", moved_frames(6, 64))


@pytest.fixture(scope="module")
def truth(clip):
    return [frame.rgb for frame in open_media(clip)]


def same(stream, truth):
    frames = list(stream)
    assert len(frames) == len(truth)
    return all(np.array_equal(f.rgb, rgb) for f, rgb in zip(frames, truth, strict=True))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("suffix", [".mkv", ""])
def test_names_are_only_names(tmp_path, monkeypatch, clip, truth, name, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}{suffix}").write_bytes(clip.read_bytes())
    assert same(open_media(f"{name}{suffix}"), truth)
    assert same(open_media(tmp_path / f"{name}{suffix}"), truth)
    Image.fromarray(head(32)).save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / f"{name}.png")
    assert np.array_equal(read_image(f"{name}.png"), head(32))
    assert same(open_media(f"{name}.png"), [head(32)])


def test_a_title_in_latin_1_is_no_obstacle(tmp_path):
    def titled(stream):
        stream.container.metadata["title"] = "Mueller"

    path = write_video(tmp_path / "old.avi", moved_frames(3, 64), "mpeg4", prepare=titled)
    content = path.read_bytes()
    assert b"Mueller" in content
    path.write_bytes(content.replace(b"Mueller", b"M\xfcller "))
    assert len(list(open_media(path))) == 3


def test_a_file_address(clip, truth, tmp_path):
    spaced = tmp_path / "a b.mkv"
    spaced.write_bytes(clip.read_bytes())
    assert same(open_media(spaced.as_uri()), truth)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "name is empty"),
        ("x" * 5000, "doesn't exist"),
        ("nul\0byte", "doesn't exist"),
        ("missing.mp4", "doesn't exist"),
        ("/dev/null", "is a device"),
        (7, "but got int"),
        (None, "but got NoneType"),
        ([3.5], "but got float"),
        ([], "No input"),
        ("foo://bar", "Check the address"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_input_is_refused_in_words(given, words):
    with pytest.raises(MediaError, match=words):
        open_media(given)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for opened in (open_media, read_image, lambda name: open_media([name])):
            with pytest.raises(MediaError, match="socket is a socket, not a file"):
                opened("socket")


# --- pipes ---------------------------------------------------------------------------------------


def piped(tmp_path, content):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def feed():
        with contextlib.suppress(BrokenPipeError), path.open("wb") as file:
            file.write(content)

    threading.Thread(target=feed, daemon=True).start()
    return path


def test_a_video_through_a_pipe(tmp_path, clip, truth):
    stream = open_media(piped(tmp_path, clip.read_bytes()))
    assert (stream.kind, stream.live, stream.total) == ("live", True, None)
    assert same(stream, truth)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "avif"])
def test_a_picture_through_a_pipe(tmp_path, suffix):
    Image.fromarray(head(64)).save(tmp_path / f"face.{suffix}")
    path = piped(tmp_path, (tmp_path / f"face.{suffix}").read_bytes())
    assert np.array_equal(read_frame(path, 0), read_image(tmp_path / f"face.{suffix}"))


def test_a_phones_picture_through_a_pipe(tmp_path):
    content = write_grid(tmp_path / "phone.heic", head(100), 64).read_bytes()
    assert same(open_media(piped(tmp_path, content)), [read_image(tmp_path / "phone.heic")])


@pytest.mark.parametrize("suffix", ["gif", "png", "tiff"])
def test_all_moments_and_pages_through_a_pipe(tmp_path, suffix):
    first, *others = [Image.fromarray(frame) for frame in moved_frames(4, 64)]
    path = tmp_path / f"moving.{suffix}"
    first.save(path, save_all=True, append_images=others)
    whole = [frame.rgb for frame in open_media(path)]
    assert len(whole) == 4
    assert same(open_media(piped(tmp_path, path.read_bytes())), whole)


def test_raw_jpegs_through_a_pipe(tmp_path):
    for number, rgb in enumerate(moved_frames(6, 64)):
        Image.fromarray(rgb).save(tmp_path / f"{number}.jpg")
    jpegs = b"".join((tmp_path / f"{number}.jpg").read_bytes() for number in range(6))
    assert len(list(open_media(piped(tmp_path, jpegs)))) == 6


def test_an_mp4_whose_index_comes_last_is_refused_with_a_way_out(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moved_frames(30, 256), crf="1")
    with pytest.raises(MediaError, match=r"MP4 and MOV have to be written to a file"):
        list(open_media(piped(tmp_path, path.read_bytes())))


@pytest.mark.parametrize("content", [b"", b"hello " * 1000])
def test_nothing_and_nonsense_through_a_pipe(tmp_path, content):
    with pytest.raises(MediaError, match="pipe"):
        list(open_media(piped(tmp_path, content)))


def test_stdin(clip):
    code = (
        "from siamcal.faces.media import open_media; stream = open_media('-');"
        "print(stream.sources, stream.live, [frame.rgb.shape for frame in stream])"
    )
    with clip.open("rb") as file:
        ran = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True)
    assert ran.stdout.decode() == f"('stdin',) True {[(64, 64, 3)] * 6}\n", ran.stderr.decode()


def test_what_comes_once_is_not_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for given in ([tmp_path / "pipe"], ["-"], "rtsp://someone:secret@host/x"):
        with pytest.raises(MediaError, match="can be read only once") as told:
            refuse_live(given, "choosing a reference")
        assert "secret" not in str(told.value)
    with pytest.raises(MediaError, match="is read alone"):
        open_media(["-", "a.png"])


@pytest.fixture
def bell():
    """Ends whoever waits for a pipe's writer."""

    def ring(*_):
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


WAYS = {
    "picture": read_image,
    "list of one": lambda path: open_media([path]),
    "list": lambda path: open_media([path.with_name("a.png"), path]),
    "folder": lambda path: open_media(path.parent),
    "recordings": lambda path: find_recordings([str(path)], Asked("auto")),
    "recordings of a folder": lambda path: find_recordings([str(path.parent)], Asked("auto")),
    "recordings of a list": lambda path: find_recordings([f"@{path}"], Asked("auto")),
    "reference": lambda path: read_reference(path, None),
    "reference of a calibrator": lambda path: Calibrator(None).calibrate(path),
    "profile": lambda path: load_profile(path, None),
}


@pytest.mark.parametrize("name", ["b.png", "b.mp4", "b"])
@pytest.mark.parametrize("way", WAYS)
def test_no_pipe_is_waited_for_but_one_that_is_named_alone(tmp_path, bell, way, name):
    Image.fromarray(head(32)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / name)
    with pytest.raises(SiamcalError, match=f"{name} is a pipe"):
        WAYS[way](tmp_path / name)


@pytest.mark.parametrize("way", WAYS)
def test_devices_are_refused_wherever_they_are_named(tmp_path, bell, way):
    Image.fromarray(head(32)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    with pytest.raises(SiamcalError, match=r"b\.png is a device"):
        WAYS[way](tmp_path / "b.png")


@pytest.mark.parametrize("index", [-1, 0])
def test_no_pipe_of_a_data_set_is_waited_for(tmp_path, bell, index):
    os.mkfifo(tmp_path / "b.mp4")
    unit = Unit("key", ((str(tmp_path / "b.mp4"), index),))
    ((rgb, problem),) = _frames(unit, 0)
    assert rgb is None
    assert problem.startswith("unreadable: b.mp4 is a pipe")


def test_a_link_to_nothing_in_a_folder_is_a_frame_that_is_lost(tmp_path):
    for number in (1, 3):
        Image.fromarray(head(32)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    assert [bool(frame.problem) for frame in open_media(tmp_path)] == [False, True, False]


# --- addresses -----------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_video_at_an_address(clip, truth):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=clip.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = open_media(f"http://user:secret@127.0.0.1:{server.server_port}/{clip.name}")
        assert same(stream, truth)
        server.shutdown()
    assert stream.live
    assert "secret" not in stream.sources[0]


def test_a_sender_that_starts_to_speak(tmp_path):
    part = write_video(tmp_path / "part.ts", moved_frames(10, 64))

    def send():
        with server.accept()[0] as there:
            there.sendall(part.read_bytes())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=send, daemon=True).start()
        stream = open_media(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert same(stream, [frame.rgb for frame in open_media(part)])
    assert stream.live


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_an_address_where_nobody_answers(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused at once
        port = taken.getsockname()[1]
        with pytest.raises(MediaError, match=r"can't be opened .*Check the address") as told:
            open_media(f"{scheme}://user:secret@127.0.0.1:{port}/x")
    assert "secret" not in str(told.value)


# --- streams and arrays --------------------------------------------------------------------------


def test_a_stream_is_read_once_and_says_so(clip):
    stream = open_media(clip)
    assert len(list(stream)) == 6
    with pytest.raises(MediaError, match="were read already"):
        list(stream)
    begun = open_media(clip)
    next(iter(begun))
    with pytest.raises(MediaError, match="were read already"):
        next(iter(begun))


def test_a_stream_without_a_frame_is_an_error():
    with pytest.raises(MediaError, match="camera:0 gave not a single frame"):
        list(FrameStream("camera", ("camera:0",), None, None, iter(())))


@pytest.mark.parametrize(
    "arrange",
    [np.stack, list, tuple, iter, lambda frames: [Frame(i, 0.0, f, "x") for i, f in frames]],
    ids=["one array", "list", "tuple", "generator", "frames"],
)
def test_arrays_are_frames(arrange):
    frames = list(moved_frames(3, 64))
    given = arrange(enumerate(frames) if "lambda" in repr(arrange) else frames)
    read = list(open_media(given))
    assert [frame.index for frame in read] == [0, 1, 2]
    assert all(np.array_equal(f.rgb, rgb) for f, rgb in zip(read, frames, strict=True))


def test_one_array_is_one_frame():
    assert np.array_equal(read_frame(head(64), 0), head(64))


@pytest.mark.parametrize("odd", [3, "path.png", None, [[1, 2]]])
def test_arrays_mixed_with_something_else_are_refused(odd):
    with pytest.raises(MediaError, match="number 2 is of type"):
        list(open_media([head(64), odd]))


@pytest.mark.parametrize(
    "array",
    [head(64) / 255, head(64)[..., 0], head(64).transpose(2, 0, 1), np.zeros((4, 4, 4), np.uint8)],
    ids=["floats", "grey", "channels first", "alpha"],
)
def test_arrays_of_another_kind_are_refused_where_faces_are_looked_for(array):
    from siamcal.faces import FacePipeline

    (frame,) = open_media([array])
    with FacePipeline() as pipeline, pytest.raises(ConfigError, match=r"\(H, W, 3\) of uint8"):
        pipeline.detect(frame.rgb)


# --- cameras -------------------------------------------------------------------------------------


def test_a_missing_camera_is_one_message_and_none_of_opencvs(capfd):
    with pytest.raises(MediaError, match=r"Camera 97 can't be opened.*camera:0"):
        open_camera(97)
    assert capfd.readouterr() == ("", "")


def test_everything_is_said_with_the_files_name(tmp_path):
    for name in ("empty.mp4", "nonsense.mkv", "nonsense.jpg"):
        Path(tmp_path / name).write_bytes(b"" if "empty" in name else b"nonsense" * 50)
        with pytest.raises(MediaError, match=name):
            list(open_media(tmp_path / name))

"""Files that lead to others: none is followed, none is waited for."""

import os
import socket
import subprocess
import sys

import pytest
from videos import moved_frames, write_video

from siamcal.datasets.pictures import count_frames
from siamcal.faces.media import open_media
from siamcal.inference.overlay_video import is_own


def hls(*entries, end="#EXT-X-ENDLIST\n", head=""):
    parts = "".join(f"#EXTINF:1,\n{entry}\n" for entry in entries)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{head}{parts}{end}"


def concat(*names):
    return "ffconcat version 1.0\n" + "".join(f"file '{name}'\n" for name in names)


# Of these all but the first of each kind were waited for without an end.
LEADING = {
    "sound.m3u8": hls("a.ts"),
    "pipe.m3u8": hls("a.ts", "pipe.ts"),
    "unfinished.m3u8": hls("a.ts", end=""),
    "stdin.m3u8": hls("file:/dev/stdin"),
    "first.m3u8": hls("a.ts", head='#EXT-X-MAP:URI="pipe.mp4"\n'),
    "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmaster.m3u8\n",
    "inside/out.m3u8": hls("../pipe.ts"),
    "sound.ffconcat": concat("a.ts"),
    "pipe.ffconcat": concat("pipe.ts"),
    "itself.ffconcat": concat("itself.ffconcat"),
    "playlist.ffconcat": concat("pipe.m3u8"),
    "concat.mp4": concat("pipe.ts"),
    "stream.sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "film.idx": (
        "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\nid: en, index: 0\n"
        "timestamp: 00:00:01:000, filepos: 000000000\n"
    ),
    "img%03d.dpx": "no picture",
    "img%03d.png": "no picture",
}
PIPES = ("pipe.ts", "pipe.mp4", "film.sub", "img000.dpx", "img000.png")
TRY = """
import sys
from pathlib import Path
from siamcal.errors import MediaError
from siamcal.faces.media.opening import open_media
from siamcal.faces.media.piped import Recorded
from siamcal.faces.media.videos import open_container
ways = [open_media, lambda name: open_container(Recorded(open(name, "rb")), "stdin")]
for name in sys.argv[2:]:
    print(name, end=": ", flush=True)
    try:
        ways[sys.argv[1] == "piped"](name)
        print("read", flush=True)
    except MediaError as error:
        print(error, flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("playlists")
    (place / "inside").mkdir()
    write_video(place / "a.ts", moved_frames(3, 64))
    for name in PIPES:
        os.mkfifo(place / name)
    for name, content in LEADING.items():
        (place / name).write_text(content)
    return place


def told(folder, way, names):
    """Name -> what is said of it; a process of its own, since FFmpeg can't be interrupted."""
    reading, writing = os.pipe()  # a stdin that nothing comes through and that doesn't end
    try:
        ran = subprocess.run(
            [sys.executable, "-c", TRY, way, *names],
            cwd=folder,
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert not ran.stderr
    return dict(line.split(": ", 1) for line in ran.stdout.splitlines())


def test_what_leads_to_other_files_is_refused_and_nothing_is_waited_for(folder):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        (folder / "network.m3u8").write_text(hls(address))
        said = told(folder, "named", [*LEADING, "network.m3u8"])
        with pytest.raises(TimeoutError):
            server.accept()
    assert said.keys() == {*LEADING, "network.m3u8"}
    assert "read" not in said.values()
    kinds = {".m3u8": "a playlist (HLS)", "ffconcat": "(ffconcat)", "concat.mp4": "(ffconcat)"}
    kinds |= {".sdp": "(SDP)", ".idx": "(VobSub)", "%03d.dpx": "like a series of pictures"}
    for name, text in said.items():
        assert name in text
        for end, kind in kinds.items():
            assert not name.endswith(end) or kind in text, text
    assert "Make one recording of it and name that: ffmpeg -i FILE" in said["pipe.m3u8"]
    assert "ffmpeg -f concat -i FILE" in said["pipe.ffconcat"]


def test_what_comes_through_a_pipe_leads_nowhere_either(folder):
    said = told(folder, "piped", ["sound.ffconcat", "pipe.ffconcat", "stream.sdp", "pipe.m3u8"])
    assert "stdin is a list of recordings (ffconcat)" in said["pipe.ffconcat"]
    assert "stdin is a list of recordings (ffconcat)" in said["sound.ffconcat"]
    assert "stdin is the description of a stream" in said["stream.sdp"]
    assert "stdin" in said["pipe.m3u8"]  # FFmpeg knows such a playlist by its name alone


def test_what_was_there_before_an_overlay_is_asked_for_nothing_else(folder):
    assert not is_own(folder / "concat.mp4")


def test_a_part_itself_is_read(folder):
    assert len(list(open_media(folder / "a.ts"))) == 3


def test_a_playlist_in_a_data_set_is_said_to_be_one(folder):
    for name in ("sound.m3u8", "sound.ffconcat"):
        count, fault = count_frames(folder / name)
        assert count == -1
        assert fault.startswith(f"unreadable: {folder / name} is a ")
    assert count_frames(folder / "a.ts") == (3, "")

"""Videos as cameras, phones and recorders write them: right shape, track, time and colours."""

import gc
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import head, moved_frames, write_video

from siamcal.errors import MediaError
from siamcal.faces.media import open_media, read_frame
from siamcal.faces.media.clock import Clock


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


def seconds(frames):
    return [round(frame.timestamp, 3) for frame in frames]


def encode(container, stream, frames, times=None):
    """Mux RGB frames, at the given times in milliseconds."""
    for index, rgb in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if times is not None:
            frame.pts, frame.time_base = times[index], Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def track(container, codec="libx264", size=64, pix_fmt="yuv420p", disposition=None, rate=25):
    stream = container.add_stream(codec, rate=rate)
    stream.height = stream.width = size
    stream.pix_fmt = pix_fmt
    if disposition is not None:
        stream.disposition = disposition
    return stream


def add_sound(container, length, codec="aac"):
    stream = container.add_stream(codec, rate=16000)
    for start in range(0, round(length * 16000), 1024):
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.rate, sound.pts = 16000, start
        container.mux(stream.encode(sound))
    container.mux(stream.encode())


# --- shape ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "size"),
    [
        *(("libx264", suffix, (96, 192)) for suffix in ("mp4", "mkv", "ts", "mov", "flv")),
        *(("libx264", suffix, (136, 192)) for suffix in ("mp4", "mkv", "ts", "mov")),
        *(("libx264", suffix, (192, 96)) for suffix in ("mp4", "mkv", "ts", "mov")),
        ("mpeg4", "avi", (136, 192)),
        ("mpeg2video", "mpg", (144, 108)),  # knows 4:3 and 16:9 only
    ],
)
def test_pixels_become_square(tmp_path, codec, suffix, size):
    width, height = size
    aspect = Fraction(16, 9) * height / width if suffix == "mpg" else Fraction(height, width)
    shown = head(192)
    stored = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)

    def tagged(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    path = write_video(tmp_path / f"clip.{suffix}", [stored] * 3, codec, prepare=tagged)
    (rgb, *_) = [frame.rgb for frame in open_media(path)]
    # The same picture, and not only the same size: nothing is moved or cut.
    assert abs(rgb.shape[1] / rgb.shape[0] - width * aspect / height) < 0.02
    assert min(rgb.shape[:2]) >= min(stored.shape[:2])
    assert difference(cv2.resize(rgb, (192, 192)), shown) < 8


def test_a_shape_that_cannot_be_is_said_and_left_out(tmp_path):
    def tagged(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(1, 50)

    stream = open_media(write_video(tmp_path / "clip.mp4", [head(64)] * 2, prepare=tagged))
    assert next(iter(stream)).rgb.shape == (64, 64, 3)
    assert any("pixels of 1/50" in note for note in stream.notes)


# (a, b, c, d) of a display matrix: x' = a x + c y, y' = b x + d y, y downwards; how it looks.
LAID = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "half turn": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transposed otherwise": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
}


def laid_by(a, b, c, d, aspect=None):
    def tagged(stream):
        one = 1 << 16
        entries = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
        stream.set_display_matrix([round(entry) for entry in entries])
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect

    return tagged


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("name", LAID)
def test_all_eight_ways_to_lay_a_picture_are_followed(tmp_path, name, suffix):
    stored = head(64)[:48]
    matrix, looks = LAID[name]
    path = write_video(tmp_path / f"clip.{suffix}", [stored] * 2, prepare=laid_by(*matrix))
    for frame in open_media(path):
        assert difference(frame.rgb, looks(stored)) < 12


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    stored = cv2.resize(head(128), (64, 128), interpolation=cv2.INTER_AREA)[:96]
    tagged = laid_by(0, 1, -1, 0, aspect=Fraction(2))
    rgb = read_frame(write_video(tmp_path / "clip.mp4", [stored] * 2, prepare=tagged), 0)
    assert difference(rgb, np.rot90(head(128)[:96], -1)) < 10


@pytest.mark.parametrize("degrees", [30, -12.5])
def test_any_angle_is_turned_and_said(tmp_path, degrees):
    stored = head(128)[:96]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    path = write_video(tmp_path / "clip.mp4", [stored] * 2, prepare=laid_by(cos, sin, -sin, cos))
    stream = open_media(path)
    rgb = next(iter(stream)).rgb
    # Pillow turns counter-clockwise.
    truth = np.asarray(Image.fromarray(stored).rotate(-degrees, Image.BILINEAR, expand=True))
    assert np.abs(np.subtract(rgb.shape, truth.shape)).max() <= 2
    middle = [a[a.shape[0] // 2 - 20 :, a.shape[1] // 2 - 20 :][:40, :40] for a in (rgb, truth)]
    assert difference(*middle) < 10
    assert any(f"turned by {degrees:.1f} degrees" in note for note in stream.notes)


def test_a_matrix_of_zeros_is_no_reason_to_lose_the_picture(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [head(64)] * 2, prepare=laid_by(1, 0, 0, 1))
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44
    path.write_bytes(content[:start] + bytes(36) + content[start + 36 :])
    assert difference(read_frame(path, 0), head(64)) < 12


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_no_frame_is_kept(tmp_path, codec):
    path = write_video(
        tmp_path / "clip.mp4", moved_frames(60, 64), codec, prepare=laid_by(-1, 0, 0, 1)
    )
    gc.collect()
    gc.disable()
    try:
        for frame in open_media(path):
            if frame.index % 20 == 19:
                kept = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
                assert kept <= 4, frame.index
    finally:
        gc.enable()


# --- which track ---------------------------------------------------------------------------------


def grey(value, size=64):
    return np.full((size, size, 3), value, np.uint8)


def tracks_of(path, *kinds):
    """A file with several tracks of plain grey, (grey value, disposition, size) each."""
    with av.open(str(path), "w") as container:
        streams = [
            track(container, size=size, disposition=disposition) for _, disposition, size in kinds
        ]
        for stream, (value, _, size) in zip(streams, kinds, strict=True):
            encode(container, stream, [grey(value, size)] * 5)
    return path


@pytest.mark.parametrize(
    ("kinds", "meant"),
    [
        ([(50, Disposition(0), 64), (200, Disposition.default, 64)], 200),
        ([(50, Disposition.default, 64), (200, Disposition.default, 128)], 200),
        ([(200, Disposition.default, 64), (50, Disposition.default, 64)], 200),
        ([(50, Disposition(0), 128), (200, Disposition.default, 64)], 200),
    ],
    ids=["the default one", "the largest", "the first of like ones", "default before large"],
)
def test_of_several_tracks_the_one_players_show_is_read(tmp_path, kinds, meant):
    stream = open_media(tracks_of(tmp_path / "clip.mkv", *kinds))
    frames = list(stream)
    assert len(frames) == 5
    assert all(abs(frame.rgb.mean() - meant) < 3 for frame in frames)
    assert any("holds 2 video tracks" in note for note in stream.notes)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_is_no_video(tmp_path, suffix):
    with av.open(str(tmp_path / f"clip.{suffix}"), "w") as container:
        cover = track(container, "mjpeg", 256, "yuvj420p", Disposition.attached_pic)
        film = track(container, disposition=Disposition.default)
        encode(container, cover, [grey(40, 256)])
        encode(container, film, [grey(200)] * 4)
    frames = list(open_media(tmp_path / f"clip.{suffix}"))
    assert len(frames) == 4
    assert all(abs(frame.rgb.mean() - 200) < 3 for frame in frames)


def test_a_song_with_a_cover_is_refused(tmp_path):
    with av.open(str(tmp_path / "song.mp3"), "w") as container:
        sound = container.add_stream("libmp3lame", rate=16000)
        cover = track(container, "mjpeg", 64, "yuvj420p", Disposition.attached_pic)
        encode(container, cover, [grey(40)])
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
        silence.rate = 16000
        container.mux([*sound.encode(silence), *sound.encode()])
    with pytest.raises(MediaError, match="no video, only audio and a cover"):
        open_media(tmp_path / "song.mp3")


# --- time ----------------------------------------------------------------------------------------


def trimmed(source, path, cut):
    """Copy packets so that the first `cut` frames lie before the start, as lossless cutters do."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                shift = cut * packet.duration
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    return path


@pytest.mark.parametrize("bf", ["0", "2"])
def test_a_trimmed_clip_is_not_damaged(tmp_path, bf):
    originals = list(moved_frames(24, 64))
    whole = write_video(tmp_path / "whole.mp4", originals, g="8", bf=bf)
    stream = open_media(trimmed(whole, tmp_path / "cut.mp4", 5))
    frames = list(stream)
    assert stream.total == len(frames) == 19
    assert seconds(frames) == [round(index / 25, 3) for index in range(19)]
    assert not stream.notes
    for frame, original in zip(frames, originals[5:], strict=True):
        assert difference(frame.rgb, original) < 10


def test_joined_recordings_keep_their_time(tmp_path):
    part = write_video(tmp_path / "part.ts", moved_frames(20, 64)).read_bytes()
    (tmp_path / "twice.ts").write_bytes(part + part + part)
    stream = open_media(tmp_path / "twice.ts")
    frames = list(stream)
    assert seconds(frames) == [round(index / 25, 3) for index in range(60)]
    (note,) = stream.notes
    assert "start again at frame 21" in note


def test_mp4s_joined_by_copying_bytes_are_said(tmp_path):
    part = write_video(tmp_path / "part.mp4", moved_frames(5, 64))
    assert not open_media(part).notes
    (tmp_path / "twice.mp4").write_bytes(part.read_bytes() * 2)
    stream = open_media(tmp_path / "twice.mp4")
    assert len(list(stream)) == 5
    assert any("holds 2 recordings" in note for note in stream.notes)


def test_a_single_wrong_timestamp_moves_only_its_own_frame():
    notes = []
    clock = Clock(0.0, 0.04, "clip", notes)
    times = [clock.read(stamp) for stamp in (0.0, 0.04, 0.02, 0.12, 0.16)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert not notes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.floats(-1e5, 1e5), min_size=1, max_size=40))
def test_time_never_runs_backwards(stamps):
    clock = Clock(0.5, 0.04, "clip", [])
    times = [clock.read(stamp) for stamp in stamps]
    assert min(times) >= 0
    assert all(before <= after for before, after in pairwise(times))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_recorded_screen_with_long_stills_is_not_damaged(tmp_path, suffix):
    times = [0, 33, 66, 100, 2000, 2033, 9000]
    with av.open(str(tmp_path / f"screen.{suffix}"), "w") as container:
        stream = track(container, rate=30)
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        encode(container, stream, moved_frames(7, 64), times)
    stream = open_media(tmp_path / f"screen.{suffix}")
    frames = list(stream)
    assert seconds(frames) == pytest.approx([time / 1000 for time in times], abs=0.002)
    assert not stream.notes


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_longer_sound_track_is_no_damage(tmp_path, suffix):
    with av.open(str(tmp_path / f"clip.{suffix}"), "w") as container:
        stream = track(container)
        add_sound(container, 3.0)
        encode(container, stream, moved_frames(10, 64))
    stream = open_media(tmp_path / f"clip.{suffix}")
    assert len(list(stream)) == 10
    assert not stream.notes
    assert stream.total == pytest.approx(10, abs=1)


def test_a_length_that_makes_no_sense_is_no_obstacle(tmp_path):
    path = write_video(tmp_path / "clip.mkv", moved_frames(6, 64))
    content = path.read_bytes()
    assert b"00:00:00.240000000" in content
    path.write_bytes(content.replace(b"00:00:00.240000000", b"never".ljust(18)))
    assert len(list(open_media(path))) == 6


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mov"])
def test_a_video_that_breaks_off_says_so(tmp_path, suffix):
    moov_first = {"movflags": "faststart"} if suffix == "mov" else {}
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w", options=moov_first) as container:
        stream = track(container, "mjpeg", 128, "yuvj420p")
        encode(container, stream, moved_frames(40, 128))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    stream = open_media(path)
    frames = [frame for frame in stream if frame.rgb is not None]
    assert 15 <= len(frames) <= 22
    assert any("announces 1.6 s, but only 0." in note for note in stream.notes)


def test_frames_without_timestamps_are_said(tmp_path):
    path = write_video(tmp_path / "raw.h264", moved_frames(6, 64))
    stream = open_media(path)
    assert seconds(stream) == [0, 0.04, 0.08, 0.12, 0.16, 0.2]
    assert any("without timestamps: 25 frames a second" in note for note in stream.notes)


def test_raw_jpegs_one_after_the_other_are_a_video(tmp_path):
    with (tmp_path / "camera.mjpeg").open("wb") as file:
        for rgb in moved_frames(6, 64):
            Image.fromarray(rgb).save(file, "jpeg")
    assert len(list(open_media(tmp_path / "camera.mjpeg"))) == 6


def test_an_interlaced_video_is_said_to_be(tmp_path):
    path = write_video(
        tmp_path / "tape.mpg", moved_frames(5, 64), "mpeg2video", flags="+ildct+ilme"
    )
    with av.open(str(path)) as container:
        flagged = next(container.decode(video=0)).interlaced_frame
    stream = open_media(path)
    list(stream)
    assert flagged
    assert any("is interlaced" in note for note in stream.notes)

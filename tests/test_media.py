"""Pictures and videos as strangers bring them: every kind is read, flagged or refused in words."""

import cv2
import numpy as np
import pytest
from PIL import Image
from videos import damage, head, moved_frames, turn_by_metadata, write_video

from siamcal.errors import MediaError
from siamcal.faces.media import open_media, read_frame, read_image


@pytest.fixture(scope="module")
def picture():
    return head(64)


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "jpg", "gif"])
def test_common_formats(tmp_path, picture, suffix):
    path = tmp_path / f"face.{suffix}"
    Image.fromarray(picture).save(path, **({"lossless": True} if suffix == "webp" else {}))
    rgb = read_image(path)
    assert rgb.shape == (64, 64, 3)
    assert rgb.dtype == np.uint8
    assert difference(rgb, picture) < (8 if suffix in {"jpg", "gif"} else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, picture, orientation):
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    picture = picture[:40]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(undo(picture))).save(path, exif=exif)
    assert np.array_equal(read_image(path), picture)


def test_grey_palette_and_cmyk(tmp_path, picture):
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(picture).quantize(64).save(tmp_path / "palette.png")
    assert difference(read_image(tmp_path / "palette.png"), picture) < 12
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.tiff")
    assert difference(read_image(tmp_path / "cmyk.tiff"), picture) < 3
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png"))) == {0, 255}


def test_alpha_becomes_black_and_hidden_colours_stay_hidden(tmp_path, picture):
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:20] = 0
    alpha[20:30] = 128
    Image.fromarray(np.concatenate([picture, alpha], 2)).save(tmp_path / "alpha.png")
    rgb = read_image(tmp_path / "alpha.png")
    assert rgb[:20].max() == 0
    assert np.array_equal(rgb[30:], picture[30:])
    assert difference(rgb[20:30], picture[20:30] // 2) < 2


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_keeps_its_brightness(tmp_path, picture, suffix):
    deep = picture.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"rgb.{suffix}"), deep[..., ::-1])
    assert difference(read_image(tmp_path / f"rgb.{suffix}"), picture) <= 1
    cv2.imwrite(str(tmp_path / f"grey.{suffix}"), deep[..., 0])
    assert difference(read_image(tmp_path / f"grey.{suffix}")[..., 0], picture[..., 0]) <= 1


def test_float_images(tmp_path, picture):
    values = picture[..., 0] / np.float32(255)
    Image.fromarray(values).save(tmp_path / "unit.tiff")
    assert difference(read_image(tmp_path / "unit.tiff")[..., 0], picture[..., 0]) <= 1
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    assert read_image(tmp_path / "nan.tiff")[0, 0, 0] == 0


def test_the_extension_does_not_matter(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "claims.jpg")
    assert np.array_equal(read_image(tmp_path / "claims.jpg"), picture)
    (frame,) = open_media(tmp_path / "claims.jpg")
    assert np.array_equal(frame.rgb, picture)
    clip = write_video(tmp_path / "clip.mp4", moved_frames(3, 64))
    clip.rename(tmp_path / "clip.jpg")
    assert open_media(tmp_path / "clip.jpg").kind == "video"


def test_bad_files_are_refused_in_words(tmp_path, picture):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    Image.fromarray(picture).save(tmp_path / "whole.png")
    half = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(half[: len(half) // 2])
    expected = {
        "missing.png": "doesn't exist",
        "empty.png": "0 bytes",
        "text.png": "can't be read as an image",
        "half.png": "can't be read as an image",
    }
    for name, words in expected.items():
        with pytest.raises(MediaError, match=words):
            read_image(tmp_path / name)
        with pytest.raises(MediaError, match=words):
            list(open_media(tmp_path / name))
    with pytest.raises(MediaError, match="is a folder"):
        read_image(tmp_path)


# --- lists and folders ---------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order_and_skips_other_files(tmp_path, picture):
    for number in (10, 9, 1):
        Image.fromarray(picture).save(tmp_path / f"img{number}.png")
    (tmp_path / "notes.txt").write_text("x")
    stream = open_media(tmp_path)
    assert stream.kind == "images"
    assert stream.total == 3
    frames = list(stream)
    assert [f.source.rsplit("img")[-1] for f in frames] == ["1.png", "9.png", "10.png"]
    assert [f.index for f in frames] == [0, 1, 2]


def test_a_broken_image_in_a_list_is_a_flagged_frame(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("broken")
    Image.fromarray(picture).save(tmp_path / "c.png")
    frames = list(open_media(tmp_path))
    assert [f.rgb is None for f in frames] == [False, True, False]
    assert "can't be read" in frames[1].problem


def test_folders_without_images_and_mixtures_are_refused(tmp_path, picture):
    with pytest.raises(MediaError, match="holds no images"):
        open_media(tmp_path)
    with pytest.raises(MediaError, match="No input"):
        open_media([])
    clip = write_video(tmp_path / "clip.mp4", moved_frames(3, 64))
    Image.fromarray(picture).save(tmp_path / "a.png")
    for inputs in ([clip, clip], [tmp_path / "a.png", clip]):
        with pytest.raises(MediaError, match=r"clip\.mp4 is a video among 2 inputs"):
            open_media(inputs)


# --- videos --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "mkv", "yuv420p10le"),
        ("mpeg4", "avi", "yuv420p"),
        ("mjpeg", "avi", "yuvj420p"),
        ("libvpx-vp9", "webm", "yuva420p"),
        ("libx264", "mov", "yuv422p10le"),
        ("libx265", "mp4", "yuv420p10le"),
        ("prores_ks", "mov", "yuv422p10le"),
        ("mpeg2video", "mpg", "yuv420p"),
        ("libx264", "ts", "yuv420p"),
        ("libx264", "m2ts", "yuv420p"),
        ("libx264", "flv", "yuv420p"),
        ("wmv2", "wmv", "yuv420p"),
        ("mpeg4", "3gp", "yuv420p"),
        ("libvpx", "webm", "yuv420p"),
        ("libsvtav1", "mp4", "yuv420p"),
        ("mjpeg", "mkv", "yuvj422p"),
        ("rawvideo", "avi", "bgr24"),
        ("ffv1", "mkv", "yuv444p16le"),
        ("apng", "apng", "rgb24"),
        ("ffv1", "mkv", "gray16le"),
        ("gif", "gif", "rgb8"),
    ],
)
def test_every_frame_comes_in_order(tmp_path, codec, suffix, pix_fmt):
    frames = list(moved_frames(9, 64))
    path = write_video(tmp_path / f"clip.{suffix}", frames, codec, pix_fmt=pix_fmt)
    stream = open_media(path)
    assert stream.kind == "video"
    read = list(stream)
    assert [f.index for f in read] == list(range(9))
    assert np.allclose([f.timestamp for f in read], np.arange(9) / 25, atol=0.011)
    assert not any(f.problem for f in read)
    for original, frame in zip(frames, read, strict=True):
        if "gray" in pix_fmt:
            original = np.repeat(cv2.cvtColor(original, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
        assert difference(original, frame.rgb) < 25


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_video_filmed_sideways_stands_upright(tmp_path, degrees):
    upright = head(64)[:48]
    filmed = np.rot90(upright, degrees // 90)  # the player turns it back, clockwise
    path = write_video(tmp_path / "phone.mp4", [filmed] * 3)
    turn_by_metadata(path, degrees)
    for frame in open_media(path):
        assert frame.rgb.shape == upright.shape
        assert difference(frame.rgb, upright) < 12


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [("libx264", "mp4", "yuv420p"), ("mpeg4", "avi", "yuv420p"), ("mjpeg", "avi", "yuvj420p")],
)
def test_a_corrupt_frame_is_flagged_and_the_rest_is_read(tmp_path, codec, suffix, pix_fmt):
    path = write_video(
        tmp_path / f"clip.{suffix}", moved_frames(12, 128), codec, pix_fmt=pix_fmt, g="4", bf="0"
    )
    frames = list(open_media(damage(path, 6)))
    assert [f.index for f in frames] == list(range(12))
    assert np.all(np.diff([f.timestamp for f in frames]) > 0)
    flagged = [f.index for f in frames if f.rgb is None]
    assert 6 in flagged
    assert len(flagged) <= 2
    assert all(f.problem for f in frames if f.rgb is None)


def test_a_truncated_video_gives_what_it_holds(tmp_path):
    path = write_video(tmp_path / "clip.mkv", moved_frames(20, 128), "mjpeg", pix_fmt="yuvj420p")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    frames = list(open_media(path))
    assert 8 <= len(frames) <= 14
    assert sum(f.rgb is not None for f in frames) >= 8


def test_videos_that_hold_nothing_are_refused(tmp_path):
    import av

    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 100)
    whole = write_video(tmp_path / "whole.mp4", moved_frames(5, 64)).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    expected = {
        "empty.mp4": "0 bytes",
        "text.mp4": "neither an image nor a video",
        "headless.mp4": "neither an image nor a video",
        "sound.wav": "no pictures, only audio",
        "missing.mp4": "doesn't exist",
    }
    for name, words in expected.items():
        with pytest.raises(MediaError, match=words):
            list(open_media(tmp_path / name))


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [("libx264", "mp4", "yuv420p"), ("ffv1", "mkv", "bgr0"), ("mjpeg", "avi", "yuvj420p")],
)
def test_the_number_of_frames_is_told_before_they_are_read(tmp_path, codec, suffix, pix_fmt):
    path = write_video(tmp_path / f"c.{suffix}", moved_frames(20, 64), codec, pix_fmt=pix_fmt)
    stream = open_media(path)
    assert stream.total == pytest.approx(20, abs=1)
    assert stream.fps == pytest.approx(25)


def test_time_counts_from_the_first_frame_wherever_the_file_begins(tmp_path):
    import av

    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "bgr0"
        for number, picture in enumerate(moved_frames(4, 64)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = 75 + number  # 3 s
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.start_time > 2_000_000  # microseconds
    times = [frame.timestamp for frame in open_media(path)]
    assert np.allclose(times, np.arange(4) / 25, atol=0.001)


def test_one_frame_of_a_video(tmp_path):
    frames = list(moved_frames(6, 64))
    path = write_video(tmp_path / "clip.mkv", frames, "ffv1", pix_fmt="bgr0")
    assert np.array_equal(read_frame(path, 4), frames[4])
    with pytest.raises(MediaError, match="has 6 frames; frame 10 was asked for"):
        read_frame(path, 9)


def test_a_camera_gives_rgb_in_order(tmp_path):
    from siamcal.faces.media import open_camera

    values = [(200, 40, 90), (30, 180, 60), (20, 90, 210)]
    pictures = [np.full((64, 64, 3), value, np.uint8) for value in values]
    path = write_video(tmp_path / "clip.avi", pictures, "mjpeg", pix_fmt="yuvj420p")
    stream = open_camera(str(path))  # to OpenCV a file is as good as a camera
    assert (stream.kind, stream.total, stream.fps) == ("camera", None, None)
    frames = list(stream)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert np.all(np.diff([frame.timestamp for frame in frames]) >= 0)
    for frame, value in zip(frames, values, strict=True):
        assert np.abs(frame.rgb.mean((0, 1)) - value).max() < 8


def test_a_missing_camera_is_an_error_in_words():
    from siamcal.faces.media import open_camera

    with pytest.raises(MediaError, match="can't be opened"):
        open_camera(97)

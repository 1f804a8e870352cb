"""Image files: upright in every format, whole, with all their pages and moments."""

import shutil
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from heic import write_grid
from PIL import Image
from videos import head, moved_frames, write_video

from siamcal.errors import MediaError
from siamcal.faces.media import open_media, read_frame, read_image


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


def rgbs(stream):
    return [frame.rgb for frame in stream]


# How a picture has to be stored for a viewer that follows EXIF to show it as it was.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif"])
def test_all_eight_orientations_of_all_formats(tmp_path, suffix, orientation):
    picture = head(64)[:48]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](picture)))
    stored.save(tmp_path / f"face.{suffix}", exif=exif, quality=95)
    assert difference(read_image(tmp_path / f"face.{suffix}"), picture) < 8
    assert difference(read_frame(tmp_path / f"face.{suffix}", 0), picture) < 8


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_animation_is_turned_as_a_whole(tmp_path, orientation):
    pictures = [frame[:48] for frame in moved_frames(4, 64)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    first, *others = [
        Image.fromarray(np.ascontiguousarray(STORED[orientation](p))) for p in pictures
    ]
    path = tmp_path / "moving.webp"
    first.save(path, save_all=True, append_images=others, duration=40, exif=exif, lossless=True)
    for read, picture in zip(rgbs(open_media(path)), pictures, strict=True):
        assert difference(read, picture) < 1


# --- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_all_tiles_of_a_phones_picture(tmp_path, turns):
    picture = head(160)[:100]
    path = write_grid(tmp_path / "phone.heic", np.rot90(picture, -turns), 64, turns)
    assert difference(read_image(path), picture) < 4
    (frame,) = open_media(path)
    assert difference(frame.rgb, picture) < 4


def test_a_phones_picture_in_a_folder_and_by_another_name(tmp_path):
    path = write_grid(tmp_path / "IMG_1.HEIC", head(64), 64)
    (frame,) = open_media(tmp_path)
    assert difference(frame.rgb, head(64)) < 4
    assert difference(read_image(path.rename(tmp_path / "IMG_1.jpg")), head(64)) < 4


# --- pages and moments ---------------------------------------------------------------------------


def test_all_pages_of_a_tiff(tmp_path):
    first, *others = [Image.fromarray(frame) for frame in moved_frames(5, 64)]
    first.save(tmp_path / "scan.tiff", save_all=True, append_images=others)
    stream = open_media(tmp_path / "scan.tiff")
    assert (stream.kind, stream.total) == ("images", 5)
    frames = list(stream)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.timestamp for frame in frames} == {0.0}
    for frame, original in zip(frames, moved_frames(5, 64), strict=True):
        assert np.array_equal(frame.rgb, original)
    assert np.array_equal(read_frame(tmp_path / "scan.tiff", 3), list(moved_frames(5, 64))[3])


def test_previews_in_a_tiff_are_no_pages(tmp_path):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    preview = Image.fromarray(head(16))
    preview.encoderinfo = {"tiffinfo": ImageFileDirectory_v2()}
    preview.encoderinfo["tiffinfo"][254] = 1
    path = tmp_path / "photo.tiff"
    Image.fromarray(head(64)).save(path, save_all=True, append_images=[preview])
    assert [rgb.shape for rgb in rgbs(open_media(path))] == [(64, 64, 3)]


def test_pages_in_a_folder_are_counted_on(tmp_path):
    pages = [Image.fromarray(frame) for frame in moved_frames(3, 64)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    Image.fromarray(head(64)).save(tmp_path / "b.png")
    frames = list(open_media(tmp_path))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.source[-6:] for frame in frames] == ["a.tiff"] * 3 + ["/b.png"]


def test_a_deep_stack_of_a_microscope_camera(tmp_path):
    deep = [frame[..., 0].astype(np.uint16) * 257 for frame in moved_frames(4, 64)]
    assert cv2.imwritemulti(str(tmp_path / "stack.tif"), deep)
    for rgb, original in zip(rgbs(open_media(tmp_path / "stack.tif")), deep, strict=True):
        assert difference(rgb[..., 0], original // 257) <= 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moving.gif", {}),
        ("moving.png", {}),
        ("moving.webp", {"lossless": True}),
        ("moving.avif", {"quality": 95}),
    ],
)
def test_an_animation_is_a_video_with_its_own_times(tmp_path, name, options):
    originals = list(moved_frames(5, 64))
    first, *others = [Image.fromarray(frame) for frame in originals]
    durations = [40, 200, 40, 1000, 40]
    path = tmp_path / name
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    stream = open_media(path)
    assert (stream.kind, stream.total) == ("video", 5)
    frames = list(stream)
    times = [frame.timestamp for frame in frames]
    assert times == pytest.approx([0, 0.04, 0.24, 0.28, 1.28], abs=0.002)
    for frame, original in zip(frames, originals, strict=True):
        assert difference(frame.rgb, original) < 12


def test_moments_that_change_a_part_only_are_whole(tmp_path):
    # What an animation stores of its second moment is the square that changed.
    still = np.full((64, 64, 3), 200, np.uint8)
    changed = still.copy()
    changed[20:30, 20:30] = 0
    for name in ("moving.gif", "moving.png", "moving.webp"):
        first, second = Image.fromarray(still), Image.fromarray(changed)
        options = {"lossless": True} if name.endswith("webp") else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], duration=40, **options)
        one, two = rgbs(open_media(tmp_path / name))
        assert difference(one, still) < 2
        assert difference(two, changed) < 2


def test_the_stand_in_of_an_animated_png_is_no_moment(tmp_path):
    stand_in, *moments = [Image.fromarray(np.full((32, 32, 3), v, np.uint8)) for v in (0, 90, 180)]
    path = tmp_path / "moving.png"
    stand_in.save(path, save_all=True, append_images=moments, default_image=True, duration=40)
    assert [rgb.mean() for rgb in rgbs(open_media(path))] == [90, 180]
    assert read_image(path).mean() == 90


@pytest.mark.parametrize(
    ("name", "options", "sound"),
    [
        ("moving.png", {"duration": 40}, [0, 1, 2]),
        ("pages.tiff", {"compression": "tiff_adobe_deflate"}, [0, 1, 2, 4, 5]),
    ],
)
def test_a_damaged_moment_or_page_is_flagged(tmp_path, name, options, sound):
    first, *others = [Image.fromarray(frame) for frame in moved_frames(6, 64)]
    path = tmp_path / name
    first.save(path, save_all=True, append_images=others, **options)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    frames = list(open_media(path))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.index for frame in frames if frame.rgb is not None] == sound
    assert all(f"{name} can't be read" in f.problem for f in frames if f.rgb is None)


def test_half_a_phones_picture_is_refused_and_not_read_as_a_tile(tmp_path):
    path = write_grid(tmp_path / "phone.heic", head(160), 64)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(MediaError, match="can't be read as an image"):
        list(open_media(path))
    path.rename(tmp_path / "phone.mp4")
    with pytest.raises(MediaError, match="can't be read as an image"):
        list(open_media(tmp_path / "phone.mp4"))


def test_only_the_picture_that_is_meant_of_files_with_previews(tmp_path):
    # The second picture of a phone's or camera's JPEG is a preview or a depth map.
    Image.fromarray(head(64)).save(
        tmp_path / "photo.mpo", save_all=True, append_images=[Image.fromarray(head(16))]
    )
    assert [rgb.shape for rgb in rgbs(open_media(tmp_path / "photo.mpo"))] == [(64, 64, 3)]


ENCODERS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".tiff": ("tiff", "rgb24")}


def write_anamorphic(path, picture, aspect):
    """An image file as FFmpeg writes a frame whose pixels are not square."""
    codec, pixels = ENCODERS[path.suffix]
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("size", [(96, 192), (192, 135)])
def test_pixels_of_pictures_become_square(tmp_path, suffix, size):
    width, height = size
    stored = cv2.resize(head(192), (width, height), interpolation=cv2.INTER_AREA)
    path = write_anamorphic(tmp_path / f"face.{suffix}", stored, Fraction(height, width))
    for rgb in (read_image(path), read_frame(path, 0), read_frame(tmp_path, 0)):
        assert np.abs(np.subtract(rgb.shape, (192, 192, 3))).max() <= 1
        assert difference(cv2.resize(rgb, (192, 192)), head(192)) < 8
    shutil.copy(path, tmp_path / f"second.{suffix}")
    for given in (path, tmp_path):
        assert any("times as wide as high" in note for note in open_media(given).notes)


def test_a_fax_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.rot90(head(128), 1)).resize((128, 64))
    stored.save(tmp_path / "fax.tiff", dpi=(200, 100), exif=exif)
    stored.save(tmp_path / "fax.jpg", dpi=(200, 100), exif=exif, quality=95)
    stored.save(tmp_path / "square.png", dpi=(300, 300))
    for name in ("fax.tiff", "fax.jpg"):
        assert difference(read_image(tmp_path / name), head(128)) < 10
    assert not open_media(tmp_path / "square.png").notes


# --- folders -------------------------------------------------------------------------------------


def test_what_macos_notes_beside_a_file_is_no_picture(tmp_path):
    noted = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4000)
    Image.fromarray(head(64)).save(tmp_path / "face.jpg")
    (tmp_path / "._face.jpg").write_bytes(noted)
    (tmp_path / ".DS_Store").write_bytes(noted)
    assert [frame.source for frame in open_media(tmp_path)] == [str(tmp_path / "face.jpg")]
    (tmp_path / "._clip.mp4").write_bytes(noted)
    for name in ("._face.jpg", "._clip.mp4"):
        with pytest.raises(MediaError, match=r"what macOS notes.*named (face\.jpg|clip\.mp4)"):
            open_media(tmp_path / name)


def test_videos_and_folders_in_a_folder_of_pictures_are_said(tmp_path):
    Image.fromarray(head(64)).save(tmp_path / "face.png")
    write_video(tmp_path / "clip.mp4", moved_frames(2, 64))
    (tmp_path / "more").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    stream = open_media(tmp_path)
    assert len(list(stream)) == 1
    assert stream.notes == [
        f"{tmp_path} also holds 1 video (clip.mp4) and 1 folder (more), which were not read."
    ]
    (tmp_path / "face.png").unlink()
    with pytest.raises(MediaError, match=r"holds no images .*but 1 video \(clip\.mp4\) and"):
        open_media(tmp_path)


def test_pictures_are_known_by_content_in_a_folder_too(tmp_path):
    Image.fromarray(head(64)).save(tmp_path / "frame2.png")
    Image.fromarray(head(32)).save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / "frame1")
    assert [rgb.shape[0] for rgb in rgbs(open_media(tmp_path))] == [32, 64]


def test_what_is_wrong_with_a_file_in_a_folder_is_said_of_it(tmp_path):
    Image.fromarray(head(16)).save(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:-200])
    problems = [frame.problem for frame in open_media(tmp_path)]
    assert problems[0] == ""
    assert "b.png is empty (0 bytes)" in problems[1]
    assert "c.png can't be read" in problems[2]


def test_names_that_count_in_odd_digits_are_sorted(tmp_path):
    for name in ("m²3.png", "1²3.png", "٣.png", "10.png"):
        Image.fromarray(head(16)).save(tmp_path / name)
    assert len(list(open_media(tmp_path))) == 4

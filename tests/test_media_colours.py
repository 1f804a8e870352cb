"""Colours of videos: every matrix, range and brightness curve, against the standards' formulas."""

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import head

from siamcal.faces.media import open_media, read_frame


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


MATRICES = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}


def yuv_frame(rgb, matrix, full, *, space, trc=2, primaries=2):
    """RGB in [0, 1] as a 10-bit frame, after ITU-R BT.601, 709 and 2020."""
    red, blue = MATRICES[matrix]
    r, g, b = np.moveaxis(rgb, 2, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - luma) / 2 / (1 - blue), (r - luma) / 2 / (1 - red)]
    if full:
        planes = [luma * 1023, *(c * 1023 + 512 for c in chroma)]
    else:
        planes = [(luma * 219 + 16) * 4, *((c * 224 + 128) * 4 for c in chroma)]
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((rgb.shape[0], plane.line_size // 2), np.uint16)
        lines[:, : rgb.shape[1]] = values.round().clip(0, 1023)
        plane.update(lines.tobytes())
    frame.colorspace, frame.color_range = space, 2 if full else 1
    frame.color_trc, frame.color_primaries = trc, primaries
    return frame


def write_frame(path, frame):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.options = {"x265-params": "log-level=none", "crf": "2", "preset": "ultrafast"}
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        context.color_trc, context.color_primaries = frame.color_trc, frame.color_primaries
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        for packet in [*stream.encode(frame), *stream.encode()]:
            packet.dts = packet.pts  # of a lone picture x265 leaves the decoding time as it was
            container.mux(packet)
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "space", "large"),
    [
        ("601", 5, False),
        ("601", 6, True),
        ("709", 1, False),
        ("709", 1, True),
        ("2020", 9, False),
        ("601", 2, False),  # not said, small: an old recorder's
        ("709", 2, True),  # not said, large
    ],
)
def test_matrix_and_range_are_honoured(tmp_path, matrix, space, large, full):
    rgb = head(64) / 255
    rgb = np.tile(rgb, (1, 20, 1)) if large else rgb
    path = write_frame(tmp_path / "clip.mov", yuv_frame(rgb, matrix, full, space=space))
    assert difference(read_frame(path, 0), (rgb * 255).round().astype(np.uint8)) < 2.5


@pytest.mark.slow
def test_hdr_of_a_phone_has_the_brightness_of_its_scene(tmp_path):
    # sRGB -> light in BT.2020's colours, white at 203 of 1000 cd/m2 (BT.2408) -> HLG (BT.2100).
    shown = head(64)
    encoded = shown / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    light = 0.203 * light @ np.transpose(to_2020)
    luma = np.maximum(light @ [0.2627, 0.678, 0.0593], 1e-9)
    scene = light * (luma ** (1 / 1.2 - 1))[..., None]
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    bright = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    signal = np.where(scene <= 1 / 12, np.sqrt(3 * np.clip(scene, 0, 1)), bright)
    frame = yuv_frame(signal, "2020", False, space=9, trc=18, primaries=9)
    stream = open_media(write_frame(tmp_path / "phone.mov", frame))
    assert difference(next(iter(stream)).rgb, shown) < 3.5
    assert any("is HDR" in note for note in stream.notes)

"""Clips of scikit-image's astronaut, a public-domain photograph, for the tests."""

import random
import struct
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data


def astronaut():
    return np.ascontiguousarray(data.astronaut())


def head(size=256):
    """The astronaut's head and shoulders, (size, size, 3)."""
    return cv2.resize(astronaut()[:300, 75:375], (size, size), interpolation=cv2.INTER_AREA)


def moved_frames(count=12, size=256):
    """The head swaying, turning and blinking in and out of size."""
    still = head(size)
    for index in range(count):
        phase = 2 * np.pi * index / max(count, 2)
        matrix = cv2.getRotationMatrix2D(
            (size / 2, size / 2), 6 * np.sin(phase), 1 + 0.06 * np.cos(phase)
        )
        matrix[:, 2] += (6 * np.cos(phase), 4 * np.sin(phase))
        yield cv2.warpAffine(still, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def write_video(path, frames, codec="libx264", rate=25, pix_fmt="yuv420p", prepare=None, **options):
    """Encode RGB frames; `prepare` is called with the stream before the first one."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = pix_fmt
        if prepare is not None:
            prepare(stream)
        for index, frame in enumerate(frames):
            if not index:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def packets(path):
    """(position, size) of the packets in the file."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]


def damage(path, packet, whole=True):
    """Overwrite one packet with noise."""
    position, size = packets(path)[packet]
    content = bytearray(Path(path).read_bytes())
    noise = random.Random(0)
    for offset in range(position if whole else position + size // 4, position + size):
        content[offset] = noise.randrange(256)
    Path(path).write_bytes(content)
    return path


def turn_by_metadata(path, degrees):
    """Set an mp4's display matrix, as phones do that film sideways."""
    content = bytearray(Path(path).read_bytes())
    # tkhd version 0: the 3x3 matrix starts 40 bytes after the version field.
    start = content.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = (cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    Path(path).write_bytes(content)
    return path

"""HEIC as phones write it: tiles of HEVC, joined by a grid (ISO/IEC 14496-12 and 23008-12)."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

GRID = 1  # item of the whole picture; the tiles follow


def box(kind, *content):
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def full_box(kind, version, *content):
    return box(kind, struct.pack(">I", version << 24), *content)


def coded(tile):
    """(HEVC configuration, coded picture) of (H, W, 3)."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx265", rate=1)
        stream.height, stream.width = tile.shape[:2]
        stream.pix_fmt, stream.options = (
            "yuvj444p",
            {"crf": "4", "x265-params": "log-level=none:pools=none:frame-threads=1"},
        )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(tile), format="rgb24")
        frame = frame.reformat(format="yuvj444p", dst_color_range=2, dst_colorspace="ITU601")
        frame.pts, frame.time_base = 0, Fraction(1)
        for packet in [*stream.encode(frame), *stream.encode()]:
            packet.dts = packet.pts  # of a lone picture x265 leaves the decoding time as it was
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        packet = next(container.demux(video=0))
        return bytes(container.streams.video[0].codec_context.extradata), bytes(packet)


def write_grid(path, picture, tile, turns=0):
    """Write a picture in square tiles; readers cut off what hangs over its edges.

    Args:
        path: The file.
        picture: (H, W, 3) uint8.
        tile: Side of a tile.
        turns: Quarter turns counter-clockwise that readers have to make.
    """
    height, width = picture.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    whole = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    whole[:height, :width] = picture
    tiles = [
        coded(whole[y : y + tile, x : x + tile])
        for y in range(0, rows * tile, tile)
        for x in range(0, columns * tile, tile)
    ]
    items = range(GRID + 1, GRID + 1 + len(tiles))
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)

    def info(item, kind):
        return full_box("infe", 2, struct.pack(">HH4s", item, 0, kind), b"\0")

    entries = [info(GRID, b"grid"), *(info(item, b"hvc1") for item in items)]
    properties = [
        full_box("ispe", 0, struct.pack(">II", width, height)),
        full_box("ispe", 0, struct.pack(">II", tile, tile)),
        box("hvcC", tiles[0][0]),
        box("colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0x80)),
        box("irot", bytes([turns])),
    ]
    owned = [struct.pack(">HBBBB", GRID, 3, 1, 4, 0x80 | 5)]
    owned += [struct.pack(">HBBBB", item, 3, 2, 0x80 | 3, 4) for item in items]

    def meta(start):
        places = [struct.pack(">HHHHII", GRID, 1, 0, 1, 0, len(grid))]
        for item, (_, content) in zip(items, tiles, strict=True):
            places.append(struct.pack(">HHHHII", item, 0, 0, 1, start, len(content)))
            start += len(content)
        return full_box(
            "meta",
            0,
            full_box("hdlr", 0, struct.pack(">I4s12xB", 0, b"pict", 0)),
            full_box("pitm", 0, struct.pack(">H", GRID)),
            full_box("iloc", 1, struct.pack(">BBH", 0x44, 0, len(places)), *places),
            full_box("iinf", 0, struct.pack(">H", len(entries)), *entries),
            full_box(
                "iref",
                0,
                box("dimg", struct.pack(f">HH{len(tiles)}H", GRID, len(tiles), *items)),
            ),
            box(
                "iprp",
                box("ipco", *properties),
                full_box("ipma", 0, struct.pack(">I", len(owned)), *owned),
            ),
            box("idat", grid),
        )

    head = box("ftyp", b"heic\0\0\0\0mif1heic")
    start = len(head) + len(meta(0)) + 8
    Path(path).write_bytes(head + meta(start) + box("mdat", *(content for _, content in tiles)))
    return path

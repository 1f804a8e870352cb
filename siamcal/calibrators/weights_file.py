"""Weights files that strangers wrote: the header is judged before a byte of data is touched.

Only safetensors is read. A file that lies about its sizes, is cut short or is a renamed pickle is
refused from its first bytes, without allocating what it declares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from siamcal.errors import WeightsError
from siamcal.files import write_atomically

__all__ = [
    "MAX_WEIGHTS_BYTES",
    "TensorInfo",
    "checksum_of_tensors",
    "read_header",
    "read_tensors",
    "write_tensors",
]

MAX_WEIGHTS_BYTES = 4 << 30
# Room for 30,000 tensors; parsing it takes less than 100 MB whatever it holds.
_MAX_HEADER_BYTES = 4 << 20
_MAX_TENSORS = 30_000
_DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor; `begin` and `end` are offsets into the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: str | Path, max_bytes: int = MAX_WEIGHTS_BYTES) -> dict[str, TensorInfo]:
    """Names, types, shapes and places of a safetensors file's tensors, all checked.

    Args:
        path: The file.
        max_bytes: Largest file that is accepted.

    Raises:
        WeightsError: Not a safetensors file, cut short, too large, or its header lies.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is missing; a calibrator needs its weights beside config.json.")
    size = path.stat().st_size
    if size > max_bytes:
        raise WeightsError(
            f"{path} has {size:,} bytes; at most {max_bytes:,} are accepted. No calibrator is that "
            "large; if you made it yourself, pass max_bytes."
        )
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        _check_start(path, start + file.read(8), length, size)
        file.seek(8)
        text = file.read(length)
    entries = _parse(path, text)
    tensors = {name: _tensor(path, name, entry) for name, entry in entries.items()}
    _check_places(path, tensors, size - 8 - length)
    return tensors


def read_tensors(path: str | Path, max_bytes: int = MAX_WEIGHTS_BYTES) -> dict[str, torch.Tensor]:
    """All tensors of a file whose header passes `read_header`.

    Raises:
        WeightsError: See `read_header`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path, max_bytes)
    try:
        return load_file(str(path))
    except (SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {str(error)[:200]}") from None


def write_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path) -> str:
    """Write a safetensors file atomically; return its SHA-256.

    Tensors that share memory are written one by one, each whole.
    """
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())}
    data = save(plain, metadata={"format": "pt"})
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def checksum_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the order of the entries."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_start(path: Path, start: bytes, length: int, size: int) -> None:
    pickle_like = start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")
    if pickle_like:
        raise WeightsError(
            f"{path} is a pickle or a torch archive under another name, not safetensors. Pickles "
            "can run code and are never read. Ask its author for model.safetensors, or convert "
            "face weights with `siamcal convert`."
        )
    if size < 10 or start[8:9] != b"{":
        raise WeightsError(f"{path} isn't a safetensors file: its first bytes hold no header.")
    if length > _MAX_HEADER_BYTES:
        raise WeightsError(
            f"{path} declares a header of {length:,} bytes; at most {_MAX_HEADER_BYTES:,} are read."
        )
    if 8 + length > size:
        raise WeightsError(
            f"{path} is cut short: it declares a header of {length:,} bytes, but the whole file "
            f"has {size:,}. Download or save it again."
        )


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} has a broken header: {str(error)[:200]}.") from None
    if not isinstance(entries, dict):
        raise WeightsError(f"{path} has a broken header: it isn't an object.")
    entries.pop("__metadata__", None)
    if len(entries) > _MAX_TENSORS:
        raise WeightsError(f"{path} declares {len(entries):,} tensors; at most {_MAX_TENSORS:,}.")
    return entries


def _tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    def whole(value: Any) -> bool:
        return type(value) is int and 0 <= value < 1 << 62

    try:
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise WeightsError(f"{path} has a broken header at tensor {name[:80]!r}.") from None
    if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
        raise WeightsError(f"{path}: tensor {name[:80]!r} has the type {str(dtype)[:20]!r}.")
    if not (isinstance(shape, list) and len(shape) <= 16 and all(map(whole, [*shape, begin, end]))):
        raise WeightsError(f"{path}: tensor {name[:80]!r} has an impossible shape or place.")
    if end - begin != prod(shape) * _DTYPE_BYTES[dtype]:
        raise WeightsError(
            f"{path}: tensor {name[:80]!r} of shape {str(shape)[:80]} needs "
            f"{prod(shape) * _DTYPE_BYTES[dtype]:,} bytes, but its place has {end - begin:,}."
        )
    return TensorInfo(dtype, tuple(shape), begin, end)


def _check_places(path: Path, tensors: Mapping[str, TensorInfo], available: int) -> None:
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != place:
            raise WeightsError(f"{path}: tensor {name[:80]!r} overlaps another or leaves a gap.")
        place = tensor.end
    if place > available:
        raise WeightsError(
            f"{path} is cut short: its header declares {place:,} bytes of tensors, but only "
            f"{available:,} follow. Download or save it again."
        )
    if place < available:
        raise WeightsError(f"{path} carries {available - place:,} bytes that no tensor declares.")

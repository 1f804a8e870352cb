"""safetensors files from strangers: judged by their header, read only when it is sound."""

import datetime
import json
import stat
import struct
from pathlib import Path

import pytest
import torch

from siamcal.errors import WeightsError
from siamcal.files import checksum_of_file, write_atomically
from siamcal.model.weights_file import (
    checksum_of_tensors,
    read_header,
    read_state_dict,
    read_tensors,
    write_tensors,
)

REFUSED = r"w\.safetensors can't be read as safetensors \(.+\)"


def lying_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def one(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


def test_the_reason_is_torchs_but_not_its_advice(tmp_path) -> None:
    (tmp_path / "noise.pth").write_bytes(b"\x95noise" * 100)
    torch.save({"a": datetime.date(2026, 1, 1)}, tmp_path / "dated.pth")
    for name, reason in {
        "noise": r"it is damaged, or no file of torch's\)",
        "dated": r"Unsupported global: GLOBAL datetime\.date",
    }.items():
        with pytest.raises(WeightsError, match=rf"running code \({reason}") as caught:
            read_state_dict(tmp_path / f"{name}.pth")
        assert "weights_only" not in str(caught.value).partition("Only plain")[0]


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    tensors = {
        "view": shared[:, ::2],
        "same": shared,
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
    }
    digest = write_tensors(tensors, tmp_path / "w.safetensors")
    assert digest == checksum_of_file(tmp_path / "w.safetensors")
    back = read_tensors(tmp_path / "w.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    header = read_header(tmp_path / "w.safetensors")
    assert header["half"].shape == (3,)
    assert header["half"].dtype == "BF16"
    assert write_tensors(tensors, tmp_path / "again.safetensors") == digest


def test_checksum_of_tensors_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    assert checksum_of_tensors(base) == checksum_of_tensors(dict(reversed(base.items())))
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3).double(), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-7},
    ]
    sums = {checksum_of_tensors(other) for other in [base, *others]}
    assert len(sums) == 5


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        (one([2], 0, 8), b"", REFUSED),
        (one([2_500_000_000], 0, 10_000_000_000), b"1234", REFUSED),
        (one([10**6, 10**6, 10**6], 0, 8), b"12345678", REFUSED),
        (one([2**62, 2**62, 0], 0, 0), b"", REFUSED),
        (one([2], 0, 8), b"123456789", REFUSED),
        (one([1], 4, 8), b"12345678", REFUSED),
        (one([1], 8, 4), b"12345678", REFUSED),
        (one([-1], 0, 4), b"1234", REFUSED),
        (one([1.0], 0, 4), b"1234", REFUSED),  # type: ignore[list-item]
        (one([True], 0, 4), b"1234", REFUSED),
        (one([1], 0, 4, "PICKLE"), b"1234", REFUSED),
        (one([1], 0, 1, "F8_E4M3"), b"1", "type 'F8_E4M3'"),
        ({"w": 3}, b"", REFUSED),
        ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, b"", REFUSED),
        (b"[1]", b"", REFUSED),
        (b"{not json", b"", REFUSED),
        (b'{"w": 1, "w": 1}', b"", REFUSED),
        (b"{" + b'"a":[' * 50_000, b"", REFUSED),
        (
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            b"1234",
            REFUSED,
        ),
        (
            {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(30_001)},
            b"",
            "declares 30,001 tensors",
        ),
    ],
)
def test_lying_headers_are_refused(tmp_path: Path, header: object, data: bytes, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        read_tensors(lying_file(tmp_path / "w.safetensors", header, data))


def test_a_renamed_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    for zipped in (True, False):
        path = tmp_path / f"{zipped}.safetensors"
        torch.save({"w": Bomb()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="pickle"):
            read_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_cut_files_are_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors({"a": torch.randn(3), "b": torch.randn(2, 2)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_tensors(path)


def test_sizes_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 5 << 30) + b"{")
        file.truncate(10 << 30)  # sparse: takes no disk
    with pytest.raises(WeightsError, match="at most 4,294,967,296"):
        read_header(path)
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}" * 50)
    with pytest.raises(WeightsError, match="header of 1,099,511,627,776"):
        read_header(path)
    write_tensors({"a": torch.zeros(100)}, path)
    with pytest.raises(WeightsError, match="pass max_bytes"):
        read_header(path, max_bytes=100)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: object) -> None:
    import os

    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400

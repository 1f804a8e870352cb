"""Damage to a file, as accidents and strangers do it: one mutator, aware of the file's kind."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["KINDS", "mutate"]

# What stands in the place of a value or a word.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 6, 10**30, -(10**30), 0.5, float("nan"), float("inf"), -0.0, 1e308,
    "", "x", "nan", "\x00", "\x1b[2J", "\ud800", "ä", "../../etc/passwd", "9" * 40, "a" * 5000,
    [], {}, [None], [[]], {"a": 1}, [1, "x"], [0] * 300,
)  # fmt: skip
WORDS = (
    b"", b"nan", b"inf", b"-inf", b"-1", b"0", b"1e999", b"1_0", b"5.5", b"7", b"9" * 5000, b"true",
    b"null", b"\x00", b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"\t", b"\n",
    b"\r", b"\r\n", b"[", b"{", b"}", b"=", b":", b"#", b"\xe2\x80\xae", b"x" * 2000, b"AU01",
)  # fmt: skip


def mutate(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A file's content with one to three faults.

    Args:
        data: The sound content.
        kind: One of KINDS.
        rng: Decides all.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        own = KINDS[kind]
        # Half of all faults know the kind; the others are those of disks and transfers.
        data = (own if rng.random() < 0.5 else _bytes)(data, rng)
    return data


def _span(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, longest))


def _bytes(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    how = rng.randrange(8)
    if how == 0 and data:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if how == 1:
        return data[:start]
    if how == 2:
        return data[:start] + data[end:]
    if how == 3:
        return data[:end] + data[start:]
    if how == 4:
        return data[:start] + rng.randbytes(end - start) + data[end:]
    if how == 5:
        return data[:start] + rng.choice((b"\0", b"\xff", b" ")) * (end - start) + data[end:]
    if how == 6:
        return data[:start] + rng.randbytes(rng.randint(1, 16)) + data[start:]
    other, stop = _span(data, rng)
    return data[:start] + data[other:stop] + data[end:]


def _text(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    how = rng.randrange(7)
    if how == 0:
        del lines[place]
    elif how == 1:
        lines.insert(place, rng.choice(lines))
    elif how == 2:
        other = rng.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    elif how == 3 and len(data) < 100_000:
        return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    else:
        lines[place] = _word(lines[place], rng)
    return b"\n".join(lines)


def _word(line: bytes, rng: random.Random) -> bytes:
    separator = rng.choice((b",", b" ", b"=", b"\t"))
    words = line.split(separator)
    place = rng.randrange(len(words))
    how = rng.randrange(4)
    if how == 0:
        del words[place]
    elif how == 1:
        words.insert(place, rng.choice(WORDS))
    else:
        words[place] = rng.choice(WORDS)
    return separator.join(words)


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _text(data, rng)
    if rng.random() < 0.05:
        return rng.choice((b"[" * 100_000, b"9" * 10_000, b'{"a":' * 50_000, b"{}", b"null", b""))
    text = json.dumps(_changed(value, rng))
    if rng.random() < 0.1 and ":" in text:  # a key that stands twice
        text = text.replace("{", '{"name": 1, "name": 2, ', 1)
    return text.encode()


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one node, anywhere in it, replaced, removed, renamed or moved."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        how = rng.random()
        if how < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.2:
            new = rng.choice((f"{key}x", "", "é", str(rng.choice(list(value)))))
            return {(new if k == key else k): v for k, v in value.items()}
        if how < 0.25:
            return {**value, key: value[rng.choice(list(value))]}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        how = rng.random()
        if how < 0.15:
            return value[:place] + value[place + 1 :]
        if how < 0.25:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.3:
        return rng.choice((-value, value + 1, value * 1000, str(value), [value]))
    return rng.choice(VALUES)


def _jsonl(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = _json(lines[place], rng)
    return b"\n".join(lines)


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 8:
        return data
    length = struct.unpack("<Q", data[:8])[0]
    header, rest = data[8 : 8 + length], data[8 + length :]
    how = rng.random()
    if how < 0.2:
        wrong = (0, 1, abs(length - 1), length + 1, 1 << 20, 1 << 33, (1 << 64) - 1)
        length = min(rng.choice(wrong), (1 << 64) - 1)
        return struct.pack("<Q", length) + header + rest
    changed = _json(header, rng) if how < 0.8 else _bytes(header, rng)
    return struct.pack("<Q", len(changed)) + changed + rest


def _footer(data: bytes, rng: random.Random) -> bytes:
    """Where a Parquet file's names and types stand; for files that siamcal wrote itself."""
    length = int.from_bytes(data[-8:-4], "little")
    start = max(0, len(data) - 8 - length)
    return data[:start] + _bytes(data[start:], rng)


def _parquet(data: bytes, rng: random.Random) -> bytes:
    """The footer, or another table of the same columns."""
    if rng.random() < 0.6:
        return _footer(data, rng)
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception:  # it was damaged before
        return _bytes(data, rng)
    out = io.BytesIO()
    try:
        _other_table(table, rng).to_parquet(out)
    except Exception:  # not every value goes into every column
        return _bytes(data, rng)
    return out.getvalue()


def _other_table(table: Any, rng: random.Random) -> Any:
    if table.shape[1] == 0 or len(table) == 0:
        return table
    name = rng.choice(list(table.columns))
    how = rng.randrange(9)
    if how == 0:
        return table.drop(columns=name)
    if how == 1:
        return table.rename(columns={name: rng.choice(("x", f"{name} ", name.upper(), "AU99"))})
    if how == 2:
        return table.astype({name: str})
    if how == 3:
        table[name] = [rng.choice((None, value)) for value in table[name]]
        return table
    if how == 4:
        value = rng.choice([v for v in VALUES if not isinstance(v, dict) and v != "\ud800"])
        table[name] = [value] * len(table)
        return table
    if how == 5:
        return table.iloc[: rng.randrange(len(table))]
    if how == 6:
        return table.set_index(name)
    if how == 7:
        return table.astype({name: "category"})
    return table.astype({name: rng.choice(("float16", "int8", "bool", "datetime64[ns]", bytes))})


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes": _bytes,
    "text": _text,
    "json": _json,
    "jsonl": _jsonl,
    "safetensors": _safetensors,
    "parquet": _parquet,
    "own parquet": _footer,
}

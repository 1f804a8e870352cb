"""Calibrators made to harm: each is refused by name, cheaply, and nothing of it is executed."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calibrators import tiny

from siamcal.calibrators.saving import save_calibrator
from siamcal.files import checksum_of_file
from siamcal.model.weights_file import read_tensors, write_tensors

torch.set_num_threads(1)

# More than the weights of the calibrators below hold, less than what they claim to.
MEGABYTES_READ = 64
MEGABYTES = 200

EVIL = "from pathlib import Path\nPath({mark!r}).touch()\ndef build(**_):\n    return None\n"


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def configured(**changes: Any) -> Callable[[Path, Path], None]:
    def harm(folder: Path, mark: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        arguments = changes.get("backbone_arguments")
        if arguments is not None:
            changes["backbone_arguments"] = values["backbone_arguments"] | arguments
        (folder / "config.json").write_text(json.dumps(values | changes))

    return harm


def weights(content: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def harm(folder: Path, mark: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(content(file.read_bytes()))

    return harm


def header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path, Path], None]:
    def content(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        change(entries)
        text = json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return weights(content)


def huge_shape(entries: dict[str, Any]) -> None:
    entries["backbone.fc.weight"]["shape"] = [1 << 40, 1 << 20]


def ten_gigabytes(entries: dict[str, Any]) -> None:
    last = max((e for e in entries.values() if "shape" in e), key=lambda e: e["data_offsets"][1])
    last["shape"] = [2_500_000_000]
    last["data_offsets"][1] = last["data_offsets"][0] + 10_000_000_000


def eight_bits(entries: dict[str, Any]) -> None:
    fc = entries["backbone.fc.weight"]
    fc["dtype"], fc["shape"] = "F8_E4M3", [fc["data_offsets"][1] - fc["data_offsets"][0]]


def escaping_name(entries: dict[str, Any]) -> None:
    entries["../../../etc/passwd"] = entries.pop("backbone.fc.bias")


def pickled(zipped: bool) -> Callable[[Path, Path], None]:
    def harm(folder: Path, mark: Path) -> None:
        torch.save(
            {"w": Bomb(mark)},
            folder / "model.safetensors",
            _use_new_zipfile_serialization=zipped,
        )

    return harm


def sparse(folder: Path, mark: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(10 << 30)


def other_weights(folder: Path, mark: Path) -> None:
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors({n: t + 1 for n, t in tensors.items()}, folder / "model.safetensors")


def wrong_shapes(folder: Path, mark: Path) -> None:
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    tensors["backbone.fc.bias"] = torch.zeros(7)
    write_tensors(tensors, file)
    configured(weights_checksum=checksum_of_file(file))(folder, mark)


def config_text(text: str) -> Callable[[Path, Path], None]:
    return lambda folder, mark: (folder / "config.json").write_text(text) and None


def config_pipe(folder: Path, mark: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


HARMS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "path in a new field": (configured(weights="../../secret.safetensors"), "has no field"),
    "file beside the config": (configured(backbone="./evil.py:build"), "never runs a file"),
    "file outside the folder": (configured(backbone="../evil.py:build"), "never runs a file"),
    "absolute file": (configured(backbone="{folder}/evil.py:build"), "never runs a file"),
    "import string": (configured(backbone="os:system"), "never followed"),
    "dotted import": (configured(backbone="evil.build"), "never followed"),
    "torch.hub": (configured(backbone="torch.hub:owner/evil"), "never followed"),
    "local folder of timm": (configured(backbone="timm:local-dir:{folder}"), "never followed"),
    "path after a source": (configured(backbone="transformers:../../evil"), "never followed"),
    "file among the arguments": (
        configured(backbone_arguments={"checkpoint_path": "/etc/passwd"}),
        "opens files",
    ),
    "import among the arguments": (
        configured(backbone_arguments={"norm_layer": "evil.build"}),
        "import string",
    ),
    "merge point that is a path": (configured(merge_at="../../etc/passwd"), "can't be cut"),
    "private attribute as merge point": (configured(merge_at="__class__"), "can't be cut"),
    "unknown backbone": (configured(backbone="ir51"), "No backbone is called 'ir51'"),
    "unknown timm model": (configured(backbone="timm:resnet1000"), "no model called"),
    "unknown argument": (configured(backbone_arguments={"evil": 1}), "can't be made"),
    "huge output": (configured(backbone_arguments={"num_outputs": 60_000}), "larger than"),
    "enormous number": (configured(backbone_arguments={"num_outputs": 10**12}), "at most 65536"),
    "huge width": (configured(backbone_arguments={"widths": [60_000] * 5}), "larger than"),
    "huge depth": (
        configured(backbone="timm:resnet18", backbone_arguments={"layers": [60_000] * 4}),
        "larger than",
    ),
    "huge input": (configured(backbone_arguments={"input_size": 60_000}), "larger than"),
    "huge images": (configured(input_shape=[3, 50_000, 50_000]), "pixels a side"),
    "large images": (configured(input_shape=[3, 1024, 1024]), "doesn't read"),
    "network of the Hub": (configured(backbone="hf-hub:evil/evil"), "trust=True"),
    "huge timm network": (
        configured(backbone="timm:vit_tiny_patch16_224", backbone_arguments={"embed_dim": 49_152}),
        "larger than",
    ),
    "huge network that reads values": (
        configured(
            backbone="torchvision:regnet_y_400mf", backbone_arguments={"stem_width": 60_000}
        ),
        "larger than",
    ),
    "huge torchvision network": (configured(backbone="torchvision:vgg16"), "larger than"),
    "deep config": (config_text("[" * 500_000), "isn't valid JSON"),
    "large config": (config_text(" " * (2 << 20) + "{}"), "at most 1048576"),
    "config that is a pipe": (config_pipe, "No calibrator"),
    "newer format": (configured(format_version=99), "Upgrade siamcal"),
    "terminal codes": (configured(training_data="\x1b]0;evil\x07"), "control characters"),
    "pickle": (pickled(False), "pickle"),
    "zipped pickle": (pickled(True), "pickle"),
    "empty weights": (weights(lambda data: b""), "can't be read as safetensors"),
    "cut header": (weights(lambda data: data[:500]), "cut short"),
    "cut data": (weights(lambda data: data[:-1000]), "cut short"),
    "header of an exabyte": (
        weights(lambda data: struct.pack("<Q", 1 << 60) + data[8:]),
        "declares a header of",
    ),
    "huge shape in the header": (header(huge_shape), "can't be read as safetensors"),
    "10 GB declared": (header(ten_gigabytes), "cut short"),
    "10 GB on disk": (sparse, "at most 4,294,967,296"),
    "tensor with a path for a name": (header(escaping_name), "start with"),
    "other weights": (other_weights, "damaged or exchanged"),
    "tensors of another shape": (wrong_shapes, "don't fit"),
    "types of 8 bits": (header(eight_bits), "has the type"),
}

# Runs in a fresh process: what each refusal reads, and its highest memory beyond the imports'.
JUDGE = """
import json, sys
import torch
torch.set_num_threads(1)
from siamcal.calibrators.saving import load_calibrator
from siamcal.model.create import create_backbone
for name in ("ir_tiny", "timm:resnet18", "torchvision:resnet18"):
    create_backbone(name)  # imports are paid once, by every use of siamcal

def memory(field):
    with open("/proc/self/status") as lines:
        return next(int(l.split()[1]) for l in lines if l.startswith(field)) / 1024

def read_megabytes():
    with open("/proc/self/io") as lines:
        return int(next(lines).split()[1]) / 2**20  # rchar

for name, folder in json.load(sys.stdin).items():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the highest memory so far
    before, start = memory("VmRSS"), read_megabytes()
    try:
        load_calibrator(folder)
        said = "LOADED"
    except Exception as error:
        known = type(error).__module__ == "siamcal.errors"
        said = f"{'' if known else 'UNKNOWN '}{type(error).__name__}: {error}"
    read = read_megabytes() - start
    print(json.dumps([name, said, read, memory("VmHWM") - before]), flush=True)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, float]]:
    root = tmp_path_factory.mktemp("hostile")
    mark = root / "EXECUTED"
    folders = {}
    for number, (name, (harm, _)) in enumerate(HARMS.items()):
        folder = root / str(number) / "calibrator"
        save_calibrator(tiny(), None, folder)
        for place in (folder, folder.parent, root):
            (place / "evil.py").write_text(EVIL.format(mark=str(mark)))
        harm(folder, mark)
        config = folder / "config.json"
        if config.is_file() and config.stat().st_size < 100_000:
            config.write_text(config.read_text().replace("{folder}", str(folder)))
        folders[name] = str(folder)
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        input=json.dumps(folders),
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "SIAMCAL_CACHE": str(root / "cache"), "PYTHONPATH": str(root)},
        timeout=300,
    )
    found = {}
    for line in done.stdout.splitlines():
        name, said, read, megabytes = json.loads(line)
        found[name] = said, read, megabytes
    assert len(found) == len(HARMS), done.stderr[-2000:]
    found["executed"] = str(mark.exists()), 0.0, 0.0
    return found


@pytest.mark.parametrize("name", HARMS)
def test_refused_clearly_and_cheaply(
    verdicts: dict[str, tuple[str, float, float]], name: str
) -> None:
    said, read, megabytes = verdicts[name]
    assert HARMS[name][1] in said
    assert not said.startswith("UNKNOWN"), "one of siamcal's own errors is expected"
    assert read < MEGABYTES_READ
    assert megabytes < MEGABYTES


def test_nothing_was_executed(verdicts: dict[str, tuple[str, float, float]]) -> None:
    assert verdicts["executed"][0] == "False"


def test_the_unharmed_calibrator_loads(tmp_path: Path) -> None:
    from siamcal.calibrators.saving import load_calibrator

    save_calibrator(tiny(), None, tmp_path)
    assert load_calibrator(tmp_path).config.backbone == "ir_tiny"

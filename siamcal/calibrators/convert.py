"""Published checkpoints into the saved format, entry by entry, with a report.

Two kinds are known: InsightFace's iResNet face weights (glint360k's `backbone.pth`), which start a
training, and checkpoints of the paper's authors, the same network without `features` and with `fc`
for AUs. Both are plain state dicts, read with `weights_only=True`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamcal.calibrators.saving import describe, save_calibrator
from siamcal.errors import ConfigError, WeightsError
from siamcal.model.create import create_backbone
from siamcal.model.heads import make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import read_state_dict
from siamcal.paper import PAPER_PREPROCESSING, paper_aus

__all__ = ["ConversionReport", "Entry", "convert_checkpoint"]

# Outputs of `fc` for one AU; intensity has 1 value and 5 ordinal logits.
OUTPUTS_PER_AU = {"intensity": 6, "detection": 1}
# Blocks of the four stages.
DEPTHS = {
    (2, 2, 2, 2): "ir18",
    (3, 4, 6, 3): "ir34",
    (3, 4, 14, 3): "ir50",
    (3, 13, 30, 3): "ir100",
}
GLINT_REASON = (
    "derived from InsightFace's face-recognition weights (glint360k), which are for non-commercial "
    "research only"
)
AUTHORS_REASON = (
    "converted from the paper's authors' checkpoint, published without a licence and derived from "
    "InsightFace's glint360k weights (non-commercial research only); ask them before you share it"
)


@dataclass(frozen=True)
class Entry:
    """What became of one entry: "taken", "start value" (the file lacks or misfits) or "unused"."""

    name: str
    fate: str
    shape: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """Every entry of the file and of the network, once each, in the network's order.

    Attributes:
        folder: The calibrator's folder.
        backbone: Name of the network.
        kind: "face weights" or "AU weights".
        entries: What became of each entry.
    """

    folder: Path
    backbone: str
    kind: str
    entries: tuple[Entry, ...]

    def count(self, fate: str) -> int:
        """Number of entries with that fate."""
        return sum(entry.fate == fate for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "folder": str(self.folder),
            "backbone": self.backbone,
            "kind": self.kind,
            "taken": self.count("taken"),
            "start_value": self.count("start value"),
            "unused": self.count("unused"),
            "entries": [vars(entry) for entry in self.entries],
        }

    def __str__(self) -> str:
        lines = [
            f"{entry.fate:<11} {entry.name:<42} {_shape(entry.shape):<18} {entry.note}".rstrip()
            for entry in self.entries
        ]
        lines.append(
            f"{self.kind} of {self.backbone}: {self.count('taken')} entries taken, "
            f"{self.count('start value')} kept at their start values, {self.count('unused')} unused"
        )
        lines.append(f"Saved in {self.folder}")
        if self.kind == "face weights":
            lines.append("fc isn't trained for action units yet: train it before predicting.")
        return "\n".join(lines)


def convert_checkpoint(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    backbone: str | None = None,
    merge_at: str = "layer4",
    aus: Sequence[int] | None = None,
    task: str | None = None,
) -> ConversionReport:
    """Convert a state dict of iResNet into a calibrator's folder.

    Args:
        checkpoint: A .pth file (read with `weights_only=True`) or a .safetensors file.
        folder: Where the calibrator goes.
        backbone: Name of the network; None recognises it from names and shapes.
        merge_at: Merge point that the weights were or will be trained with.
        aus: AU numbers in the order of the outputs; None recognises the paper's data sets.
        task: "intensity" or "detection"; None follows from the number of outputs.

    Raises:
        DataNotFoundError: There is no such file.
        WeightsError: It can't be read safely, or it isn't an iResNet's state dict.
        ConfigError: Task or AUs can't be told, or don't fit the outputs.
    """
    state = read_state_dict(checkpoint)
    name = backbone or _recognise(state, checkpoint)
    is_face = "features.weight" in state
    task, aus, outputs = _outputs(state, is_face, task, aus)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same file gives the same start of fc
        network = create_backbone(name, num_outputs=outputs)
    entries = _take_over(network, state, is_face, checkpoint)
    model = CalibratingSiamese(
        network.eval(), merge_at, head=make_head(task, len(aus)), verify=False
    )
    facts: dict[str, Any] = {
        "aus": tuple(aus),
        "preprocessing": PAPER_PREPROCESSING,
        "training_data": (
            "glint360k faces (face recognition); not yet trained for action units"
            if is_face
            else "as stated by the authors of the converted checkpoint (DISFA, DISFA+ or UNBC)"
        ),
        "data_licence": "research agreements of the data sets",
        "licence": "other",
        "licence_reason": GLINT_REASON if is_face else AUTHORS_REASON,
    }
    save_calibrator(model, describe(model, **facts), folder)
    kind = "face weights" if is_face else "AU weights"
    return ConversionReport(Path(folder), name, kind, entries)


def _recognise(state: Mapping[str, Tensor], path: str | Path) -> str:
    depths = tuple(
        len({m[1] for name in state if (m := re.match(rf"layer{stage}\.(\d+)\.", name))})
        for stage in range(1, 5)
    )
    if depths not in DEPTHS or "conv1.weight" not in state or "prelu.weight" not in state:
        raise WeightsError(
            f"{path} isn't the state dict of an InsightFace iResNet: it has names like "
            f"{sorted(state)[:3]} and {depths} blocks. Known are {', '.join(DEPTHS.values())}; "
            "name another registered network with --backbone."
        )
    return DEPTHS[depths]


def _outputs(
    state: Mapping[str, Tensor], is_face: bool, task: str | None, aus: Sequence[int] | None
) -> tuple[str, tuple[int, ...], int]:
    """(task, AUs, outputs of fc)."""
    per_au = OUTPUTS_PER_AU
    if task is not None and task not in per_au:
        raise ConfigError(f"task is {task!r}; allowed: intensity, detection.")
    if is_face:
        task = task or "intensity"
        aus = tuple(aus or paper_aus("disfa", "intensity"))
        return task, aus, per_au[task] * len(aus)
    if "fc.weight" not in state:
        raise WeightsError("The checkpoint holds no 'fc.weight', so its outputs aren't known.")
    outputs = state["fc.weight"].shape[0]
    known_task, known_aus = _paper_outputs().get(outputs, (None, None))
    if aus is None and (known_task is None or task not in (None, known_task)):
        raise ConfigError(
            f"fc has {outputs} outputs; whose AUs these are can't be told. Pass the AU numbers in "
            "their order, for example --aus 1,2,4,6."
        )
    aus = tuple(aus or known_aus or ())
    task = task or next((t for t, n in per_au.items() if n * len(aus) == outputs), None)
    if task is None or per_au[task] * len(aus) != outputs:
        raise ConfigError(
            f"fc has {outputs} outputs, but {len(aus)} AUs need {6 * len(aus)} for intensity or "
            f"{len(aus)} for detection. Check --aus and --task."
        )
    return task, aus, outputs


def _paper_outputs() -> dict[int, tuple[str, tuple[int, ...]]]:
    """Outputs of `fc` -> (task, AUs); 12 could be 2 AUs' intensity too, which nobody published."""
    return {
        each * len(aus): (task, aus)
        for dataset in ("disfa", "disfa-plus", "unbc")
        for task, each in OUTPUTS_PER_AU.items()
        for aus in [paper_aus(dataset, task)]
    }


def _take_over(
    network: torch.nn.Module, state: Mapping[str, Tensor], is_face: bool, path: str | Path
) -> tuple[Entry, ...]:
    own = network.state_dict()
    entries, taken = [], {}
    for name, value in own.items():
        theirs = state.get(name)
        shape = tuple(value.shape)
        if theirs is None:
            # num_batches_tracked is a counter that old files lack; it changes no prediction.
            entries.append(Entry(name, "start value", shape, "missing in the file"))
        elif is_face and name.startswith("fc."):
            note = f"{_shape(tuple(theirs.shape))} in the file makes a face's identity vector"
            entries.append(Entry(name, "start value", shape, note))
        elif tuple(theirs.shape) != shape:
            note = f"{_shape(tuple(theirs.shape))} in the file"
            entries.append(Entry(name, "start value", shape, note))
        else:
            note = "" if theirs.dtype == value.dtype else f"from {str(theirs.dtype)[6:]}"
            entries.append(Entry(name, "taken", shape, note))
            taken[name] = theirs
    for name, value in state.items():
        if name not in own:
            note = "part of the face-recognition output" if name.startswith("features.") else ""
            entries.append(Entry(name, "unused", tuple(value.shape), note))
    lost = [e.name for e in entries if e.fate == "start value" and not _may_lack(e.name, is_face)]
    if lost:
        raise WeightsError(
            f"{path} doesn't fit: {len(lost)} entries that the network needs are missing or have "
            f"another shape, {lost[0]} first. Name the right network with --backbone."
        )
    network.load_state_dict(taken, strict=False)
    return tuple(entries)


def _may_lack(name: str, is_face: bool) -> bool:
    return name.endswith("num_batches_tracked") or (is_face and name.startswith("fc."))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"

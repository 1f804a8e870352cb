"""What each study holds against each other: its arms, and how references are spoilt or pooled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siamcal.datasets.base import FaceSet
from siamcal.evaluation.methods import SHRINKAGE
from siamcal.model.dlib_file import installed_file
from siamcal.preprocessing import Preprocessing
from siamcal.registry import merges
from siamcal.training.recipe import Recipe, load_recipe

__all__ = ["STUDIES", "Arm", "Study", "neutral_frames", "with_references"]


@dataclass(frozen=True)
class Arm:
    """One row of a study.

    Attributes:
        name: In tables.
        method: See `siamcal.evaluation.methods`.
        recipe: Name of the recipe, or "" for the default job's.
        changes: Of the recipe's fields.
        shrinkage: Of "bss" and "frozen"; "estimated" from the training people's neutral frames.
        references: Which frames stand for a person's resting face: "own" (the true one), a kind of
            `with_references`, a number of neutral frames that are pooled, or "none" (the network's
            null reference).
    """

    name: str
    method: str
    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    shrinkage: float | str = SHRINKAGE
    references: str | int = "own"

    def made(self) -> Recipe:
        """The recipe of its training."""
        return dataclasses.replace(load_recipe(self.recipe or "synth"), **self.changes)


@dataclass(frozen=True)
class Study:
    """Arms that are compared.

    Attributes:
        question: What it asks, one sentence.
        arms: In the order of the table.
    """

    question: str
    arms: tuple[Arm, ...]


PLAIN = (Arm("NCG", "ncg"), Arm("BS", "bs"))
CSN = (*PLAIN, Arm("CSN, paper's form", "csn:paper"), Arm("CSN, default form", "csn"))
# ir_tiny behind a frozen first part, as the default job's trunk is.
HALF_FROZEN = {"freeze_pre": 2, "merge_at": "layer3"}


def _of_start(name: str, recipe: str, **changes: Any) -> list[Arm]:
    kinds = (
        ("NCG", "ncg"),
        ("BS", "bs"),
        ("CSN, paper's form", "csn:paper"),
        ("CSN, concatenated", "csn:concatenated"),
    )
    return [Arm(f"{name}: {label}", method, recipe, changes) for label, method in kinds]


def _start() -> Study:
    arms = _of_start("faces (landmarks)", "synth")
    if installed_file():  # its whole weights don't come with siamcal
        arms += _of_start("faces (dlib)", "dlib_trunk")
    arms += _of_start("AUs (trained as NCG)", "ir_tiny", **HALF_FROZEN)
    arms += _of_start("random weights", "synth", weights="")
    return Study("Which start weights does calibration want?", tuple(arms))


def _merges() -> Study:
    named = [n for n in merges.names() if n not in ("paper", "reference_minus_target")]
    forms = [Arm(f"CSN, {name}", f"csn:{name}") for name in named]
    paper = Arm("CSN, paper's form", "csn:paper")
    return Study("Which form of the merge?", (*PLAIN, paper, *forms))


def _points() -> Study:
    points = ("layer1", "layer2", "layer3", "layer4", "fc")
    methods = {"NCG": "ncg", "BS": "bs", **{f"frozen at {p}": f"frozen@{p}" for p in points}}
    arms = [Arm(f"ir_tiny, {k}", m, "ir_tiny", HALF_FROZEN) for k, m in methods.items()]
    return Study("Where to merge in a network that isn't trained again?", tuple(arms))


def _several_points() -> Study:
    # Trained whole, as features can't be kept for several points: two passes.
    changes = {"merge": "concatenated", "epochs": 2}
    points = ("layer2", "layer4", "layer2+layer4")
    arms = [Arm("NCG", "ncg", "ir_tiny", changes), Arm("BS", "bs", "ir_tiny", changes)]
    for point in points:
        arms += [Arm(f"CSN at {point}", f"csn@{point}", "ir_tiny", changes)]
    return Study("Is merging at several points at once better than at one?", tuple(arms))


def _shrinkage() -> Study:
    arms = [Arm("NCG", "ncg")]
    for share in (0.25, 0.5, 0.75, 1.0):
        arms += [Arm(f"BS by {share:g}", "bss", shrinkage=share)]
    for share in (0.25, 0.5, 0.75, 1.0, "estimated"):
        arms += [Arm(f"frozen by {share}", "frozen", shrinkage=share)]
    return Study("How much of one frame's correction to believe?", tuple(arms))


def _references() -> Study:
    arms = [Arm("NCG", "ncg")]
    for count in (1, 2, 3, 5):
        arms += [
            Arm(f"BS, up to {count}", "bs", references=count),
            Arm(f"frozen, estimated, up to {count}", "frozen", "", {}, "estimated", count),
            Arm(f"CSN, up to {count}", "csn", references=count),
        ]
    return Study("How many neutral frames of a person?", tuple(arms))


def _bad_references() -> Study:
    arms = [Arm("NCG", "ncg")]
    for kind in ("own", "active", "stranger"):
        arms += [
            Arm(f"{label}, {kind}", method, references=kind)
            for label, method in (("BS", "bs"), ("frozen", "frozen"), ("CSN", "csn"))
        ]
    return Study("What does a bad reference cost?", tuple(arms))


def _with_or_without() -> Study:
    dropped = {"reference_dropout": 0.25}
    both = (
        Arm("CSN with dropped references, with", "csn", changes=dropped),
        Arm("CSN with dropped references, without", "csn", changes=dropped, references="none"),
    )
    question = "Can one network read with and without a reference?"
    return Study(question, (*PLAIN, Arm("CSN, with", "csn"), *both))


def _outputs() -> Study:
    arms = [*PLAIN, Arm("BS by .75", "bss")]
    arms += [Arm("outputs, monotone", "outputs"), Arm("outputs, quantile", "outputs quantile")]
    arms += [
        Arm("frozen, estimated", "frozen", shrinkage="estimated"),
        Arm("frozen, estimated, outputs", "frozen:outputs", shrinkage="estimated"),
    ]
    return Study("How far do numbers alone go?", (*arms, Arm("CSN, default form", "csn")))


# Networks of different kinds, trained whole as NCG from random weights; each at the entrance of its
# last stage, at a size that a processor trains in minutes.
WHOLE = {
    "resnet10t": {"backbone": "timm:resnet10t", "merge_at": "layer4"},
    "mobilenetv3_small": {"backbone": "timm:mobilenetv3_small_100", "merge_at": "blocks.4"},
    "convnext_atto": {"backbone": "timm:convnext_atto", "merge_at": "stages.3"},
}
SMALL = Preprocessing(size=96, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _frozen() -> Study:
    small = {"weights": "", "preprocessing": SMALL, "learning_rate": 1e-3}
    networks = {"ir_tiny": {}} | {name: {**small, **own} for name, own in WHOLE.items()}
    arms = []
    for name, changes in networks.items():
        arms += [Arm(f"{name}: NCG", "ncg", "ir_tiny", changes)]
        arms += [Arm(f"{name}: BS", "bs", "ir_tiny", changes)]
        arms += [Arm(f"{name}: outputs, monotone", "outputs", "ir_tiny", changes)]
        for share in (SHRINKAGE, "estimated"):
            label = f"{name}: frozen by {share}"
            arms += [Arm(label, "frozen", "ir_tiny", changes, share)]
            arms += [Arm(f"{label}, outputs", "frozen:outputs", "ir_tiny", changes, share)]
    question = "What does calibration give a trained network that stays as it is?"
    return Study(question, tuple(arms))


STUDIES: dict[str, Callable[[], Study]] = {
    "start": _start,
    "merges": _merges,
    "points": _points,
    "several-points": _several_points,
    "frozen": _frozen,
    "shrinkage": _shrinkage,
    "references": _references,
    "bad-references": _bad_references,
    "with-or-without": _with_or_without,
    "outputs": _outputs,
}


def neutral_frames(faces: FaceSet, rows: np.ndarray) -> np.ndarray:
    """Those of the rows in which no AU is active."""
    labels = faces.labels(faces.source.intensity_aus)
    return rows[(labels[rows] == 0).all(1)]


def with_references(faces: FaceSet, kind: str) -> FaceSet:
    """The face set with other reference frames.

    Args:
        faces: The face set.
        kind: "own" (as they are), "active" (of the person's frames that with the median sum of
            intensities among the upper half) or "stranger" (the reference of the next person).
    """
    if kind == "own":
        return faces
    labels = faces.labels(faces.source.intensity_aus).sum(1)
    people = faces.participants
    names = list(dict.fromkeys(people))
    chosen = faces.reference_rows.copy()
    for number, name in enumerate(names):
        mine = np.flatnonzero(people == name)
        if kind == "active":
            order = mine[np.argsort(labels[mine], kind="stable")]
            new = order[len(order) * 3 // 4]
        else:
            other = np.flatnonzero(people == names[(number + 1) % len(names)])
            new = faces.reference_rows[other[0]]
        chosen[mine] = new
    return dataclasses.replace(faces, reference_rows=chosen)

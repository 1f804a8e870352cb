"""Trainings on some people and what they predict for others, by every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from siamcal.datasets.base import FaceSet
from siamcal.errors import ConfigError
from siamcal.evaluation.methods import AUTO, SHRINKAGE, Parsed, label, parse
from siamcal.evaluation.point_choice import PointChoice, choose_point
from siamcal.model.pooling import pool_frames
from siamcal.model.siamese import CalibratingSiamese
from siamcal.recalibration.rest import rest_to_zero
from siamcal.training.batches import task_labels
from siamcal.training.frozen import Behind, keep_features
from siamcal.training.loop import fit
from siamcal.training.networks import fit_merge, wrap
from siamcal.training.points import sweep_points
from siamcal.training.prediction import predict
from siamcal.training.recipe import Recipe

__all__ = ["Trial", "recipe_of", "trainings"]


class Trial:
    """The trainings on some people, and what they predict for rows of others, (V, A) a method.

    Args:
        recipe: All settings.
        faces: The face set of the training people.
        training: Its training rows.
        folder: Each training keeps its checkpoint below it.
        name: Of the people, for folders ("fold0") and progress bars.
        tensorboard: Write TensorBoard logs.
        shrinkage: Of "bss" and "frozen"; "estimated", for "frozen" only, from those frames of the
            training people in which no AU is active. None: `SHRINKAGE`, and estimated of
            "frozen:outputs", which read training people better so.

    Attributes:
        choice: The merge point of `AUTO`, once a method asked for it.
    """

    def __init__(
        self,
        recipe: Recipe,
        faces: FaceSet,
        training: np.ndarray,
        folder: Path,
        name: str,
        *,
        tensorboard: bool = False,
        shrinkage: float | str | None = None,
    ) -> None:
        self.recipe, self.faces, self.training = recipe, faces, training
        self.folder, self.name, self.shrinkage = folder, name, shrinkage
        # The resting faces of the training people, one each (and view): what is known of people.
        self.neutral = np.unique(faces.reference_rows[training])
        self._tensorboard = tensorboard
        self._networks: dict[str, tuple[nn.Module, Recipe]] = {}
        self._behind: dict[nn.Module, Behind] = {}
        self.choice: PointChoice | None = None

    def predict(
        self,
        methods: Sequence[str],
        tested: FaceSet,
        rows: np.ndarray,
        pool: Mapping[int, np.ndarray] | None = None,
        *,
        without_reference: bool = False,
    ) -> dict[str, np.ndarray]:
        """Readings of some rows of a face set, (V, A) for each method.

        Args:
            methods: Their names.
            tested: The face set.
            rows: (V,) its rows.
            pool: Row of a reference -> rows of all frames that stand for the person instead.
            without_reference: Calibrated networks read with their null reference.

        Raises:
            ConfigError: An unknown method, one that needs training people where there are none, or
                one of intensities where occurrence is read.
        """
        parsed = {method: self._resolved(parse(method)) for method in methods}
        mapped = [m for m, parts in parsed.items() if "outputs" in (parts.kind, parts.form)]
        if mapped and self.recipe.task != "intensity":
            raise ConfigError(
                f"{', '.join(mapped)} maps rest to 0 within the range of intensities, which "
                f"{self.recipe.task} hasn't; leave it out of --methods, or use --task intensity."
            )
        needing = [m for m, parts in parsed.items() if parts.kind not in ("ncg", "bs", "outputs")]
        if needing and not len(self.training):
            raise ConfigError(
                f"{', '.join(needing)} learns from other people than those tested, but "
                f"{self.name} leaves nobody to learn from; use --methods ncg,bs or more people."
            )
        plain = {m: parts for m, parts in parsed.items() if parts.trained == "ncg"}
        preds = self._of_plain(plain, tested, rows, pool)
        for method, parts in parsed.items():
            if parts.trained == "csn":
                network, recipe = self._calibrated(method, parts)
                how = {"pool": pool, "without_reference": without_reference}
                preds[method] = self._readings(network, recipe, tested, rows, method, **how)
        return {method: preds[method] for method in methods}

    def _of_plain(
        self,
        methods: Mapping[str, Parsed],
        tested: FaceSet,
        rows: np.ndarray,
        pool: Mapping[int, np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        """Readings of the methods that read the plain network."""
        if not methods:
            return {}
        network = self._plain()
        references, index = np.unique(tested.reference_rows[rows], return_inverse=True)
        frames = [np.array([r]) if pool is None else pool[int(r)] for r in references]
        kinds = {parsed.kind for parsed in methods.values()}
        readings = {}
        if kinds != {"frozen"}:
            readings = self._of_numbers(kinds, network, tested, rows, frames, index)
        for method, parsed in methods.items():
            if parsed.kind == "frozen":
                calibrated, recipe = self._untrained(network, parsed)
                found = self._readings(calibrated, recipe, tested, rows, method, pool=pool)
                if parsed.form == "outputs":
                    rest = self._rest(calibrated, recipe, tested, references, frames)
                    found = rest_to_zero(found, rest, index)
                readings[method] = found
        return readings

    def _of_numbers(
        self,
        kinds: Collection[str],
        network: nn.Module,
        tested: FaceSet,
        rows: np.ndarray,
        frames: Sequence[np.ndarray],
        index: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Readings of the plain network, and what numbers alone make of them."""
        needed = np.unique(np.concatenate([rows, *frames]))
        plain = self._readings(network, self.recipe, tested, needed, "NCG")
        own = plain[np.searchsorted(needed, rows)]
        rest = _pooled(plain, needed, frames)
        neutral = rest[index]
        # OFC with baseline subtraction: the plain network's raw output on the reference of the
        # same participant and camera is subtracted, in detection from the logits.
        readings = {"ncg": own, "bs": own - neutral}
        if "bss" in kinds:
            mean = self._readings(network, self.recipe, self.faces, self.neutral, "NCG").mean(0)
            share = float(self._share(Parsed("bss")))
            readings["bss"] = own - (mean + share * (neutral - mean))
        if "outputs" in kinds:
            readings["outputs"] = rest_to_zero(own, rest, index)
        return readings

    def _rest(
        self,
        network: nn.Module,
        recipe: Recipe,
        tested: FaceSet,
        references: np.ndarray,
        frames: Sequence[np.ndarray],
    ) -> np.ndarray:
        """(R, A) what a calibrated network reads of each reference against itself.

        Of several frames that stand for a person, each is read against what is pooled of all.
        """
        own = tested.reference_rows.copy()  # those given may be a stranger's
        for reference, each in zip(references, frames, strict=True):
            own[each] = reference
        needed = np.unique(np.concatenate(frames))
        alone = dataclasses.replace(tested, reference_rows=own)
        pool = {int(r): each for r, each in zip(references, frames, strict=True)}
        found = self._readings(network, recipe, alone, needed, "references", pool=pool)
        return _pooled(found, needed, frames)

    def _plain(self) -> nn.Module:
        """The plain network: trained once, or the recipe's checkpoint as it is."""
        if "ncg" not in self._networks:
            self._networks["ncg"] = self._fit(self.recipe, "ncg", calibrated=False), self.recipe
        return self._networks["ncg"][0]

    def _resolved(self, parsed: Parsed) -> Parsed:
        """The method with the chosen merge point in the place of `AUTO`."""
        if parsed.merge_at != AUTO:
            return parsed
        if self.choice is None:
            self.choice = self._choose()
        return dataclasses.replace(parsed, merge_at=self.choice.chosen)

    def _choose(self) -> PointChoice:
        """The merge point at which "frozen" reads the training people best."""
        network: Any = self._plain()
        points = sweep_points(self.recipe, network.backbone)
        if self.recipe.freeze_pre:  # leaves nothing to train behind the output
            points = [point for point in points if point != "output"]

        def read(point: str) -> np.ndarray:
            calibrated, recipe = self._untrained(network, Parsed("frozen", merge_at=point))
            name = f"frozen@{point}, training people,"
            return self._readings(calibrated, recipe, self.faces, self.training, name)

        rows, task = self.training, self.recipe.task
        labels = task_labels(self.faces, task)[rows]
        return choose_point(points, read, labels, self.faces.participants[rows], task)

    def _calibrated(self, method: str, parsed: Parsed) -> tuple[nn.Module, Recipe]:
        """The calibrated network, trained once, and its recipe."""
        if method not in self._networks:
            recipe = recipe_of(parsed, self.recipe)
            self._networks[method] = self._fit(recipe, method, calibrated=True), recipe
        return self._networks[method]

    def _untrained(self, network: Any, parsed: Parsed) -> tuple[nn.Module, Recipe]:
        """The plain network calibrated as it is: its features are moved to the mean person's."""
        share = self._share(parsed)
        recipe = recipe_of(parsed, self.recipe, share)
        calibrated = wrap(network, recipe)
        frames = self._resting() if share == "estimated" else None
        fit_merge(calibrated, self.faces, self.training, frames)
        return calibrated.eval(), recipe

    def _share(self, parsed: Parsed) -> float | str:
        if self.shrinkage is not None:
            return self.shrinkage
        return "estimated" if parsed.form == "outputs" else SHRINKAGE

    def _resting(self) -> np.ndarray | None:
        """Training rows in which no AU is active; None where there are none."""
        labels = self.faces.labels(self.faces.source.intensity_aus)[self.training]
        resting = self.training[(labels == 0).all(1)]
        return resting if len(resting) else None

    def _fit(self, recipe: Recipe, method: str, *, calibrated: bool) -> nn.Module:
        place = method.replace(":", "-")
        return fit(
            recipe,
            self.faces,
            self.training,
            calibrated=calibrated,
            folder=self.folder / f"{place}_{recipe.task}" / self.name,
            description=f"{label(method)}, {recipe.task}, {self.name}",
            tensorboard=self._tensorboard,
        )

    def _readings(
        self,
        network: nn.Module,
        recipe: Recipe,
        tested: FaceSet,
        rows: np.ndarray,
        name: str,
        **how: Any,
    ) -> np.ndarray:
        """(len(rows), A)."""
        frozen = None
        untrained = recipe.checkpoint and not isinstance(network, CalibratingSiamese)
        if recipe.freeze_pre and not untrained:
            if network not in self._behind:
                self._behind[network] = Behind(network, recipe)
            behind = self._behind[network]
            copies = recipe.freeze_pre if tested is self.faces else 0
            frozen = behind, keep_features(behind, tested, recipe, copies)
        text = f"{label(name)} predicts"
        return predict(network, tested, rows, description=text, frozen=frozen, **how)


def _pooled(readings: np.ndarray, rows: np.ndarray, frames: Sequence[np.ndarray]) -> np.ndarray:
    """(R, A) of each reference, from readings (M, A) of ascending rows and its frames' rows."""
    resting = [list(torch.from_numpy(readings[np.searchsorted(rows, f)])) for f in frames]
    return torch.stack([pool_frames(f) for f in resting]).numpy()


def recipe_of(parsed: Parsed, recipe: Recipe, shrinkage: float | str = SHRINKAGE) -> Recipe:
    """The settings of the calibrated network that a method reads, from those of the comparison.

    Args:
        parsed: Of kind "csn" or "frozen"; the merge point `AUTO` stands for the recipe's.
        recipe: All settings.
        shrinkage: Of "frozen".
    """
    changes: dict[str, Any] = {}
    if parsed.merge_at not in (None, AUTO, recipe.merge_at):
        changes["merge_at"] = parsed.merge_at
        if parsed.kind == "frozen":
            changes["freeze_pre"] = 0  # features are kept at the recipe's point only
    if parsed.kind == "frozen":
        changes |= {"merge": "anchored", "merge_options": {"shrinkage": shrinkage}}
    elif parsed.form and parsed.form != recipe.merge:
        changes |= {"merge": parsed.form, "merge_options": {}}
    return dataclasses.replace(recipe, **changes)


def trainings(recipe: Recipe, methods: Sequence[str]) -> list[tuple[Recipe, bool]]:
    """The trainings of a fold: the settings of each, and whether it is calibrated.

    A checkpoint is the plain network as it is.
    """
    parsed = [parse(method) for method in methods]
    plain = any(p.trained == "ncg" or p.merge_at == AUTO for p in parsed) and not recipe.checkpoint
    calibrated = [(recipe_of(p, recipe), True) for p in parsed if p.trained == "csn"]
    return [(recipe, False)] * plain + calibrated

"""The method in one picture, of one rendered person: Figure 2 of arXiv:2409.00240 by our own code.

Two frames, their feature maps at the merge point, the difference, and what is read with and without
it. Everything shown is computed by the networks at hand; nothing is drawn by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from siamcal.datasets.base import DatasetSource, au_column
from siamcal.evaluation.methods import METHODS
from siamcal.faces import FacePipeline
from siamcal.faces.media import read_image
from siamcal.model.siamese import CalibratingSiamese
from siamcal.training.prediction import main_output

__all__ = ["Example", "find_example", "method_figure"]

# Shown bars: more can't be read at the width of a README.
_SHOWN_AUS = 5
_STRONG = 3  # intensity
_SHOWN_SIZE = 224  # pixels of the shown crops
_GREY = "#555555"
_TRUTH = "#222222"


@dataclass(frozen=True, eq=False)
class Example:
    """A neutral and a target frame of one person, and what the networks make of them.

    Attributes:
        aus: The A action units.
        merge_at: The merge point.
        neutral, target: Crops, uint8 (S, S, 3), cut as the networks' are.
        neutral_map, target_map: (H, W), root of the mean square of the features over channels.
        difference: (H, W), the same of the difference of the features.
        plain: (A,) intensities that the plain network reads in the target.
        rest: (A,) those that it reads in the neutral frame, where all are 0.
        calibrated: (A,) of the calibrated network.
        truth: (A,).
    """

    aus: tuple[int, ...]
    merge_at: str
    neutral: np.ndarray
    target: np.ndarray
    neutral_map: np.ndarray
    target_map: np.ndarray
    difference: np.ndarray
    plain: np.ndarray
    rest: np.ndarray
    calibrated: np.ndarray
    truth: np.ndarray


def find_example(
    plain: nn.Module, model: CalibratingSiamese, source: DatasetSource, people: int
) -> Example:
    """Of a data set's first people the one whose resting face the plain network misreads most.

    The target is, of that person's frames with a strong action, the one that shows least else.

    Args:
        plain: The network without calibration and its head, (B, 3, S, S) -> output of the head.
        model: A calibrated network with a config, for AUs of the data set.
        source: Frames in image files.
        people: How many are looked at.
    """
    settings = model.config.preprocessing
    columns = [au_column(au) for au in model.config.aus]
    found = []
    with FacePipeline(settings) as pipeline:
        for person in source.participants[:people]:
            table = source.table[source.table["participant"] == person]
            files = table["source"].to_list()
            labels = table[columns].to_numpy(np.float64)
            last = _plainest(labels)
            first = int(table["is_reference"].to_numpy().argmax())
            images = [read_image(files[row]) for row in (first, last)]
            # Two faces, found once: the networks' crops, and the same without contrast and mask.
            faces = [pipeline.detect(image, max_faces=1) for image in images]
            if not all(faces):
                continue
            crops = [pipeline.align(im, f[0]) for im, f in zip(images, faces, strict=True)]
            example = _read(plain, model, np.stack(crops), labels[last])
            found.append((float(np.abs(example.rest).mean()), images, faces, example))
    _, images, faces, example = max(found, key=lambda one: one[0])
    shown = replace(settings, size=_SHOWN_SIZE, contrast="none", mask="none", illumination="none")
    with FacePipeline(shown) as pipeline:
        neutral, target = (pipeline.align(i, f[0]) for i, f in zip(images, faces, strict=True))
    return replace(example, neutral=neutral, target=target)


def _plainest(labels: np.ndarray) -> int:
    """The frame with a strong action and the least sum; the strongest where none is strong."""
    strongest = labels.max(1)
    strong = strongest >= min(_STRONG, strongest.max())
    return int(np.where(strong, labels.sum(1), np.inf).argmin())


def method_figure(example: Example) -> Figure:
    """The two frames, their feature maps, the difference and the readings, from left to right."""
    figure = Figure(figsize=(9, 3.5), dpi=200)
    grid = figure.add_gridspec(
        2,
        4,
        width_ratios=[1, 1, 1, 2.2],
        left=0.035,
        right=0.985,
        top=0.86,
        bottom=0.12,
        wspace=0.3,
        hspace=0.12,
    )
    frames = [figure.add_subplot(grid[row, 0]) for row in (0, 1)]
    maps = [figure.add_subplot(grid[row, 1]) for row in (0, 1)]
    middle = figure.add_subplot(grid[:, 2])
    _pictures(frames, example)
    _maps(maps, middle, example)
    _bars(figure.add_subplot(grid[:, 3]), example)
    _arrows(figure, frames, maps, middle)
    return figure


@torch.inference_mode()
def _read(
    plain: nn.Module, model: CalibratingSiamese, crops: np.ndarray, truth: np.ndarray
) -> Example:
    """What the networks make of a neutral and a target crop (2, S, S, 3)."""
    images = model.config.preprocessing.to_tensor(crops)
    features = model.split.pre(images).tensors[0].float()  # (2, C, H, W)
    own = main_output(plain(images)).numpy().clip(0, 5)  # as every table holds them
    calibrated = main_output(model(images[1:], images[:1])).numpy()[0].clip(0, 5)
    return Example(
        aus=tuple(model.config.aus),
        merge_at=model.place,
        neutral=crops[0],
        target=crops[1],
        neutral_map=_strength(features[0]),
        target_map=_strength(features[1]),
        difference=_strength(features[0] - features[1]),
        plain=own[1],
        rest=own[0],
        calibrated=calibrated,
        truth=np.asarray(truth),
    )


def _strength(features: torch.Tensor) -> np.ndarray:
    """(C, H, W) -> (H, W), root of the mean square over channels."""
    return features.square().mean(0).sqrt().numpy()


def _pictures(axes: Iterable[Any], example: Example) -> None:
    for one, image, title in zip(
        axes,
        (example.neutral, example.target),
        ("neutral frame", "target frame"),
        strict=True,
    ):
        one.imshow(image)
        one.set_ylabel(title, fontsize=9, labelpad=4)
        _bare(one)


def _maps(axes: list[Any], middle: Any, example: Example) -> None:
    both = (example.neutral_map, example.target_map)
    top = max(float(one.max()) for one in (*both, example.difference))
    for one, values in zip(axes, both, strict=True):
        one.imshow(values, cmap="magma", vmin=0, vmax=top)
        _bare(one)
    middle.imshow(example.difference, cmap="magma", vmin=0, vmax=top)
    _bare(middle)
    axes[0].set_title(f"features at {example.merge_at}", fontsize=9)
    middle.set_title("their difference", fontsize=9)


def _bars(axes: Any, example: Example) -> None:
    """Readings of the AUs that move most or are misread most, strongest first."""
    worth = np.maximum(example.truth, np.abs(example.plain - example.truth))
    shown = np.sort(np.argsort(-worth, kind="stable")[:_SHOWN_AUS])
    kinds = (
        ("without", example.plain, METHODS["ncg"].colour),
        ("with the neutral frame", example.calibrated, METHODS["csn"].colour),
        ("truth", example.truth, _TRUTH),
    )
    places = np.arange(len(shown))
    for number, (name, values, colour) in enumerate(kinds):
        axes.bar(places + (number - 1) * 0.27, values[shown], 0.25, color=colour, label=name)
    axes.axhline(0, color=_GREY, lw=0.8)
    axes.set_xticks(places, [f"AU{example.aus[a]}" for a in shown], fontsize=9)
    axes.tick_params(axis="y", labelsize=8, color=_GREY)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set_ylabel("intensity (0-5)", fontsize=9)
    values = np.concatenate([kind[1][shown] for kind in kinds])
    axes.set_ylim(min(-0.3, values.min() - 0.2), max(5.0, values.max() + 0.2))
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.legend(
        ncols=3,
        fontsize=8,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.08, 1.0),
        handlelength=1.0,
        columnspacing=1.0,
    )


def _arrows(figure: Figure, frames: list[Any], maps: list[Any], middle: Any) -> None:
    """From each frame to its map, and from both maps to the difference."""
    style: Any = {"arrowstyle": "-|>", "color": _GREY, "lw": 1.0, "shrinkA": 3, "shrinkB": 3}
    pairs = [(a, b, 0.5) for a, b in zip(frames, maps, strict=True)]
    pairs += [(maps[0], middle, 0.75), (maps[1], middle, 0.25)]
    for start, end, height in pairs:
        end.annotate(
            "",
            xy=(0, height),
            xycoords=end.transAxes,
            xytext=(1, 0.5),
            textcoords=start.transAxes,
            arrowprops=style,
        )


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)

"""The frames a reference was chosen from, as one picture: so that whoever asks can look at them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcal.faces import Face
from siamcal.faces.boxes import cut_window

__all__ = ["MOST_SHOWN", "Shown", "draw_candidates", "face_picture", "own_candidates"]

MOST_SHOWN = 12
SIDE = 192  # pixels
# The picture is so many sides of the detector's box wide, which spans brows to chin.
WIDTH = 1.8
SOFTWARE = "siamcal candidates"
CHOSEN, OTHERS, DOUBT = "#1f6f8b", "#d0d0d0", "#c4573a"
COLUMNS, LETTERS = 4, 37  # a row, a line


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame as it is shown.

    Attributes:
        picture: (SIDE, SIDE, 3) uint8, of `face_picture`.
        place: Which frame it is, in words.
        words: What speaks for and against it.
        sound: Whether nothing speaks against it.
        mark: "chosen", or "refused" where the best isn't neutral either; "" of the others.
    """

    picture: np.ndarray
    place: str
    words: tuple[str, ...]
    sound: bool
    mark: str = ""


def face_picture(rgb: np.ndarray, face: Face) -> np.ndarray:
    """The face with some of what is around it, (SIDE, SIDE, 3) uint8.

    Args:
        rgb: (H, W, 3) uint8, the frame.
        face: The face in it.
    """
    left, top, width, height = face.box
    reach = WIDTH / 2 * max(width, height)
    x, y = left + width / 2, top + 0.45 * height
    edges = (round(x - reach), round(y - reach), round(x + reach), round(y + reach))
    return cv2.resize(cut_window(rgb, *edges), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def own_candidates(path: Path) -> bool:
    """Whether a picture was drawn by `draw_candidates`."""
    from siamcal.inference.traces import drawn_by

    return drawn_by(path, SOFTWARE)


def draw_candidates(shown: Sequence[Shown], title: str, path: Path) -> None:
    """Draw frames in their order into a PNG.

    Args:
        shown: The frames, the best first.
        title: Above all.
        path: The picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = math.ceil(len(shown) / COLUMNS)
    height = 3.05 * rows + 0.45
    with matplotlib.rc_context({"font.size": 8, "figure.dpi": 110}):
        figure = Figure(figsize=(9.6, height))
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, (axes, one) in enumerate(zip(grid.flat, shown, strict=False), 1):
            _draw_one(axes, one, number)
        figure.text(0.02, 1 - 0.25 / height, title, fontsize=9, va="center")
        edges: Any = {"left": 0.02, "right": 0.98, "top": 1 - 0.7 / height, "bottom": 0.75 / height}
        figure.subplots_adjust(**edges, wspace=0.08, hspace=0.5)
        figure.savefig(path, metadata={"Software": SOFTWARE})


def _draw_one(axes: Any, one: Shown, number: int) -> None:
    colour = CHOSEN if one.mark == "chosen" else DOUBT if one.mark else OTHERS
    axes.axis("on")
    axes.imshow(one.picture)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, lw=4 if one.mark else 1)
    mark = f"  {one.mark.upper()}" if one.mark else ""
    weight = "bold" if one.mark else "normal"
    axes.set_title(f"{number}. {one.place}{mark}", fontsize=8, loc="left", weight=weight, pad=5)
    lines = [line for text in one.words for line in textwrap.wrap(text, LETTERS)]
    ink = "#333333" if one.sound else DOUBT
    axes.text(0, -0.04, "\n".join(lines[:5]), transform=axes.transAxes, va="top", color=ink)

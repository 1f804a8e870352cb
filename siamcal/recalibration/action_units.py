"""Which action unit each column of a tool's table reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from siamcal.recalibration.people import PersonTable
from siamcal.recalibration.tools import BLENDSHAPES

__all__ = ["SHAPES_OF_AU", "au_readings", "readings_of_shapes", "reads_shapes", "sides_joined"]

#: AU -> MediaPipe's blendshapes of the same action, without their side. The names are ARKit's and
#: say what moves; which AU that is, is told by FACS (Ekman, Friesen, Hager 2002): AU 6 narrows the
#: eyes as well as raising the cheeks, AU 25 moves either lip. AU 9 has none that works: noseSneer
#: never rises on any face tried. `siamcal bench realism` holds the rows of its twelve AUs against
#: rendered faces that show one AU at a time; the others stand on their names alone.
SHAPES_OF_AU: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUp",),
    4: ("browDown",),
    5: ("eyeWide",),
    6: ("eyeSquint", "cheekSquint"),
    7: ("eyeSquint",),
    10: ("mouthUpperUp",),
    12: ("mouthSmile",),
    14: ("mouthDimple",),
    15: ("mouthFrown",),
    16: ("mouthLowerDown",),
    17: ("mouthShrugLower", "mouthShrugUpper"),
    18: ("mouthPucker",),
    20: ("mouthStretch",),
    22: ("mouthFunnel",),
    24: ("mouthPress",),
    25: ("mouthLowerDown", "mouthUpperUp"),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    43: ("eyeBlink",),
    45: ("eyeBlink",),
}
_NUMBER = re.compile(r"\D*(\d+)\D*")


def sides_joined(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Blendshapes by their names without side, the mean of left and right.

    Args:
        shapes: Name -> a number or an array.
    """
    joined: dict[str, list[Any]] = {}
    for name, value in shapes.items():
        joined.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(value)
    return {name: sum(values) / len(values) for name, values in joined.items()}


def readings_of_shapes(shapes: Mapping[str, Any]) -> dict[int, Any]:
    """AU -> mean of the blendshapes in `SHAPES_OF_AU`; AUs of which one is missing are left out.

    Args:
        shapes: Name with side -> a number or an array.
    """
    joined = sides_joined(shapes)
    return {
        au: sum(joined[name] for name in names) / len(names)
        for au, names in SHAPES_OF_AU.items()
        if all(name in joined for name in names)
    }


def reads_shapes(table: PersonTable) -> bool:
    """Whether a table's AUs are read from blendshapes, as no column of it reads an AU itself."""
    return all(name in BLENDSHAPES for name in table.layout.readings)


def au_readings(table: PersonTable) -> dict[int, np.ndarray]:
    """AU -> (N,) readings in the tool's units, NaN where a row isn't valid or a cell is empty."""
    values = np.where(table.valid[:, None], table.values, np.nan)
    columns = dict(zip(table.layout.readings, values.T, strict=True))
    if reads_shapes(table):
        return readings_of_shapes(columns)
    found = {_au(name): column for name, column in columns.items() if name not in BLENDSHAPES}
    return dict(sorted(found.items()))


def _au(column: str) -> int:
    """AU01_r, au_1_intensity, AU01 -> 1."""
    number = _NUMBER.fullmatch(column)
    assert number is not None, column  # by the patterns in `TOOLS`
    return int(number[1])

"""Draw the contact sheets of the documentation: docs/images/synth_*.jpg.

    python scripts/draw_sheets.py

A test compares `synth_people.jpg` with what the renderer makes on the machine at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamcal.synth.plan import make_plan
from siamcal.synth.preview import contact_sheet
from siamcal.synth.render import encode_picture

IMAGES = Path(__file__).parent.parent / "docs" / "images"
QUALITY = 85

#: Sheet -> the plan's options.
SHEETS: dict[str, dict[str, Any]] = {
    "people": {"participants": 18, "image_size": 224},
    "bias": {"participants": 6, "image_size": 192},
    "actions": {"participants": 2, "image_size": 192, "bias": 0.0},
    "levels": {"participants": 1, "image_size": 192, "bias": 0.0},
    "occlusion": {"participants": 6, "image_size": 224, "views": ("left", "right")},
}


def draw(sheet: str) -> bytes:
    """Return the JPEG of a sheet."""
    return encode_picture(
        contact_sheet(make_plan("small", **SHEETS[sheet]), sheet), ".jpg", QUALITY
    )


if __name__ == "__main__":
    for name in SHEETS:
        path = IMAGES / f"synth_{name}.jpg"
        path.write_bytes(draw(name))
        print(path)

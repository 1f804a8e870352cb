"""Draw the documentation's rendered pictures: contact sheets docs/images/synth_*.jpg, method.png.

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
# The picture of the method shows the one of these people at rest whom the calibrator misreads most
# without the neutral frame.
METHOD_PEOPLE = 12

#: Of the default job's people so many are shown, far apart from one another.
SPREAD = 18
#: Sheet -> the plan's options.
SHEETS: dict[str, dict[str, Any]] = {
    "people": {"participants": 60, "image_size": 224},
    "bias": {"participants": 6, "image_size": 192},
    "actions": {"participants": 2, "image_size": 192, "bias": 0.0},
    "levels": {"participants": 1, "image_size": 192, "bias": 0.0},
    "occlusion": {"participants": 6, "image_size": 224, "views": ("left", "right")},
}


def draw(sheet: str) -> bytes:
    """Return the JPEG of a sheet."""
    spread = SPREAD if sheet == "people" else None
    plan = make_plan("small", **SHEETS[sheet])
    return encode_picture(contact_sheet(plan, sheet, spread), ".jpg", QUALITY)


def draw_method(path: Path) -> None:
    """Write the method's picture: the packaged calibrator, with the neutral frame and without."""
    from torch import nn

    from siamcal.datasets import load_dataset
    from siamcal.evaluation.figures_method import find_example, method_figure
    from siamcal.inference.models import load_model

    class Uncalibrated(nn.Module):
        def forward(self, images: Any) -> Any:
            return model(images, None)

    model = load_model()
    found = find_example(Uncalibrated(), model, load_dataset("synth"), METHOD_PEOPLE)
    method_figure(found).savefig(path)


if __name__ == "__main__":
    for name in SHEETS:
        path = IMAGES / f"synth_{name}.jpg"
        path.write_bytes(draw(name))
        print(path)
    draw_method(IMAGES / "method.png")
    print(IMAGES / "method.png")

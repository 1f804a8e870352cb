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
# The picture of the method shows the one of these people whom the plain network misreads most.
METHOD_PEOPLE = 12
# Every how many frames of the other people its plain network's last layer is fitted to, and how
# strongly that is drawn to 0.
FITTED_EVERY = 8
RIDGE = 0.1

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


def draw_method(path: Path) -> None:
    """Write the method's picture: the packaged calibrator, and the network it was trained from."""
    from siamcal.datasets import load_dataset
    from siamcal.evaluation.figures_method import find_example, method_figure
    from siamcal.inference.models import load_model

    model = load_model()
    source = load_dataset("synth")
    plain = plain_network(model, source)
    method_figure(find_example(plain, model, source, METHOD_PEOPLE)).savefig(path)


def plain_network(model: Any, source: Any) -> Any:
    """NCG of the calibrator's start weights: their last layer, which they lack, is fitted.

    By ridge regression on rendered people who are in neither the picture nor the start weights'
    training; what lies before it has learnt to read AUs without calibration.
    """
    import numpy as np
    import torch

    from siamcal.datasets.base import au_column
    from siamcal.faces import FacePipeline
    from siamcal.faces.media import read_image
    from siamcal.files import asset
    from siamcal.model.create import create_backbone
    from siamcal.model.heads import make_head
    from siamcal.model.weights import load_face_weights
    from siamcal.training.networks import NonCalibrated

    aus = model.config.aus
    head = make_head("intensity", len(aus))
    network = create_backbone(model.config.backbone, head.num_outputs).eval()
    load_face_weights(network, asset("ir_tiny_start.safetensors"))
    others = source.table[source.table["participant"].isin(source.participants[METHOD_PEOPLE:])]
    others = others.iloc[::FITTED_EVERY]
    settings = model.config.preprocessing
    with FacePipeline(settings) as pipeline:
        crops = np.stack([pipeline.crop(read_image(path)) for path in others["source"]])
    seen: list[torch.Tensor] = []
    hook = network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(settings.to_tensor(crops))
        hook.remove()
        features = seen[0].double()
        labels = torch.from_numpy(others[[au_column(au) for au in aus]].to_numpy(np.float64))
        mean, middle = features.mean(0), labels.mean(0)
        spread = features.std(0) + 1e-6
        x = (features - mean) / spread
        gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(gram, x.T @ (labels - middle)).T / spread  # (A, features)
        network.fc.weight.zero_()
        network.fc.bias.zero_()
        network.fc.weight[: len(aus)] = weight.float()
        network.fc.bias[: len(aus)] = (middle - weight @ mean).float()
    return NonCalibrated(network, head).eval()


if __name__ == "__main__":
    for name in SHEETS:
        path = IMAGES / f"synth_{name}.jpg"
        path.write_bytes(draw(name))
        print(path)
    draw_method(IMAGES / "method.png")
    print(IMAGES / "method.png")

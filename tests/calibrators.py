"""Small calibrators with weights that no constructor would give, and how to compare them."""

import json
from pathlib import Path

import torch
from torch import nn

from siamcal.model.create import create_backbone
from siamcal.model.heads import AUOutput
from siamcal.model.siamese import CalibratingSiamese

AUS = (1, 12, 25)


def stirred(backbone: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and running statistics that no constructor would give."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in backbone.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(noise * 0.1 + (1.0 if "var" in name else 0.0))
    return backbone


def tiny(
    head: nn.Module | None = None, merge_at: str = "layer4", **options: object
) -> CalibratingSiamese:
    outputs = getattr(head, "num_outputs", 5)
    backbone = stirred(create_backbone("ir_tiny", num_outputs=outputs))
    return CalibratingSiamese(backbone, merge_at, head=head, **options).eval()  # type: ignore[arg-type]


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def flat(output: object) -> torch.Tensor:
    if isinstance(output, AUOutput):
        return torch.cat([output.intensity, output.ordinal_logits.flatten(1)], 1)
    assert isinstance(output, torch.Tensor)
    return output


@torch.no_grad()
def predictions(model: CalibratingSiamese, side: int = 0) -> torch.Tensor:
    shape = (3, 3, 112, 112) if model.config is None else (3, *model.config.input_shape)
    return flat(model(*images(*((3, 3, side, side) if side else shape))))


def rewrite(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))

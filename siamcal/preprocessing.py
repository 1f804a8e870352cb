"""How a frame becomes the network's input: one frozen description that travels with every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siamcal.errors import ConfigError
from siamcal.settings import check_choices, check_range, check_whole

if TYPE_CHECKING:
    import torch

__all__ = ["ALIGNMENTS", "CONTRASTS", "DETECTIONS", "ILLUMINATIONS", "MASKS", "Preprocessing"]

ALIGNMENTS = ("rigid", "rigid_wide", "rigid_refined", "rigid_close", "ffhq_quad", "csn_quad")
DETECTIONS = ("search", "once")
ILLUMINATIONS = ("none", "csn_released", "csn_rgb")
CONTRASTS = ("none", "local")
MASKS = ("none", "oval")


@dataclass(frozen=True)
class Preprocessing:
    """Frame -> aligned uint8 crop -> float tensor.

    Attributes:
        size: Side of the square crop in pixels.
        align: "rigid" (eyes and nose bridge, ours), "rigid_wide" (placed alike, with the whole
            head), "rigid_refined" (the same by landmarks that are found anew in that crop, which
            are steadier), "rigid_close" (placed alike, as close as dlib's face chips), "csn_quad"
            (the paper's, uses the jaw, pixel for pixel as its authors released it) or "ffhq_quad"
            (the same rectangle with the chin's full distance, not aliased).
        illumination: "none", "csn_released" (the paper's step as its authors released it, with the
            luma weights of red and blue swapped) or "csn_rgb" (the same with correct channels).
        contrast: "none" or "local" (local contrast normalisation).
        mask: "none" or "oval" (everything outside the face's oval becomes grey).
        mean: Subtracted from RGB in [0, 1], per channel.
        std: Divides after the subtraction, per channel.
        detection: How frames are searched, a data set's and those that are predicted: "search" (the
            frame, then with a border, then in tiles) or "once" (the paper's: the frame only).
        jpeg: Quality of the JPEG that the crop goes through, 1 to 100 (the paper's frames that
            are .jpg: 95); 0 is none.
    """

    size: int = 112
    align: str = "rigid"
    illumination: str = "none"
    contrast: str = "local"
    mask: str = "oval"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    detection: str = "search"
    jpeg: int = 0

    def __post_init__(self) -> None:
        check_choices(
            self,
            align=ALIGNMENTS,
            illumination=ILLUMINATIONS,
            contrast=CONTRASTS,
            mask=MASKS,
            detection=DETECTIONS,
        )
        check_whole("preprocessing.size", self.size, 1, 4096)
        check_whole("preprocessing.jpeg", self.jpeg, 0, 100)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise ConfigError(f"preprocessing.{name} takes three numbers, but got {values!r}.")
            for value in values:
                check_range(f"preprocessing.{name}", value, -1e4, 1e4)
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"preprocessing.std divides and must be over 0, but got {self.std}.")

    def to_tensor(self, crops: Any) -> torch.Tensor:
        """uint8 crops (H, W, 3) or (N, H, W, 3) -> float32 tensor (N, 3, H, W)."""
        # Recipes and the command line need the description alone: torch costs seconds.
        import numpy as np
        import torch

        if not isinstance(crops, torch.Tensor):
            crops = torch.from_numpy(np.ascontiguousarray(crops))
        if crops.ndim == 3:
            crops = crops[None]
        tensor: torch.Tensor = crops.permute(0, 3, 1, 2).float().div_(255.0)  # (N, 3, H, W)
        if any(self.mean) or any(s != 1.0 for s in self.std):
            mean = torch.tensor(self.mean, device=tensor.device).view(1, 3, 1, 1)
            std = torch.tensor(self.std, device=tensor.device).view(1, 3, 1, 1)
            tensor = (tensor - mean) / std
        return tensor.contiguous()

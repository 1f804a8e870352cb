"""siamcal: one-frame calibration for facial action unit networks.

`CalibratingSiamese(backbone, merge_at="layer4")` splits a network at a named place; one neutral
reference frame of a person goes through the first part, is subtracted from the target frame's
features, and the rest of the network reads the action units from the difference
(arXiv:2409.00240).
"""

from typing import Any

__version__ = "0.2.0"

# Name -> module: loaded at first use, so that `import siamcal` costs milliseconds.
_EXPORTS = {
    "CalibratingSiamese": "siamcal.model.siamese",
    "Calibrator": "siamcal.inference.calibrator",
    "MergePoint": "siamcal.graph",
    "MergePointError": "siamcal.errors",
    "OutputCalibration": "siamcal.recalibration.calibration",
    "Preprocessing": "siamcal.preprocessing",
    "Recipe": "siamcal.training.recipe",
    "Reference": "siamcal.model.reference",
    "create_backbone": "siamcal.model.create",
    "list_merge_points": "siamcal.graph",
    "load_face_weights": "siamcal.model.weights",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'siamcal' has no attribute {name!r}")
    from siamcal.registry import late_module

    return getattr(late_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__

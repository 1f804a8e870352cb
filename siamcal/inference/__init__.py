"""From images and videos of one person to a table of AU intensities, relative to a reference."""

from siamcal.inference.models import load_model
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.references import (
    PersonReference,
    choose_reference,
    load_profile,
    read_reference,
    save_profile,
)
from siamcal.inference.run import Summary, predict_to_table

__all__ = [
    "FrameResult",
    "PersonReference",
    "Predictor",
    "Summary",
    "choose_reference",
    "load_model",
    "load_profile",
    "predict_to_table",
    "read_reference",
    "save_profile",
]

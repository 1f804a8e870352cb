"""From images and videos of one person to a table of AU intensities, relative to a reference."""

from siamcal.inference.choosing import choose_reference
from siamcal.inference.models import load_model
from siamcal.inference.prediction import FrameResult, Predictor
from siamcal.inference.profiles import calibrate, load_profile, save_profile
from siamcal.inference.references import PersonReference, read_reference
from siamcal.inference.run import Summary, predict_to_table

__all__ = [
    "FrameResult",
    "PersonReference",
    "Predictor",
    "Summary",
    "calibrate",
    "choose_reference",
    "load_model",
    "load_profile",
    "predict_to_table",
    "read_reference",
    "save_profile",
]

"""From a frame to the network's input: find the face, align it, normalise it."""

from siamcal.extras import needed_for

with needed_for("Reading faces", "predict"):
    from siamcal.faces.detection import Face, FaceDetector
    from siamcal.faces.neutrality import ReferenceJudgement, judge_reference
    from siamcal.faces.pipeline import FacePipeline

__all__ = ["Face", "FaceDetector", "FacePipeline", "ReferenceJudgement", "judge_reference"]

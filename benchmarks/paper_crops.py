"""How much each step of the paper's cropping weighs, and what can't be had of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from siamcal.errors import ConfigError
from siamcal.faces import FacePipeline
from siamcal.faces.alignment import CHIN, pad_to_square, warp
from siamcal.faces.detection import Face
from siamcal.faces.illumination import normalise_illumination
from siamcal.faces.released import JAW_9, face_axes, released_quad, through_jpeg
from siamcal.paper import PAPER_PREPROCESSING
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.frames import picture
from siamcal.synth.plan import make_plan, tasks

__all__ = ["Weights", "paper_crops"]

_SIZE = PAPER_PREPROCESSING.size
_BEFORE = replace(PAPER_PREPROCESSING, align="ffhq_quad", detection="search", jpeg=0)


class Weights(dict[str, float]):
    """What is measured -> its mean over the frames, printed as a Markdown table."""

    def __str__(self) -> str:
        rows = [f"| {name} | {value:.2f} |" for name, value in self.items()]
        return "\n".join(["| measure | mean |", "| --- | --- |", *rows])


@benchmarks.register("paper-crops")
def paper_crops(frames: int = 54, image_size: int = 768) -> Weights:
    """Crops of rendered people with one step of the paper's cropping done otherwise at a time.

    Grey levels are mean absolute differences of the 112-px crops after the illumination step.

    Args:
        frames: How many people are rendered, a frame each, half of them from the left.
        image_size: Side of the pictures; faces take half of it.

    Raises:
        ConfigError: There are fewer than 2 frames.
    """
    if frames < 2:
        raise ConfigError(f"frames is {frames}; allowed: 2 and more.")
    views = ("front", "left")
    plan = make_plan("small", participants=frames, frames=1, views=views, image_size=image_size)
    of_plan, generator = tasks(plan), np.random.default_rng(0)
    found: list[dict[str, float]] = []
    with FacePipeline(PAPER_PREPROCESSING) as once, FacePipeline(_BEFORE) as before:
        for number in progress_bar(range(frames), description="crop", unit="frame"):
            rgb = picture(plan, of_plan[2 * number + number % 2], 30)[0]
            faces = once.detect(rgb, max_faces=1)
            if faces:
                found.append(_of_frame(rgb, faces[0], once, before, generator))
    return Weights({name: float(np.mean([f[name] for f in found])) for name in found[0]})


def _of_frame(
    rgb: np.ndarray,
    face: Face,
    once: FacePipeline,
    before: FacePipeline,
    generator: np.random.Generator,
) -> dict[str, float]:
    crop, matrix = released_quad(rgb, face, _SIZE)
    plain = _finished(crop)
    down, chin, distance = _extents(face.landmarks)
    width = float(np.hypot(*np.ptp(face.landmarks[[127, 356], :2], axis=0)))

    def otherwise(rgb: np.ndarray, points: np.ndarray) -> float:
        return _apart(
            plain, _finished(released_quad(rgb, replace(face, landmarks=points), _SIZE)[0])
        )

    def shifted(pixels: float) -> np.ndarray:
        noise = generator.normal(0, pixels, face.landmarks.shape)
        return (face.landmarks + noise).astype(np.float32)

    shape = crop.shape[1], crop.shape[0]
    return {
        "width of the face in the frame, px": width,
        "eyes to jaw point 9 along the face's axis (theirs), px": down,
        "eyes to the chin along the axis, px": chin,
        "eyes to the chin, whole distance (ffhq_quad), px": distance,
        "whole distance instead, grey levels": otherwise(rgb, _moved(face.landmarks, distance)),
        "chin on the axis instead, grey levels": otherwise(rgb, _moved(face.landmarks, chin)),
        "area average instead of bilinear, grey levels": _apart(
            plain, _finished(warp(rgb, matrix, *shape))
        ),
        "JPEG of quality 95, grey levels": _apart(plain, through_jpeg(plain, 95)),
        "all of these: ffhq_quad, grey levels": _apart(
            through_jpeg(plain, 95), before.align(rgb, face)
        ),
        "landmarks off by 1 % of the face's width, grey levels": otherwise(
            rgb, shifted(0.01 * width)
        ),
        "frame through JPEG of quality 95 first, grey levels": otherwise(
            through_jpeg(rgb, 95), face.landmarks
        ),
    }


def _finished(crop: np.ndarray) -> np.ndarray:
    """What the paper does after the cut, but for the JPEG."""
    lit = normalise_illumination(crop, PAPER_PREPROCESSING.illumination)
    return pad_to_square(lit, np.eye(2, 3), _SIZE)[0]


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def _extents(landmarks: np.ndarray) -> tuple[float, float, float]:
    """Along the axis to jaw point 9, along the axis to the chin, whole distance to the chin."""
    eyes, _, down = face_axes(landmarks[:, :2].astype(float))
    jaw, chin = (landmarks[point, :2].astype(float) - eyes for point in (JAW_9, CHIN))
    return float(jaw @ down), float(chin @ down), float(np.hypot(*chin))


def _moved(landmarks: np.ndarray, distance: float) -> np.ndarray:
    """Landmarks whose jaw point 9 lies so far down the face's axis."""
    eyes, _, down = face_axes(landmarks[:, :2].astype(float))
    moved = landmarks.copy()
    moved[JAW_9, :2] = eyes + distance * down
    return moved

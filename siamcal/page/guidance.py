"""What to change until a camera's frame serves as a person's neutral reference, point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from siamcal.faces import Face, FacePipeline, judge_reference
from siamcal.faces.alignment import rigid_placement

__all__ = ["Check", "Look", "look_at", "sharpness"]

# What to watch, what to do, and how the sentences of `judge_reference` about it begin.
_POINTS = (
    ("straight", "look into the camera", "the head is turned"),
    ("at rest", "relax the face, close the mouth", "the face isn't at rest"),
    ("eyes open", "open the eyes", "the eyes are shut"),
    ("near", "come nearer", "the face is small"),
    ("whole", "come into the middle", "the face is cut off"),
    ("uncovered", "take away what covers the face", "something seems to cover"),
)
_SIDE = 96  # pixels of the picture that is measured; the outer eye corners lie 42 apart
# Nine sharp faces, rendered ones and a photograph, have .48 to .96; blurred by 4 % of the eyes'
# distance they have at most .22.
LEAST_SHARPNESS = 0.25


@dataclass(frozen=True)
class Check:
    """One point.

    Attributes:
        name: What is watched.
        good: Whether nothing speaks against the frame there.
        advice: What to do, and what was measured; "" where it is good.
    """

    name: str
    good: bool
    advice: str = ""


@dataclass(frozen=True, eq=False)
class Look:
    """What a frame shows.

    Attributes:
        checks: All points; without a face the first one only.
        face: The widest face; None without one.
    """

    checks: tuple[Check, ...]
    face: Face | None = None

    @property
    def good(self) -> bool:
        """Whether the frame would serve as a reference."""
        return all(check.good for check in self.checks)


def look_at(rgb: np.ndarray, pipeline: FacePipeline) -> Look:
    """Judge a frame as a neutral reference.

    Args:
        rgb: (H, W, 3) uint8.
        pipeline: Finds the face.

    Raises:
        ConfigError: `rgb` isn't an RGB frame.
    """
    faces = pipeline.detect(rgb, max_faces=2)
    if not faces:
        none = "no face is seen: come into the picture, make light"
        return Look((Check("one face", False, none),))
    several = "several are seen, the widest counts" if len(faces) > 1 else ""
    alone = Check("one face", not several, several)
    problems = judge_reference(rgb, faces[0], pipeline.detector).problems
    return Look((alone, *_points(problems), _sharp(rgb, faces[0])), faces[0])


def _points(problems: Sequence[str]) -> list[Check]:
    """The sentences of a judgement, each to its point; one that belongs to none has its own."""
    left, checks = list(problems), []
    for name, what_to_do, start in _POINTS:
        mine = [text for text in left if text.startswith(start)]
        left = [text for text in left if text not in mine]
        checks.append(Check(name, not mine, f"{what_to_do}: {'; '.join(mine)}" if mine else ""))
    return checks + [Check("else", False, text) for text in left]


def _sharp(rgb: np.ndarray, face: Face) -> Check:
    found = sharpness(rgb, face)
    if found >= LEAST_SHARPNESS:
        return Check("sharp", True)
    return Check("sharp", False, f"hold still, wipe the lens, make light (sharpness {found:.2f})")


def sharpness(rgb: np.ndarray, face: Face) -> float:
    """Finest detail of a face over detail four times as coarse, at one size for all faces.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it.
    """
    placement = rigid_placement(face.landmarks)
    smaller = placement.eye_distance > _SIDE / 2.3
    flags = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    crop = cv2.warpAffine(rgb, placement.matrix(_SIDE), (_SIDE, _SIDE), flags=flags)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    fine, coarse = grey - smooth, smooth - cv2.GaussianBlur(grey, (0, 0), 4.0)
    inside = np.s_[18:86, 18:78]
    return float(fine[inside].std() / max(coarse[inside].std(), 1e-3))

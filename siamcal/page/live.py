"""The camera's side of the page: guidance until there is a neutral face, readings from then on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamcal.errors import ConfigError
from siamcal.inference import PersonReference, Predictor, read_reference
from siamcal.page.guidance import Look, look_at

__all__ = ["LiveReader", "Reading", "Sitting"]


@dataclass
class Sitting:
    """One person before one browser's camera.

    Attributes:
        person: Their neutral face; None before it was taken.
        neutral: Its picture, (H, W, 3) uint8.
        frame: The camera's latest frame, (H, W, 3) uint8.
    """

    person: PersonReference | None = None
    neutral: np.ndarray | None = None
    frame: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from a frame.

    Attributes:
        look: How it would serve as a reference.
        calibrated: (A,) intensities or logits relative to the neutral face; None without one.
        raw: (A,) the same without the neutral face, where the calibrator can.
    """

    look: Look
    calibrated: np.ndarray | None = None
    raw: np.ndarray | None = None


class LiveReader:
    """Reads frames of all sittings, one at a time: the face models belong to one thread.

    Args:
        predictor: Model and face pipeline.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._one_at_a_time = threading.Lock()

    def read(self, rgb: np.ndarray, sitting: Sitting) -> Reading:
        """Read the camera's next frame, (H, W, 3) uint8.

        Raises:
            ConfigError: It isn't an RGB frame.
        """
        with self._one_at_a_time:
            look = look_at(rgb, self.predictor.pipeline)
            sitting.frame = rgb
            if look.face is None:
                return Reading(look)
            crop = self.predictor.pipeline.align(rgb, look.face)[None]  # (1, S, S, 3)
            calibrated = raw = None
            if sitting.person is not None:
                own, without = self.predictor.read_both(crop, sitting.person.features)
                calibrated, raw = own[0], None if without is None else without[0]
            elif self.predictor.reads_raw:
                raw = self.predictor.read(crop, None)[0]
            return Reading(look, calibrated, raw)

    def take(self, sitting: Sitting) -> PersonReference:
        """The latest frame becomes the neutral face.

        Raises:
            ConfigError: The camera gave no frame yet.
            FaceNotFoundError: It shows no face.
        """
        if sitting.frame is None:
            raise ConfigError("The camera gave no picture yet: start it first.")
        return self._take(sitting.frame, sitting)

    def take_file(self, path: str | Path, sitting: Sitting) -> PersonReference:
        """A picture file becomes the neutral face.

        Raises:
            MediaError, FaceNotFoundError: It can't be read, or shows no face.
        """
        from siamcal.faces.media import read_image

        return self._take(read_image(path), sitting)

    def _take(self, rgb: np.ndarray, sitting: Sitting) -> PersonReference:
        with self._one_at_a_time:
            person = read_reference(rgb, self.predictor)
        sitting.person, sitting.neutral = person, rgb
        return person

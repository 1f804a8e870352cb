"""Rendered people before several cameras, in several lights, with other hair and glasses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from siamcal.synth.frames import face_at
from siamcal.synth.hair import STYLES
from siamcal.synth.person import build_person
from siamcal.synth.plan import Plan, draw_person, draw_recording
from siamcal.synth.props import FRAMES
from siamcal.synth.render import Face, expose, render
from siamcal.synth.scene import draw_background
from siamcal.synth.traits import Traits, stream

__all__ = ["LENGTH", "Session", "restyled"]

SIZE, LENGTH = 256, 600  # pixels; frames of a session
CLIPS = 4  # of a person; the first two of a varied look would be one session
PURPOSE = 95  # of this file's random streams


class Session:
    """One person in one light before one camera.

    Args:
        number: Of the person.
        session: 0 or 1: another light, camera, sensor, background and other movements.
        look: As of `Plan`.
        other_style: With another person's hairstyle, and glasses put on or off.
        shown: Another person's number, who is there instead.
    """

    def __init__(
        self,
        number: int,
        session: int = 0,
        *,
        look: str = "usual",
        other_style: bool = False,
        shown: int | None = None,
    ) -> None:
        plan = Plan(
            participants=1,
            frames=10,
            length=CLIPS * LENGTH,
            clips=CLIPS,
            first_person=number,
            look=look,
        )
        clip = 2 * session
        self.key = (plan.seed, number, PURPOSE, clip)
        self.recording = draw_recording(plan, number, clip)
        traits = draw_person(plan, number if shown is None else shown)
        self.person = build_person(restyled(traits, self.key) if other_style else traits)
        self.background = draw_background(stream(*self.key, 1), SIZE)

    def neutral(self) -> np.ndarray:
        """The person at rest, (SIZE, SIZE, 3) uint8."""
        return self._take(face_at(self.recording, 0, neutral=True), 0)

    def draw(self, count: int) -> list[int]:
        """Numbers of `count` random frames, each once."""
        drawn: list[int] = stream(*self.key, 4).choice(LENGTH, count, replace=False).tolist()
        return drawn

    def frames(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """The person acting freely, in frames of 0 to LENGTH - 1."""
        for number in numbers:
            yield self._take(face_at(self.recording, number, neutral=False), number)

    def _take(self, face: Face, frame: int) -> np.ndarray:
        recording = self.recording
        light = recording.light.at(frame / recording.track.fps)
        linear = render(self.person, face, light, recording.cameras["front"], self.background)
        return expose(linear, recording.sensor, stream(*self.key, 2, frame))


def restyled(traits: Traits, key: tuple[int, ...]) -> Traits:
    """The same person with another hairstyle, and glasses put on or off."""
    rng = stream(*key, 3)
    styles = [style for style in STYLES if style != traits.hair_style]
    glasses = str(rng.choice(FRAMES)) if traits.glasses == "none" else "none"
    return replace(traits, hair_style=str(rng.choice(styles)), glasses=glasses)

"""Rendered faces in a chosen state, for tests that need known actions."""

from dataclasses import replace

import numpy as np

from siamcal.synth.actions import AUS
from siamcal.synth.person import build_person
from siamcal.synth.plan import CHECK_PEOPLE, draw_recording, make_plan
from siamcal.synth.render import Face, expose, render
from siamcal.synth.scene import Sensor, draw_background
from siamcal.synth.traits import draw_traits


class RenderedPerson:
    """One of the people nothing is tuned on, in front of one camera.

    Args:
        index: Which of them.
        size: Side of the pictures.
    """

    def __init__(self, index=0, size=256, bias=0.3):
        number = CHECK_PEOPLE[index]
        self.person = build_person(draw_traits(0, number, bias))
        recording = draw_recording(make_plan("small"), number, 0)
        self.camera = replace(recording.cameras["front"], yaw=0.0)
        self.light = recording.light.at(0)
        self.background = draw_background(np.random.default_rng(index), size)

    def __call__(self, actions=None, yaw=0.0, pitch=0.0, blink=0.0):
        """A frame; `actions` maps AU numbers to intensities, angles are in degrees."""
        intensity = np.zeros(len(AUS))
        for au, value in (actions or {}).items():
            intensity[list(AUS).index(au)] = value
        face = Face(
            intensity, np.radians(yaw), np.radians(pitch), 0.0, gaze=(0.0, 0.0), blink=blink
        )
        picture = render(self.person, face, self.light, self.camera, self.background)
        return expose(picture, Sensor(1.0, 0.5, 0.0, 95), np.random.default_rng(0))

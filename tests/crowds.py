"""Clips of several rendered people who move, cross, leave and come back, with who is where."""

from dataclasses import dataclass, replace

import numpy as np

from siamcal.synth.actions import AUS
from siamcal.synth.person import build_person
from siamcal.synth.plan import CHECK_PEOPLE, draw_recording, make_plan
from siamcal.synth.render import Face, expose, render
from siamcal.synth.scene import Sensor, draw_background
from siamcal.synth.traits import draw_traits

SIZE = (360, 640)  # height, width


class Actor:
    """A rendered person who can stand anywhere in a picture."""

    def __init__(self, index, side=240):
        number = CHECK_PEOPLE[index]
        self.person = build_person(draw_traits(0, number, 0.5))
        self.recording = draw_recording(make_plan("small"), number, 0)
        self.camera = replace(self.recording.cameras["front"], yaw=0.0, shift=(0.0, 0.0))
        self.side = side

    def paint(self, canvas, x, y, light, intensity, yaw):
        """Render into `canvas`, linear light (H, W, 3), centred at (x, y)."""
        left, top = round(x - self.side / 2), round(y - self.side / 2)
        padded = np.pad(canvas, ((self.side,) * 2, (self.side,) * 2, (0, 0)), mode="edge")
        place = np.s_[
            top + self.side : top + 2 * self.side, left + self.side : left + 2 * self.side
        ]
        face = Face(intensity, yaw, 0.0, 0.0, gaze=(0.0, 0.0), blink=0.0)
        padded[place] = render(self.person, face, light, self.camera, padded[place].copy())
        canvas[:] = padded[self.side : -self.side, self.side : -self.side]


@dataclass(frozen=True)
class Walk:
    """Where an actor is at each frame: (x, y) of the face; outside the picture: not there."""

    x: np.ndarray
    y: np.ndarray


def walks(scene, count, people, seed=0):
    """The paths of a scene: "stand", "cross" (twice), "leave" (and come back)."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, count)
    height, width = SIZE
    places = (np.arange(people) + 0.5) * width / people
    found = []
    for index in range(people):
        y = np.full(count, height * 0.5 + rng.uniform(-15, 15)) + 4 * np.sin(9 * time + index)
        x = np.full(count, places[index])
        if scene == "cross":
            other = places[(index + 1) % people] if index % 2 == 0 else places[index - 1]
            x = places[index] + (other - places[index]) * (0.5 - 0.5 * np.cos(4 * np.pi * time))
        elif scene == "leave" and index == 0:
            x = places[0] - 1.4 * (places[0] + 150) * np.clip(np.sin(np.pi * time), 0, 0.8)
        found.append(Walk(x, y))
    return found


def film(people, scene, count=40, seed=0, side=240):
    """Yield ((H, W, 3) uint8, [(x, y), ...]): frames and where each person's face is."""
    rng = np.random.default_rng(seed)
    actors = [Actor(index, side) for index in people]
    light = actors[0].recording.light.at(0)
    back = draw_background(rng, max(SIZE))[: SIZE[0], : SIZE[1]]
    paths = walks(scene, count, len(people), seed)
    moods = [np.abs(rng.normal(0, 1.2, (len(AUS), 2))) for _ in actors]
    for frame in range(count):
        canvas, share = back.copy(), frame / count
        for actor, path, mood in zip(actors, paths, moods, strict=True):
            shown = np.clip(mood[:, 0] * np.sin(6 * share + mood[:, 1]), 0, 5)
            yaw = np.radians(12 * np.sin(8 * share + mood[0, 0]))
            actor.paint(canvas, path.x[frame], path.y[frame], light, shown, yaw)
        picture = expose(canvas, Sensor(1.0, 0.5, 0.0, 95), rng)
        yield picture, [(path.x[frame], path.y[frame]) for path in paths]

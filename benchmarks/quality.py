"""What a table says of a target's face: how often rightly, and how often of a sound one?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd

from siamcal.evaluation.tables import to_markdown
from siamcal.faces import Face, FacePipeline
from siamcal.faces.measures import FaceMeasures, measure_face
from siamcal.faces.quality import judge_target
from siamcal.inference import load_model
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.frames import face_at
from siamcal.synth.occluders import cover
from siamcal.synth.person import Person, build_person
from siamcal.synth.plan import Plan, Recording, draw_person, draw_recording
from siamcal.synth.render import Face as State
from siamcal.synth.render import expose, render
from siamcal.synth.scene import draw_background

__all__ = ["draw_sunglasses", "quality"]

# Of the people that nothing is trained or tuned on.
FIRST_PERSON = 7000
LENGTH, SIZE = 1200, 256
NOTES = (
    *("turned head", "closed eyes", "covered mouth", "covered eyes", "something before the face"),
    *("a hand", "too dark", "blurred", "small face", "cut off", "taller", "wider"),
)


@benchmarks.register("quality")
def quality(people: int = 24, frames: int = 6) -> str:
    """Share of frames with each note, by what is really wrong with them.

    Args:
        people: Rendered people.
        frames: Of each, sound ones that act and turn freely; a third as many spoiled in each way.

    Returns:
        A table in Markdown: a row a state, its number of frames, the share without a face, with any
        note, and with each.
    """
    told: dict[str, list[tuple[str, ...] | None]] = {}
    with FacePipeline(load_model().config.preprocessing) as pipeline:  # as predict's
        for number in progress_bar(range(people), total=people, unit="person"):
            shoot = _Shoot(FIRST_PERSON + number, pipeline)
            for state, picture in shoot.pictures(frames):
                told.setdefault(state, []).append(shoot.notes(picture))
    rows = {state: _row(found) for state, found in told.items()}
    return to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "state")


def _row(found: list[tuple[str, ...] | None]) -> dict[str, str]:
    notes = [n for n in found if n is not None]
    row = {"frames": str(len(found)), "no face": f"{1 - len(notes) / len(found):.3f}"}
    row["any note"] = f"{np.mean([bool(n) for n in notes]):.3f}"
    for name in NOTES:
        row[name] = f"{np.mean([any(t.startswith(name) for t in n) for n in notes]):.3f}"
    return row


class _Shoot:
    """Pictures of one person by one camera, judged against the person's neutral frame."""

    def __init__(self, number: int, pipeline: FacePipeline) -> None:
        plan = Plan(participants=1, frames=10, length=LENGTH, first_person=number)
        self.recording: Recording = draw_recording(plan, number, 0)
        self.person = build_person(draw_person(plan, number))
        self.rng = np.random.default_rng(number)
        self.background = draw_background(self.rng, SIZE)
        self.pipeline = pipeline
        neutral = self.take(self.person, face_at(self.recording, 0, True))
        faces = pipeline.detect(neutral, max_faces=1)
        self.reference = self.measured(neutral, faces[0]) if faces else None

    def take(
        self, person: Person, state: State, exposure: float = 1.0, blur: float | None = None
    ) -> np.ndarray:
        """A picture (SIZE, SIZE, 3)."""
        sensor = self.recording.sensor
        sensor = replace(sensor, exposure=sensor.exposure * exposure)
        sensor = sensor if blur is None else replace(sensor, blur=blur)
        light, camera = self.recording.light.at(0), self.recording.cameras["front"]
        return expose(render(person, state, light, camera, self.background), sensor, self.rng)

    def notes(self, picture: np.ndarray) -> tuple[str, ...] | None:
        """What is said of it; None without a face."""
        faces = self.pipeline.detect(picture, max_faces=1)
        if not faces:
            return None
        return judge_target(self.measured(picture, faces[0]), self.reference).notes

    def measured(self, picture: np.ndarray, face: Face) -> FaceMeasures:
        """As `siamcal predict` measures pictures."""
        return measure_face(picture, face, self.pipeline.detector.hand(picture, face))

    def pictures(self, frames: int) -> Iterator[tuple[str, np.ndarray]]:
        """Each with its state."""
        for index in range(frames):
            state = face_at(self.recording, int(self.rng.integers(LENGTH)), False)
            state = replace(state, blink=0.0)
            sound = self.take(self.person, state)
            yield "sound", sound
            yield "sound, other light", self.take(self.person, state, self.rng.uniform(0.5, 1.4))
            if index % 3 == 0:
                yield from self.spoiled(sound, state)

    def spoiled(self, sound: np.ndarray, state: State) -> Iterator[tuple[str, np.ndarray]]:
        """The same with something wrong."""
        for kind in ("mask", "fingers", "hair"):
            yield kind, self.take(cover(self.person, kind, self.rng), state)
        for face in self.pipeline.detect(sound, max_faces=1):
            yield "sunglasses", draw_sunglasses(sound, face)
            yield "microphone before the mouth", _draw_microphone(sound, face)
            for name, width, height in (("tall", 1, 4 / 3), ("wide", 4 / 3, 1)):
                stretched = cv2.resize(sound, None, fx=width, fy=height)
                yield f"stretched by a third, {name}", stretched
            lip, brow = (int(face.landmarks[i, 1]) for i in (17, 105))
            yield "cut off through the mouth", sound[:lip]
            yield "cut off through the brows", sound[brow:]
        still = replace(state, intensity=np.zeros_like(state.intensity))
        yield "closed eyes", self.take(self.person, replace(still, blink=1.0))
        yaw = np.radians(self.rng.uniform(35, 48)) * self.rng.choice([-1, 1])
        yaw -= self.recording.cameras["front"].yaw
        yield "turned 35 to 48 degrees", self.take(self.person, replace(state, yaw=float(yaw)))
        yield "dark", self.take(self.person, state, self.rng.uniform(0.03, 0.12))
        yield "blurred", self.take(self.person, state, blur=self.rng.uniform(2, 4))
        yield "half the size", cv2.resize(sound, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _draw_microphone(picture: np.ndarray, face: Face) -> np.ndarray:
    """The picture with a dark or grey ball before the lower lip."""
    rng = np.random.default_rng(int(picture.sum()))  # the others' draws stay as they are
    points, drawn = face.landmarks[:, :2], picture.copy()
    size = float(np.linalg.norm(points[33] - points[263]))
    centre = (points[13] + points[14]) / 2 + size * rng.uniform((-0.1, 0.05), (0.1, 0.25))
    grey = int(rng.choice([30, 110]))
    axes = (int(0.18 * size), int(0.16 * size))
    cv2.ellipse(drawn, tuple(map(int, centre)), axes, 0, 0, 360, (grey,) * 3, -1, cv2.LINE_AA)
    return drawn


def draw_sunglasses(picture: np.ndarray, face: Face) -> np.ndarray:
    """The picture with dark lenses and their bridge over the eyes."""
    points, shade = face.landmarks[:, :2], np.zeros(picture.shape[:2], np.float32)
    size = float(np.linalg.norm(points[33] - points[263]))
    for outer, inner in ((33, 133), (263, 362)):
        centre = tuple(float(v) for v in (points[outer] + points[inner]) / 2)
        cv2.ellipse(shade, (centre, (0.56 * size, 0.44 * size), face.pose[2]), 1.0, -1)
    ends = [tuple(int(v) for v in points[i]) for i in (133, 362)]
    cv2.line(shade, *ends, 1.0, max(int(0.05 * size), 1))
    shade = 0.92 * cv2.GaussianBlur(shade, (0, 0), 0.8)[..., None]
    return (picture * (1 - shade) + 25 * shade).astype(np.uint8)

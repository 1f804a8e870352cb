"""What is to be rendered: sizes, options, people, recordings and the frames taken from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from siamcal.errors import ConfigError
from siamcal.synth.dynamics import Track, draw_track
from siamcal.synth.looks import LOOKS, shift_camera, shift_light, shift_sensor, shift_traits
from siamcal.synth.scene import Camera, Light, Sensor, draw_camera, draw_light
from siamcal.synth.traits import Traits, draw_traits, stream
from siamcal.synth.variety import (
    restyle,
    session_of,
    vary_camera,
    vary_light,
    vary_track,
    vary_traits,
)

__all__ = [
    "BENCHMARK_PEOPLE",
    "CHECK_PEOPLE",
    "RENDERER_VERSION",
    "ROBUSTNESS_PEOPLE",
    "SIZES",
    "TRAINING_PEOPLE",
    "TUNING_PEOPLE",
    "Plan",
    "Recording",
    "Task",
    "draw_person",
    "draw_recording",
    "make_plan",
    "reference_frame",
    "select_frames",
    "tasks",
]

#: Enters every cache key: raise it whenever a pixel or a label changes.
RENDERER_VERSION = "5"
# Of looks that changed since, while the others stayed as they are.
LOOK_VERSIONS = {"varied": 3}

#: Numbers of the people the benchmark sizes show; no weights may be trained on them beforehand.
BENCHMARK_PEOPLE = range(10_000)
#: Numbers of people that start weights and shipped calibrators are trained on.
TRAINING_PEOPLE = range(10_000, 500_000)
#: People for `siamcal bench robustness`, whom nothing is trained on.
ROBUSTNESS_PEOPLE = range(600_000, 600_100)
#: Numbers of the people on whom the actions were tuned to read as they should.
TUNING_PEOPLE = range(700_000, 800_000)
#: Forty people that nothing was ever tuned on, for the check by an independent network.
CHECK_PEOPLE = range(900_000, 900_040)

FPS = 20.0
_CHUNK = 256
#: Turn of the two cameras, radians; DISFA's stand to the left and right of the screen.
_VIEW_YAW = {"front": 0.0, "left": 0.2, "right": -0.2}


@dataclass(frozen=True)
class Plan:
    """Everything that decides the pictures; equal plans give equal files.

    Attributes:
        participants: Number of people.
        frames: Frames of each person and view.
        length: Frames of the recordings they are taken from, all clips of a person together.
        clips: Recordings of a person, each with its own light, background and camera.
        views: Camera names, of front, left, right.
        image_size: Side of the pictures in pixels.
        first_person: Number of the first person.
        seed: Seed of the population.
        bias: Scale of resting offsets and permanent wrinkles, 0 to 1.
        occlusion: Share of recordings in which something covers part of the face for a while.
        look: "usual"; "shifted": other skin, hair, light, cameras and pictures
            (:mod:`siamcal.synth.looks`); or "varied": what a calibrator has to learn not to take
            for an action (:mod:`siamcal.synth.variety`).
    """

    participants: int = 60
    frames: int = 65
    length: int = 2600
    clips: int = 1
    views: tuple[str, ...] = ("front",)
    image_size: int = 256
    first_person: int = 0
    seed: int = 0
    bias: float = 1.0
    occlusion: float = 0.0
    look: str = "usual"

    def __post_init__(self) -> None:
        unknown = [view for view in self.views if view not in _VIEW_YAW]
        if unknown or not self.views:
            raise ConfigError(f"views is {self.views!r}; allowed: {', '.join(_VIEW_YAW)}.")
        if not 0 <= self.bias <= 1 or not 0 <= self.occlusion <= 1:
            raise ConfigError(
                f"bias is {self.bias} and occlusion {self.occlusion}; allowed: 0 to 1."
            )
        if self.look not in LOOKS:
            raise ConfigError(f"look is {self.look!r}; allowed: {', '.join(LOOKS)}.")
        if not 64 <= self.image_size <= 2048:
            raise ConfigError(f"image_size is {self.image_size}; allowed: 64 to 2048 pixels.")
        if self.participants < 1 or self.clips < 1 or self.frames < self.clips:
            raise ConfigError(
                f"{self.participants} participants with {self.frames} frames in {self.clips} "
                "clips: at least 1 participant, 1 clip and 1 frame a clip are needed."
            )
        if self.length < self.frames:
            raise ConfigError(
                f"length is {self.length} frames, fewer than the {self.frames} to take from it."
            )
        if min(self.first_person, self.seed) < 0:
            raise ConfigError("first_person and seed must not be negative.")

    @property
    def people(self) -> range:
        """Numbers of the people shown."""
        return range(self.first_person, self.first_person + self.participants)

    @property
    def total(self) -> int:
        """Number of pictures."""
        return self.participants * len(self.views) * self.frames

    def key(self) -> str:
        """Return the cache key: the plan and the renderer's version."""
        facts = dataclasses.asdict(self)
        if self.look == "usual":  # as it was before there was another: what is rendered is kept
            del facts["look"]
        elif self.look in LOOK_VERSIONS:
            facts["look_version"] = LOOK_VERSIONS[self.look]
        text = json.dumps([RENDERER_VERSION, facts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def disk_bytes(self) -> int:
        """Return the disk space the pictures will take, about."""
        return int(self.total * (2500 + 0.20 * self.image_size**2))


#: What each size means; `full` has DISFA's numbers.
SIZES: dict[str, Plan] = {
    "tiny": Plan(participants=6, frames=10, length=300, image_size=192),
    "small": Plan(),
    "full": Plan(participants=27, frames=4845, length=4845, views=("left", "right")),
    "training": Plan(
        participants=400, frames=40, length=1600, clips=4, first_person=TRAINING_PEOPLE.start
    ),
}


def make_plan(size: str, **changes: object) -> Plan:
    """Return the plan of a size with some options changed (None leaves one as it is).

    Raises:
        ConfigError: The size is unknown or an option out of range.
    """
    if size not in SIZES:
        raise ConfigError(f"size is {size!r}; allowed: {', '.join(SIZES)}.")
    given = {name: value for name, value in changes.items() if value is not None}
    plan = SIZES[size]
    if "frames" in given and "length" not in given:
        # As many frames to choose from for each one taken as the size has.
        share = plan.length / plan.frames
        given["length"] = max(int(given["frames"]), round(share * int(given["frames"])))  # type: ignore[call-overload]
    return dataclasses.replace(plan, **given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Recording:
    """One clip of one person: movements, light and cameras.

    Attributes:
        track: Movements.
        light: Light.
        cameras: Camera of each view.
        sensor: Of all cameras.
        occluder: "none", "fingers", "hair" or "mask".
        occluded: (N,) bool, frames in which it is there.
    """

    track: Track
    light: Light
    cameras: dict[str, Camera]
    sensor: Sensor
    occluder: str
    occluded: np.ndarray


def draw_person(plan: Plan, number: int, session: int = 0) -> Traits:
    """Draw a person as the plan's look shows them (the varied one: as they come to a session)."""
    traits = draw_traits(plan.seed, number, plan.bias)
    if plan.look == "shifted":
        return shift_traits(traits)
    if plan.look == "varied":
        return restyle(vary_traits(traits), session)
    return traits


@lru_cache(maxsize=4)
def draw_recording(plan: Plan, person: int, clip: int) -> Recording:
    """Draw a clip; views share everything but the camera."""
    length = plan.length // plan.clips
    track = draw_track(stream(plan.seed, person, 20, clip), length, FPS)
    session = session_of(clip) if plan.look == "varied" else clip
    rng = stream(plan.seed, person, 21, session)
    light = draw_light(rng)
    cameras = {
        view: draw_camera(stream(plan.seed, person, 22, session, index), _VIEW_YAW[view])
        for index, view in enumerate(_VIEW_YAW)
        if view in plan.views
    }
    sensor = Sensor(  # drawn in this order
        noise=float(rng.gamma(2.0, 1.1)),
        blur=float(max(0, rng.normal(0.35, 0.35))),
        quality=int(rng.integers(62, 96)),
        exposure=float(np.exp(rng.normal(0.05, 0.2))),
    )
    if plan.look == "shifted":
        clip_key = (plan.seed, person, clip)
        light = shift_light(light, *clip_key)
        cameras = {
            view: shift_camera(camera, *clip_key, list(_VIEW_YAW).index(view))
            for view, camera in cameras.items()
        }
        sensor = shift_sensor(plan.image_size, draw_person(plan, person).skin_tone, *clip_key)
    if plan.look == "varied":
        track = vary_track(track, plan.seed, person, clip)
        light = vary_light(light, plan.seed, person, session)
        cameras = {
            view: vary_camera(camera, plan.seed, person, session, list(_VIEW_YAW).index(view))
            for view, camera in cameras.items()
        }
    occluder, occluded = "none", np.zeros(length, bool)
    if rng.random() < plan.occlusion:
        occluder = str(rng.choice(["fingers", "hair", "mask"]))
        start = rng.integers(0, length)
        stop = start + int(rng.uniform(0.1, 0.5) * length)
        occluded[start:stop] = True
        if occluder == "hair":
            occluded[:] = True
    return Recording(track, light, cameras, sensor, occluder, occluded)


def reference_frame(recording: Recording) -> int:
    """Return the frame that is made neutral: early, and uncovered where that is possible."""
    free = np.flatnonzero(~recording.occluded)
    return int(free[0]) if len(free) else 0


@lru_cache(maxsize=8)
def select_frames(plan: Plan, person: int, clip: int) -> np.ndarray:
    """Return the frames (ascending) taken from a clip; clip 0's hold the reference.

    Where not all are taken, frames in which rare actions happen are likelier, none twice, and
    about a quarter are taken wherever they fall, so that resting stretches stay.
    """
    recording = draw_recording(plan, person, clip)
    length = len(recording.track)
    share, rest = divmod(plan.frames, plan.clips)
    count = share + (clip < rest)
    if count >= length:
        return np.arange(length)
    rarity = np.array([1.2, 1.2, 1.0, 1.3, 0.9, 1.7, 0.8, 1.7, 1.6, 1.8, 0.5, 0.7])
    worth = (recording.track.intensity / 5) @ rarity
    weight = 0.3 + np.minimum(worth, 2.5)
    rng = stream(plan.seed, person, 23, clip)
    chosen = rng.choice(length, count, replace=False, p=weight / weight.sum())
    if clip == 0:
        reference = reference_frame(recording)
        if reference not in chosen:
            chosen[0] = reference
    return np.sort(chosen)


@dataclass(frozen=True)
class Task:
    """A piece of work that is done, kept and resumed as a whole."""

    person: int
    view: str
    clip: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of its table."""
        return f"R{self.person:06d}_{self.view}_{self.clip:02d}_{self.start:05d}"


def tasks(plan: Plan) -> list[Task]:
    """Return all pieces of a plan."""
    share, rest = divmod(plan.frames, plan.clips)
    return [
        Task(person, view, clip, start, min(start + _CHUNK, share + (clip < rest)))
        for person in plan.people
        for view in plan.views
        for clip in range(plan.clips)
        for start in range(0, share + (clip < rest), _CHUNK)
    ]

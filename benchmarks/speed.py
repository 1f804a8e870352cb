"""How fast is each part on one core, and what does calibration cost? Ratios from one run.

Parts that are compared take turns within each round, so that a busy machine slows both. Times are
processor time of all threads: what a frame costs one core, whatever else runs. Training steps leave
out the kernel's share (see `_user_seconds`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from siamcal.benchmarks._videos import SIZES, cold_start, one_core, video_parts

from siamcal.environment import describe_environment
from siamcal.errors import ConfigError
from siamcal.faces import FacePipeline
from siamcal.files import make_folder
from siamcal.model.create import create_backbone
from siamcal.model.siamese import CalibratingSiamese
from siamcal.preprocessing import Preprocessing
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.frames import face_at
from siamcal.synth.person import build_person
from siamcal.synth.plan import CHECK_PEOPLE, draw_recording, make_plan
from siamcal.synth.render import encode_picture, expose, render
from siamcal.synth.scene import draw_background
from siamcal.synth.traits import draw_traits
from siamcal.training.networks import TrainingStep, build_network
from siamcal.training.objective import Objective, make_optimizer
from siamcal.training.recipe import Recipe, load_recipe

__all__ = ["SpeedTable", "speed"]

Work = Callable[[], object]
NUM_AUS = 12  # of DISFA
# Targets in a training batch -> participants among them, as `participants_per_batch` draws them;
# 64 is the paper's batch.
TRAINING_BATCHES = {16: 2, 32: 2, 64: 8}


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        part: What was measured.
        milliseconds: Processor time of one unit, the fastest round.
        unit: What is done in that time.
        ratio: Over the first row of its group, median of the rounds; None for that row.
    """

    part: str
    milliseconds: float
    unit: str
    ratio: float | None = None


@dataclass
class SpeedTable:
    """All rows and the machine they hold for."""

    rows: list[Row] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The table, the machine above it."""
        versions = ", ".join(f"{k} {v}" for k, v in self.environment["versions"].items())
        lines = [
            f"One core of {self.environment['processor']}, {self.environment['date']}; {versions}. "
            "Training steps: user time, without the kernel's share.",
            "",
            "| part | processor time | a second | ratio |",
            "| --- | --- | --- | --- |",
        ]
        for row in self.rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            lines.append(
                f"| {row.part} | {row.milliseconds:.2f} ms per {row.unit} "
                f"| {1000 / row.milliseconds:.2f} | {ratio} |"
            )
        return "\n".join(lines) + "\n"


@benchmarks.register("speed")
def speed(
    output: Path = Path("runs/speed"),
    rounds: int = 5,
    frames: int = 20,
    batch_size: int = 8,
    large: bool = True,
    only: str = "",
) -> SpeedTable:
    """Time rendering, the face pipeline, calibrated against plain inference, and training steps.

    Args:
        output: Folder of speed.md and speed.json; with `only`, of speed_<only>.md and .json.
        rounds: Repetitions; the parts of a group take turns.
        frames: Frames a round for rendering and faces; of videos three times as many.
        batch_size: Images at a time for inference.
        large: Also time ir50, inference and training steps (minutes on one core).
        only: One group of "rendering", "faces", "ir_tiny", "ir50", "video", "training";
            "" is all.

    Raises:
        ConfigError: There is no such group.
    """
    groups: dict[str, Callable[[], list[Row]]] = {
        "rendering": lambda: _rendering(_pictures(frames), rounds),
        "faces": lambda: _faces(_pictures(frames), rounds),
        "ir_tiny": lambda: _inference("ir_tiny", "layer3", rounds, batch_size),
        "ir50": lambda: _inference("ir50", "layer4", rounds, batch_size),
        "video": lambda: _video(_clip(3 * frames), rounds),
        "training": lambda: [row for b in TRAINING_BATCHES for row in _training(b, rounds)],
    }
    if only and only not in groups:
        raise ConfigError(f"only takes {', '.join(map(repr, groups))}, but got {only!r}.")
    names = [only] if only else [*groups][: None if large else 3]
    table = SpeedTable(environment=describe_environment())
    path = Path(output) / (f"speed_{only}" if only else "speed")
    with _one_thread():
        for name in progress_bar(names, description="speed", unit="group"):
            table.rows += groups[name]()
            _save(table, path)
    return table


def _save(table: SpeedTable, path: Path) -> None:
    make_folder(path.parent)
    path.with_suffix(".md").write_text(table.to_markdown(), encoding="utf-8")
    told = {"rows": [asdict(row) for row in table.rows], "environment": table.environment}
    path.with_suffix(".json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


@lru_cache(maxsize=1)
def _pictures(count: int) -> list[np.ndarray]:
    """Rendered pictures; drawing them also compiles and warms up."""
    return [_picture(7 * index) for index in range(count)]


def _clip(count: int) -> list[np.ndarray]:
    """Pictures that follow one another."""
    return [_picture(index) for index in range(count)]


@lru_cache(maxsize=1)
def _scene() -> tuple[Any, ...]:
    plan, number = make_plan("small"), CHECK_PEOPLE[0]
    recording = draw_recording(plan, number, 0)
    person = build_person(draw_traits(plan.seed, number, plan.bias))
    return person, recording, draw_background(np.random.default_rng(0), plan.image_size)


def _picture(frame: int) -> np.ndarray:
    """A rendered frame of a recording as the data set makes it, encoding included."""
    person, recording, background = _scene()
    sensor = recording.sensor
    light, camera = recording.light.at(0.0), recording.cameras["front"]
    face = face_at(recording, frame, neutral=False)
    rendered = render(person, face, light, camera, background)
    seen = expose(rendered, sensor, np.random.default_rng(frame))
    encode_picture(seen, ".jpg", sensor.quality)
    return seen


def _rendering(pictures: list[np.ndarray], rounds: int) -> list[Row]:
    """What a frame costs, the person being there."""
    name = "rendering, 256 px, shading, noise and JPEG"
    count = len(pictures)
    return _take_turns(
        {name: lambda: [_picture(7 * i) for i in range(count)]}, rounds, count, "frame"
    )


def _faces(pictures: list[np.ndarray], rounds: int) -> list[Row]:
    """The face pipeline on the rendered pictures: all of it, and the part after the landmarks."""
    found = []
    with FacePipeline(Preprocessing()) as pipeline:
        for picture in pictures:
            found += [(picture, face) for face in pipeline.detect(picture, max_faces=1)]
        whole: Work = lambda: [pipeline.crop(picture) for picture, _ in found]  # noqa: E731
        after: Work = lambda: [pipeline.align(*pair) for pair in found]  # noqa: E731
        return _take_turns(
            {
                "face pipeline, 256 px: find, align, normalise": whole,
                "of it: all but finding": after,
            },
            rounds,
            len(found),
            "frame",
        )


def _video(pictures: list[np.ndarray], rounds: int) -> list[Row]:
    """Whole videos beside MediaPipe's landmarker alone, and one picture from a cold start."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, one_core():
        for name in SIZES:
            parts = video_parts(pictures, name, Path(folder))
            rows += _take_turns(parts, rounds, len(pictures), "frame")
        cold = min(cold_start(pictures[0]) for _ in range(rounds))
    return [*rows, Row("siamcal predict for one picture, from a cold start", cold, "picture")]


def _inference(name: str, merge_at: str, rounds: int, batch_size: int) -> list[Row]:
    """Plain network, and calibrated with the reference encoded once, per batch and per target."""
    network = create_backbone(name, num_outputs=72).eval()
    model = CalibratingSiamese(network, merge_at).eval()
    targets, one = torch.rand(batch_size, 3, 112, 112), torch.rand(1, 3, 112, 112)
    references = torch.rand(batch_size, 3, 112, 112)
    with torch.inference_mode():
        reference = model.encode(one)
        return _take_turns(
            {
                f"{name}, plain": lambda: network(targets),
                f"{name}, calibrated at {merge_at}, reference encoded once": lambda: model(
                    targets, reference
                ),
                f"{name}, calibrated, one reference image a batch": lambda: model(targets, one),
                f"{name}, calibrated, a reference image for each target": lambda: model(
                    targets, references
                ),
            },
            rounds,
            batch_size,
            "image",
        )


def _training(batch_size: int, rounds: int) -> list[Row]:
    """Whole steps of NCG and CSN on the paper's network: forward, loss, backward and optimiser.

    With one reference a participant the arithmetic alone makes the CSN's forward and backward
    1 + participants / batch_size x (share of the network before the merge, .93) of the plain ones.
    """
    recipe = replace(load_recipe("disfa_intensity"), batch_size=batch_size, weights="")
    plain, separate, joint = (
        _Trained(replace(recipe, branches=branches), calibrated=kind)
        for kind, branches in ((False, "separate"), (True, "separate"), (True, "concatenate"))
    )
    side, people = recipe.preprocessing.size, TRAINING_BATCHES[batch_size]
    targets, each = torch.rand(2, batch_size, 3, side, side)
    shared, of_person = each[:people], torch.arange(batch_size) * people // batch_size
    name = f"ir50 training, CSN, {people} participants a batch, one reference each"
    parts: dict[str, Work] = {
        "ir50 training, plain (NCG)": lambda: plain.step(targets, each, of_person),
        name: lambda: separate.step(targets, shared, of_person),
        f"{name}, branches in one batch": lambda: joint.step(targets, shared, of_person),
    }
    if batch_size == min(TRAINING_BATCHES):
        parts["ir50 training, CSN, a reference for each target (the paper)"] = lambda: (
            separate.step(targets, each, torch.arange(batch_size))
        )
    return _take_turns(parts, rounds, 1, f"step of {batch_size}", training=True)


class _Trained:
    """A recipe's network with its loss and optimiser, and labels to train it on."""

    def __init__(self, recipe: Recipe, *, calibrated: bool) -> None:
        self.network = TrainingStep(build_network(recipe, NUM_AUS, calibrated=calibrated)).train()
        self.labels = torch.arange(recipe.batch_size)[:, None].expand(-1, NUM_AUS) % 6
        self.objective = Objective(recipe, self.labels.numpy(), torch.device("cpu"))
        self.optimizer = make_optimizer(self.network, recipe)

    def step(self, targets: torch.Tensor, references: torch.Tensor, index: torch.Tensor) -> None:
        self.objective(self.network(targets, references, index), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _take_turns(
    parts: dict[str, Work], rounds: int, count: int, unit: str, *, training: bool = False
) -> list[Row]:
    """Time the parts in turn, `rounds` times; each does `count` units."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    clock = _user_seconds if training else time.process_time
    with torch.inference_mode(not training):
        for work in parts.values():
            work()
        for _ in range(rounds):
            for name, work in parts.items():
                start = clock()
                work()
                times[name].append(1000 * (clock() - start) / count)
    first = np.array(next(iter(times.values())))
    rows: list[Row] = []
    for name, taken in times.items():
        ratio = float(np.median(np.array(taken) / first)) if rows else None
        rows.append(Row(name, min(taken), unit, ratio))
    return rows


def _user_seconds() -> float:
    """Processor time of all threads without the kernel's.

    A training step's large tensors are fresh memory, which the kernel clears: 0 to 17 s a step of
    64 (user time 17.6 to 17.9 s), as it pleases.
    """
    if sys.platform == "win32":
        return time.process_time()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


@contextmanager
def _one_thread() -> Any:
    import cv2

    before, before_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv)

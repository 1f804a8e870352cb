"""Does `--reference auto` find a neutral frame, and what does its choice cost?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from siamcal.errors import NeutralFrameError
from siamcal.evaluation.metrics import icc
from siamcal.faces.media import Frame, FrameStream
from siamcal.inference import Predictor, choose_reference, load_model
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.actions import AUS
from siamcal.synth.dynamics import PATTERNS, Track
from siamcal.synth.frames import picture
from siamcal.synth.plan import Plan, Recording, Task, draw_recording
from siamcal.synth.texture import ease
from siamcal.synth.traits import stream

__all__ = ["Clip", "draw_clip", "reference"]

# Of the people that nothing is trained on.
FIRST_PERSON, CLIPS_A_PERSON = 8000, 5
SECONDS, FPS = 30, 20
NEUTRAL = 0.5  # summed intensity up to which a frame counts as neutral


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one person, evenly over half a minute.

    Attributes:
        name: Person and clip.
        frames: N pictures (S, S, 3).
        truth: (N, 12) intensities.
        covered: (N,) whether something is held before the face.
        neutral: The person at rest under the same light and camera.
    """

    name: str
    frames: list[np.ndarray]
    truth: np.ndarray
    covered: np.ndarray
    neutral: np.ndarray

    def stream(self) -> FrameStream:
        """As a video."""
        frames = (Frame(i, i / 2, rgb, self.name) for i, rgb in enumerate(self.frames))
        return FrameStream("video", (self.name,), len(self.frames), 2.0, frames)


@benchmarks.register("reference")
def reference(clips: int = 100, frames: int = 60, occlusion: float = 0.2) -> dict[str, Any]:
    """How neutral the automatically chosen reference is, and the ICC with it.

    Args:
        clips: Rendered clips; in every third the person acts most of the time.
        frames: Of each clip, evenly over 30 seconds.
        occlusion: Share of clips in which a hand, hair or mask is before the face for a while.

    Returns:
        Counts of the clips (neutral: summed true intensity up to .5), and mean ICC(3,1) over AUs
        with the chosen frames and with the truly neutral ones, on the clips that have a chosen one.
    """
    counts = dict.fromkeys(("clips", "neutral", "none", "not neutral", "covered"), 0)
    readings: dict[str, list[np.ndarray]] = {"chosen": [], "neutral": [], "truth": []}
    with Predictor(load_model()) as predictor:
        for clip in progress_bar(_clips(clips, frames, occlusion), total=clips, unit="clip"):
            counts["clips"] += 1
            try:
                person = choose_reference(clip.stream(), predictor)
            except NeutralFrameError:
                counts["none"] += 1
                continue
            index = person.facts["frame"] - 1
            active = clip.truth[index].sum() > NEUTRAL
            counts["not neutral" if active else "neutral"] += 1
            counts["covered"] += bool(clip.covered[index])
            _read(clip, person.features, predictor, readings)
    joined = {name: np.concatenate(values) for name, values in readings.items()}
    return {
        **counts,
        "ICC, chosen": round(_icc(joined["chosen"], joined["truth"]), 4),
        "ICC, truly neutral": round(_icc(joined["neutral"], joined["truth"]), 4),
    }


def _read(clip: Clip, chosen: Any, predictor: Predictor, readings: dict[str, list]) -> None:
    """Every second uncovered frame against the chosen and the truly neutral reference."""
    crops, truth = [], []
    for index in np.flatnonzero(~clip.covered)[::2]:
        for face in predictor.pipeline.detect(clip.frames[index], max_faces=1):
            crops.append(predictor.pipeline.align(clip.frames[index], face))
            truth.append(clip.truth[index])
    if not crops:
        return
    neutral = predictor.encode(predictor.pipeline.crop(clip.neutral))
    for name, features in (("chosen", chosen), ("neutral", neutral)):
        readings[name].append(np.clip(predictor.read(np.stack(crops), features), 0, 5))
    readings["truth"].append(np.stack(truth))


def _icc(preds: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(icc(preds, labels)))


def _clips(count: int, frames: int, occlusion: float) -> Iterator[Clip]:
    for number in range(count):
        person = FIRST_PERSON + number // CLIPS_A_PERSON
        yield draw_clip(person, number % CLIPS_A_PERSON, frames, occlusion, acting=number % 3 == 0)


def draw_clip(person: int, clip: int, frames: int, occlusion: float, *, acting: bool) -> Clip:
    """Render a clip of a person who acts now and then, or most of the time."""
    length = SECONDS * FPS
    plan = Plan(
        frames=CLIPS_A_PERSON * length,
        length=CLIPS_A_PERSON * length,
        clips=CLIPS_A_PERSON,
        first_person=person,
        participants=1,
        occlusion=occlusion,
    )
    recording = draw_recording(plan, person, clip)
    if acting:
        track = _acting(recording.track, stream(plan.seed, person, 90, clip))
        recording = replace(recording, track=track)
    task = Task(person, "front", clip, 0, length)
    at = np.linspace(0, length - 1, frames).astype(int)
    shown = [picture(plan, task, int(f), recording, neutral=False)[0] for f in at]
    neutral = picture(plan, task, 0, _uncovered(recording), neutral=True)[0]
    truth, covered = recording.track.intensity[at], recording.occluded[at]
    return Clip(f"R{person:06d}/clip{clip:02d}", shown, truth, covered, neutral)


def _uncovered(recording: Recording) -> Recording:
    return replace(recording, occluded=np.zeros_like(recording.occluded))


def _acting(track: Track, rng: np.random.Generator) -> Track:
    """The track with one expression held throughout, but for two short rests."""
    time = np.arange(len(track)) / track.fps
    weights = np.array([weight for _, weight in PATTERNS], float)
    pattern = PATTERNS[int(rng.choice(len(PATTERNS), p=weights / weights.sum()))][0]
    rest = np.zeros(len(track))
    for _ in range(2):
        start, length = rng.uniform(0, time[-1] - 3), rng.uniform(1.5, 3.5)
        rest = np.maximum(rest, ease((time - start) * 2) * (1 - ease((time - start - length) * 2)))
    intensity = track.intensity.copy()
    for au in pattern:
        waves = 0.4 * np.sin(time * rng.uniform(0.5, 2) + rng.uniform(0, 6))
        held = np.clip(rng.uniform(2, 4.5) + waves, 0.8, 5)
        intensity[:, AUS.index(au)] = np.maximum(intensity[:, AUS.index(au)], held)
    moves = {name: curve * (1 - rest) for name, curve in track.nuisance.items()}
    return replace(track, intensity=intensity * (1 - rest)[:, None], nuisance=moves)

"""How a face moves: AU events with onset, apex and offset, blinks, speech, gaze and head motion.

A track is a whole recording at a frame rate. Events follow the co-occurrences of spontaneous
expression data such as DISFA (smiles of 6 + 12 + 25, brow raises of 1 + 2, frowns of 4; 9, 15 and
20 rarer), each AU starting and ending at its own moment; between them the face rests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from siamcal.synth.actions import AUS
from siamcal.synth.texture import ease

#: Combinations of AUs and how often each starts, relative to the others.
PATTERNS: tuple[tuple[tuple[int, ...], float], ...] = (
    ((6, 12), 7),
    ((6, 12, 25), 9),
    ((6, 12, 25, 26), 6),
    ((12,), 5),
    ((12, 25), 5),
    ((25, 26), 7),
    ((25,), 5),
    ((26,), 2),
    ((1, 2), 7),
    ((1, 2, 5), 5),
    ((1, 2, 5, 25, 26), 5),
    ((1,), 3),
    ((2,), 3),
    ((5,), 5),
    ((4,), 9),
    ((4, 9), 5),
    ((4, 9, 17), 3),
    ((9, 25), 2),
    ((1, 4, 15), 4),
    ((1, 4), 3),
    ((15, 17), 5),
    ((17,), 6),
    ((15,), 4),
    ((4, 5), 3),
    ((20, 25), 5),
    ((1, 2, 4, 5, 20, 25, 26), 3),
    ((9,), 5),
    ((20,), 5),
    ((4, 6, 9, 25), 2),
    ((6,), 3),
)
_EVENTS_A_SECOND = 0.56


@dataclass(frozen=True)
class Track:
    """A recording's movements, one row a frame.

    Attributes:
        fps: Frames a second.
        intensity: (N, 12) continuous AU intensity 0-5.
        blink: (N,) 0 open to 1 closed.
        pose: (N, 3) yaw, pitch, roll of the head, radians.
        gaze: (N, 2) radians, sideways and up.
        nuisance: Strength (N,) of unlabelled movements by name.
        speaking: (N,) bool.
    """

    fps: float
    intensity: np.ndarray
    blink: np.ndarray
    pose: np.ndarray
    gaze: np.ndarray
    nuisance: dict[str, np.ndarray]
    speaking: np.ndarray

    def __len__(self) -> int:
        return len(self.intensity)


def _bump(time: np.ndarray, start: float, onset: float, apex: float, offset: float) -> np.ndarray:
    """Return an event's curve in [0, 1] over time (seconds)."""
    rise = ease((time - start) / onset)
    fall = ease((time - start - onset - apex) / offset)
    return rise * (1 - fall)


def _walk(rng: np.random.Generator, time: np.ndarray, spread: float, period: float) -> np.ndarray:
    """Return a smooth random curve (N,) with this standard deviation and typical period (s)."""
    knots = max(int(np.ceil(time[-1] / period)) + 4, 5)
    values = rng.normal(0, spread, knots)
    position = time / period + 1
    left = np.floor(position).astype(int)
    share = ease(position - left)
    return values[left] * (1 - share) + values[left + 1] * share


def _intensities(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Draw events and return (N, 12) intensities."""
    intensity = np.zeros((len(time), len(AUS)))
    weights = np.array([weight for _, weight in PATTERNS], float)
    length = time[-1] + 3.0
    for _ in range(rng.poisson(length * _EVENTS_A_SECOND)):
        pattern = PATTERNS[int(rng.choice(len(PATTERNS), p=weights / weights.sum()))][0]
        start = rng.uniform(-3.0, time[-1])
        peak = rng.uniform(1.0, 5.2)
        onset, apex, offset = rng.uniform(0.2, 0.9), rng.gamma(2.0, 0.7), rng.uniform(0.4, 1.6)
        for au in pattern:
            own = np.clip(peak * rng.uniform(0.65, 1.25), 0.6, 5.0)
            curve = _bump(
                time,
                start + rng.normal(0, 0.12),
                onset * rng.uniform(0.8, 1.3),
                apex * rng.uniform(0.7, 1.2),
                offset * rng.uniform(0.8, 1.3),
            )
            k = AUS.index(au)
            intensity[:, k] = np.maximum(intensity[:, k], own * curve)
    return intensity


def _blinks(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Return lid closure (N,): a blink every 2-7 seconds, about a quarter of a second each."""
    closure, now = np.zeros(len(time)), rng.uniform(0.3, 4.0)
    while now < time[-1]:
        duration = rng.uniform(0.2, 0.36)
        curve = _bump(time, now, 0.35 * duration, 0.15 * duration, 0.5 * duration)
        closure = np.maximum(closure, curve * rng.uniform(0.85, 1.0))
        now += rng.uniform(2.0, 7.0)
    return closure


def _speech(rng: np.random.Generator, time: np.ndarray) -> tuple[np.ndarray, dict]:
    """Return when the person speaks (N,) and the mouth movements of it."""
    speaking, now = np.zeros(len(time)), rng.uniform(0, 6)
    while now < time[-1]:
        length = rng.uniform(0.8, 3.0)
        speaking = np.maximum(speaking, _bump(time, now, 0.15, length, 0.2))
        now += length + rng.uniform(5, 18)
    rhythm = 2 * np.pi * np.cumsum(rng.uniform(2.5, 5.0) + _walk(rng, time, 0.6, 0.5))
    syllables = 0.5 + 0.5 * np.sin(rhythm * (time[1] - time[0] if len(time) > 1 else 0.05))
    moves = {
        "speech_jaw": speaking * syllables * rng.uniform(0.4, 0.9),
        "speech_lips": speaking * syllables * rng.uniform(0.2, 0.8),
        "funnel": speaking * np.clip(_walk(rng, time, 0.35, 0.25), 0, 0.7),
        "pucker": speaking * np.clip(_walk(rng, time, 0.3, 0.3), 0, 0.6),
    }
    return speaking > 0.2, moves


def _odd_moves(rng: np.random.Generator, time: np.ndarray) -> dict[str, np.ndarray]:
    """Return unlabelled actions of the mouth (pressing, pulling aside, puffing), each rare."""
    moves: dict[str, np.ndarray] = {}
    names = (
        "press",
        "mouth_left",
        "mouth_right",
        "jaw_left",
        "jaw_right",
        "puff",
        "pucker",
        "roll",
    )
    for _ in range(rng.poisson((time[-1] + 1) * 0.07)):
        name = str(rng.choice(names))
        curve = _bump(time, rng.uniform(-1, time[-1]), 0.3, rng.uniform(0.3, 1.5), 0.4)
        strongest = np.maximum(moves.get(name, np.zeros(len(time))), curve * rng.uniform(0.2, 0.7))
        moves[name] = strongest
    return moves


def draw_track(rng: np.random.Generator, frames: int, fps: float = 20.0) -> Track:
    """Draw a recording.

    Args:
        rng: Source of randomness.
        frames: Its length.
        fps: Frames a second.
    """
    time = np.arange(frames) / fps
    intensity = _intensities(rng, time)
    speaking, moves = _speech(rng, time)
    # Speech and a deliberate jaw drop share the jaw: the stronger AU 25 or 26, the less of it.
    free = 1 - np.clip(intensity[:, [AUS.index(25), AUS.index(26)]].max(1) / 2.0, 0, 1)
    moves = {name: curve * free for name, curve in moves.items()}
    for name, curve in _odd_moves(rng, time).items():
        mouth = 1 - np.clip(intensity[:, AUS.index(12) :].max(1) / 2.5, 0, 1)
        moves[name] = np.maximum(moves.get(name, 0.0), curve * mouth)
    pose = np.stack(
        [_walk(rng, time, 0.15, 2.2), _walk(rng, time, 0.085, 1.8), _walk(rng, time, 0.05, 2.5)], 1
    )
    pose = np.clip(pose, [-0.44, -0.26, -0.2], [0.44, 0.26, 0.2])
    jump = np.repeat(rng.normal(0, 1, (int(time[-1] * 1.2) + 2, 2)), max(1, int(fps / 1.2)), 0)
    gaze = jump[:frames] * np.array([0.13, 0.08])
    if len(gaze) < frames:
        gaze = np.concatenate([gaze, np.repeat(gaze[-1:], frames - len(gaze), 0)])
    return Track(
        fps, intensity, _blinks(rng, time), pose, np.clip(gaze, -0.35, 0.35), moves, speaking
    )


def rest_around(track: Track, frame: int) -> Track:
    """Return the track with every movement fading to rest around a frame, over a second."""
    distance = np.abs(np.arange(len(track)) - frame) / track.fps
    share = ease(distance - 0.15)
    return replace(
        track,
        intensity=track.intensity * share[:, None],
        blink=track.blink * share,
        nuisance={name: curve * share for name, curve in track.nuisance.items()},
    )


def pose_trial(track: Track, aus: list[int], rng: np.random.Generator) -> Track:
    """Return the track with one posed action: rest, rise, hold and fall of these AUs only."""
    time = np.arange(len(track)) / track.fps
    length = max(time[-1], 1.0 / track.fps)
    intensity = np.zeros_like(track.intensity)
    for au in aus:
        peak = rng.uniform(3.0, 5.0)
        curve = _bump(time, 0.12 * length, 0.25 * length, 0.25 * length, 0.25 * length)
        intensity[:, AUS.index(au)] = peak * curve
    return replace(track, intensity=intensity, nuisance={}, speaking=np.zeros(len(track), bool))


def unlabelled_curve(rng: np.random.Generator, frames: int, fps: float) -> np.ndarray:
    """Return an intensity curve (N,) of an action outside the 12 AUs: rare single events."""
    time, curve = np.arange(frames) / fps, np.zeros(frames)
    for _ in range(1 + rng.poisson(time[-1] * 0.12)):
        event = _bump(time, rng.uniform(0, max(time[-1] - 1, 0.1)), 0.4, rng.uniform(0.5, 1.5), 0.6)
        curve = np.maximum(curve, rng.uniform(1.5, 5.0) * event)
    return curve

"""The varied look: what a calibrator has to learn not to take for an action.

Half of a person's clips are as in the usual look. In the others the head turns and nods further,
eyes close for seconds, light comes from below, from the side or coloured, and in a third of them
the face rests all the time, so that nothing but these moves. People also differ in what else moves
with an action (cheeks and wings of the nose with a smile) and in how far an action moves them.
Labels are what can be seen: AU 5 can't through closed lids; who speaks parts the lips (AU 25) and
drops the jaw (AU 26), and a jaw that drops parts the lips. In the other looks speech is no label.

The first two clips of a person are one session, with one light, camera and sensor; each other clip
is one of its own, to which half of the people come with other hair, some with glasses put on or
off, and some men with another beard. Blur, noise and compression aren't drawn here but in training
(`Recipe.target_noise`), apart for target and reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from siamcal.synth.actions import AUS
from siamcal.synth.dynamics import Track
from siamcal.synth.hair import BEARDS
from siamcal.synth.props import FRAMES
from siamcal.synth.scene import Camera, Light
from siamcal.synth.texture import ease
from siamcal.synth.traits import Traits, draw_hair_style, stream

__all__ = [
    "is_changed",
    "restyle",
    "session_of",
    "vary_camera",
    "vary_light",
    "vary_track",
    "vary_traits",
]

CHANGED = 0.5  # share of clips that differ from the usual look
RESTING = 0.33  # share of those in which nothing but nuisances moves
CLOSING = 0.5  # share of those in which the eyes close for a while

# Shares of the sessions after the first to which a person comes with other hair, with glasses put
# on or off, and (men) with another beard.
OTHER_HAIR, OTHER_GLASSES, OTHER_BEARD = 0.5, 0.25, 0.25

# How much further the head goes than in the usual look, and where it stops (radians).
TURNS = ((1.2, 2.6), (1.2, 3.0), (1.0, 2.0))  # yaw, pitch, roll
STOPS = (0.75, 0.5, 0.3)

# What speech moves, as intensities of AU 26 and AU 25 at full strength, and how much of AU 26 parts
# the lips: by what the landmarks of rendered mouths show.
SPEECH_JAW, SPEECH_LIPS, JAW_PARTS = 2.2, 3.0, 0.7

#: How far each AU moves a face, as a factor on the usual way; spread of its logarithm.
REACH, REACH_SPREAD = 0.85, 0.22

#: What else moves with an action: AU -> most of each, at level 5.
COMPANIONS: dict[int, dict[str, float]] = {
    1: {"eye_wide": 0.3},
    2: {"eye_wide": 0.3},
    4: {"lid_tightener": 0.3, "sneer": 0.25},
    6: {"cheeks": 0.5, "sneer": 0.2, "lip_raiser": 0.2},
    9: {"cheeks": 0.5, "lip_raiser": 0.4, "lid_tightener": 0.3},
    12: {"cheeks": 0.6, "sneer": 0.3, "lip_raiser": 0.3, "dimple": 0.5, "stretch": 0.4},
    15: {"chin": 0.35},
    17: {"pucker": 0.3, "roll": 0.4},
    20: {"speech_jaw": 0.5},
    25: {"speech_jaw": 0.3},
    26: {"speech_lips": 0.5, "funnel": 0.25},
}


def _odds(seed: int, person: int, clip: int) -> np.random.Generator:
    return stream(seed, person, 61, clip)


def session_of(clip: int) -> int:
    """The clip whose light, camera and sensor a clip has."""
    return 0 if clip == 1 else clip


def is_changed(seed: int, person: int, clip: int) -> bool:
    """Whether a clip differs from the usual look."""
    return bool(_odds(seed, person, clip).random() < CHANGED)


def vary_traits(usual: Traits) -> Traits:
    """Return the same person with companions of the actions, and actions of other reach."""
    rng = stream(usual.seed, usual.number, 62)
    reach = REACH * np.exp(rng.normal(0, REACH_SPREAD, len(AUS)))
    companions = {
        au: {name: float(most * rng.random()) for name, most in others.items()}
        for au, others in COMPANIONS.items()
    }
    return replace(usual, gain=usual.gain * reach, companions=companions)


def restyle(usual: Traits, session: int) -> Traits:
    """Return the same person as they come to a session: other hair, glasses, beard, or as they are.

    Args:
        usual: The person of the first session.
        session: From `session_of`.
    """
    if session == 0:
        return usual
    rng = stream(usual.seed, usual.number, 66, session)
    hair, glasses, beard = rng.random(3) < (OTHER_HAIR, OTHER_GLASSES, OTHER_BEARD)
    changed = usual
    if hair:
        style = draw_hair_style(rng, usual.sex, usual.age, usual.origin)
        front = usual.hair_front + float(rng.normal(0, 0.04))
        changed = replace(changed, hair_style=style, hair_front=front)
    if glasses:
        frame = str(rng.choice(FRAMES)) if usual.glasses == "none" else "none"
        changed = replace(changed, glasses=frame)
    if beard and usual.sex == "male":
        others = [kind for kind in BEARDS if kind != usual.beard]
        changed = replace(changed, beard=str(rng.choice(others)))
    return changed


def vary_track(usual: Track, *key: int) -> Track:
    """Return a clip's movements with larger turns, closed eyes, or at rest throughout.

    Args:
        usual: The movements as drawn.
        *key: Seed, person, clip.
    """
    seed, person, clip = key
    intensity, blink, pose = usual.intensity.copy(), usual.blink, usual.pose
    nuisance, speaking = usual.nuisance, usual.speaking
    if is_changed(seed, person, clip):
        rng = stream(seed, person, 63, clip)
        turns = np.array([rng.uniform(*turn) for turn in TURNS])
        pose = np.clip(pose * turns, -np.array(STOPS), STOPS)
        if rng.random() < CLOSING:
            blink = np.maximum(blink, _closed(rng, len(usual), usual.fps))
        if rng.random() < RESTING:
            intensity[:] = 0
            nuisance, speaking = {}, np.zeros(len(usual), bool)
    intensity[:, AUS.index(5)] *= 1 - blink
    intensity, nuisance = _spoken(intensity, nuisance)
    return replace(
        usual, intensity=intensity, blink=blink, pose=pose, nuisance=nuisance, speaking=speaking
    )


def _spoken(
    intensity: np.ndarray, nuisance: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Speech as AU 25 and AU 26, in the picture and the labels; what else moves is kept."""
    left = {n: curve for n, curve in nuisance.items() if n not in ("speech_jaw", "speech_lips")}
    lips, jaw = AUS.index(25), AUS.index(26)
    spoken = intensity.copy()
    spoken[:, jaw] += SPEECH_JAW * nuisance.get("speech_jaw", 0.0)
    spoken[:, lips] += SPEECH_LIPS * nuisance.get("speech_lips", 0.0)
    spoken[:, lips] = np.maximum(spoken[:, lips], JAW_PARTS * spoken[:, jaw])
    spoken[:, [lips, jaw]] = np.clip(spoken[:, [lips, jaw]], 0, 5)
    return spoken, left


def _closed(rng: np.random.Generator, frames: int, fps: float) -> np.ndarray:
    """Return lid closure (N,) with stretches of one to three seconds every ten or so."""
    time, closed = np.arange(frames) / fps, np.zeros(frames)
    for _ in range(1 + rng.poisson(time[-1] / 10)):
        start, length = rng.uniform(-1, time[-1]), rng.uniform(1, 3)
        rise, fall = ease((time - start) / 0.2), ease((time - start - length) / 0.2)
        closed = np.maximum(closed, rng.uniform(0.6, 1.0) * rise * (1 - fall))
    return closed


def vary_light(usual: Light, *key: int) -> Light:
    """Return the light of a session: from below, hard from the side, coloured, or as it is.

    Args:
        usual: The light as drawn.
        *key: Seed, person, session.
    """
    seed, person, session = key
    if not is_changed(seed, person, session):
        return usual
    rng = stream(seed, person, 64, session)
    kind = int(rng.integers(4))
    if kind == 0:
        return replace(usual, elevation=float(rng.uniform(-0.9, -0.15)))
    if kind == 1:
        return replace(usual, azimuth=float(rng.choice([-1, 1]) * rng.uniform(1.1, 1.55)))
    if kind == 2:
        return replace(usual, warmth=float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.6)))
    return usual


def vary_camera(usual: Camera, *key: int) -> Camera:
    """Return a session's camera: nearer or farther, higher or lower.

    Args:
        usual: The camera as drawn.
        *key: Seed, person, session, view.
    """
    seed, person, session, view = key
    if not is_changed(seed, person, session):
        return usual
    rng = stream(seed, person, 65, session, view)
    return replace(
        usual,
        distance=float(np.exp(rng.uniform(np.log(4.5), np.log(25.0)))),
        pitch=usual.pitch + float(rng.normal(0, 0.08)),
        yaw=usual.yaw + float(rng.normal(0, 0.1)),
    )

"""Who a rendered person is: the draws that make identity, resting face and looks.

Numbers, not pictures: traits are cheap, go into the participants table and decide everything that
:mod:`siamcal.synth.person` builds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siamcal.synth.actions import AUS
from siamcal.synth.complexion import Complexion
from siamcal.synth.hair import BEARDS
from siamcal.synth.mesh import load_mesh
from siamcal.synth.props import FRAMES
from siamcal.synth.skin import Brows
from siamcal.synth.wrinkles import WRINKLE_AUS

__all__ = ["Traits", "draw_traits", "stream"]

# A person has a few strong resting traits, not a little of everything: each AU has one with these
# odds, of half to all of the amount below, either way, as a share of level 5.
_REST_ODDS = 0.22
_AMOUNTS = (0.70, 0.55, 0.68, 0.36, 0.42, 0.88, 0.55, 0.32, 0.72, 0.24, 0.14, 0.0)
# How much of it the other way: an action run backwards is soon no face (AU 12 and 17 most), and a
# mouth that has gone there first must come back before it reads as AU 15, 17 or 20; lips can't be
# more than closed.
_BACKWARDS = {1: 0.5, 4: 0.6, 9: 0.7, 12: 0.5, 15: 0.5, 17: 0.5, 20: 0.6, 25: 0.0}
_ORIGINS = ("african", "asian", "caucasian")
_LOCAL_FOLDERS = (
    "head/",
    "forehead/",
    "eyebrows/",
    "eyes/",
    "nose/",
    "mouth/",
    "chin/",
    "cheek/",
    "ears/",
)
# Shapes that are drawn smaller: whole heads differ less than noses, and brows and eyes stay within
# what is found in people (brow above the eye: a standard deviation of about .045 inter-ocular
# distances).
_DAMPED = {"head": 0.5, "eyebrows": 0.5, "eyes": 0.6}


def stream(*key: int) -> np.random.Generator:
    """Return the random stream of a key such as (seed, person, purpose): same on any machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(k) for k in key])))


@dataclass(frozen=True)
class Traits:
    """One person.

    Attributes:
        seed: Seed of the population.
        number: Number of the person in it.
        sex: "female" or "male".
        age: 0 (about 20 years) to 1 (about 80).
        origin: Mixture weights of the three head shapes the model knows.
        skin_tone: 0 (dark) to 1 (light).
        redness: Skin undertone.
        hair_style: Key of :data:`siamcal.synth.hair.STYLES`.
        hair_front: Hairline height in decimetres on the mean head.
        recession: 0 to 1.
        hair_srgb: Hair colour.
        grey: Whether the hair is grey.
        beard: One of :data:`siamcal.synth.hair.BEARDS`.
        glasses: "none" or a frame.
        eye_srgb: Iris colour.
        brows: How the brows are drawn.
        rest: (12,) resting offset along each AU as a share of level 5, `bias` applied.
        permanent: Strength of permanent wrinkles by AU, `bias` applied.
        gain: (12,) how far each AU moves this face.
        weights: Identity shape weights.
        complexion: Of the shifted look; None in the usual one.
        stubble: Density of shaved beard, likewise.
        beard_length: Decimetres a full beard or goatee stands off, likewise.
        companions: Unlabelled movements that go with each AU, at level 5; of the varied look.
    """

    seed: int
    number: int
    sex: str
    age: float
    origin: tuple[float, float, float]
    skin_tone: float
    redness: float
    hair_style: str
    hair_front: float
    recession: float
    hair_srgb: tuple[float, float, float]
    grey: bool
    beard: str
    glasses: str
    eye_srgb: tuple[float, float, float]
    brows: Brows
    rest: np.ndarray
    permanent: dict[int, float]
    gain: np.ndarray
    weights: dict[str, float]
    complexion: Complexion | None = None
    stubble: float | None = None
    beard_length: float | None = None
    companions: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The participant's name in every table."""
        return f"R{self.number:06d}"

    def row(self) -> dict[str, Any]:
        """Return the person's row of the participants table."""
        row: dict[str, Any] = {
            "participant": self.name,
            "number": self.number,
            "sex": self.sex,
            "age": round(20 + 60 * self.age),
            "skin_tone": round(self.skin_tone, 3),
            "glasses": self.glasses,
            "beard": self.beard,
            "hair": self.hair_style,
            "grey_hair": self.grey,
        }
        row |= {f"head_{o}": round(w, 3) for o, w in zip(_ORIGINS, self.origin, strict=True)}
        row |= {
            f"rest_AU{au:02d}": round(float(5 * r), 3) for au, r in zip(AUS, self.rest, strict=True)
        }
        row |= {f"wrinkle_AU{au:02d}": round(self.permanent[au], 3) for au in WRINKLE_AUS}
        row |= {
            f"gain_AU{au:02d}": round(float(g), 3) for au, g in zip(AUS, self.gain, strict=True)
        }
        return row


def _shape_weights(
    rng: np.random.Generator, sex: str, age: float, origin: np.ndarray
) -> dict[str, float]:
    """Draw the identity shapes: macro mixture, local features in pairs, asymmetry."""
    known = load_mesh().identities
    weights: dict[str, float] = {}

    def add(name: str, weight: float) -> None:
        if name in known and weight:
            weights[name] = weights.get(name, 0.0) + float(weight)

    ages = (("young", 1 - age), ("old", age))
    for name, share in zip(_ORIGINS, origin, strict=True):
        for label, part in ages:
            add(f"macro/{name}-{sex}-{label}", share * part)
    weight, muscle = rng.uniform(-1, 1), rng.uniform(-1, 1)
    weight_shapes = (
        ("averageweight", 1 - abs(weight)),
        ("maxweight" if weight > 0 else "minweight", abs(weight)),
    )
    muscle_shapes = (
        ("averagemuscle", 1 - abs(muscle)),
        ("maxmuscle" if muscle > 0 else "minmuscle", abs(muscle)),
    )
    for label, part in ages:
        for m, mw in muscle_shapes:
            for w, ww in weight_shapes:
                add(f"macro/universal-{sex}-{label}-{m}-{w}", part * mw * ww)
    for name in sorted(known):
        if name.startswith(_LOCAL_FOLDERS) and "/r-" not in name:
            amount = abs(rng.normal(0, 0.28)) if rng.random() < 0.35 else 0.0
            amount *= _DAMPED.get(name.split("/")[0], 1.0)
            add(name, amount)
            if "/l-" in name:
                add(name.replace("/l-", "/r-"), amount)
        elif name.startswith("asym/") and rng.random() < 0.15:
            add(name, abs(rng.normal(0, 0.22)))
    return weights


def _hair_colour(
    rng: np.random.Generator, tone: float, age: float
) -> tuple[tuple[float, float, float], bool]:
    """Draw hair colour and whether it has gone grey."""
    light = rng.random() ** 2.2 * np.clip(tone * 1.4 - 0.4, 0, 1)
    dark, blond = np.array([30.0, 23.0, 19.0]), np.array([176.0, 136.0, 84.0])
    colour = dark + light * (blond - dark) + rng.uniform(0, 1) * np.array([14, 4, 0])
    grey = bool(rng.random() < 0.85 * max(0.0, age - 0.25))
    if grey:
        share = rng.uniform(0.45, 0.95)
        colour = colour * (1 - share) + share * rng.uniform(120, 190)
    return (float(colour[0]), float(colour[1]), float(colour[2])), grey


def draw_hair_style(
    rng: np.random.Generator, sex: str, age: float, origin: np.ndarray | tuple[float, ...]
) -> str:
    """Draw a style of :data:`siamcal.synth.hair.STYLES` by how often such people wear it."""
    african = origin[0]
    if sex == "female":
        odds = {
            "short": 0.12,
            "fringe": 0.06,
            "side_part": 0.10,
            "curly": 0.08 + 0.2 * african,
            "afro": 0.25 * african,
            "tied_back": 0.18,
            "long": 0.30,
            "bob": 0.16,
        }
    else:
        odds = {
            "short": 0.30,
            "fringe": 0.10,
            "side_part": 0.2,
            "curly": 0.06 + 0.1 * african,
            "afro": 0.15 * african,
            "buzz": 0.2,
            "bald": 0.05 + 0.2 * age,
            "long": 0.03,
        }
    shares = np.array(list(odds.values()))
    return str(rng.choice(list(odds), p=shares / shares.sum()))


def _resting_offsets(rng: np.random.Generator) -> np.ndarray:
    """Draw the resting offset (12,) along each AU; most are 0."""
    has = rng.random(len(AUS)) < _REST_ODDS
    forwards = rng.random(len(AUS)) < 0.5
    size = rng.uniform(0.5, 1.0, len(AUS)) * np.array(_AMOUNTS)
    backwards = np.array([_BACKWARDS.get(au, 1.0) for au in AUS])
    return np.where(has, np.where(forwards, size, -backwards * size), 0.0)


def draw_traits(seed: int, number: int, bias: float = 1.0) -> Traits:
    """Draw person `number` of population `seed`.

    Args:
        seed: Seed of the population.
        number: The person; any number gives a person, and always the same one.
        bias: Scale of resting offsets and permanent wrinkles in [0, 1]; with 0 nothing else about
            the person changes.
    """
    rng = stream(seed, number, 1)
    sex = "female" if rng.random() < 0.5 else "male"
    age = float(rng.beta(1.3, 1.6))
    origin = rng.dirichlet([0.5, 0.5, 0.5])
    tone = float(np.clip(origin @ np.array([0.16, 0.66, 0.80]) + rng.normal(0, 0.12), 0, 1))
    hair, grey = _hair_colour(rng, tone, age)
    style = draw_hair_style(rng, sex, age, origin)
    beard = "none"
    if sex == "male" and rng.random() < 0.6:
        beard = str(rng.choice(BEARDS[1:]))
    frame = str(rng.choice(FRAMES)) if rng.random() < 0.3 else "none"
    irises = ((62, 92, 122), (70, 48, 30), (96, 104, 84), (112, 84, 48), (48, 30, 20), (86, 60, 36))
    odds = np.array([0.3 * tone, 0.9, 0.25 * tone, 0.35 * tone, 1.0, 0.8])
    eye = irises[int(rng.choice(len(irises), p=odds / odds.sum()))]
    brows = Brows(
        lift=float(rng.normal(0, 0.016)),
        thickness=float(rng.uniform(0.018, 0.046) * (0.8 if sex == "female" else 1.0)),
        density=float(rng.uniform(0.5, 1.0)),
        slant=float(rng.normal(0, 0.12)),
        arch=float(rng.uniform(0, 0.06)),
        inner=float(rng.uniform(0.10, 0.16)),
    )
    rest = _resting_offsets(rng)
    permanent = {
        au: bias * float((rng.random() < 0.25 + 0.5 * age) * rng.uniform(0.2, 1.0))
        for au in WRINKLE_AUS
    }
    return Traits(
        seed=seed,
        number=number,
        sex=sex,
        age=age,
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        skin_tone=tone,
        redness=float(rng.normal(0.02, 0.05)),
        hair_style=style,
        hair_front=float(7.97 + rng.normal(0, 0.045)),
        recession=float(rng.uniform(0, 0.3 + (0.7 * age if sex == "male" else 0.0))),
        hair_srgb=hair,
        grey=grey,
        beard=beard,
        glasses=frame,
        eye_srgb=(float(eye[0]), float(eye[1]), float(eye[2])),
        brows=brows,
        rest=bias * rest,
        permanent=permanent,
        gain=rng.uniform(0.75, 1.15, 12),
        weights=_shape_weights(rng, sex, age, origin),
    )

"""The shifted look: the same people and movements, shown as the usual look never shows them.

Methods that keep how the target looks (its light, texture, camera) can win on rendered people
alone, where these are alike in training and test. The look `shifted` is a fixed second data set to
report on: shapes, resting offsets, movements, frames and labels of equal numbers and seeds stay;
everything else comes from streams of its own, so nothing of the usual look moves.

Each range below lies outside what the usual look draws, or clearly beyond its middle:

=====================  ====================================  ====================================
nuisance               usual                                 shifted
=====================  ====================================  ====================================
redness of the skin    .02 +- .05                            under -.14 or over .18
mottling of the skin   .06 of the tone                       .09-.15 more, and pores .05-.1
freckles, blemishes    0-6 moles                             60-700, 6-40
gloss of the skin      factor .5-1.3                         times 0-.3 or 2-3.2
make-up                red lips of a third of the women      lids, cheeks, lips of most women
hair                   natural colours, ten styles           dyed; styles that the usual look
                                                             gives to nobody of this sex
beards                 stubble .6-1.3; .03-.13 dm long       .2-.4 or 1.6-2.2; .15-.22 dm
camera                 6.5-14 dm; pitch -.02 +- .06          3.5-5.5 or 20-40 dm; +-.17-.24
face in the picture    .27-.66 of the height                 .68-.78 where the camera is near
light                  elevation over -.1, azimuth within    from below, hard from the side,
                       +-1.3, colour .05 +- .12, steady      or coloured; flickers by 8-30 %
lens (256 px)          .35 +- .35 px                         .8-1.7 px
noise                  2.2 grey levels, 1.3 % over 7         7-12, and in colour 2.5-5
JPEG quality           62-95                                 18-45
exposure               .7-1.6 in 95 %                        .48-.62 or 1.65-1.95
white balance, gamma   none                                  +-13-30 %, .6-.72 or 1.15-1.35
vignetting             none                                  25-55 % in the corners
background             rooms                                 :mod:`siamcal.synth.backdrops`
=====================  ====================================  ====================================

They are as far out as MediaPipe still finds nearly all faces (docs/synth.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from siamcal.synth.complexion import Complexion
from siamcal.synth.scene import Camera, Light, Sensor
from siamcal.synth.traits import Traits, stream

__all__ = ["LOOKS", "shift_camera", "shift_light", "shift_sensor", "shift_traits"]

#: The third is in :mod:`siamcal.synth.variety`.
LOOKS = ("usual", "shifted", "varied")

#: One or more ranges, each as likely.
Ranges = tuple[tuple[float, float], ...]

DARK_TONE = 0.35  # skin tones below it get what leaves the face to be seen

# Skin.
REDNESS: Ranges = ((-0.22, -0.14), (0.18, 0.30))
MOTTLE: Ranges = ((0.09, 0.15),)
GRAIN: Ranges = ((0.025, 0.05), (0.2, 0.35))  # decimetres
PORES: Ranges = ((0.05, 0.10),)
FRECKLES: Ranges = ((60, 150), (300, 700))
BLEMISHES: Ranges = ((6, 40),)
GLOSS: Ranges = ((0.0, 0.3), (2.0, 3.2))
# sRGB of lids, cheeks and lips, and how much they cover.
MAKE_UP = (
    ((70, 40, 110), (190, 80, 110), (96, 14, 58)),
    ((36, 92, 120), (214, 110, 80), (226, 96, 70)),
    ((40, 36, 40), (150, 70, 70), (62, 18, 26)),
    ((170, 120, 40), (205, 90, 120), (228, 110, 150)),
)
MAKE_UP_ODDS = {"female": 0.75, "male": 0.1}
MAKE_UP_COVER: Ranges = ((0.35, 0.7),)

# Hair and beards; sRGB. None of the styles is drawn for this sex in the usual look.
DYES = (
    (186, 74, 26),
    (104, 14, 38),
    (240, 226, 204),
    (12, 14, 52),
    (214, 112, 146),
    (28, 112, 110),
    (94, 50, 140),
    (230, 122, 40),
)
# Beards have the hair's colour and would look like masks in some of them, and on dark skin in all
# but the last.
BEARD_DYES = ((186, 96, 44), (122, 46, 22), (6, 6, 9))
STYLES = {
    "female": ("undercut", "mop", "frizz", "buzz", "bald"),
    "male": ("undercut", "mop", "frizz", "bob", "tied_back"),
}
BEARDS = ("none", "stubble", "stubble", "moustache", "goatee", "full")
STUBBLE: Ranges = ((0.2, 0.4), (1.6, 2.2))
BEARD_LENGTH: Ranges = ((0.15, 0.22),)  # decimetres

# Camera: decimetres, share of the picture's height, radians.
WIDE_DISTANCE, WIDE_SHARE = (3.5, 5.5), (0.68, 0.78)
TELE_DISTANCE, TELE_SHARE = (20.0, 40.0), (0.52, 0.64)
PITCH: Ranges = ((-0.24, -0.18), (0.17, 0.22))

# Light: radians, and strengths in linear light.
BELOW_ELEVATION: Ranges = ((-0.85, -0.35),)
SIDE_AZIMUTH: Ranges = ((-1.55, -1.38), (1.38, 1.55))
WARMTH: Ranges = ((-0.65, -0.45), (0.45, 0.65))
KEY: Ranges = ((0.8, 1.2),)
SKY: Ranges = ((0.15, 0.22),)
FILL: Ranges = ((0.34, 0.45),)
FLICKER: Ranges = ((0.08, 0.3),)
FLICKER_RATE: Ranges = ((0.8, 9.0),)  # hertz

# Lens, sensor and file.
BLUR = (0.8, 1.7)  # pixels of a picture of 256
NOISE_FLOOR, NOISE_MOST = 7.0, 12.0  # grey levels
CHROMA: Ranges = ((2.5, 5.0),)
QUALITY = (18, 45)
# Skin darker than DARK_TONE is over-exposed and lifted, as by a camera that meters the face.
# Exposure with the tone curve that a camera answers it with: too dark and lifted, or too light and
# pressed down. Drawn apart, they would leave black or white faces, with nothing to be read in them.
UNDER_EXPOSURE, LIFTING_GAMMA = (0.48, 0.62), (0.6, 0.72)
OVER_EXPOSURE, PRESSING_GAMMA = (1.65, 1.95), (1.15, 1.35)
RED_BLUE: Ranges = ((-0.26, -0.12), (0.12, 0.26))  # natural logarithm of a gain
GREEN: Ranges = ((-0.06, 0.06),)
VIGNETTE: Ranges = ((0.25, 0.55),)


def _draw(rng: np.random.Generator, ranges: Ranges) -> float:
    return float(rng.uniform(*ranges[int(rng.integers(len(ranges)))]))


def _colour(rng: np.random.Generator, srgb: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (float(np.clip(v + rng.normal(0, 6), 4, 250)) for v in srgb)
    return red, green, blue


def _shift_skin(rng: np.random.Generator, sex: str) -> Complexion:
    lids, cheeks, lips = (_colour(rng, c) for c in MAKE_UP[int(rng.integers(len(MAKE_UP)))])
    made_up = rng.random() < MAKE_UP_ODDS[sex]
    return Complexion(
        mottle=_draw(rng, MOTTLE),
        grain=_draw(rng, GRAIN),
        pores=_draw(rng, PORES),
        freckles=int(_draw(rng, FRECKLES)),
        blemishes=int(_draw(rng, BLEMISHES)),
        gloss=_draw(rng, GLOSS),
        lids=lids,
        cheeks=cheeks,
        lips=lips,
        make_up=_draw(rng, MAKE_UP_COVER) if made_up else 0.0,
    )


def shift_traits(usual: Traits) -> Traits:
    """Return the same person with other skin, hair and beard; shapes and resting face stay."""
    rng = stream(usual.seed, usual.number, 41)
    beard = str(rng.choice(BEARDS)) if usual.sex == "male" else "none"
    dyes: tuple[tuple[int, int, int], ...] = DYES if beard == "none" else BEARD_DYES
    if beard != "none" and usual.skin_tone < DARK_TONE:
        dyes = BEARD_DYES[-1:]
    return replace(
        usual,
        redness=_draw(rng, REDNESS),
        hair_style=str(rng.choice(STYLES[usual.sex])),
        hair_srgb=_colour(rng, dyes[int(rng.integers(len(dyes)))]),
        grey=False,
        beard=beard,
        beard_length=_draw(rng, BEARD_LENGTH),
        stubble=_draw(rng, STUBBLE),
        complexion=_shift_skin(rng, usual.sex),
    )


def shift_light(usual: Light, *key: int) -> Light:
    """Return another light for a clip, which `key` (seed, person, clip) names.

    It comes from below, hard from the side, or coloured from where the usual light may come from;
    all three flicker.
    """
    seed, person, clip = key
    rng = stream(seed, person, 51, clip)
    kind = int(rng.integers(3))
    azimuth, elevation, warmth = rng.uniform(-0.7, 0.7), rng.uniform(-0.05, 0.6), rng.normal(0, 0.1)
    if kind == 0:
        elevation = _draw(rng, BELOW_ELEVATION)
    elif kind == 1:
        azimuth = _draw(rng, SIDE_AZIMUTH)
    else:
        warmth = _draw(rng, WARMTH)
    return replace(
        usual,
        azimuth=float(azimuth),
        elevation=float(elevation),
        warmth=float(warmth),
        key=_draw(rng, KEY),
        sky=_draw(rng, SKY),
        fill=_draw(rng, FILL),
        flicker=_draw(rng, FLICKER),
        rate=_draw(rng, FLICKER_RATE),
    )


def shift_camera(usual: Camera, *key: int) -> Camera:
    """Return a nearer or farther camera; `key` is (seed, person, clip, view).

    The turn sideways stays: it is part of the view, and of the pose that tables tell.
    """
    seed, person, clip, view = key
    rng = stream(seed, person, 52, clip, view)
    wide = rng.random() < 0.5
    share = float(rng.uniform(*(WIDE_SHARE if wide else TELE_SHARE)))
    room = 0.5 - 0.5 * share
    return replace(
        usual,
        face_share=share,
        distance=float(rng.uniform(*(WIDE_DISTANCE if wide else TELE_DISTANCE))),
        shift=(float(rng.uniform(-0.4, 0.4) * room), float(rng.uniform(-0.3, 0.3) * room)),
        pitch=_draw(rng, PITCH),
    )


def shift_sensor(image_size: int, skin_tone: float, *key: int) -> Sensor:
    """Return the sensor of a clip.

    Args:
        image_size: Side of the pictures in pixels.
        skin_tone: Of the person.
        *key: Seed, person, clip.
    """
    seed, person, clip = key
    rng = stream(seed, person, 53, clip)
    balance, green = _draw(rng, RED_BLUE), _draw(rng, GREEN)
    dark = skin_tone < DARK_TONE
    over = rng.random() < 0.5
    # The more the lens blurs, the less the file loses: both at their worst leave no face to find.
    harm = rng.random()
    kept = float(np.clip(harm + rng.uniform(-0.25, 0.25), 0, 1))
    exposure = OVER_EXPOSURE if over or dark else UNDER_EXPOSURE
    return Sensor(
        exposure=float(rng.uniform(*exposure)),
        noise=min(NOISE_FLOOR + float(rng.gamma(2.0, 0.9)), NOISE_MOST),
        # As much of the face is lost in a picture of any size.
        blur=float(BLUR[0] + harm * (BLUR[1] - BLUR[0])) * image_size / 256,
        quality=round(QUALITY[0] + kept * (QUALITY[1] - QUALITY[0])),
        balance=(float(np.exp(balance)), float(np.exp(green)), float(np.exp(-balance))),
        gamma=float(rng.uniform(*(PRESSING_GAMMA if over and not dark else LIFTING_GAMMA))),
        vignette=_draw(rng, VIGNETTE),
        chroma=_draw(rng, CHROMA),
    )

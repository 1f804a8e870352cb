"""What can be measured on one face: pose, eyes, light, sharpness, colours, proportions.

All is measured in a picture of fixed size, cut by rigid points, so that it doesn't depend on the
frame's. What speaks against a face is said in `siamcal.faces.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

from siamcal.faces.alignment import rigid_placement
from siamcal.faces.detection import Face

__all__ = ["SYMMETRIC_YAW", "FaceMeasures", "eye_aspect", "measure_face"]

SIDE = 96  # pixels; the outer eye corners lie 42 apart
# Landmarks of both sides that mirror each other; the left one first. From the nose down, and above.
_LOWER_PAIRS = np.array(
    (
        *((38, 268), (39, 269), (58, 288), (77, 325), (85, 315), (92, 322), (98, 327), (135, 364)),
        *((136, 365), (138, 367), (140, 369), (148, 377), (150, 379), (167, 393), (177, 401)),
        *((178, 402), (182, 406), (187, 411), (192, 416), (201, 421), (203, 423), (204, 424)),
        *((205, 425), (206, 426), (207, 427), (210, 430), (212, 432), (213, 433), (216, 436)),
        (239, 459),
    )
)
_UPPER_PAIRS = np.array(
    (
        *((36, 266), (46, 276), (50, 280), (54, 284), (67, 297), (93, 323), (104, 333), (107, 336)),
        *((108, 337), (109, 338), (111, 340), (118, 347), (127, 356), (158, 385), (162, 389)),
        *((163, 390), (193, 417), (223, 443), (231, 451), (234, 454), (236, 456), (237, 457)),
    )
)
_MOUTH = (61, 291, 0, 17)
_EYES = ((33, 133, 159, 145), (263, 362, 386, 374))
# Of each eye the outer corner and three points of the upper lid, and what they are measured to: the
# inner corner and the lower lid.
_EYE_ENDS = ((33, 160, 159, 158, 263, 387, 386, 385), (133, 144, 145, 153, 362, 373, 374, 380))
_ORBITS = ((27, 222, 23, 230), (257, 442, 253, 450))
_ABOVE_BROWS = ([108, 69, 104, 105, 66, 107], [337, 299, 333, 334, 296, 336])
# Heights of a face and widths to compare them with, whose relation an expression changes little.
_TALL = np.array([(168, 2), (10, 168), (6, 4), (168, 2), (10, 2)])
_WIDE = np.array([(33, 263), (33, 263), (133, 362), (127, 356), (234, 454)])
_LOWER_SKIN = ((207, 187), (427, 411), (0, 17, 13), (199, 175, 152), (57,), (287,))
# Around the mouth: the lower lip, the upper one, the philtrum, two of the chin.
_MOUTH_PARTS = ((17, 84, 314), (0, 37, 267), (164,), (18, 200), (199,))
_UPPER_SKIN = ((9, 151), (67, 69), (297, 299), (50, 117), (280, 346))
# Of landmarks beyond the picture's edge, in distances of the outer eye corners. Of rendered people
# the worst action unit moves by .1 at .15, by .2 at .25, by .6 at .35 and by 1 at .45; but a face
# that is cut through the lips may be thought to end at .17.
MOST_OUTSIDE = 0.1
# Of `FaceMeasures.warmth`: 180 rendered pictures in three looks have .06 to 2.75, with red and blue
# swapped -.08 and less.
LEAST_WARMTH = -0.1
DARK, DARK_CONTRAST = 60.0, 17.0  # grey levels; a dark skin in good light has more contrast
# A head turned farther than this is no mirror image of itself.
SYMMETRIC_YAW, SYMMETRIC_PITCH = 18.0, 20.0  # degrees


@dataclass(frozen=True)
class FaceMeasures:
    """What can be measured on one face, without a reference.

    Attributes:
        yaw: Degrees; positive where the nose points to the right of the picture.
        pitch: Degrees; positive where it points down.
        roll: Degrees; positive where the head leans to the right of the picture.
        face_size: Pixels between the outer eye corners.
        brightness: Median grey level of the face, 0 to 255.
        contrast: Standard deviation of its grey levels.
        eye_aspect: Height over width of the open eye, mean of both.
        blink: MediaPipe's blink coefficient, of the eye that is more shut; 0 of a face without its
            expression.
        sharpness: Finest detail over detail four times as coarse.
        mouth_edges: Mean gradient at the mouth over the face's; about 1.2, on a mask .2.
        eye_edges: The same at the left and the right eye of the picture; about 1.8.
        eye_light: Logarithm of the light around the eyes over that of the cheeks and forehead.
        tint: Colour of the lower face over that of the upper one: logarithms of red and blue
            over green.
        asymmetry: 1 - correlation of edges on both sides, below and above the nose.
        strands: Sideways gradients less half of the upright ones, on the forehead above the left
            and the right brow of the picture; about -.1, with strands of hair above .1. Endless
            where they weren't measured yet, as in older profiles.
        hand: `FaceDetector.hand`; 0 also where nobody looked.
        outside: How far landmarks lie beyond the picture's edge, in distances of the outer eye
            corners; 0 of a face that is wholly in it.
        warmth: Logarithm of red over blue light, of the upper or the lower face, whichever is
            redder; skin is red.
        mouth_colours: Of five parts around the mouth, less the face's own: logarithms of red over
            green, of green and of blue over green; () where they weren't measured yet.
        tallness: Logarithm of the face's height over its width, in space, so that a turn of the
            head changes it little; NaN where it wasn't measured yet.
    """

    yaw: float
    pitch: float
    roll: float
    face_size: float
    brightness: float
    contrast: float
    eye_aspect: float
    blink: float
    sharpness: float
    mouth_edges: float
    eye_edges: tuple[float, float]
    eye_light: float
    tint: tuple[float, float]
    asymmetry: tuple[float, float]
    strands: tuple[float, float] = (math.inf, math.inf)
    hand: float = 0.0
    outside: float = 0.0
    warmth: float = 0.0
    mouth_colours: tuple[float, ...] = ()
    tallness: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded, for a sidecar or a profile."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, told: Any) -> FaceMeasures | None:
        """Back from `to_dict`; None where anything else was told."""
        names = {field.name for field in fields(cls)}
        if not isinstance(told, dict) or not names - _LATER <= set(told) <= names:
            return None
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in told.items()
        }
        return cls(**values)

    @classmethod
    def median(cls, several: Sequence[FaceMeasures]) -> FaceMeasures:
        """The median of each measure."""
        return cls(
            **{
                field.name: _plain(np.median([getattr(m, field.name) for m in several], axis=0))
                for field in fields(cls)
            }
        )

    @property
    def dark(self) -> bool:
        """Whether there is too little light on the face."""
        return self.brightness < DARK and self.contrast < DARK_CONTRAST

    @property
    def blue(self) -> bool:
        """Whether the skin is blue: as in an array whose channels are in OpenCV's order."""
        return self.warmth < LEAST_WARMTH and not self.dark

    @property
    def cut_off(self) -> bool:
        """Whether the picture ends within the face: what isn't in it is guessed."""
        return self.outside > MOST_OUTSIDE

    @property
    def symmetric(self) -> bool:
        """Whether the head is straight enough for its sides to be compared."""
        return abs(self.yaw) < SYMMETRIC_YAW and abs(self.pitch) < SYMMETRIC_PITCH


_LATER = {
    "strands",
    "hand",
    "outside",
    "warmth",
    "mouth_colours",
    "tallness",
}  # which profiles of earlier versions don't have


def measure_face(rgb: np.ndarray, face: Face, hand: float = 0.0) -> FaceMeasures:
    """Measure a face.

    Args:
        rgb: (H, W, 3) uint8, the whole frame.
        face: The face in it.
        hand: `FaceDetector.hand` of it, where somebody looked.
    """
    points = face.landmarks
    size = float(np.linalg.norm(points[33] - points[263]))
    placement = rigid_placement(points)
    matrix = placement.matrix(SIDE)
    smaller = placement.eye_distance > SIDE / 2.3
    flags = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    crop = cv2.warpAffine(rgb, matrix, (SIDE, SIDE), flags=flags)  # (S, S, 3)
    places = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]  # (478, 2) in the crop
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = grey[18:86, 18:78]
    orbits, lower, upper, mouth = _light_of_patches(crop, places)
    gradient = cv2.magnitude(*_gradients(grey))
    relative = _gradients(np.log(grey + 8))
    whole = float(gradient[18:86, 18:78].mean()) + 1e-3
    return FaceMeasures(
        *face.pose,
        face_size=size,
        brightness=float(_median(inside.reshape(-1))),
        contrast=float(inside.std()),
        eye_aspect=eye_aspect(points),
        blink=max(face.blendshapes.get(f"eyeBlink{side}", 0.0) for side in ("Left", "Right")),
        sharpness=_sharpness(grey),
        mouth_edges=_mean_in_box(gradient, places, _MOUTH) / whole,
        eye_edges=(
            _mean_in_box(gradient, places, _EYES[0]) / whole,
            _mean_in_box(gradient, places, _EYES[1]) / whole,
        ),
        eye_light=_eye_light(orbits, upper),
        tint=_tint(lower, upper),
        asymmetry=_asymmetry(cv2.magnitude(*relative), places),
        strands=_strands(*relative, places),
        hand=hand,
        outside=_outside(points, rgb.shape) / max(size, 1e-3),
        warmth=max(float(_median(skin[:, 0] - skin[:, 2])) for skin in (upper, lower)),
        mouth_colours=_mouth_colours(mouth, lower, upper),
        tallness=_tallness(points),
    )


_SQUARE = np.arange(-2, 3)
_PATCHES = (*_ORBITS, *_LOWER_SKIN, *_UPPER_SKIN, *_MOUTH_PARTS)
_PATCH_POINTS = np.concatenate(_PATCHES)
_LIGHT = np.log((np.arange(256) / 255.0) ** 2.2 + 1e-3)  # of each grey level, about linear light


def _gradients(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)


def _tallness(points: np.ndarray) -> float:
    tall, wide = (
        np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1) for ends in (_TALL, _WIDE)
    )
    return float(np.log(np.maximum(tall, 1e-3) / np.maximum(wide, 1e-3)).mean())


def _outside(points: np.ndarray, shape: tuple[int, ...]) -> float:
    """Pixels by which the farthest landmark lies beyond the picture's edge; 0 if none does."""
    places = points[:, :2]
    return max(0.0, float(-places.min()), float((places - shape[1::-1]).max()))


def eye_aspect(points: np.ndarray) -> float:
    """Height over width of the eyes, the mean of both; of landmarks (478, 3)."""
    apart = np.linalg.norm(points[_EYE_ENDS[0], :] - points[_EYE_ENDS[1], :], axis=1).reshape(2, 4)
    return float((apart[:, 1:].mean(1) / np.maximum(apart[:, 0], 1e-3)).mean())


def _sharpness(grey: np.ndarray) -> float:
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    fine, coarse = grey - smooth, smooth - cv2.GaussianBlur(grey, (0, 0), 4.0)
    return float(fine[18:86, 18:78].std() / max(coarse[18:86, 18:78].std(), 1e-3))


def _mean_in_box(image: np.ndarray, places: np.ndarray, points: Sequence[int]) -> float:
    """Mean of the box around some landmarks; 0 where it leaves the crop."""
    some = places[list(points)]
    left, top = (min(max(math.floor(v) - 2, 0), SIDE) for v in some.min(0).tolist())
    right, bottom = (min(max(math.ceil(v) + 3, 0), SIDE) for v in some.max(0).tolist())
    box = image[top:bottom, left:right]
    return float(box.mean()) if box.size else 0.0


def _by_size() -> list[tuple[list[int], np.ndarray]]:
    """Patches of equally many landmarks, and where these stand among all: (patches, landmarks)."""
    sizes = [len(points) for points in _PATCHES]
    starts = np.cumsum([0, *sizes])
    groups = [[n for n, own in enumerate(sizes) if own == size] for size in sorted(set(sizes))]
    return [(group, starts[group][:, None] + np.arange(sizes[group[0]])) for group in groups]


_PATCHES_BY_SIZE = _by_size()  # one sort for each size


def _light_of_patches(
    crop: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Median colours of squares of 5 pixels around landmarks, as logarithms of light.

    Returns:
        Of the orbits (2, 3), the lower (6, 3) and the upper skin (5, 3), the mouth's parts (5, 3).
    """
    at = np.minimum(np.maximum(np.rint(places[_PATCH_POINTS]).astype(int), 3), SIDE - 4)
    x, y = at.T[:, :, None, None]
    squares = _LIGHT[crop[y + _SQUARE[:, None], x + _SQUARE]].reshape(len(at), -1, 3)
    colours = np.empty((len(_PATCHES), 3))
    for patches, points in _PATCHES_BY_SIZE:
        colours[patches] = _median(squares[points].reshape(len(patches), -1, 3), axis=1)
    return colours[:2], colours[2:8], colours[8:13], colours[13:]


def _mouth_colours(*parts: np.ndarray) -> tuple[float, ...]:
    """Of the first parts (5, 3) against the median of all."""
    colours = np.concatenate(parts)  # (P, 3)
    colours[:, [0, 2]] -= colours[:, [1]]
    return tuple(map(float, (colours[: len(parts[0])] - _median(colours)).ravel()))


def _median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """As `np.median`, which takes most of its time for what can't happen here."""
    ordered = np.sort(values, axis=axis)
    half, odd = divmod(ordered.shape[axis], 2)
    if odd:
        return ordered.take(half, axis)
    return (ordered.take(half - 1, axis) + ordered.take(half, axis)) / 2


def _eye_light(orbits: np.ndarray, upper: np.ndarray) -> float:
    return float(orbits.mean(1).max() - _median(upper[1:].mean(1)))


def _tint(lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    red, green, blue = lower.mean(0) - upper.mean(0)
    return float(red - green), float(blue - green)


def _asymmetry(gradient: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    edges = cv2.GaussianBlur(gradient, (0, 0), 2.0)

    def unlike(pairs: np.ndarray) -> float:
        at = np.minimum(np.maximum(np.rint(places[pairs]).astype(int), 0), SIDE - 1)  # (N, 2, 2)
        left, right = np.log(edges[at[..., 1], at[..., 0]] + 0.05).T
        spread = float(left.std() * right.std())
        together = float(((left - left.mean()) * (right - right.mean())).mean())
        return 1 - together / max(spread, 1e-6)

    return unlike(_LOWER_PAIRS), unlike(_UPPER_PAIRS)


def _strands(sideways: np.ndarray, upright: np.ndarray, places: np.ndarray) -> tuple[float, float]:
    """Hair falls down; the forehead's own folds and the brows run sideways."""
    hanging = np.abs(sideways) - 0.5 * np.abs(upright)

    def above_brow(points: Sequence[int]) -> float:
        mask = np.zeros(hanging.shape, np.uint8)
        outline = cv2.convexHull(places[points].astype(np.float32))
        cv2.fillConvexPoly(mask, outline.astype(np.int32), 1)
        return float(cv2.mean(hanging, mask)[0])

    return above_brow(_ABOVE_BROWS[0]), above_brow(_ABOVE_BROWS[1])


def _plain(value: np.ndarray) -> Any:
    return float(value) if value.ndim == 0 else tuple(float(v) for v in value)


def _rounded(value: Any) -> Any:
    return [round(v, 4) for v in value] if isinstance(value, tuple) else round(float(value), 4)

"""What surrounds a person: light, background, camera and sensor of a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from siamcal.synth.texture import linear

__all__ = ["Camera", "Light", "Sensor", "draw_background", "draw_camera", "draw_light", "rotation"]


@dataclass(frozen=True)
class Light:
    """Light of a clip; angles in radians, strengths in linear light.

    Attributes:
        azimuth: Of the key light, 0 from the front, positive from the subject's left.
        elevation: Of the key light.
        key: Strength of the key light.
        sky: Strength of light from everywhere.
        fill: Strength of light from the other side.
        warmth: Colour of the key light, below 0 blue, above 0 yellow.
        drift: How far light changes within the clip (share of key, and radians).
        period: Seconds of one such change.
        flicker: How far all light changes with the lamps' supply, as a share.
        rate: How often it does, hertz.
    """

    azimuth: float
    elevation: float
    key: float
    sky: float
    fill: float
    warmth: float
    drift: float
    period: float
    flicker: float = 0.0
    rate: float = 0.0

    def at(self, seconds: float) -> Light:
        """Return the light at a time of the clip."""
        wave = np.sin(2 * np.pi * seconds / self.period)
        lamps = 1 + self.flicker * float(np.sin(2 * np.pi * self.rate * seconds))
        return replace(
            self,
            azimuth=self.azimuth + 0.5 * self.drift * float(wave),
            key=self.key
            * (1 + self.drift * float(np.sin(2.6 * seconds / self.period + 1)))
            * lamps,
            sky=self.sky * lamps,
            fill=self.fill * lamps,
        )


@dataclass(frozen=True)
class Camera:
    """Camera of a clip.

    Attributes:
        face_share: Height of the face (chin to hairline) as a share of the picture's height.
        distance: Decimetres from the face.
        shift: Where the face stands, share of the picture, right and down of the middle.
        yaw: Turn of the camera round the head, radians (views).
        pitch: Likewise up and down.
    """

    face_share: float
    distance: float
    shift: tuple[float, float]
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Sensor:
    """What the camera's electronics do to a frame.

    Attributes:
        exposure: Factor on linear light.
        noise: Standard deviation in grey levels.
        blur: Standard deviation of the lens in pixels.
        quality: Of JPEG.
        balance: Factors on linear red, green and blue.
        gamma: Exponent on the sRGB values as shares of white.
        vignette: Share of light that the lens loses in the corners.
        chroma: Standard deviation of blotches of colour, grey levels.
    """

    exposure: float = 1.0
    noise: float = 0.0
    blur: float = 0.0
    quality: int = 92
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    vignette: float = 0.0
    chroma: float = 0.0


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the (3, 3) matrix that turns by yaw about y, then pitch about x, then roll about z."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the light of a clip: from frontal and soft to one-sided and hard."""
    contrast = rng.beta(1.6, 1.8)
    level = rng.uniform(0.8, 1.25)
    return Light(
        azimuth=float(np.clip(rng.normal(0, 0.6), -1.3, 1.3)),
        elevation=float(rng.uniform(-0.1, 0.95)),
        key=float(level * (0.45 + 0.95 * contrast)),
        sky=float(level * (0.62 - 0.42 * contrast)),
        fill=float(level * rng.uniform(0.04, 0.3)),
        warmth=float(rng.normal(0.05, 0.12)),
        drift=float(rng.uniform(0.05, 0.3) if rng.random() < 0.4 else 0.02),
        period=float(rng.uniform(4, 15)),
    )


def draw_camera(rng: np.random.Generator, yaw: float = 0.0) -> Camera:
    """Draw the camera of a clip; `yaw` (radians) is the view's own turn."""
    share = float(rng.uniform(0.27, 0.66))
    room = 0.5 - 0.5 * share
    return Camera(
        face_share=share,
        distance=float(rng.uniform(6.5, 14)),
        shift=(float(rng.normal(0, 0.22) * room), float(rng.normal(-0.12, 0.2) * room)),
        yaw=yaw + float(rng.normal(0, 0.06)),
        pitch=float(rng.normal(-0.02, 0.06)),
    )


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint a room, out of focus; returns linear light (size, size, 3) float32."""
    small = 128
    wall = rng.uniform(25, 225) + rng.normal(0, 18, 3)
    picture = np.ones((small, small, 3), np.float32) * wall.clip(5, 245).astype(np.float32)
    ramp = np.linspace(rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2), small, dtype=np.float32)
    picture *= ramp[None, :, None]
    picture *= np.linspace(rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.1), small)[:, None, None]

    def colour() -> list[float]:
        return (rng.uniform(15, 235) + rng.normal(0, 30, 3)).clip(0, 250).tolist()

    kind = rng.random()
    if kind < 0.14:  # shelves with books
        for y in range(int(rng.integers(5, 25)), small, int(rng.integers(26, 44))):
            cv2.rectangle(picture, (0, y), (small, y + 2), colour(), -1)
            x = int(rng.integers(0, 10))
            while x < small:
                w = int(rng.integers(3, 9))
                h = int(rng.integers(10, 22))
                if rng.random() < 0.85:
                    cv2.rectangle(picture, (x, y - h), (x + w, y), colour(), -1)
                x += w + 1
    elif kind < 0.4:  # window or door
        x, y = (int(v) for v in rng.integers(-20, 80, 2))
        w, h = int(rng.integers(25, 60)), int(rng.integers(35, 110))
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour(), -1)
        cv2.rectangle(picture, (x + 3, y + 3), (x + w - 3, y + h - 3), [235, 240, 245], -1)
        cv2.line(picture, (x + w // 2, y), (x + w // 2, y + h), colour(), 2)
    elif kind < 0.8:  # posters, lamps, people's things
        for _ in range(int(rng.integers(2, 8))):
            x, y = (int(v) for v in rng.integers(-10, small, 2))
            w, h = (int(v) for v in rng.integers(6, 46, 2))
            if rng.random() < 0.6:
                cv2.rectangle(picture, (x, y), (x + w, y + h), colour(), -1)
            else:
                cv2.circle(picture, (x, y), w // 2, colour(), -1)
    blurred = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.8, 4.5)))
    large = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_LINEAR)
    return linear(large.clip(0, 255)).astype(np.float32)

"""How far does a reading move when only light, camera, pose or lids do?

Each person is rendered at rest and acting; then every picture again with one thing changed. What
the reading changes by is an error, whatever the face does. The photograph of a real face that is
free to use (`benchmarks/calibrator.py`) is changed likewise where that can be done to a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from siamcal.benchmarks._sessions import restyled
from siamcal.benchmarks.calibrator import PHOTOGRAPH, photograph

from siamcal.calibrators.saving import load_calibrator
from siamcal.errors import ConfigError
from siamcal.evaluation.tables import HONESTY, to_markdown
from siamcal.files import asset, make_folder, write_json
from siamcal.inference import Predictor
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.actions import AUS
from siamcal.synth.frames import face_at
from siamcal.synth.person import Person, build_person
from siamcal.synth.plan import ROBUSTNESS_PEOPLE, Plan, draw_person, draw_recording
from siamcal.synth.render import Face, encode_picture, expose, render
from siamcal.synth.scene import draw_background

__all__ = ["REFERENCES", "TARGETS", "Picture", "pictures_of", "robustness"]

LENGTH, SIZE = 1200, 256
SMILE = (6, 12, 25)
BLUR = 0.06  # standard deviation in distances of the outer eye corners
NOISE, QUALITY = 8.0, 30  # grey levels; of JPEG
PITCH, YAW = np.radians(15), np.radians(20)
BELOW, ASIDE = -0.6, 1.4  # radians: elevation and azimuth of the key light
SLOPE = 0.4  # of the light over a face in a photograph, from its middle to its edges

#: What is changed of the target, each alone.
TARGETS = (
    "blur",
    "noise and JPEG",
    "light from below",
    "light from the side",
    "nodding down",
    "nodding up",
    "turning",
    "eyes closed",
)
#: Of the reference.
SESSION, STYLE = "reference of another session", "reference with other hair and glasses"
REFERENCES = (SESSION, STYLE)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a person.

    Attributes:
        rgb: (S, S, 3) uint8.
        target: Number of the face shown, 0 at rest, the last a smile; -1 is a reference.
        change: What was changed; "" is nothing.
    """

    rgb: np.ndarray
    target: int
    change: str = ""


@benchmarks.register("robustness")
def robustness(
    output: Path | None = None,
    calibrator: Path | None = None,
    people: int = 24,
    frames: int = 4,
) -> str:
    """Mean change of a calibrator's readings when one thing about the picture changes.

    Args:
        output: Folder for `robustness.md` and `.json`; None writes nothing.
        calibrator: Its folder; default the packaged one.
        people: Rendered people, whom nothing was trained on.
        frames: Acting faces of each.

    Returns:
        A table in Markdown: a row a change, a column an AU, the mean over all and the worst AU.
    """
    if not 1 <= people <= len(ROBUSTNESS_PEOPLE) or frames < 1:
        raise ConfigError(
            f"people is {people} and frames {frames}; allowed: 1 to {len(ROBUSTNESS_PEOPLE)} "
            "people, 1 frame or more."
        )
    model = load_calibrator(calibrator or asset("calibrator"))
    rows: list[dict[str, Any]] = []
    with Predictor(model) as predictor:
        numbers = ROBUSTNESS_PEOPLE[:people]
        for number in progress_bar(numbers, total=people, unit="person"):
            rows += _readings(predictor, number, pictures_of(number, frames))
        found = summarise(pd.DataFrame(rows), predictor.config.aus)
        found["photograph"] = on_photograph(predictor)
    text = _markdown(found, people, frames)
    if output is not None:
        make_folder(Path(output))
        (Path(output) / "robustness.md").write_text(text, encoding="utf-8")
        write_json(Path(output) / "robustness.json", found)
    return text


def pictures_of(number: int, frames: int) -> Iterator[Picture]:
    """The pictures of one person: the references first, then each face as it is and changed."""
    shoot = _Shoot(number)
    yield Picture(shoot.take(shoot.rest), -1)
    yield Picture(shoot.another_session(), -1, SESSION)
    yield Picture(shoot.other_style(), -1, STYLE)
    smile = replace(shoot.rest, intensity=np.where(np.isin(AUS, SMILE), 4.0, 0.0))
    faces = [shoot.rest, *shoot.acting(frames), smile]
    for target, face in enumerate(faces):
        yield Picture(shoot.take(face), target)
        for change in TARGETS:
            if change != "eyes closed" or target == 0:
                yield Picture(shoot.changed(face, change), target, change)


class _Shoot:
    """One person before one camera."""

    def __init__(self, number: int) -> None:
        plan = Plan(participants=1, frames=10, length=LENGTH, first_person=number)
        self.plan, self.number = plan, number
        self.recording = draw_recording(plan, number, 0)
        self.person = build_person(draw_person(plan, number))
        self.rng = np.random.default_rng(number)
        self.background = draw_background(self.rng, SIZE)
        self.rest = face_at(self.recording, 0, neutral=True)

    def acting(self, frames: int) -> list[Face]:
        """The strongest of random frames, with open eyes and the head as at rest."""
        drawn = self.rng.choice(LENGTH, 6 * frames, replace=False)
        active = sorted(drawn, key=lambda k: -self.recording.track.intensity[k].sum())[:frames]
        return [
            replace(
                face_at(self.recording, int(frame), neutral=False),
                blink=0.0,
                yaw=self.rest.yaw,
                pitch=self.rest.pitch,
                roll=self.rest.roll,
            )
            for frame in active
        ]

    def take(self, face: Face, person: Person | None = None, **light: float) -> np.ndarray:
        """A picture (SIZE, SIZE, 3), of another person or in another light where one is given."""
        lamp = replace(self.recording.light.at(0), **light)
        camera = self.recording.cameras["front"]
        linear = render(person or self.person, face, lamp, camera, self.background)
        return expose(linear, self.recording.sensor, np.random.default_rng(self.number))

    def changed(self, face: Face, change: str) -> np.ndarray:
        """The same face with one of TARGETS."""
        if change == "blur":
            # The outer eye corners are .47 face heights apart (mean of twenty people).
            eyes = 0.47 * self.recording.cameras["front"].face_share * SIZE
            return blurred(self.take(face), eyes)
        if change == "noise and JPEG":
            return recompressed(self.take(face), self.rng)
        if change == "light from below":
            return self.take(face, elevation=BELOW)
        if change == "light from the side":
            return self.take(face, azimuth=ASIDE)
        if change == "eyes closed":
            return self.take(replace(face, blink=1.0))
        moved = {
            "nodding down": {"pitch": face.pitch + PITCH},
            "nodding up": {"pitch": face.pitch - PITCH},
            "turning": {"yaw": face.yaw + YAW * (1 if self.number % 2 else -1)},
        }
        return self.take(replace(face, **moved[change]))

    def another_session(self) -> np.ndarray:
        """The person at rest, in another clip's light, by its camera and sensor."""
        plan = replace(self.plan, clips=2)
        other = draw_recording(plan, self.number, 1)
        background = draw_background(np.random.default_rng(self.number + 1), SIZE)
        linear = render(self.person, self.rest, other.light, other.cameras["front"], background)
        return expose(linear, other.sensor, np.random.default_rng(self.number))

    def other_style(self) -> np.ndarray:
        """The person at rest with other hair, and glasses put on or off."""
        return self.take(self.rest, build_person(restyled(self.person.traits, (self.number,))))


def blurred(rgb: np.ndarray, eyes: float) -> np.ndarray:
    """The picture out of focus; `eyes` is the distance of the outer eye corners in pixels."""
    return cv2.GaussianBlur(rgb, (0, 0), BLUR * eyes)


def recompressed(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with a sensor's noise, out of a JPEG file of poor quality."""
    noisy = np.clip(rgb + rng.normal(0, NOISE, rgb.shape), 0, 255).astype(np.uint8)
    data = encode_picture(noisy, ".jpg", QUALITY)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(read[..., ::-1])


def _readings(
    predictor: Predictor, number: int, pictures: Iterator[Picture]
) -> list[dict[str, Any]]:
    """A row a reading: person, target, change, and the intensities of the AUs."""
    references: dict[str, Any] = {}
    rows = []

    def add(picture: Picture, crop: np.ndarray, reference: str, change: str) -> None:
        values = np.clip(predictor.read(crop[None], references[reference])[0], 0, 5)
        read = {f"AU{au:02d}": float(v) for au, v in zip(predictor.config.aus, values, strict=True)}
        rows.append({"person": number, "target": picture.target, "change": change, **read})

    for picture in pictures:
        faces = predictor.pipeline.detect(picture.rgb, max_faces=1)
        if not faces:
            continue
        crop = predictor.pipeline.align(picture.rgb, faces[0])
        if picture.target < 0:
            references[picture.change] = predictor.encode(crop)
        elif "" in references:
            add(picture, crop, "", picture.change)
            if not picture.change:
                for other in references.keys() - {""}:
                    add(picture, crop, other, other)
    return rows


def on_photograph(predictor: Predictor) -> dict[str, float]:
    """Change -> mean absolute change over AUs of what is read of the photograph of a real face.

    The photograph itself is the reference. Noise and light have four draws or directions each.
    """
    rgb = photograph()
    face = predictor.pipeline.detect(rgb, max_faces=1)[0]
    corners = face.landmarks[[33, 263], :2]
    eyes = float(np.linalg.norm(corners[0] - corners[1]))
    still = predictor.pipeline.align(rgb, face)
    reference = predictor.encode(still)
    level = np.clip(predictor.read(still[None], reference)[0], 0, 5)
    changed = {
        "blur": [blurred(rgb, eyes)],
        "noise and JPEG": [recompressed(rgb, np.random.default_rng(seed)) for seed in range(4)],
        "light from one side": [lit(rgb, face.box, turn) for turn in range(4)],
    }
    found = {}
    for change, pictures in changed.items():
        crops = np.stack([predictor.pipeline.crop(picture) for picture in pictures])
        readings = np.clip(predictor.read(crops, reference), 0, 5)
        found[change] = float(np.abs(readings - level).mean())
    return found


def lit(rgb: np.ndarray, box: tuple[float, ...], turn: int) -> np.ndarray:
    """The picture with light that rises over the face by SLOPE to the right (0), down, left or up.

    Args:
        rgb: (H, W, 3) uint8.
        box: Of the face: left, top, width, height in pixels.
        turn: Quarter turns.
    """
    left, top, width, height = box
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    across, down = (columns - left) / width * 2 - 1, (rows - top) / height * 2 - 1
    along = (across, down, -across, -down)[turn]
    factor = 1 + SLOPE * np.clip(along, -1, 1)
    return np.clip(rgb * factor[..., None], 0, 255).astype(np.uint8)


def summarise(table: pd.DataFrame, aus: tuple[int, ...]) -> dict[str, Any]:
    """Mean change of each AU's readings by what was changed, of all faces and of those at rest.

    Args:
        table: Columns person, target, change and AU..; a row with change "" is the face as it is.
        aus: Action units.

    Returns:
        `all` and `rest`: change -> AU -> mean absolute difference to the face as it is; `smile`:
        AU -> mean reading of smiles (6 + 12 + 25 at 4); `faces`: change -> number.
    """
    names = [f"AU{au:02d}" for au in aus]
    last = table["target"].max()
    key = ["person", "target"]
    still = table[table["change"] == ""].set_index(key)[names]
    found: dict[str, Any] = {"all": {}, "rest": {}, "faces": {}}
    for change in (*TARGETS, *REFERENCES):
        moved = table[table["change"] == change].set_index(key)[names]
        moved = moved[moved.index.isin(still.index)]
        difference = (moved - still.loc[moved.index]).abs()
        at_rest = difference[difference.index.get_level_values("target") == 0]
        found["all"][change] = difference.mean().to_dict()
        found["rest"][change] = at_rest.mean().to_dict()
        found["faces"][change] = len(difference)
    smiles = still[still.index.get_level_values("target") == last]
    return found | {"smile": smiles.mean().to_dict()}


def _markdown(found: dict[str, Any], people: int, frames: int) -> str:
    text = [
        f"# Robustness\n\n{people} rendered people, {frames} acting faces, one at rest and one "
        "smile of each. Mean absolute change of the readings (0-5) when one thing changes."
    ]
    for part, title in (("all", "All faces"), ("rest", "At rest")):
        rows = {
            change: {
                "mean": f"{np.mean(list(values.values())):.2f}",
                "worst": f"{max(values.values()):.2f} ({max(values, key=values.__getitem__)})",
                **{au: f"{value:.2f}" for au, value in values.items()},
            }
            for change, values in found[part].items()
            if values and not np.isnan(list(values.values())).any()
        }
        table = to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "change")
        text.append(f"## {title}\n\n{table}")
    smile = ", ".join(f"{au} {value:.2f}" for au, value in found["smile"].items())
    text.append(f"Read of a smile (AU 6, 12, 25 at 4): {smile}.")
    if "photograph" in found:
        changes = ", ".join(f"{name} {value:.2f}" for name, value in found["photograph"].items())
        text.append(f"Mean change on {PHOTOGRAPH}, itself the reference: {changes}.")
    text.append(f"<sub>{HONESTY}</sub>")
    return "\n\n".join(text) + "\n"

"""Contact sheets: what the rendered people look like, before or after rendering a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from siamcal.errors import ConfigError
from siamcal.synth.actions import AUS
from siamcal.synth.frames import picture
from siamcal.synth.person import Person, build_person
from siamcal.synth.plan import Plan, Task, draw_person, draw_recording, select_frames
from siamcal.synth.render import Face, expose, render
from siamcal.synth.scene import Camera, Light, Sensor
from siamcal.synth.spread import far_apart

__all__ = ["SHEETS", "contact_sheet", "studio_picture"]

SHEETS = ("people", "actions", "levels", "occlusion", "bias")
_LIGHT = Light(0.3, 0.45, 0.9, 0.45, 0.15, 0.03, 0.0, 5.0)
_CAMERA = Camera(0.62, 11.0, (0.0, 0.0), 0.0, 0.0)


def studio_picture(person: Person, face: Face, size: int) -> np.ndarray:
    """Render a person before a grey wall, without noise; uint8 RGB (S, S, 3)."""
    wall = np.full((size, size, 3), 0.22, np.float32)
    return expose(render(person, face, _LIGHT, _CAMERA, wall), Sensor(), None)


def _label(image: np.ndarray, text: str) -> np.ndarray:
    labelled = Image.fromarray(image)
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(labelled).text(
        (6, 4), text, "white", font=font, stroke_width=1, stroke_fill="black"
    )
    return np.asarray(labelled)


def _rows(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    blank = np.zeros_like(pictures[0])
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[k : k + columns], 1) for k in range(0, len(padded), columns)]
    return np.concatenate(rows, 0)


def _people(plan: Plan, numbers: Sequence[int], occlusion: bool) -> np.ndarray:
    pictures = []
    for person in numbers:
        view = plan.views[person % len(plan.views)]
        frames = select_frames(plan, person, 0)
        recording = draw_recording(plan, person, 0)
        if occlusion:
            covered = frames[recording.occluded[frames]]
            frames = covered if len(covered) else frames
        # The most expressive of the frames: a sheet of resting faces shows little.
        activity = recording.track.intensity[frames].sum(1) - 9 * recording.track.blink[frames]
        frame = int(frames[int(np.argsort(activity)[int(0.7 * (len(frames) - 1))])])
        image, _, _ = picture(plan, Task(person, view, 0, 0, 1), frame)
        pictures.append(image)
    return _rows(pictures, min(6, len(pictures)))


def contact_sheet(plan: Plan, sheet: str = "people", spread: int | None = None) -> np.ndarray:
    """Return a contact sheet, uint8 RGB.

    Args:
        plan: Whom to show and at which size.
        spread: Of "people", show so many of the plan's, chosen to look different from one another
            (:func:`siamcal.synth.spread.far_apart`); None shows all.
        sheet: "people" (frames as a data set holds them), "actions" (each AU alone at level 5),
            "levels" (AU 1, 4, 12 and 26 from 0 to 5), "occlusion", or "bias" (the same resting
            people at bias 0 and 1). The last four but "occlusion" are lit as in a studio: of a
            shifted look they show skin and hair.

    Raises:
        ConfigError: There is no such sheet, or the plan has fewer people than are to be chosen.
    """
    if sheet not in SHEETS:
        raise ConfigError(f"sheet is {sheet!r}; allowed: {', '.join(SHEETS)}.")
    if sheet == "people":
        numbers: Sequence[int] = plan.people
        if spread is not None:
            chosen = far_apart([draw_person(plan, number) for number in plan.people], spread)
            numbers = sorted(plan.people[place] for place in chosen)
        return _people(plan, numbers, occlusion=False)
    if sheet == "occlusion":
        return _people(dataclasses.replace(plan, occlusion=1.0), plan.people, occlusion=True)
    rest, pictures = Face(np.zeros(len(AUS))), []
    size = plan.image_size
    if sheet == "bias":
        for bias in (0.0, 1.0):
            for number in plan.people:
                person = build_person(draw_person(dataclasses.replace(plan, bias=bias), number))
                pictures.append(_label(studio_picture(person, rest, size), f"bias {bias:g}"))
        return _rows(pictures, plan.participants)
    if sheet == "actions":
        faces = [("neutral", rest), ("blink", dataclasses.replace(rest, blink=1.0))]
        faces += [(f"AU{au}", Face.alone(au, 5.0)) for au in AUS]
    else:
        faces = [
            (f"AU{au}, level {k}", Face.alone(au, k)) for au in (1, 4, 12, 26) for k in range(6)
        ]
    for number in plan.people:
        person = build_person(draw_person(plan, number))
        pictures += [_label(studio_picture(person, face, size), text) for text, face in faces]
    return _rows(pictures, 7 if sheet == "actions" else 6)

"""One frame with what was read from it: the face's outline, and bars of the AUs beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from siamcal.inference.table import HIGHEST, written_value
from siamcal.inference.traces import GAP, PEOPLE, RAW, READING, REFERENCE

if TYPE_CHECKING:
    from siamcal.calibrators.config import CalibratorConfig
    from siamcal.inference.prediction import FrameResult

__all__ = ["OverlayPicture"]

INK, PALE, PAPER, THRESHOLD = "#222222", "#777777", "#ffffff", "#999999"
NOBODY = "#999999"  # a person who isn't read
# Smaller frames are enlarged by a whole number: letters need pixels, whatever the camera had.
LEAST_HEIGHT = 480
MOST_WIDTH = 1920  # nothing is enlarged beyond
LEAST_ROW = 24  # pixels for the name, number and bar of one AU
PANEL = 10.5  # width of the panel in rows
# The mesh's outline, and points at brows, eyes, nose and mouth.
OUTLINE = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
POINTS = (70, 105, 107, 336, 334, 300, 33, 159, 133, 145, 362, 386, 263, 374, 1, 61, 0, 291, 17)


@dataclass(frozen=True)
class _Layout:
    """Where everything lies, in pixels of the picture.

    Attributes:
        width: Of the frame, enlarged.
        frame_height: Of the frame, enlarged.
        height: Of the picture; the frame stands at its top.
        row: Unit of all that is in the panel: letters are half as high.
        pitch: From one AU to the next.
        columns: Of figures beside the names.
    """

    width: int
    frame_height: int
    height: int
    row: int
    pitch: float
    columns: int

    @classmethod
    def of(cls, height: int, width: int, aus: int, columns: int) -> _Layout:
        room = max(MOST_WIDTH // width, 1)
        scale = min(math.ceil(LEAST_HEIGHT / height), room)
        frame_height = height * scale
        whole = max(frame_height, LEAST_ROW * (aus + 3))
        row = max(min(whole // 18, whole // (aus + 3)), LEAST_ROW)
        pitch = min(1.4 * row, (whole - 3.2 * row) / aus)
        # H.264 in the form that all players read has even sides.
        return cls(width * scale // 2 * 2, frame_height, whole + whole % 2, row, pitch, columns)

    @property
    def panel(self) -> int:
        """Width of the panel."""
        return (round(PANEL * self.row) + (self.columns - 1) * self.column) // 2 * 2

    @property
    def column(self) -> int:
        """Width of a column of figures."""
        return round(1.6 * self.row)

    @property
    def names(self) -> int:
        """Width that the AUs' names have."""
        return self.panel - 4 * self.row - (self.columns - 1) * self.column


class OverlayPicture:
    """Draws frames of one recording; all its pictures have the size that the first one gave.

    Args:
        config: Of the calibrator.
        raw: Whether one person's results carry readings without the reference.
        people: Numbers of those who are read, where everybody is: a bar each, in their colour.
            None: one person is read.
    """

    def __init__(
        self, config: CalibratorConfig, *, raw: bool, people: Sequence[int] | None = None
    ) -> None:
        self.config, self.raw = config, raw and people is None
        self.colours = {
            number: PEOPLE[place % len(PEOPLE)] for place, number in enumerate(people or ())
        }
        self.alone = people is None
        self._layout: _Layout | None = None
        self._empty_panel: Image.Image | None = None

    def draw(self, rgb: np.ndarray | None, results: Sequence[FrameResult]) -> np.ndarray:
        """A frame and what was read from it, (H, W, 3) uint8.

        Args:
            rgb: (h, w, 3) uint8; None where there is no picture. One of another size than the
                first's is fitted into it.
            results: What was read from it, one for each face.
        """
        if self._layout is None:
            height, width = (LEAST_HEIGHT, 640) if rgb is None else rgb.shape[:2]
            columns = max(len(self.colours), 1)
            self._layout = _Layout.of(height, width, len(self.config.aus), columns)
        layout = self._layout
        frame = np.full((layout.height, layout.width, 3), 40, np.uint8)
        if rgb is not None:
            scale, left, top = self._place(frame, rgb, layout)
            for result in results:
                if result.face is not None:
                    colour = READING if self.alone else self._colour(result)
                    points = result.face.landmarks[:, :2] * scale + (left, top)
                    _draw_face(frame, points, colour)
                    if not self.alone:
                        frame = _number(frame, points, f"{result.face_id}", colour, layout)
        if told := self._wrong(results):
            frame = _banner(frame, told, layout)
        return np.hstack([frame, self._panel(results, layout)])

    @property
    def _neutral(self) -> str:
        """Colour of the mark at 0, which may not be a person's."""
        return REFERENCE if self.alone else INK

    def _colour(self, result: FrameResult) -> str:
        return self.colours.get(-1 if result.face_id is None else result.face_id, NOBODY)

    def _wrong(self, results: Sequence[FrameResult]) -> str:
        """All that is wrong with a frame, in words, and with whom."""
        named = not self.alone and any(result.face_id is not None for result in results)
        told = [
            f"{result.face_id}: {result.quality}" if named else result.quality
            for result in results
            if result.quality
        ]
        return "  ·  ".join(told)

    def _place(self, frame: np.ndarray, rgb: np.ndarray, layout: _Layout) -> tuple[float, int, int]:
        """Put a picture into the frame; its scale, left and top."""
        height, width = rgb.shape[:2]
        scale = min(layout.frame_height / height, (layout.width + 1) / width)
        size = (min(round(width * scale), layout.width), min(round(height * scale), len(frame)))
        left, top = (layout.width - size[0]) // 2, (layout.frame_height - size[1]) // 2
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame[top : top + size[1], left : left + size[0]] = cv2.resize(
            rgb, size, interpolation=flags
        )
        return scale, left, top

    def _lines(self, results: Sequence[FrameResult]) -> list[_Line]:
        """The bars of each AU, from above."""
        if not self.alone:
            found = {result.face_id: result.values for result in results}
            return [_Line(colour, found.get(number)) for number, colour in self.colours.items()]
        (result,) = results
        lines = [_Line(READING, result.values)]
        return lines + [_Line(RAW, None if result.values is None else result.raw)] * self.raw

    def _panel(self, results: Sequence[FrameResult], layout: _Layout) -> np.ndarray:
        if self._empty_panel is None:
            self._empty_panel = self._paper(layout)
        image = self._empty_panel.copy()
        draw, row = ImageDraw.Draw(image), layout.row
        draw.text(
            (row // 2, row // 2),
            f"{results[0].timestamp:.3f} s",
            INK,
            font=_font(row * 0.6, bold=True),
        )
        draw.text(
            (layout.panel - row // 2, row // 2 + row * 0.1),
            f"frame {results[0].index + 1}",
            PALE,
            font=_font(row * 0.5),
            anchor="ra",
        )
        lines = self._lines(results)
        for place, top in enumerate(self._tops(layout)):
            for number, line in enumerate(lines):
                if line.values is not None:
                    value = float(line.values[place])
                    self._bar(draw, value, top, layout, line.colour, number)
            self._numbers(draw, place, top, layout, lines)
        self._marks(draw, layout)
        return np.asarray(image)

    def _numbers(
        self,
        draw: ImageDraw.ImageDraw,
        place: int,
        top: int,
        layout: _Layout,
        lines: Sequence[_Line],
    ) -> None:
        """The readings of an AU in figures, one's in ink, several's in their colours."""
        font = _font(layout.row * 0.5, bold=True)
        shown = lines[:1] if self.alone else lines
        for column, line in enumerate(reversed(shown)):
            right = layout.panel - layout.row // 2 - column * layout.column
            told = "–" if line.values is None else self._told(float(line.values[place]), place)
            colour = INK if self.alone else line.colour
            draw.text((right, top), told, colour, font=font, anchor="ra")

    def _paper(self, layout: _Layout) -> Image.Image:
        """The panel without readings: names, tracks and what the colours mean."""
        image = Image.new("RGB", (layout.panel, layout.height), PAPER)
        draw, row = ImageDraw.Draw(image), layout.row
        font = _font(row * 0.5)
        for place, top in enumerate(self._tops(layout)):
            au, name = self.config.aus[place], self.config.au_names[place]
            draw.text((row // 2, top), f"{au}", INK, font=_font(row * 0.5, bold=True))
            draw.text((row * 3 // 2, top), _cut(name, font, layout.names), PALE, font=font)
            for number in range(self._bars):
                self._bar(draw, math.inf, top, layout, GAP, number)
        self._legend(draw, layout)
        return image

    @property
    def _bars(self) -> int:
        """Of each AU."""
        return 1 + self.raw if self.alone else len(self.colours)

    def _tops(self, layout: _Layout) -> list[int]:
        first = 1.7 * layout.row
        return [round(first + layout.pitch * n) for n in range(len(self.config.aus))]

    def _thickness(self, layout: _Layout) -> int:
        """Of a bar: several of them fill half of what the letters leave."""
        room = layout.pitch - 0.66 * layout.row
        return max(round(room * (0.4 if self._bars == 1 else 0.5 / max(self._bars, 1))), 2)

    def _share(self, value: float) -> float:
        """How full a bar is: of the range of intensities, or the probability."""
        if self.config.task == "detection":
            return 1 / (1 + math.exp(-max(value, -50.0)))
        return written_value(value) / HIGHEST if math.isfinite(value) else 1.0

    def _told(self, value: float, place: int) -> str:
        if self.config.task == "detection":
            return "yes" if value >= 0 else "no"
        return f"{written_value(value):.2f}"

    def _bar(
        self,
        draw: ImageDraw.ImageDraw,
        value: float,
        top: int,
        layout: _Layout,
        colour: str,
        number: int,
    ) -> None:
        """The bar of that number, from above."""
        row = layout.row
        left, right = row // 2, layout.panel - row // 2
        thick = self._thickness(layout)
        start = top + round(row * 0.66) + thick * number
        end = left + round((right - left) * self._share(value))
        if end > left:
            draw.rectangle((left, start, end - 1, start + thick - 1), colour)

    def _marks(self, draw: ImageDraw.ImageDraw, layout: _Layout) -> None:
        """Lines over the bars: the neutral face at 0, and each AU's threshold."""
        row = layout.row
        left, right = row // 2, layout.panel - row // 2
        thin = max(row // 16, 1)
        tall = self._thickness(layout) * self._bars
        for place, top in enumerate(self._tops(layout)):
            start = top + round(row * 0.66)
            if self.config.task == "intensity":
                share = self.config.thresholds[place] / HIGHEST
                edge = (left - 2 * thin, start - 2, left - 1, start + tall + 2)
                draw.rectangle(edge, self._neutral)
            else:
                share = 0.5
            x = left + round((right - left) * share)
            draw.rectangle((x, start, x + thin - 1, start + tall + 2), THRESHOLD)

    def _legend(self, draw: ImageDraw.ImageDraw, layout: _Layout) -> None:
        row, font = layout.row, _font(layout.row * 0.42)
        top = round(1.8 * row + layout.pitch * len(self.config.aus))
        told = [(colour, f"person {number}") for number, colour in self.colours.items()]
        if self.alone:
            told = [(READING, "calibrated"), *[(RAW, "without reference")] * self.raw]
        lines = [told, [(THRESHOLD, "present from here")]]
        if self.config.task == "intensity":
            lines[1].insert(0, (self._neutral, "neutral"))
        for number, line in enumerate(lines):
            x, y = row / 2, top + number * row * 0.6
            for colour, text in line:
                side = row * 0.3
                draw.rectangle((x, y + side * 0.35, x + side, y + side * 1.35), colour)
                draw.text((x + side * 1.5, y), text, PALE, font=font)
                x += side * 1.5 + font.getlength(text) + row * 0.4


@dataclass(frozen=True, eq=False)
class _Line:
    """A bar of every AU: its colour, and the readings, (A,), where there are some."""

    colour: str
    values: np.ndarray | None


def _draw_face(frame: np.ndarray, points: np.ndarray, shown: str) -> None:
    """The face's outline and points, (478, 2) in pixels of the frame, in place."""
    # Four bits of fraction: the drawing moves as smoothly as the face.
    at = np.round((points - 0.5) * 16).astype(np.int32)
    size = float(np.linalg.norm(points[33] - points[263]))
    thin = max(round(size / 60), 1)
    colour = ImageColor.getrgb(shown)
    outline = [at[list(OUTLINE)].reshape(-1, 1, 2)]
    cv2.polylines(frame, outline, True, (255, 255, 255), thin + 2, cv2.LINE_AA, shift=4)
    cv2.polylines(frame, outline, True, colour, thin, cv2.LINE_AA, shift=4)
    radius = round(max(size / 55, 1.2) * 16)
    for x, y in at[list(POINTS)]:
        cv2.circle(frame, (int(x), int(y)), radius + 16, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
        cv2.circle(frame, (int(x), int(y)), radius, colour, -1, cv2.LINE_AA, shift=4)


def _number(
    frame: np.ndarray, points: np.ndarray, text: str, colour: str, layout: _Layout
) -> np.ndarray:
    """A person's number above the forehead."""
    image = Image.fromarray(frame)
    font = _font(layout.row * 0.8, bold=True)
    place = (float(points[10, 0]), max(float(points[10, 1]) - layout.row * 0.2, layout.row))
    around = max(layout.row // 12, 1)
    ImageDraw.Draw(image).text(
        place, text, colour, font=font, anchor="mb", stroke_width=around, stroke_fill=PAPER
    )
    return np.array(image)


def _banner(frame: np.ndarray, text: str, layout: _Layout) -> np.ndarray:
    """A strip of words at the frame's lower edge."""
    font = _font(layout.row * 0.5)
    strip = frame[layout.frame_height - round(layout.row * 1.3) : layout.frame_height]
    strip[:] = strip // 4
    image = Image.fromarray(frame)
    place = (layout.row // 2, layout.frame_height - round(layout.row * 0.65))
    text = _cut(text, font, layout.width - layout.row)
    ImageDraw.Draw(image).text(place, text, PAPER, font=font, anchor="lm")
    return np.array(image)


def _cut(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """A text that fits, ending in three dots where it didn't."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


@lru_cache(maxsize=16)
def _font(size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), max(round(size), 9))

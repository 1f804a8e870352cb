"""`Calibrator`: a calibrator for scripts and notebooks, from neutral picture to table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from siamcal.errors import ConfigError, FaceNotFoundError
from siamcal.faces.media import Frame, open_media
from siamcal.faces.media.opening import sound_frame
from siamcal.inference.choosing import choose_reference
from siamcal.inference.many import ModelChoice
from siamcal.inference.prediction import Predictor
from siamcal.inference.profiles import load_profile
from siamcal.inference.recordings import PROFILE_SUFFIXES
from siamcal.inference.references import PersonReference, read_reference
from siamcal.inference.selection import Selection, smoothed
from siamcal.inference.table import AURows
from siamcal.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    #: A file, an RGB array (H, W, 3) of uint8, or a picture of Pillow.
    Picture = str | Path | np.ndarray | Any

__all__ = ["Calibrator"]


class Calibrator:
    """Reads action units of one person at a time, relative to a neutral frame of theirs.

    Args:
        predictor: Model and face pipeline; `Calibrator.from_pretrained` makes it.

    Attributes:
        person: The reference that readings are relative to; None before `calibrate`.

    Example:
        >>> from siamcal import Calibrator  # doctest: +SKIP
        >>> calibrator = Calibrator.from_pretrained()
        >>> calibrator.calibrate("neutral.jpg")
        >>> calibrator.read(frame)["AU12"]
        >>> table = calibrator.read_video("clip.mp4")
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.person: PersonReference | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, device: str = "auto", batch_size: int = 16
    ) -> Self:
        """Load a calibrator.

        Args:
            source: A folder, "hf-hub:owner/name", or None for the one in the package.
            device: "cpu", "cuda", "mps" or "auto".
            batch_size: Frames of a video that go through the network at once.

        Raises:
            ConfigError: It can't fill a table (its task or AUs aren't known), or no such device.
        """
        name = None if source is None else str(source)
        return cls(ModelChoice(name, None, device, batch_size).predictor())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the face models; the next frame loads them again."""
        self.predictor.pipeline.close()

    def __repr__(self) -> str:
        config = self.predictor.config
        aus = ", ".join(f"AU{au}" for au in config.aus)
        points = " and ".join(config.points)
        facts = self.person.facts if self.person else {}
        told = facts.get("profile") or facts.get("source") or "nobody yet: call calibrate()"
        return f"Calibrator({config.backbone} at {points}; {aus}; calibrated to {told})"

    @property
    def aus(self) -> list[str]:
        """Names of the readings: "AU01", ..."""
        return [f"AU{au:02d}" for au in self.predictor.config.aus]

    def calibrate(self, neutral: Picture, *, sound_only: bool = True) -> PersonReference:
        """Take a person's neutral face; all readings from now on are relative to it.

        Args:
            neutral: A picture at rest with open eyes, from the front; a video, of which the most
                neutral frame is chosen; or a profile (`siamcal calibrate`, `--save-profile`).
            sound_only: Refuse a video without a sound neutral frame; else its best one is taken.

        Returns:
            The reference; its `warnings` say what speaks against it.

        Raises:
            FaceNotFoundError: It shows no face, or a video no neutral one (`NeutralFrameError`).
            MediaError, ConfigError: It can't be read.
        """
        if isinstance(neutral, str | Path):
            self.person = self._of_file(neutral, sound_only)
        else:
            self.person = read_reference(_rgb(neutral), self.predictor)
        return self.person

    def read(self, picture: Picture) -> pd.Series:
        """Read one picture: intensities (not clipped) or logits, named "AU01", ...

        Raises:
            FaceNotFoundError: It shows no face.
            ConfigError: `calibrate` wasn't called, or the picture is no RGB array.
        """
        import pandas as pd

        (result,) = self._results([self._frame(picture)])
        if result.values is None:
            raise FaceNotFoundError(f"Nothing was read from {result.source}: {result.problem}.")
        series = pd.Series(result.values.astype(float), index=self.aus, name=result.source)
        series.attrs["quality"] = result.quality
        return series

    def read_video(
        self,
        path: str | Path | list[str | Path],
        *,
        every: int = 1,
        start: float | None = None,
        end: float | None = None,
        fps: float | None = None,
        smooth: int = 1,
    ) -> pd.DataFrame:
        """Read a video or a list of pictures into the table that `siamcal predict` writes.

        Args:
            path: A video, pictures, or a folder of pictures.
            every: Every n-th frame.
            start: Seconds to begin at.
            end: Seconds to end before.
            fps: Rate of pictures.
            smooth: Median over so many frames, odd.

        Returns:
            A row for each frame that was read; cells without a value are missing.

        Raises:
            MediaError: It can't be read.
            ConfigError: `calibrate` wasn't called, or an option doesn't fit.
        """
        import pandas as pd

        self._need_person()
        stream = Selection(every, start, end, fps).of(open_media(path))
        config = self.predictor.config
        rows = AURows(
            config.aus,
            config.thresholds,
            config.task,
            raw=self.predictor.reads_raw,
            pictures=stream.kind == "images",
        )
        results = smoothed(self._results(stream), smooth)
        bar = progress_bar(results, total=stream.total, description="reading", unit="frame")
        table = pd.DataFrame([rows.row(result) for result in bar], columns=list(rows.columns))
        return table.astype({name: "Int64" for name, kind in rows.columns.items() if kind is int})

    def _need_person(self) -> PersonReference:
        if self.person is None:
            raise ConfigError(
                "There is no neutral face yet: call calibrate(picture of the person at rest) first."
            )
        return self.person

    def _results(self, frames: Any) -> Any:
        person = self._need_person()
        known = (person.features, person.measures, person.identity)
        return self.predictor.results(frames, *known)

    def _of_file(self, path: str | Path, sound_only: bool) -> PersonReference:
        if Path(path).suffix.lower() in PROFILE_SUFFIXES:
            return load_profile(path, self.predictor)
        if open_media([path]).kind == "video":  # in a list, where no pipe is waited for
            return choose_reference(path, self.predictor, sound_only=sound_only)
        return read_reference(path, self.predictor)

    def _frame(self, picture: Picture) -> Frame:
        if isinstance(picture, str | Path):
            return sound_frame(open_media([picture]), 0)
        return Frame(0, 0.0, _rgb(picture), "an array")


def _rgb(picture: Any) -> np.ndarray:
    """An array as it is (its check comes with the face detector), a picture of Pillow as RGB."""
    return np.asarray(picture.convert("RGB")) if hasattr(picture, "convert") else picture

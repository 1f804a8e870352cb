"""Frames of one person -> AU values, in batches, against a reference that was encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from siamcal.errors import ConfigError
from siamcal.faces import Face, FacePipeline
from siamcal.faces.media.frames import Frame, FrameStream, frames_of
from siamcal.inference.ahead import ahead
from siamcal.model.heads import AUOutput
from siamcal.model.siamese import CalibratingSiamese, Reference


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was read from one frame.

    Attributes:
        index: 0-based position in the stream.
        timestamp: Seconds.
        source: File.
        values: (A,) float32 intensities (neither clipped nor rounded) or logits; None without
            success.
        raw: (A,) float32, the same without calibration (by the null reference); None without
            success, or where the calibrator has no null reference.
        confidence: The face detector's score in [0, 1]; 0 without a face.
        faces: Number of faces found, counted up to 2.
        problem: Why there are no values; "" where there are.
        notes: What speaks against values that are there.
        face: The face that was read; None without one.
    """

    index: int
    timestamp: float
    source: str
    values: np.ndarray | None
    confidence: float = 0.0
    faces: int = 0
    problem: str = ""
    raw: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    face: Face | None = None

    @property
    def quality(self) -> str:
        """All that is wrong with the frame, in words; "" where nothing is."""
        return self.problem or "; ".join(self.notes)


class Predictor:
    """Reads AUs of one person from frames.

    Args:
        model: A calibrator with a config, in eval mode.
        device: Where the network runs.
        batch_size: Frames that go through the network at once; so many rows at most, and those
            of the few frames that are read ahead, aren't written yet when a run is cut off.
        pipeline: Finds and cuts the faces; None makes one from the model's preprocessing.

    Example:
        >>> with Predictor(load_model()) as predictor:  # doctest: +SKIP
        ...     reference = predictor.encode(predictor.pipeline.crop(neutral_frame))
        ...     for result in predictor.results(open_media("clip.mp4"), reference):
        ...         print(result.index, result.values)
    """

    def __init__(
        self,
        model: CalibratingSiamese,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        pipeline: FacePipeline | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.config = model.config
        self.pipeline = pipeline or FacePipeline(model.config.preprocessing)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.close()

    @torch.inference_mode()
    def encode(self, crop: np.ndarray) -> Reference:
        """Encode a reference crop, (size, size, 3) uint8.

        Raises:
            ConfigError: It is another array, like an uncropped frame.
        """
        size = self.config.preprocessing.size
        if crop.shape != (size, size, 3) or crop.dtype != np.uint8:
            raise ConfigError(
                f"A reference crop is of uint8 and shape ({size}, {size}, 3), but got {crop.dtype} "
                f"{crop.shape}. siamcal.inference.read_reference(frame, predictor) finds the face "
                f"in a whole frame, crops and encodes it."
            )
        return self.model.encode(self.config.preprocessing.to_tensor(crop).to(self.device))

    @property
    def reads_raw(self) -> bool:
        """Whether the calibrator can read without a reference."""
        null = self.model.null_reference
        return null is not None and null.fitted

    @torch.inference_mode()
    def read(self, crops: np.ndarray, reference: Reference | None) -> np.ndarray:
        """Crops (B, size, size, 3) uint8 -> values (B, A) float32; None: without calibration."""
        tensor = self.config.preprocessing.to_tensor(crops).to(self.device)  # (B, 3, S, S)
        output = self.model(tensor, reference)
        values = output.intensity if isinstance(output, AUOutput) else output
        return values.float().cpu().numpy()

    def results(
        self, frames: Iterable[Frame | np.ndarray], reference: Reference
    ) -> Iterator[FrameResult]:
        """Results in the order of the frames, one each; live frames don't wait for a full batch.

        Frames are decoded and searched for faces in threads while the network reads earlier ones.

        An error or an interruption inside `frames` is passed on after the results of the frames
        before it were given out.

        Args:
            frames: A stream, frames, or RGB arrays (H, W, 3) of uint8.
            reference: The encoded reference; of a `PersonReference` it is `features`.

        Raises:
            ConfigError: `reference` is something else.
            MediaError: Something among `frames` is neither a frame nor an array.
        """
        reference = self._on_device(reference)
        size = 1 if isinstance(frames, FrameStream) and frames.live else self.batch_size
        waiting: list[tuple[FrameResult, np.ndarray | None]] = []
        with closing(ahead(map(self._find, ahead(frames_of(frames))))) as found:
            try:
                for one in found:
                    waiting.append(one)
                    crops = sum(crop is not None for _, crop in waiting)
                    if crops >= size or len(waiting) >= 4 * size:
                        yield from self._finish(waiting, reference)
                        waiting = []
            except (KeyboardInterrupt, Exception):
                yield from self._finish(waiting, reference)
                raise
        yield from self._finish(waiting, reference)

    def _on_device(self, reference: Reference) -> Reference:
        reference = getattr(reference, "features", reference)
        if not isinstance(reference, Reference):
            raise ConfigError(
                f"A reference is made by siamcal.inference.read_reference(picture, predictor) from "
                f"a file or an RGB array, but got {type(reference).__name__}."
            )
        return reference.to(self.device)

    def _find(self, frame: Frame) -> tuple[FrameResult, np.ndarray | None]:
        result = FrameResult(frame.index, frame.timestamp, frame.source, None)
        if frame.rgb is None or frame.problem:
            return replace(result, problem=frame.problem or "it can't be decoded"), None
        faces = self.pipeline.detect(frame.rgb, max_faces=2, details=False)
        if not faces:
            return replace(result, problem="no face"), None
        crop = self.pipeline.align(frame.rgb, faces[0])
        notes = ("several faces, the widest was taken",) if len(faces) > 1 else ()
        found = replace(result, face=faces[0], faces=len(faces), notes=notes)
        return replace(found, confidence=faces[0].score), crop

    def _finish(
        self, waiting: list[tuple[FrameResult, np.ndarray | None]], reference: Reference
    ) -> Iterator[FrameResult]:
        crops = [crop for _, crop in waiting if crop is not None]
        stacked = np.stack(crops) if crops else np.empty(0)
        values = iter(self.read(stacked, reference) if crops else ())
        raws = iter(self.read(stacked, None) if crops and self.reads_raw else [None] * len(crops))
        for result, crop in waiting:
            if crop is None:
                yield result
                continue
            own, raw = next(values), next(raws)
            if np.isfinite(own).all():
                yield replace(result, values=own, raw=raw)
            else:
                yield replace(result, problem="the network gave no finite values")

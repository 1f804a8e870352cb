"""Frames of people -> AU values, in batches, against references that were encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
import torch

from siamcal.errors import ConfigError
from siamcal.faces import FacePipeline
from siamcal.faces.identity import IdentityReader
from siamcal.faces.measures import FaceMeasures
from siamcal.faces.media.frames import Frame, FrameStream, frames_of
from siamcal.graph import Features
from siamcal.inference.ahead import ahead
from siamcal.inference.following import FaceFollower
from siamcal.inference.landmark_pass import SIDE, LandmarkPass, LandmarkRun, landmark_pass
from siamcal.inference.seeing import Everybody, Found, FrameResult, OnePerson
from siamcal.inference.stranger import StrangerWatch
from siamcal.model.heads import AUOutput, drawn_to_zero
from siamcal.model.siamese import CalibratingSiamese, Reference

__all__ = ["FrameResult", "Predictor"]

Crops = np.ndarray | Sequence[np.ndarray | LandmarkRun]


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

    @cached_property
    def _pass(self) -> LandmarkPass | None:
        """The fast way to what crosses the merge point, for crops that are taken as they are."""
        preprocessing, model = self.config.preprocessing, self.model
        plain = preprocessing.mean == (0.0,) * 3 and preprocessing.std == (1.0,) * 3
        if preprocessing.size != SIDE or not plain:
            return None
        return landmark_pass(model.unwrap(), model.place, model.split.pre)

    @cached_property
    def identity(self) -> IdentityReader:
        """What tells whether a face is the reference's person."""
        return IdentityReader()

    def _watch(self, own: np.ndarray | None, *, followed: bool) -> StrangerWatch | None:
        return None if own is None else StrangerWatch(own, self.identity, followed=followed)

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

    def _follower(self) -> FaceFollower | None:
        """For one video; with a network of its own, because it runs in another thread."""
        if self._pass is None or not FaceFollower.fits(self.pipeline):
            return None
        return FaceFollower(self.pipeline, LandmarkPass(self._pass.backbone))

    @torch.inference_mode()
    def read(self, crops: np.ndarray, reference: Reference | None) -> np.ndarray:
        """Crops (B, size, size, 3) uint8 -> values (B, A) float32; None: without calibration."""
        return self._values(self._seen(crops), reference)

    @torch.inference_mode()
    def read_both(self, crops: Crops, reference: Reference) -> tuple[np.ndarray, np.ndarray | None]:
        """Values with the reference and without, (B, A) each; None where the latter can't be.

        Args:
            crops: (B, size, size, 3) uint8, or B crops and runs of the landmark network.
            reference: The person's.
        """
        seen = self._seen(crops)
        raw = self._values(seen, None) if self.reads_raw else None
        return self._values(seen, reference), raw

    @torch.inference_mode()
    def read_each(
        self, crops: np.ndarray, references: Sequence[int], *, raw: bool = False
    ) -> np.ndarray:
        """Every crop against each of some of them, (R, N, A) float32.

        The network runs once on each up to the merge point, whatever the number of references
        (where torch computes the features, once more on each reference); where it merges at several
        points, once for each reference.

        Args:
            crops: (N, size, size, 3) uint8, of one person.
            references: Which of them are the references, one after another.
            raw: Also without a reference, in the end, where the calibrator can.
        """
        each: Crops = crops if self._pass is None else [self._pass.run(crop) for crop in crops]
        encoded: list[Reference | None] = [self._encoded(each[place]) for place in references]
        encoded += [None] * (raw and self.reads_raw)
        found = []
        for start in range(0, len(each), self.batch_size):
            seen = self._seen(each[start : start + self.batch_size])
            if not isinstance(seen, Features) and len(self.model.split.points) == 1:
                seen = self.model.split.pre(seen)
            found.append(np.stack([self._values(seen, reference) for reference in encoded]))
        return np.concatenate(found, axis=1)

    def _encoded(self, crop: np.ndarray | LandmarkRun) -> Reference:
        """`encode`, where the landmark network ran on the crop from what that told."""
        if not isinstance(crop, LandmarkRun):
            return self.encode(crop)
        return self.model.encode_features(cast(Features, self._seen([crop])))

    def _seen(self, crops: Crops) -> Features | torch.Tensor:
        """Pre-merge features where another engine computes them, else the network's input."""
        known = self._pass
        if known is not None:
            runs = [c if isinstance(c, LandmarkRun) else known.run(c) for c in crops]
            return Features(known.features(runs))
        stacked = np.asarray(crops)  # nothing was run ahead then
        return self.config.preprocessing.to_tensor(stacked).to(self.device)  # (B, 3, S, S)

    def _values(self, seen: Features | torch.Tensor, reference: Reference | None) -> np.ndarray:
        """Values (B, A) float32 of `_seen`."""
        values = self._output(seen, reference)
        if reference is None:
            return values
        if self.config.zero_at_reference:
            values = values - np.maximum(self._at_reference(seen, reference), 0)
        if self.config.rest_to_zero:
            from siamcal.recalibration.rest import rest_to_zero  # seldom wanted

            one = np.zeros(len(values), int)
            values = rest_to_zero(values, self._at_reference(seen, reference), one)
        return drawn_to_zero(values, self.config.soft_zero)

    def _at_reference(self, seen: Features | torch.Tensor, reference: Reference) -> np.ndarray:
        """What is read of the reference against itself, (1, A)."""
        # What else crosses than the features are sizes and constants.
        like = seen if isinstance(seen, Features) else self.model.split.pre(seen[:1])
        return self._output(like.with_tensors(reference.tensors), reference)

    def _output(self, seen: Features | torch.Tensor, reference: Reference | None) -> np.ndarray:
        if isinstance(seen, Features):
            head = None if self._pass is None else self._pass.head
            output = self.model.from_features(seen, reference, post=head)
        else:
            output = self.model(seen, reference)
        values = output.intensity if isinstance(output, AUOutput) else output
        return values.float().cpu().numpy()

    def results(
        self,
        frames: Iterable[Frame | np.ndarray],
        reference: Reference,
        seen: FaceMeasures | None = None,
        identity: np.ndarray | None = None,
    ) -> Iterator[FrameResult]:
        """Results in the order of the frames, one each; live frames don't wait for a full batch.

        Frames are decoded and searched for faces in threads while the network reads earlier ones.

        An error or an interruption inside `frames` is passed on after the results of the frames
        before it were given out.

        Args:
            frames: A stream, frames, or RGB arrays (H, W, 3) of uint8.
            reference: The encoded reference; of a `PersonReference` it is `features`.
            seen: The reference's eyes, colours and sharpness (`PersonReference.measures`), against
                which the frames' are judged; None: what needs them isn't judged.
            identity: Of the reference's person (`PersonReference.identity`); None: whether a face
                is another person's isn't judged.

        Raises:
            ConfigError: `reference` is something else.
            MediaError: Something among `frames` is neither a frame nor an array.
        """
        references = {0: self._on_device(reference)}
        followed = _followed(frames)
        follower = self._follower() if followed else None
        watch = self._watch(identity, followed=followed)
        find = OnePerson(self.pipeline, seen, followed=followed, follower=follower, watch=watch)
        yield from self._read_all(frames, find, references)

    def results_of_people(
        self,
        frames: Iterable[Frame | np.ndarray],
        references: Mapping[int, Reference],
        seen: Mapping[int, FaceMeasures | None] | None = None,
        identities: Mapping[int, np.ndarray | None] | None = None,
    ) -> Iterator[FrameResult]:
        """Results for everybody in the frames of a recording, those of one frame by `face_id`.

        Args:
            frames: See `results`.
            references: Number of a person (0: the first who is seen, of several the widest face)
                -> their encoded reference. Others have rows without values.
            seen: Their references' measures.
            identities: Of the references' persons.
        """
        followed = _followed(frames)
        watches = {
            number: watch
            for number, place in (identities or {}).items()
            if (watch := self._watch(place, followed=followed)) is not None
        }
        own = {number: self._on_device(reference) for number, reference in references.items()}
        measures = {number: (seen or {}).get(number) for number in own}
        find = Everybody(self.pipeline, measures, watches, followed=followed)
        yield from self._read_all(frames, find, own)

    def _read_all(
        self,
        frames: Iterable[Frame | np.ndarray],
        find: Callable[[Frame], list[Found]],
        references: Mapping[int, Reference],
    ) -> Iterator[FrameResult]:
        size = 1 if isinstance(frames, FrameStream) and frames.live else self.batch_size
        waiting: list[Found] = []
        with closing(ahead(map(find, ahead(frames_of(frames))))) as found:
            try:
                for one in found:
                    waiting += one
                    crops = sum(crop is not None for _, crop in waiting)
                    if crops >= size or len(waiting) >= 4 * size:
                        yield from self._finish(waiting, references)
                        waiting = []
            except (KeyboardInterrupt, Exception):
                yield from self._finish(waiting, references)
                raise
        yield from self._finish(waiting, references)

    def _on_device(self, reference: Reference) -> Reference:
        reference = getattr(reference, "features", reference)
        if not isinstance(reference, Reference):
            raise ConfigError(
                f"A reference is made by siamcal.inference.read_reference(picture, predictor) from "
                f"a file or an RGB array, but got {type(reference).__name__}."
            )
        return reference.to(self.device)

    def _finish(
        self, waiting: list[Found], references: Mapping[int, Reference]
    ) -> Iterator[FrameResult]:
        """The results that wait, with their values."""
        values: dict[int, np.ndarray] = {}
        raws: dict[int, np.ndarray] = {}
        for number, reference in references.items():
            mine = [
                (place, crop)
                for place, (result, crop) in enumerate(waiting)
                if crop is not None and result.face_id == number
            ]
            if mine:
                places = [place for place, _ in mine]
                own, raw = self.read_both([crop for _, crop in mine], reference)
                values |= zip(places, own, strict=True)
                if raw is not None:
                    raws |= zip(places, raw, strict=True)
        for place, (result, _) in enumerate(waiting):
            read = values.get(place)
            if read is None:
                yield result
            elif np.isfinite(read).all():
                yield replace(result, values=read, raw=raws.get(place))
            else:
                yield replace(result, problem="the network gave no finite values")


def _followed(frames: Iterable[Frame | np.ndarray]) -> bool:
    """Whether frames follow one another in time."""
    return isinstance(frames, FrameStream) and frames.kind != "images"

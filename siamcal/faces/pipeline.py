"""Frame -> face -> aligned, normalised crop, as a `Preprocessing` describes it."""

from __future__ import annotations

import numpy as np

from siamcal.errors import FaceNotFoundError
from siamcal.faces.alignment import (
    close_crop,
    ffhq_quad,
    pad_to_square,
    rigid_crop,
    transform_landmarks,
    wide_crop,
)
from siamcal.faces.boxes import Box
from siamcal.faces.detection import Face, FaceDetector
from siamcal.faces.engines import DEFAULT
from siamcal.faces.illumination import normalise_illumination
from siamcal.faces.normalisation import GREY, face_oval, local_contrast
from siamcal.faces.refining import Refiner
from siamcal.faces.released import released_quad, through_jpeg
from siamcal.preprocessing import Preprocessing

_CROPS = {
    "rigid": rigid_crop,
    "rigid_wide": wide_crop,
    "rigid_refined": wide_crop,  # of refined landmarks
    "rigid_close": close_crop,
    "ffhq_quad": ffhq_quad,
    "csn_quad": released_quad,
}


class FacePipeline:
    """Cuts faces out of frames.

    It is a context manager and belongs to one process; a copy sent to another process loads its
    own models there. Every result depends on the frame alone, never on the frames before it.

    Args:
        preprocessing: What a crop shall look like; None means the defaults.
        engine: What finds the faces; see `FaceDetector`.

    Example:
        >>> with FacePipeline(Preprocessing(size=112)) as pipeline:  # doctest: +SKIP
        ...     crop = pipeline.crop(frame)  # (112, 112, 3) uint8
    """

    def __init__(self, preprocessing: Preprocessing | None = None, engine: str = DEFAULT) -> None:
        self.preprocessing = preprocessing or Preprocessing()
        self.detector = FaceDetector(engine)
        self._refine = Refiner()

    def __enter__(self) -> FacePipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the models; the next frame loads them again."""
        self.detector.close()

    def detect(
        self,
        rgb: np.ndarray,
        *,
        max_faces: int | None = None,
        everyone: bool = False,
        details: bool = True,
    ) -> list[Face]:
        """Faces in `rgb`, (H, W, 3) uint8, the widest first; see `FaceDetector.detect`.

        Their landmarks are refined where the crop asks for it, and with them what is told of them.
        """
        once = self.preprocessing.detection == "once"
        refined = self.preprocessing.align == "rigid_refined"
        later = refined and self.detector.engine == "litert"  # MediaPipe tells all at once
        options = {"once": once, "everyone": everyone and not once}
        options["details"] = details and not later
        faces = self.detector.detect(rgb, max_faces=max_faces, **options)
        if refined:
            faces = [self._refine(rgb, face) for face in faces]
        if details and later:
            faces = [self.described(face) for face in faces]
        return faces

    def described(self, face: Face) -> Face:
        """A face with its expression and pose, where these were left out.

        Raises:
            ConfigError: The engine is "mediapipe", which tells all at once.
        """
        return self.detector.described(face.landmarks, Box(*face.box, face.score))

    def crop(self, rgb: np.ndarray) -> np.ndarray:
        """The crop of the widest face.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (size, size, 3) uint8.

        Raises:
            FaceNotFoundError: There is no face.
            ConfigError: `rgb` isn't an RGB frame.
        """
        faces = self.detect(rgb, max_faces=1, details=False)
        if not faces:
            raise FaceNotFoundError(
                f"No face was found in a picture of {rgb.shape[1]}x{rgb.shape[0]} pixels. "
                f"A face must be upright, seen from the front to about 60 degrees, and at least "
                f"60 pixels wide: turn, brighten or enlarge the picture."
            )
        return self.align(rgb, faces[0])

    def align(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        """The crop of a face that `detect` found, (size, size, 3) uint8."""
        settings = self.preprocessing
        crop, matrix = _CROPS[settings.align](rgb, face, settings.size)
        if settings.illumination != "none":
            # Before the padding: black borders would shift the histogram.
            crop = normalise_illumination(crop, settings.illumination)
        crop, matrix = pad_to_square(crop, matrix, settings.size)
        mask = None
        if settings.mask == "oval":
            mask = face_oval(transform_landmarks(face.landmarks, matrix), settings.size)
        if settings.contrast == "local":
            crop = local_contrast(crop, mask)
        if mask is not None:
            crop[mask == 0] = GREY
        return through_jpeg(crop, settings.jpeg) if settings.jpeg else crop

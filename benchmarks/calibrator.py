"""How well does the packaged calibrator read people it has never seen, and what does it invent?

Rendered people tell how well it reads. The one real face that is free to use and at hand, a
photograph in scikit-image, tells how much it takes camera and light for an action: nothing on that
face moves, so every activation is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from siamcal.calibrators.saving import load_calibrator
from siamcal.datasets import load_dataset
from siamcal.datasets.base import FaceSet
from siamcal.datasets.crops.prepare import prepare
from siamcal.environment import describe_environment, machine_line
from siamcal.errors import ConfigError
from siamcal.evaluation.compare import describe_dataset
from siamcal.evaluation.intervals import metric_interval
from siamcal.evaluation.metrics import metrics_of
from siamcal.evaluation.tables import HONESTY, to_markdown
from siamcal.files import asset, make_folder, write_json
from siamcal.inference import Predictor
from siamcal.model.siamese import CalibratingSiamese
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.training.batches import task_labels

__all__ = ["PHOTOGRAPH", "calibrator", "false_activations", "photograph"]

PHOTOGRAPH = "scikit-image's `astronaut` (NASA, public domain)"
FACE_CENTRE = (224, 120)  # of the photograph, pixels


@benchmarks.register("calibrator")
def calibrator(
    output: Path | None = None, size: str = "small", bias: float = 1.0, variations: int = 100
) -> str:
    """ICC and MAE of the packaged calibrator on unseen rendered people; a real face at rest.

    Args:
        output: Folder for `table.md` and `results.json`; None writes nothing.
        size: Size of the rendered set; its people are disjoint from the training's.
        bias: How much those people differ at rest.
        variations: How many pictures to make of the real photograph.

    Returns:
        The tables in Markdown.
    """
    model = load_calibrator(asset("calibrator"))
    if model.config is None:
        raise ConfigError(f"{asset('calibrator')} holds weights without a config.json.")
    config = model.config
    faces = {
        look: prepare(load_dataset("synth", size=size, bias=bias, look=look), config.preprocessing)
        for look in ("usual", "shifted")
    }
    cells = {look: _cells(model, shown) for look, shown in faces.items()}
    results = {
        "methods": {"csn": {config.task: cells["usual"]["all"]}},
        "shifted": cells["shifted"]["all"],
        "silent": {look: found["silent"] for look, found in cells.items()},
        # The people are other ones than the training's: there are no folds.
        "dataset": describe_dataset(faces["usual"]) | {"folds": []},
        "photograph": false_activations(model, variations),
        "environment": describe_environment(),
    }
    text = _markdown(model, results)
    if output is not None:
        output = Path(output)
        make_folder(output)
        (output / "table.md").write_text(text, encoding="utf-8")
        write_json(output / "results.json", results)
    return text


def _cells(model: CalibratingSiamese, faces: FaceSet) -> dict[str, dict[str, Any]]:
    """Of all frames and of the silent ones: metric -> its mean, interval and values by AU."""
    config = model.config
    readings = _readings(model, faces)
    labels, people = task_labels(faces, config.task), faces.participants.astype(str)
    silent = ~faces.table["speaking"].to_numpy(bool)
    return {
        kind: {
            metric.name: metric_interval(
                metric.name, readings[rows], labels[rows], people[rows]
            ).to_dict(config.aus)
            for metric in metrics_of(config.task)
        }
        for kind, rows in (("all", np.ones_like(silent)), ("silent", silent))
    }


def _readings(model: CalibratingSiamese, faces: FaceSet) -> np.ndarray:
    """(N, A) as `siamcal predict` reads them, each against its reference."""
    found = np.empty((len(faces), len(model.config.aus)), np.float32)
    with Predictor(model) as predictor:
        size = predictor.batch_size
        people = np.unique(faces.reference_rows)
        for row in progress_bar(people, description="reads", unit="person"):
            reference = predictor.encode(np.array(faces.images[row]))  # of a file: read-only
            own = np.flatnonzero(faces.reference_rows == row)
            for part in np.split(own, range(size, len(own), size)):
                found[part] = predictor.read(faces.images[part], reference)
    return found


@dataclass(frozen=True)
class _Shoot:
    """How far pictures of the same still face differ; ranges, or bounds on both sides."""

    roll: float  # degrees
    scale: tuple[float, float]
    shift: float  # pixels
    light: tuple[float, float]
    slope: float  # of the light across the picture
    tint: float
    gamma: tuple[float, float]
    blur: tuple[float, float]  # pixels
    noise: float  # grey levels
    quality: tuple[int, int]  # of JPEG


SHOOTS = {
    "same session": _Shoot(
        3, (0.95, 1.05), 10, (0.95, 1.05), 0.05, 0.02, (0.95, 1.05), (0.2, 0.6), 2, (70, 96)
    ),
    "other camera and light": _Shoot(
        10, (0.6, 1.2), 10, (0.6, 1.3), 0.3, 0.1, (0.8, 1.25), (0.3, 1.5), 6, (40, 96)
    ),
}


def false_activations(model: CalibratingSiamese, variations: int) -> dict[str, Any]:
    """What the calibrator reads on a real face that is still, taken again and again.

    Args:
        model: A calibrator with a config.
        variations: How many pictures to make of the photograph, for each of `SHOOTS`.

    Returns:
        For each of `SHOOTS` the faces found, and the mean and 95th percentile of the intensities,
        clipped to 0-5 as in every table, by AU and over all.

    Raises:
        ConfigError: scikit-image isn't installed.
    """
    picture = photograph()
    with Predictor(model) as predictor:
        reference = predictor.encode(predictor.pipeline.crop(picture))

        def read(shoot: _Shoot) -> dict[str, Any]:
            rng, values = np.random.default_rng(0), []
            for _ in range(variations):
                again = _taken_again(picture, shoot, rng)
                for face in predictor.pipeline.detect(again, max_faces=1):
                    crop = predictor.pipeline.align(again, face)
                    values.append(predictor.read(crop[None], reference)[0])
            return _summary(np.clip(np.stack(values), 0, 5), predictor.config.aus)

        found = {name: read(shoot) for name, shoot in SHOOTS.items()}
    return {"picture": PHOTOGRAPH, "variations": variations, "shoots": found}


def photograph() -> np.ndarray:
    """The real face that is free to use, (512, 512, 3) uint8.

    Raises:
        ConfigError: scikit-image isn't installed.
    """
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise ConfigError(
            "The benchmark of the calibrator reads a photograph of scikit-image: "
            "pip install scikit-image."
        ) from error
    return np.ascontiguousarray(astronaut())


def _summary(values: np.ndarray, aus: tuple[int, ...]) -> dict[str, Any]:
    names = [f"AU{au:02d}" for au in aus]
    return {
        "found": len(values),
        "mean": float(values.mean()),
        "per_au": dict(zip(names, values.mean(0).tolist(), strict=True)),
        "percentile_95": dict(zip(names, np.percentile(values, 95, axis=0).tolist(), strict=True)),
    }


def _taken_again(photograph: np.ndarray, shoot: _Shoot, rng: np.random.Generator) -> np.ndarray:
    """The photograph from elsewhere, by another camera, in another light."""
    height, width = photograph.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        FACE_CENTRE, rng.uniform(-shoot.roll, shoot.roll), rng.uniform(*shoot.scale)
    )
    matrix[:, 2] += rng.uniform(-shoot.shift, shoot.shift, 2)
    picture = cv2.warpAffine(
        photograph, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    ).astype(np.float64)
    across = np.linspace(-1, 1, width)[None, :, None]
    light = rng.uniform(*shoot.light) * (1 + rng.uniform(-shoot.slope, shoot.slope) * across)
    tint = rng.uniform(1 - shoot.tint, 1 + shoot.tint, 3)
    picture = 255 * (picture / 255) ** rng.uniform(*shoot.gamma) * light * tint
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(*shoot.blur))
    picture += rng.normal(0, rng.uniform(0, shoot.noise), picture.shape)
    quality = int(rng.integers(*shoot.quality))
    _, coded = cv2.imencode(
        ".jpg", np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def _interval(cell: dict[str, Any]) -> str:
    return f"{cell['mean']:.3f} [{cell['interval'][0]:.3f}, {cell['interval'][1]:.3f}]"


def _markdown(model: CalibratingSiamese, results: dict[str, Any]) -> str:
    config, data, photo = model.config, results["dataset"], results["photograph"]
    cells, shoots = results["methods"]["csn"][config.task], photo["shoots"]
    first = next(iter(cells))
    others = {
        "silent": results["silent"]["usual"][first],
        "shifted look": results["shifted"][first],
        "shifted, silent": results["silent"]["shifted"][first],
    }
    rows = {
        f"AU{au:02d} ({status})": {
            **{m: f"{cell['per_au'][f'AU{au:02d}']:.3f}" for m, cell in cells.items()},
            **{k: f"{cell['per_au'][f'AU{au:02d}']:.3f}" for k, cell in others.items()},
            **{k: f"{shoot['per_au'][f'AU{au:02d}']:.2f}" for k, shoot in shoots.items()},
        }
        for au, status in zip(config.aus, config.au_status, strict=True)
    }
    rows["mean [95 %]"] = {
        **{metric: _interval(cell) for metric, cell in cells.items()},
        **{k: _interval(cell) for k, cell in others.items()},
        **{k: f"{shoot['mean']:.2f}" for k, shoot in shoots.items()},
    }
    return (
        f"Packaged calibrator on {data['description']} {data['participants']} participants, "
        f"{data['frames']} frames. Trained on other people: {config.training_data}. "
        f"{machine_line(results['environment'])}\n\n"
        f"{to_markdown(pd.DataFrame.from_dict(rows, orient='index'), 'AU')}\n\n"
        f"*Silent*: {first} of the frames in which nobody speaks; these people's labels call lips "
        "and jaw at rest while they speak, the calibrator reads what can be seen. *Shifted look*: "
        "of the same people with other skin, hair, light and cameras (docs/synth.md). The last "
        f"columns: mean intensity read on {photo['variations']} pictures each made of "
        f"{PHOTOGRAPH}, the photograph itself being the reference. *Same session*: the camera "
        "shakes, the light flickers a little. *Other camera and light*: other size, roll, light, "
        "colour, sharpness, noise and compression. Nothing moves there: 0 would be right. The "
        "person smiles, so the reference isn't neutral, and one face says little about others.\n\n"
        f"{HONESTY}\n"
    )

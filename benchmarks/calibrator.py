"""How well does the packaged calibrator read people it has never seen, and what does it invent?

Rendered people tell how well it reads. The one real face that is free to use and at hand, a
photograph in scikit-image, tells how much it takes camera and light for an action: nothing on that
face moves, so every activation is false.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from siamcal.checkpoint import load_calibrator
from siamcal.datasets import load_dataset
from siamcal.datasets.prepare import prepare
from siamcal.errors import ConfigError
from siamcal.evaluation import describe_dataset, environment, write_json
from siamcal.inference import Predictor
from siamcal.paths import asset
from siamcal.registry import benchmarks
from siamcal.report import HONESTY, machine_line, to_markdown
from siamcal.siamese import CalibratingSiamese
from siamcal.statistics import metric_interval
from siamcal.training import predict, task_labels

__all__ = ["calibrator", "false_activations"]

METRICS = ("icc", "icc_within", "mae")
PHOTOGRAPH = "scikit-image's `astronaut` (NASA, public domain)"


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
    faces = prepare(load_dataset("synth", size=size, bias=bias), config.preprocessing)
    preds = predict(model, faces, faces.table.index.to_numpy())
    labels, people = task_labels(faces, config.task), faces.participants.astype(str)
    cells = {m: metric_interval(m, preds, labels, people).to_dict(config.aus) for m in METRICS}
    results = {
        "methods": {"csn": {config.task: cells}},
        # The people are other ones than the training's: there are no folds.
        "dataset": describe_dataset(faces) | {"folds": []},
        "photograph": false_activations(model, variations),
        "environment": environment(),
    }
    text = _markdown(model, results)
    if output is not None:
        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        (output / "table.md").write_text(text, encoding="utf-8")
        write_json(output / "results.json", results)
    return text


def false_activations(model: CalibratingSiamese, variations: int) -> dict[str, Any]:
    """What the calibrator reads on a real face that is still, under other cameras and light.

    Args:
        model: A calibrator with a config.
        variations: How many pictures to make of the photograph.

    Returns:
        Mean and 95th percentile of the intensities, clipped to 0-5 as in every table; by AU and
        over all; and how many faces were found.
    """
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise ConfigError(
            "The benchmark of the calibrator reads a photograph of scikit-image: "
            "pip install scikit-image."
        ) from error
    photograph, rng = np.ascontiguousarray(astronaut()), np.random.default_rng(0)
    with Predictor(model) as predictor:
        reference = predictor.encode(predictor.pipeline.crop(photograph))
        found = []
        for _ in range(variations):
            picture = _taken_again(photograph, rng)
            for face in predictor.pipeline.detect(picture, max_faces=1):
                crop = predictor.pipeline.align(picture, face)
                found.append(predictor.read(crop[None], reference)[0])
    values = np.clip(np.stack(found), 0, 5)
    aus = [f"AU{au:02d}" for au in predictor.config.aus]
    return {
        "picture": PHOTOGRAPH,
        "variations": variations,
        "found": len(found),
        "mean": float(values.mean()),
        "per_au": dict(zip(aus, values.mean(0).tolist(), strict=True)),
        "percentile_95": dict(zip(aus, np.percentile(values, 95, axis=0).tolist(), strict=True)),
    }


def _taken_again(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The photograph from elsewhere, by another camera, in another light."""
    height, width = photograph.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-10, 10), rng.uniform(0.6, 1.2)
    )
    matrix[:, 2] += rng.uniform(-30, 30, 2)
    picture = cv2.warpAffine(
        photograph, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    ).astype(np.float64)
    across = np.linspace(-1, 1, width)[None, :, None]
    light = rng.uniform(0.6, 1.3) * (1 + rng.uniform(-0.3, 0.3) * across)
    tint = rng.uniform(0.9, 1.1, 3)
    picture = 255 * (picture / 255) ** rng.uniform(0.8, 1.25) * light * tint
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.5))
    picture += rng.normal(0, rng.uniform(0, 6), picture.shape)
    quality = int(rng.integers(40, 96))
    _, coded = cv2.imencode(
        ".jpg", np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def _markdown(model: CalibratingSiamese, results: dict[str, Any]) -> str:
    config, data, photo = model.config, results["dataset"], results["photograph"]
    cells = results["methods"]["csn"][config.task]
    rows = {
        f"AU{au:02d} ({status})": {
            **{m: f"{cells[m]['per_au'][f'AU{au:02d}']:.3f}" for m in METRICS},
            "still photograph": f"{photo['per_au'][f'AU{au:02d}']:.2f}",
        }
        for au, status in zip(config.aus, config.au_status, strict=True)
    }
    rows["mean [95 %]"] = {
        **{
            m: f"{c['mean']:.3f} [{c['interval'][0]:.3f}, {c['interval'][1]:.3f}]"
            for m, c in cells.items()
        },
        "still photograph": f"{photo['mean']:.2f}",
    }
    return (
        f"Packaged calibrator on {data['description']} {data['participants']} participants, "
        f"{data['frames']} frames. Trained on other people: {config.training_data}. "
        f"{machine_line(results['environment'])}\n\n"
        f"{to_markdown(pd.DataFrame.from_dict(rows, orient='index'), 'AU')}\n\n"
        f"*Still photograph*: mean intensity read on {photo['found']} pictures made of "
        f"{PHOTOGRAPH} with other size, place, roll, light, colour, blur, noise and compression, "
        "the photograph itself being the reference. Nothing moves there: 0 would be right. The "
        "person smiles, so the reference isn't neutral, and one face says little about others.\n\n"
        f"{HONESTY}\n"
    )

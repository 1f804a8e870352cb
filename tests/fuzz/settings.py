"""Readers of recipes, results, tables of people, readings, and what benchmarks keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from siamcal.benchmarks import coverage
from siamcal.benchmarks._real_labels import read_labels

from fuzz.run import Reader
from siamcal.calibrators.hub import describe
from siamcal.calibrators.hub.publication import plan_from_folder
from siamcal.datasets.reading import Problems, read_metadata
from siamcal.datasets.references import choose_references
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.evaluation.review import read_groups, read_run, review_markdown
from siamcal.evaluation.table_pairs import Pairs
from siamcal.evaluation.two_tables import agree
from siamcal.evaluation.two_tables_report import to_text
from siamcal.files import append_line, kept_lines
from siamcal.recalibration.calibration import OutputCalibration
from siamcal.recalibration.run import Settings, recalibrate_table
from siamcal.recalibration.selection import parse_selection
from siamcal.settings import to_dict
from siamcal.training.log import LossLog
from siamcal.training.recipe import Recipe, load_recipe

__all__ = ["READERS"]

PEOPLE = ("P1", "P2", "P3", "P4")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _recipe_json(folder: Path) -> Path:
    recipe = Recipe("mine", merge_options={}, dataset_options={"size": "tiny", "bias": 0.5})
    return _write(folder / "recipe.json", json.dumps(to_dict(recipe), indent=2))


def _recipe_toml(folder: Path) -> Path:
    text = (
        'name = "mine"\ndataset = "synth"\nbackbone = "ir_tiny"\nmerge_at = "layer4"\nepochs = 2\n'
        "learning_rate = 1e-3\nloss_weights = [1.0, 1.0, 0.5]\nseed = 3\n\n[augmentation]\n"
        'flip = 0.5\ncrop_scale = [0.8, 1.0]\n\n[preprocessing]\nsize = 112\nmask = "none"\n\n'
        '[dataset_options]\nsize = "tiny"\n'
    )
    return _write(folder / "recipe.toml", text)


def _predictions(folder: Path) -> TaskPredictions:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "participant": np.repeat(PEOPLE, 10),
            "view": "front",
            "sequence": "s",
            "frame": np.tile(np.arange(10), len(PEOPLE)),
        }
    )
    labels = rng.integers(0, 6, (40, 2)).astype(np.float32)
    preds = {m: labels + rng.normal(size=labels.shape) for m in ("ncg", "csn")}
    found = TaskPredictions("intensity", (1, 12), table, labels, preds)
    found.save(folder)
    return found


def _run(folder: Path) -> Path:
    found = _predictions(folder)
    cell = {"mean": 0.5, "interval": [0.4, 0.6], "per_au": {"AU01": 0.4, "AU12": 0.6}}
    results = {
        "format": 1,
        "name": "mine",
        "recipe": to_dict(Recipe("mine")),
        "dataset": {
            "name": "mine", "description": "four people", "rendered": True, "participants": 4,
            "frames": len(found.labels), "folds": [["P1", "P2"], ["P3", "P4"]],
        },
        "methods": {m: {"intensity": {"icc": cell, "mae": cell}} for m in ("ncg", "bs", "csn")},
        "environment": {"siamcal": "0.1.0"},
        "seconds": 1.5,
    }  # fmt: skip
    return _write(folder / "results.json", json.dumps(results, indent=2))


def _read_run(path: Path) -> Any:
    results, found = read_run(path.parent)
    values = [(t.task, t.aus, t.table.to_numpy().tolist(), t.labels.tolist()) for t in found]
    preds = [{m: p.tolist() for m, p in t.preds.items()} for t in found]
    return review_markdown(results, []).encode(), values, preds


def _predictions_file(folder: Path) -> Path:
    _run(folder)
    return folder / "predictions_intensity.parquet"


def _calibrator(folder: Path) -> Path:
    from calibrators import tiny

    from siamcal.model.heads import make_head

    tiny(make_head("intensity", 2)).save_pretrained(folder, aus=(1, 12))
    return _run(folder)


def _card(path: Path) -> Any:
    workplace = path.parent / "push"
    workplace.mkdir(exist_ok=True)
    return plan_from_folder(path.parent, "me/mine", workplace).card.encode()


def _described(path: Path) -> Any:
    return repr(describe(path.parent))


def _people(folder: Path) -> Path:
    rows = ["participant,sex,age", *(f"{p},{'fm'[i % 2]},{20 + i}" for i, p in enumerate(PEOPLE))]
    return _write(folder / "people.csv", "\n".join(rows) + "\n")


def _people_parquet(folder: Path) -> Path:
    pd.read_csv(_people(folder)).to_parquet(folder / "people.parquet")
    return folder / "people.parquet"


def _groups(path: Path) -> Any:
    return read_groups(path, "sex", PEOPLE)


def _metadata(path: Path) -> Any:
    table = read_metadata(path)
    return None if table is None else table.to_numpy().tolist()


FRAMES = pd.DataFrame(
    {
        "participant": np.repeat(PEOPLE, 6),
        "view": "front",
        "sequence": "s",
        "frame": np.tile(np.arange(6), len(PEOPLE)),
        "is_reference": False,
        "AU01": np.tile([0.0, 0, 0, 2, 3, 0], len(PEOPLE)),
    }
)


def _references_csv(folder: Path) -> Path:
    rows = ["participant,frame,sequence,view", *(f"{p},2,s,front" for p in PEOPLE)]
    return _write(folder / "references.csv", "\n".join(rows) + "\n")


def _references_json(folder: Path) -> Path:
    return _write(
        folder / "references.json", json.dumps({p: f"s/{i}" for i, p in enumerate(PEOPLE)})
    )


def _references(path: Path) -> Any:
    return choose_references(FRAMES, str(path), {}, Problems(strict=False)).tolist()


def _readings(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    aus = (1, 2, 4, 12, 25)
    head = ["frame", "face_id", "timestamp", "confidence", "success"]
    head += [f"AU{au:02d}_r" for au in aus] + [f"AU{au:02d}_c" for au in aus]
    lines = [", ".join(head)]
    for frame in range(1, 25):
        values = rng.gamma(1, 1, len(aus)).clip(0, 5)
        cells = [f"{frame}", "0", f"{frame / 30:.3f}", "0.98", "1"]
        lines.append(
            ", ".join([*cells, *(f"{v:.2f}" for v in values), *(f"{v > 1:d}" for v in values)])
        )
    return _write(folder / "openface.csv", "\n".join(lines) + "\n")


def _readings_parquet(folder: Path) -> Path:
    table = pd.read_csv(_readings(folder), skipinitialspace=True)
    table.to_parquet(folder / "openface.parquet")
    return folder / "openface.parquet"


def _sidecar(folder: Path) -> Path:
    table = _readings(folder)
    table.rename(folder / "aus.csv")
    aus = [{"au": au, "threshold": 1.0} for au in (1, 2, 4, 12, 25)]
    return _write(folder / "aus.json", json.dumps({"calibrator": {"aus": aus}}))


def _recalibrate(path: Path) -> Any:
    path = path.with_name("aus.csv") if path.suffix == ".json" else path
    out = path.with_name(f"out{path.suffix}")
    settings = Settings(mode="shift", selection=parse_selection("rows", "1:6"), overwrite=True)
    return recalibrate_table(path, out, settings).columns, out.stat().st_size > 0


def _two_readings(folder: Path) -> Path:
    _readings(folder).rename(folder / "other.csv")
    return _readings(folder)


def _agree(path: Path) -> Any:
    found = agree(path, path.with_name("other.csv"))
    return [(au.au, au.frames, au.pearson, au.lag_frames) for au in found.aus], to_text(
        [found], Pairs((("one", path, path),)), {}
    )


def _labels(folder: Path) -> Path:
    lines = ["clip,frame,reference,AU01,AU12"]
    lines += [f"c{n % 3},{n // 3 + 1},2,{n % 6},{n % 4 or ''}" for n in range(30)]
    return _write(folder / "labels.csv", "\n".join(lines) + "\n")


def _labels_parquet(folder: Path) -> Path:
    pd.read_csv(_labels(folder)).to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


def _read_labels(path: Path) -> Any:
    return [(clip, own.reference, sorted(own.aus)) for clip, own in read_labels(path).items()]


def _calibration(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    calibration = OutputCalibration("shrunken", span=(0, 5), names=("AU01", "AU12"))
    calibration.fit(rng.gamma(1, 1, (30, 2)), np.repeat(PEOPLE[:3], 10)).save(folder / "c.json")
    return folder / "c.json"


def _calibrated(path: Path) -> Any:
    return repr(OutputCalibration.load(path))


VERSIONS = {"siamcal": "0", "torch": "0", "timm": "0"}


def _coverage(folder: Path) -> Path:
    for number in range(4):
        points = [{"name": "layer1", "outcome": "exact", "mechanism": "hook", "detail": ""}]
        row = {"family": "f", "name": f"n{number}", "parameters": 3, "input_shape": [3, 8, 8],
               "num_points": 1, "points": points, "inner": None, "seconds": 0.5, "failure": "",
               "versions": VERSIONS}  # fmt: skip
        append_line(folder / "families.jsonl", row)
    return folder / "families.jsonl"


def _covered(path: Path) -> Any:
    """Finished results; a damaged one is made again, so that a part of them is right too."""
    found = coverage._read(path, VERSIONS)
    rows = kept_lines(path)
    assert all(r["name"] in found for r in rows)
    return {"all": all(r.points[0].outcome == "exact" and r.seconds == 0.5 for r in found.values())}


def _sizes(folder: Path) -> Path:
    values = {
        "timm": "0",
        "sizes": {"resnet": {"resnet18": 11, "resnet34": 21}, "vit": {"tiny": 5}},
    }
    return _write(folder / "sizes.json", json.dumps(values))


def _kept_sizes(path: Path) -> Any:
    return coverage._kept_sizes(path, "0")


def _losses(folder: Path) -> Path:
    lines = ["step,loss", *(f"{n},{1 / n:.6g}" for n in range(1, 40))]
    return _write(folder / "loss.csv", "\n".join(lines) + "\n")


def _resumed_losses(path: Path) -> Any:
    with LossLog(path.parent, 20) as log:
        log.write(21, 0.5)
    return path.exists()


READERS = (
    Reader("recipe, JSON", "json", _recipe_json, load_recipe, before=274),
    Reader("recipe, TOML", "text", _recipe_toml, load_recipe),
    Reader("results.json, for statistics", "json", _run, _read_run, before=291),
    Reader("results.json, for a card", "json", _calibrator, _card, named=False),
    Reader(
        "results.json, of a downloaded calibrator", "json", _calibrator, _described, made_again=True
    ),
    Reader("predictions", "own parquet", _predictions_file, _read_run, exact=True, before=880),
    Reader("predictions, exchanged for another table", "parquet", _predictions_file, _read_run),
    Reader("groups of people, CSV", "text", _people, _groups),
    Reader("groups of people, Parquet", "parquet", _people_parquet, _groups),
    Reader("metadata, CSV", "text", _people, _metadata, before=303),
    Reader("metadata, Parquet", "parquet", _people_parquet, _metadata),
    Reader("references, CSV", "text", _references_csv, _references, before=122),
    Reader("references, JSON", "json", _references_json, _references),
    Reader("readings of a tool, CSV", "text", _readings, _recalibrate),
    Reader("readings of a tool, Parquet", "parquet", _readings_parquet, _recalibrate),
    Reader("readings of a tool, against others", "text", _two_readings, _agree),
    Reader("labels of own clips, CSV", "text", _labels, _read_labels),
    Reader("labels of own clips, Parquet", "parquet", _labels_parquet, _read_labels),
    Reader("what stands beside readings", "json", _sidecar, _recalibrate, made_again=True),
    Reader("saved output calibration", "json", _calibration, _calibrated),
    Reader("results of coverage, lines", "jsonl", _coverage, _covered, exact=True),
    Reader("sizes of coverage", "json", _sizes, _kept_sizes, made_again=True),
    Reader("loss log of a resumed training", "text", _losses, _resumed_losses, made_again=True),
)

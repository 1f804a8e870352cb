"""How well does the packaged calibrator read rendered people it has never seen?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from siamcal.checkpoint import load_calibrator
from siamcal.datasets import load_dataset
from siamcal.datasets.prepare import prepare
from siamcal.errors import ConfigError
from siamcal.evaluation import environment, write_json
from siamcal.paths import asset
from siamcal.registry import benchmarks
from siamcal.report import HONESTY, machine_line, to_markdown
from siamcal.statistics import metric_interval
from siamcal.training import predict, task_labels

__all__ = ["calibrator"]


@benchmarks.register("calibrator")
def calibrator(output: Path | None = None, size: str = "small", bias: float = 1.0) -> str:
    """ICC and MAE of the packaged calibrator on rendered people it never saw.

    Args:
        output: Folder for `calibrator.md` and `calibrator.json`; None writes nothing.
        size: Size of the rendered set; its people are disjoint from the training's.
        bias: How much those people differ at rest.

    Returns:
        The table in Markdown.
    """
    model = load_calibrator(asset("calibrator"))
    if model.config is None:
        raise ConfigError(f"{asset('calibrator')} holds weights without a config.json.")
    source = load_dataset("synth", size=size, bias=bias)
    faces = prepare(source, model.config.preprocessing)
    preds = predict(model, faces, faces.table.index.to_numpy())
    labels = task_labels(faces, model.config.task)
    people = faces.participants.astype(str)
    found = {m: metric_interval(m, preds, labels, people) for m in ("icc", "icc_within", "mae")}
    cells = {m: interval.to_dict(model.config.aus) for m, interval in found.items()}
    rows = {
        f"AU{au:02d} ({status})": {m: f"{cells[m]['per_au'][f'AU{au:02d}']:.3f}" for m in cells}
        for au, status in zip(model.config.aus, model.config.au_status, strict=True)
    }
    rows["mean [95 %]"] = {
        m: f"{i.mean:.3f} [{i.interval[0]:.3f}, {i.interval[1]:.3f}]" for m, i in found.items()
    }
    table = to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "AU")
    machine = environment()
    text = (
        f"Packaged calibrator on {source.description} Trained on: "
        f"{model.config.training_data}. {machine_line(machine)}\n\n{table}\n\n{HONESTY}"
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "calibrator.md").write_text(text + "\n")
        write_json(output / "calibrator.json", {"metrics": cells, "environment": machine})
    return text

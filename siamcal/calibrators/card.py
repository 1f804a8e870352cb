"""The model card: what a calibrator is, what it was measured at, and what it isn't for.

Numbers come from `results.json` alone and facts from the calibrator's config, so a card never
claims what a run didn't measure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from siamcal.calibrators.config import CalibratorConfig
from siamcal.evaluation.methods import METHODS
from siamcal.evaluation.metrics import METRICS, Metric

__all__ = ["LICENCE_FILE", "licence_text", "model_card"]

LICENCE_FILE = "LICENSE.md"  # spelt as the Hub looks for it

PAPER = "https://arxiv.org/abs/2409.00240"
TRAINED_ON_RENDERED = "These weights were trained on rendered faces. "
RENDERED = (
    "Numbers measured on rendered people show that the machinery works and how much calibration "
    "can help; they never say how well real faces are read, and no 0-5 intensity on a real face is "
    "claimed."
)


def model_card(
    config: CalibratorConfig,
    results: Mapping[str, Any] | None = None,
    *,
    repo_id: str = "",
    figures: Sequence[str] = (),
) -> str:
    """Text of README.md.

    Args:
        config: The calibrator's description.
        results: A run's `results.json`; None writes a card without numbers.
        repo_id: "owner/name" under which it is published.
        figures: Paths of figures, relative to the card.
    """
    results = results or {}
    title = repo_id.partition("/")[2] or f"siamcal calibrator, {config.task}"
    parts = [
        _metadata(config, results, title),
        f"# {title}",
        _summary(config),
        _rendered(config, results),
        "## Use\n\n" + _use(config, repo_id),
        "## Action units\n\n" + _aus(config),
        "## Results\n\n" + _results(config, results),
        *(f"![{path.rpartition('/')[2]}]({path})" for path in figures[:1]),
        "## Intended use and limits\n\n" + _limits(config),
        "## Training data\n\n" + _training_data(config, results),
        "## Licence\n\n" + _licence(config),
        "## Citation\n\n" + _citation(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence_text(config: CalibratorConfig) -> str:
    """Text of LICENSE.md, to which the card links; "" for a licence that the Hub knows by name."""
    if config.licence != "other":
        return ""
    return f"# Licence of the weights\n\n{_licence(config)}\n"


def _metadata(config: CalibratorConfig, results: Mapping[str, Any], title: str) -> str:
    lines = ["---", "library_name: siamcal", f"license: {_yaml(config.licence)}"]
    if config.licence == "other":
        free = "non-commercial" not in config.licence_reason.lower()
        lines.append(f"license_name: {'custom' if free else 'non-commercial-research'}")
        lines.append(f"license_link: {LICENCE_FILE}")
    recipe = results.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    if base := _base_model(config, recipe):
        relation = "adapter" if config.is_adapter else "finetune"
        lines += [f"base_model: {_yaml(base)}", f"base_model_relation: {relation}"]
    if trained_on := recipe.get("dataset"):
        lines += ["datasets:", f"- {_yaml(_dataset_id(str(trained_on), results))}"]
    tags = ["siamcal", "facial-action-units", "facs", "one-frame-calibration"]
    tags += ["siamcal-adapter"] if config.is_adapter else []
    lines += ["pipeline_tag: image-feature-extraction", "tags:", *(f"- {tag}" for tag in tags)]
    entries = list(_index_entries(config, results))
    if entries:
        lines += ["metrics:", *(f"- {m}" for m in dict.fromkeys(e[0] for e in entries))]
        name = _dataset(results)
        lines += [
            "model-index:",
            f"- name: {_yaml(title)}",
            "  results:",
            "  - task:",
            "      type: image-feature-extraction",
            f"      name: {_yaml(f'facial action unit {config.task}')}",
            "    dataset:",
            f"      type: {_yaml(_dataset_id(name, results))}",
            f"      name: {_yaml(name)}",
            "      split: test",
            "    metrics:",
        ]
        for metric, text, value in entries:
            lines += [
                f"    - type: {metric}",
                f"      value: {value!r}",
                f"      name: {_yaml(text)}",
            ]
    return "\n".join([*lines, "---"])


def _base_model(config: CalibratorConfig, recipe: Mapping[str, Any]) -> str:
    """The Hub's id of the network whose public weights these come from; "" where it has none."""
    if not (config.is_adapter or recipe.get("weights") == "pretrained"):
        return ""
    source, _, name = config.backbone.partition(":")
    name = name.partition("@")[0]
    if source in ("hf-hub", "transformers") and "/" in name:
        return name
    # timm's own weights lie under their full name, that of the training behind the dot.
    return f"timm/{name}" if source == "timm" and "." in name else ""


def _dataset_id(name: str, results: Mapping[str, Any]) -> str:
    """A data set's name as an id: rendered ones are siamcal's, no other's of that name."""
    data = results.get("dataset")
    rendered = isinstance(data, Mapping) and data.get("rendered") and data.get("name") == name
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower().replace("+", "-plus")).strip("-.")
    slug = slug or "unnamed"
    return f"siamcal-{slug}" if rendered else slug


def _index_entries(
    config: CalibratorConfig, results: Mapping[str, Any]
) -> Iterator[tuple[str, str, float]]:
    """(metric, its name, its value) of the calibrated network, for the model-index."""
    cells = _cells(results, "csn", config.task)
    for metric in _by_importance():
        cell = cells.get(metric.name, {})
        mean = _number(cell.get("mean"))
        if mean is None:
            continue
        yield metric.name, f"{metric.title}, mean over AUs", mean
        if metric.headline:
            for au, value in cell.get("per_au", {}).items():
                if _number(value) is not None:
                    yield metric.name, f"{metric.title}, {_au(au)}", float(value)


def _summary(config: CalibratorConfig) -> str:
    aus = ", ".join(f"AU{au}" for au in config.aus) or "its raw output"
    points = " and ".join(f"`{name}`" for name in config.points)
    plain = config.merge in ("reference_minus_target", "target_minus_reference")
    done, result = ("subtracted", "the difference") if plain else ("merged", "the result")
    text = (
        f"A network for facial action unit {config.task} ({aus}) that takes one neutral frame of "
        f"the person: target and reference go through the first part of "
        f"`{config.backbone or 'a custom network'}`, their features are {done} at the entrance "
        f"of {points} (`{config.merge}`), and the rest reads {result}. Method: "
        f"[One-Frame Calibration with Siamese Network in Facial Action Unit Recognition]({PAPER}); "
        "code: the Python package `siamcal`."
    )
    if config.is_adapter:
        text += (
            "\n\nThis is an **adapter**: it holds the part behind the merge point and the head, "
            f"and is laid over {config.base_model or 'the public backbone'}. The checksum of that "
            "backbone's weights is in the config; any other is refused."
        )
    return text


def _use(config: CalibratorConfig, repo_id: str) -> str:
    name = repo_id or "path/of/this/folder"
    extra = "" if config.backbone and ".py:" not in config.backbone else ", backbone=net"
    return (
        "```python\nfrom siamcal import CalibratingSiamese\n\n"
        f'model = CalibratingSiamese.from_pretrained("{name}"{extra})\n'
        "reference = model.encode(neutral)  # once per person\n"
        "output = model(targets, reference)  # (B, 3, H, W) tensors, see config.preprocessing\n"
        "```\n\n```\nsiamcal predict video.mp4 --reference neutral.jpg "
        f"--model {'hf-hub:' + repo_id if repo_id else name} -o aus.csv\n```"
    )


def _aus(config: CalibratorConfig) -> str:
    if not config.aus:
        return "The network's outputs aren't named as action units."
    rows = [
        f"| AU{au} | {name} | {threshold:g} | {status} |"
        for au, name, threshold, status in zip(
            config.aus, config.au_names, config.thresholds, config.au_status, strict=True
        )
    ]
    head = "| AU | name | present from intensity | status |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(rows)


def _results(config: CalibratorConfig, results: Mapping[str, Any]) -> str:
    found = {m: _cells(results, m, config.task) for m in METHODS}
    found = {method: cells for method, cells in found.items() if cells}
    if not found:
        return "No results came with these weights."
    metrics = [m for m in _by_importance() if any(m.name in cells for cells in found.values())]
    lines = [
        f"Measured on {_dataset(results)}, {_unseen(results)}; means over AUs with 95 % intervals "
        "from resampling participants.\n",
        "| method | " + " | ".join(m.title for m in metrics) + " |",
        "| --- " * (len(metrics) + 1) + "|",
    ]
    for method, cells in found.items():
        row = [_with_interval(cells.get(metric.name, {}), metric) for metric in metrics]
        lines.append(f"| {METHODS[method].description} | " + " | ".join(row) + " |")
    own = found.get("csn", {})
    per_au = [m for m in metrics if m.headline and own.get(m.name, {}).get("per_au")]
    if per_au:
        lines += ["", "| this calibrator | " + " | ".join(m.title for m in per_au) + " |"]
        lines.append("| --- " * (len(per_au) + 1) + "|")
        for au in own[per_au[0].name]["per_au"]:
            row = [m.text(_number(own[m.name]["per_au"].get(au))) for m in per_au]
            lines.append(f"| {_au(au)} | " + " | ".join(row) + " |")
    if _in_folds(results):
        lines.append(
            "\nThe weights published here may be trained on all participants; the numbers are "
            "those of the folds, in which no participant was both trained on and measured."
        )
    return "\n".join([*lines, *_still_face(results)])


def _in_folds(results: Mapping[str, Any]) -> bool:
    data = results.get("dataset")
    return not isinstance(data, Mapping) or bool(data.get("folds", True))


def _unseen(results: Mapping[str, Any]) -> str:
    if _in_folds(results):
        return "by participant-exclusive folds"
    return f"{results['dataset']['participants']} people none of whom it was trained on"


def _still_face(results: Mapping[str, Any]) -> list[str]:
    """What is read on a real face that is still: benchmarks/calibrator.py."""
    found = results.get("photograph")
    if not isinstance(found, Mapping):
        return []
    means = [f"{shoot['mean']:.2f} ({name})" for name, shoot in found["shoots"].items()]
    return [
        f"\nOn a real face that is still ({found['variations']} pictures each, made of one "
        f"photograph, {found['picture']}, itself the reference) the mean intensity read is "
        f"{' and '.join(means)}, where 0 would be right."
    ]


def _limits(config: CalibratorConfig) -> str:
    shown = [f"AU{a}" for a, s in zip(config.aus, config.au_status, strict=True) if s[0] == "s"]
    return (
        "- For research on facial movement, with the consent of the people shown. Action units are "
        "movements, not emotions: don't infer inner states, and don't use it to judge, identify "
        "or rank people.\n"
        "- Needs one neutral frame per person, frontal, with open eyes and without hands before "
        "the face. A smiling or covered reference shifts every value.\n"
        "- Faces must be cropped by the preprocessing in the config; `siamcal predict` does it.\n"
        f"- Shown to work on real faces: {', '.join(shown) or 'no action unit'}. The others are "
        "experimental or not validated, as the table says."
    )


def _training_data(config: CalibratorConfig, results: Mapping[str, Any]) -> str:
    text = f"{config.training_data} (licence of the data: {config.data_licence})."
    data = results.get("dataset")
    if _in_folds(results) and isinstance(data, Mapping) and data.get("participants"):
        text += f" {_dataset(results)}: {data['participants']} participants"
        text += f", {data['frames']} frames." if data.get("frames") else "."
    return text


def _licence(config: CalibratorConfig) -> str:
    return f"Licence of the weights: {config.licence}. Reason: {config.licence_reason}."


def _citation() -> str:
    return (
        "```bibtex\n@article{feng2024oneframe,\n  title = {One-Frame Calibration with Siamese "
        "Network in Facial Action Unit Recognition},\n  journal = {arXiv preprint "
        "arXiv:2409.00240},\n  year = {2024}\n}\n```"
    )


def _cells(results: Mapping[str, Any], method: str, task: str) -> Mapping[str, Any]:
    methods = results.get("methods", {})
    cells = methods.get(method, {}) if isinstance(methods, Mapping) else {}
    found = cells.get(task, {}) if isinstance(cells, Mapping) else {}
    if not isinstance(found, Mapping):
        return {}
    return {metric: cell for metric, cell in found.items() if isinstance(cell, Mapping)}


def _dataset(results: Mapping[str, Any]) -> str:
    data = results.get("dataset", "")
    name = data.get("name", "") if isinstance(data, Mapping) else data
    return str(name) or "an unnamed data set"


def _rendered(config: CalibratorConfig, results: Mapping[str, Any]) -> str:
    data = results.get("dataset")
    measured = isinstance(data, Mapping) and bool(data.get("rendered"))
    if not (config.rendered or measured):
        return ""
    return "**Rendered faces.** " + TRAINED_ON_RENDERED * config.rendered + RENDERED


def _by_importance() -> list[Metric]:
    return sorted(METRICS.values(), key=lambda metric: not metric.headline)


def _with_interval(cell: Mapping[str, Any], metric: Metric) -> str:
    text = metric.text(_number(cell.get("mean")))
    ends = [_number(value) for value in cell.get("interval") or ()]
    return f"{text} {metric.range_text(ends)}" if len(ends) == 2 and None not in ends else text


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN (an AU that never varied) is no value that an index may hold.
    return float(value) if abs(value) < float("inf") else None


def _au(name: Any) -> str:
    text = str(name)
    return text if text.upper().startswith("AU") else f"AU{text}"


def _yaml(text: str) -> str:
    """A YAML scalar, quoted: JSON's strings are YAML's, and a bare `yes` or `1.0` isn't text."""
    return json.dumps(text)

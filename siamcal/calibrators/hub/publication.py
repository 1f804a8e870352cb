"""What a push would send: the files of a run or of a model, put together and shown beforehand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from siamcal.calibrators.card import LICENCE_FILE, licence_text, model_card
from siamcal.calibrators.config import CalibratorConfig, read_config
from siamcal.calibrators.saving import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_calibrator,
    save_calibrator,
)
from siamcal.errors import ConfigError, DataNotFoundError, SiamcalError
from siamcal.files import read_json
from siamcal.model.create import is_file_name

__all__ = ["Publication", "plan_from_folder", "plan_from_model"]

EXTRA_FILES = ("results.json", "recipe.json", "table.md")
MAX_FIGURES = 20


@dataclass(frozen=True)
class Publication:
    """The files of a calibrator as they will lie in its repository.

    Attributes:
        files: Path in the repository -> file on this machine.
        card: Text of README.md.
        config: The calibrator's description.
    """

    files: Mapping[str, Path]
    card: str
    config: CalibratorConfig

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, in the order of their paths."""
        return {path: file.stat().st_size for path, file in sorted(self.files.items())}


def plan_from_folder(
    folder: str | Path,
    repo_id: str,
    workplace: str | Path,
    *,
    adapter: bool = False,
    base: str | Path | None = None,
) -> Publication:
    """Gather a run's calibrator, results and figures.

    Args:
        folder: A run's folder (`runs/NAME`), or one that holds a calibrator itself.
        repo_id: "owner/name" it is for.
        workplace: An empty folder for files that are written for the push.
        adapter: Send only what lies behind the merge point.
        base: File of the public backbone's weights, to prove an adapter's base unchanged.

    Raises:
        DataNotFoundError: There is no calibrator.
        ConfigError: The calibrator's config or the results are damaged.
    """
    folder, workplace = Path(folder), Path(workplace)
    calibrator = _calibrator_folder(folder)
    config = read_config(calibrator / CONFIG_FILE)
    if adapter and not config.is_adapter:
        calibrator, config = _as_adapter(calibrator, workplace, base)
    results = _results(folder / "results.json")
    figures = sorted((folder / "figures").glob("*.png"))[:MAX_FIGURES]
    files = {
        CONFIG_FILE: calibrator / CONFIG_FILE,
        WEIGHTS_FILE: calibrator / WEIGHTS_FILE,
        **{name: folder / name for name in EXTRA_FILES if (folder / name).is_file()},
        **{f"figures/{figure.name}": figure for figure in figures},
    }
    if not files[WEIGHTS_FILE].is_file():
        raise DataNotFoundError(f"{calibrator} holds no {WEIGHTS_FILE}; save the calibrator again.")
    return _with_card(files, config, results, repo_id, workplace)


def plan_from_model(
    config: CalibratorConfig,
    calibrator: Path,
    repo_id: str,
    workplace: Path,
    results: Mapping[str, Any] | None = None,
) -> Publication:
    """The files of a calibrator that was just saved into `calibrator`."""
    files = {name: calibrator / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    if results is not None:
        files["results.json"] = workplace / "results.json"
        files["results.json"].write_text(json.dumps(results, indent=2))
    return _with_card(files, config, results, repo_id, workplace)


def _with_card(
    files: dict[str, Path],
    config: CalibratorConfig,
    results: Mapping[str, Any] | None,
    repo_id: str,
    workplace: Path,
) -> Publication:
    figures = [path for path in files if path.startswith("figures/")]
    try:
        card = model_card(config, results, repo_id=repo_id, figures=_best_first(figures))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, SiamcalError):
            raise
        raise ConfigError(
            f"The run's results.json doesn't hold what `siamcal bench` writes ({error!r:.100}); "
            "run the comparison again."
        ) from error
    place = workplace / CARD_FILE
    place.write_text(card, encoding="utf-8")
    files = {**files, CARD_FILE: place}
    if text := licence_text(config):
        files[LICENCE_FILE] = workplace / LICENCE_FILE
        files[LICENCE_FILE].write_text(text, encoding="utf-8")
    return Publication(files, card, config)


def _best_first(figures: list[str]) -> list[str]:
    """Bars per AU say most on a card."""
    return sorted(figures, key=lambda path: ("bar" not in path and "per_au" not in path, path))


def _calibrator_folder(folder: Path) -> Path:
    for place in (folder / "calibrator", folder):
        if (place / CONFIG_FILE).is_file():
            return place
    if not folder.is_dir():
        raise DataNotFoundError(f"There is no folder {folder}; `siamcal bench` makes runs/NAME.")
    raise DataNotFoundError(
        f"{folder} holds no calibrator (no calibrator/{CONFIG_FILE}). Train one on all "
        f"participants of the run: siamcal train {folder}"
    )


def _as_adapter(
    calibrator: Path, workplace: Path, base: str | Path | None
) -> tuple[Path, CalibratorConfig]:
    model = load_calibrator(calibrator, verify=False, trust=True)  # it is the user's own run
    public = _public_backbone(model.config, base)
    place = workplace / "adapter"
    named = str(base) if str(base or "").startswith("asset:") else ""
    name = named or (Path(base).name if base else f"{model.config.backbone} pretrained")
    model.config = dataclasses.replace(model.config, base_model=model.config.base_model or name)
    return place, save_calibrator(model, None, place, adapter=True, base=public)


def _public_backbone(config: CalibratorConfig, base: str | Path | None) -> nn.Module:
    from siamcal.calibrators.adapters import base_network

    if not config.backbone or is_file_name(config.backbone):
        raise ConfigError(
            "An adapter is laid over a public backbone, but this calibrator's network is its "
            "author's own. Push the whole calibrator, without --adapter."
        )
    if str(base or "").startswith("asset:"):
        config, base = dataclasses.replace(config, base_model=str(base)), None
    return base_network(config, config.backbone, dict(config.backbone_arguments), base)


def _results(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    results = read_json(path)
    if not isinstance(results, dict):
        raise ConfigError(f"{path} holds no results; run the comparison again.")
    return results

"""The calibrator that reads the frames: the packaged one, a folder, or one from the hub."""

from __future__ import annotations

from pathlib import Path

import torch

from siamcal.calibrators.adapters import base_network
from siamcal.calibrators.config import read_config
from siamcal.calibrators.saving import CONFIG_FILE, load_calibrator
from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.files import asset, read_json
from siamcal.graph.record import CutRecord
from siamcal.model.siamese import CalibratingSiamese
from siamcal.settings import from_dict

__all__ = ["CUT_FILE", "RENDERED_NOTE", "choose_device", "load_model"]

#: Beside the packaged calibrator: its cut, as a `CutRecord`.
CUT_FILE = "cut.json"

RENDERED_NOTE = (
    "This calibrator was trained on rendered faces. Its values rank the frames of one person; they "
    "are not FACS intensities coded by a human, and some AUs were never checked on real faces."
)


def load_model(
    source: str | Path | None = None, task: str | None = None, *, trust: bool = False
) -> CalibratingSiamese:
    """Load a calibrator for inference, in eval mode.

    Args:
        source: A folder, "hf-hub:owner/name", or None for the calibrator in the package.
        task: What it must do, "intensity" or "detection"; None takes what it does.
        trust: See `CalibratingSiamese.from_pretrained`.

    Raises:
        ConfigError: It does another task, or its AUs aren't known.
        DataNotFoundError: The package holds no calibrator.
    """
    if source is None:
        try:
            model = _packaged()
        except DataNotFoundError as error:
            raise DataNotFoundError(
                f"No calibrator was named, and the package holds none ({error}). Train one "
                f"(`siamcal train synth`) and name its folder with --model."
            ) from error
    elif Path(source).is_dir():
        model = load_calibrator(source, trust=trust)
    else:
        model = CalibratingSiamese.from_pretrained(source, trust=trust)
    config = model.config
    if config.task not in {"intensity", "detection"} or not config.aus:
        raise ConfigError(
            f"The calibrator's task is {config.task!r} with AUs {config.aus}; a table needs one "
            "for 'intensity' or 'detection' whose config names its AUs. A network that was wrapped "
            "without a head is read in Python (model(targets, reference)), or wrapped again with "
            "head=siamcal.model.heads.make_head('intensity' or 'detection', number of AUs)."
        )
    if task is not None and task != config.task:
        advice = (
            "its AU.._c columns already tell which intensities are 2 or more"
            if config.task == "intensity"
            else "train one with `siamcal train --task intensity`"
        )
        raise ConfigError(
            f"--task {task} was asked for, but this calibrator does {config.task}: {advice}, or "
            f"name another one with --model."
        )
    return model.eval()


def _packaged() -> CalibratingSiamese:
    """The calibrator in the package: neither watched as a stranger's nor proved at every start.

    Watching it on the meta device imports torch's compiler, a second of processor time. What the
    proof of its cut found, in half a second, lies beside it; a test proves it again.
    """
    folder = asset("calibrator")
    config = read_config(folder / CONFIG_FILE)
    arguments = dict(config.backbone_arguments)
    network = base_network(config, config.backbone, arguments, None)
    record = from_dict(read_json(folder / CUT_FILE), CutRecord)
    return load_calibrator(folder, backbone=network, verify=record)


def choose_device(name: str = "auto") -> torch.device:
    """A torch device; "auto" takes a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        if cause.startswith("Expected one of"):  # torch lists backends that nobody has
            cause = "it is cpu, cuda, mps or auto"
        raise ConfigError(
            f"The device {name!r} can't be used ({cause}); 'cpu' always can."
        ) from error
    return device

"""What a saved calibrator says of itself: a frozen description, read strictly from `config.json`.

A config may come from a stranger. It therefore holds primitives only; every field has its type,
range and length checked by hand, nothing in it is a path that gets opened, and no name in it is
imported.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import siamcal
from siamcal.errors import ConfigError
from siamcal.files import read_text
from siamcal.model.merge_options import check_merge_options
from siamcal.model.merges import CUSTOM, PAPER, paper
from siamcal.model.places import merge_points
from siamcal.preprocessing import Preprocessing
from siamcal.registry import merges
from siamcal.settings import check_choices, check_range, from_dict, to_dict

FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
AU_STATUSES = ("shown on real faces", "experimental", "not validated")
TASKS = ("intensity", "detection", "raw", "custom")
BRANCHES = ("separate", "concatenate")

# FACS (Ekman, Friesen, Hager 2002): the actions that the data sets of the field code.
AU_NAMES = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    11: "nasolabial deepener",
    12: "lip corner puller",
    13: "sharp lip puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    18: "lip pucker",
    20: "lip stretcher",
    22: "lip funneler",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
    27: "mouth stretch",
    28: "lip suck",
    43: "eyes closed",
    45: "blink",
}

# Arguments by which a network builder opens a file, a URL or another repository.
_OPENING_ARGUMENTS = {
    "cache_dir",
    "checkpoint",
    "checkpoint_path",
    "config_file",
    "file",
    "filename",
    "path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "trust_remote_code",
    "url",
    "weights",
    "weights_backbone",
}
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_+\- ]{0,64}\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_LARGEST_NUMBER = 1 << 16
_LONGEST_LIST = 256
_LARGEST_SIDE = 1024
_MOST_POINTS = 16  # each is proved when the calibrator is loaded
# What is done at the output with what is read of the reference against itself.
_AT_REFERENCE = ("zero_at_reference", "rest_to_zero")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class CalibratorConfig:
    """Everything needed to rebuild and to judge a saved calibrator, weights apart.

    Attributes:
        merge_at: Merge point, "layer4" meaning the entrance of `layer4`; or several, in order.
        task: "intensity" or "detection" (siamcal's heads), "raw" (the network's own output) or
            "custom" (a user's own head, passed again when loading).
        aus: AU numbers in the order of the outputs.
        backbone: Name for `create_backbone`; "" for a module that can't be rebuilt by name.
        backbone_arguments: Its arguments, `num_outputs` among them. Never a path, URL or import.
        merge: Name of the form that is computed at the merge point, "custom" for a user's own;
            "paper" becomes the one that the authors compute there.
        merge_options: The form's options: numbers and plain words.
        branches: "separate" forwards (the paper) or "concatenate".
        output: Part of the network's output that is meant: a key, an index or None.
        freeze_pre_batchnorm: BatchNorm before the merge point was kept at its running statistics.
        null_reference: Whether the model has one, for people without a neutral frame.
        au_names: FACS names, in the order of `aus`.
        thresholds: Intensity from which an AU counts as present, in the order of `aus`.
        au_status: One of AU_STATUSES each, in the order of `aus`.
        scale: Factors on the intensities, in the order of `aus`, fitted after the training to
            people it didn't show; () is none.
        zero_at_reference: `siamcal predict` takes off what is read of the reference against itself,
            where that is above 0: forms that keep the target's own look read a little there.
        rest_to_zero: `siamcal predict` maps intensities so that what is read of the reference
            against itself becomes 0, and 5 stays 5 (`OutputCalibration`, monotone): for a frozen
            network, of whose rest something is left behind the merge. Not with zero_at_reference.
        soft_zero: `siamcal predict` draws calibrated intensities near 0 to it (`drawn_to_zero`):
            one of this size is halved, from large ones as much is taken off. 0 changes nothing.
        preprocessing: Frame -> network input.
        input_shape: (C, H, W) of one input; () means (3, size, size) of `preprocessing`.
        training_data: Who and what the weights were trained on.
        rendered: Whether the faces trained on were computer graphics.
        data_licence: Licence of those data.
        licence: Licence of the weights, an SPDX identifier in lower case or "other".
        licence_reason: Why it is that one.
        base_model: For adapters: the public backbone below, in words. "" for whole models.
        base_checksum: For adapters: checksum of the public backbone's pre-merge weights.
        half: Whether the file holds its tensors in half precision; they are widened to single
            when loaded.
        weights_checksum: SHA-256 of `model.safetensors`; written by `save_calibrator`.
        siamcal_version: The version that wrote it.
        format_version: Of this description.
    """

    merge_at: str | tuple[str, ...]
    task: str
    aus: tuple[int, ...]
    backbone: str = ""
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    merge: str = PAPER
    merge_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    branches: str = "separate"
    output: str | int | None = None
    freeze_pre_batchnorm: bool = False
    null_reference: bool = False
    au_names: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    au_status: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    zero_at_reference: bool = False
    rest_to_zero: bool = False
    soft_zero: float = 0.0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    input_shape: tuple[int, ...] = ()
    training_data: str = "not stated"
    rendered: bool = False
    data_licence: str = "not stated"
    licence: str = "other"
    licence_reason: str = "not stated"
    base_model: str = ""
    base_checksum: str = ""
    half: bool = False
    weights_checksum: str = ""
    siamcal_version: str = siamcal.__version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not isinstance(self.aus, tuple):
            object.__setattr__(self, "aus", tuple(self.aus))
        object.__setattr__(self, "merge_at", merge_points(self.merge_at))
        if self.merge == PAPER:
            object.__setattr__(self, "merge", paper(self.merge_at))
        side = getattr(self.preprocessing, "size", 0)
        defaults = {
            "input_shape": (3, side, side),
            "au_names": tuple(AU_NAMES.get(au, f"AU{au}") for au in self.aus),
            # As in arXiv:2409.00240: present from intensity 2 on; AU43 (eyes closed) is scored 0/1.
            "thresholds": tuple(1.0 if au == 43 else 2.0 for au in self.aus),
            "au_status": ("not validated",) * len(self.aus),
        }
        for name, default in defaults.items():
            object.__setattr__(self, name, tuple(getattr(self, name)) or default)
        _check(self)

    @property
    def points(self) -> tuple[str, ...]:
        """The merge points."""
        return (self.merge_at,) if isinstance(self.merge_at, str) else self.merge_at

    @property
    def is_adapter(self) -> bool:
        """Whether only the post-merge part and the head are saved."""
        return bool(self.base_checksum)

    @property
    def num_outputs(self) -> int:
        """Raw outputs the task needs; 0 where the task leaves it open."""
        return {"intensity": 6 * len(self.aus), "detection": len(self.aus)}.get(self.task, 0)


def read_config(path: str | Path) -> CalibratorConfig:
    """Read `config.json` strictly.

    Raises:
        ConfigError: Missing, too large, not JSON, unknown or missing field, wrong type or value,
            or written by a newer siamcal.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"No calibrator in {path.parent}: it holds no {path.name}. Name a folder written by "
            "`save_pretrained`, or 'hf-hub:owner/name'."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size} bytes; a calibrator's config has a few thousand and "
            f"at most {MAX_CONFIG_BYTES} are read. The file isn't siamcal's."
        )
    try:
        values = json.loads(
            read_text(path),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:  # a ConfigError too
        raise ConfigError(f"{path} isn't valid JSON ({str(error)[:200]}).") from None
    try:
        return config_from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def config_from_dict(values: Any) -> CalibratorConfig:
    """Build a config from parsed JSON, strictly.

    Raises:
        ConfigError: See `read_config`.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"Expected a JSON object, but got {type(values).__name__}.")
    _check_version(values.get("format_version"))
    return from_dict(values, CalibratorConfig)


def config_to_dict(config: CalibratorConfig) -> dict[str, Any]:
    """Plain dict, ready for JSON; `config_from_dict` is its inverse."""
    values = to_dict(config)
    return {"format_version": values.pop("format_version"), **values}


def check_backbone_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments by which a stranger's config could open, download or import something.

    Allowed: numbers, booleans, None, plain words ("gelu"), and lists or objects of those.

    Raises:
        ConfigError: Anything else; the message names the argument.
    """
    if not isinstance(arguments, Mapping):
        raise ConfigError(
            f"Expected backbone_arguments to be an object, but got {type(arguments).__name__}."
        )
    for name, value in arguments.items():
        if not isinstance(name, str) or not _IDENTIFIER.match(name):
            raise ConfigError(
                f"backbone_arguments has the name {str(name)[:80]!r}; a plain word is allowed."
            )
        if name in _OPENING_ARGUMENTS:
            raise ConfigError(
                f"backbone_arguments sets '{name}', by which a network builder opens files or "
                "downloads; a saved calibrator brings its own weights and may not. Remove it."
            )
        _check_argument(value, f"backbone_arguments.{name}", depth=0)


def _check_argument(value: Any, name: str, depth: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if not abs(value) <= _LARGEST_NUMBER:
            raise ConfigError(f"{name} is {str(value)[:40]}; at most {_LARGEST_NUMBER} is allowed.")
        return
    if isinstance(value, str):
        if not _PLAIN_WORD.match(value):
            raise ConfigError(
                f"{name} is {value[:80]!r}; a config may hold plain words only: no path, URL, "
                "module or import string. Pass such things yourself with backbone=."
            )
        return
    if isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST and depth < 4:
        for item in value:
            _check_argument(item, name, depth + 1)
        return
    if isinstance(value, Mapping) and len(value) <= _LONGEST_LIST and depth < 4:
        for key, item in value.items():
            if not isinstance(key, str) or key in _OPENING_ARGUMENTS or not _PLAIN_WORD.match(key):
                raise ConfigError(f"{name} holds the key {str(key)[:80]!r}, which isn't allowed.")
            _check_argument(item, name, depth + 1)
        return
    raise ConfigError(f"{name} is a {type(value).__name__} or nested too deep; it can't be saved.")


def _check(config: CalibratorConfig) -> None:
    _check_version(config.format_version)
    _check_text(config)
    _check_points(config)
    _check_merge(config)
    check_choices(config, task=TASKS, branches=BRANCHES)
    flags = ("freeze_pre_batchnorm", "null_reference", *_AT_REFERENCE, "rendered", "half")
    for name in flags:
        _is(getattr(config, name), bool, name)
    if config.output is not None:
        _is(config.output, int if isinstance(config.output, int) else str, "output")
        _plain(str(config.output), "output", 100)
    if not isinstance(config.preprocessing, Preprocessing):
        raise ConfigError("CalibratorConfig.preprocessing must be a Preprocessing.")
    _check_preprocessing(config.preprocessing)
    _check_aus(config)
    _check_input_shape(config.input_shape)
    check_backbone_arguments(config.backbone_arguments)
    declared = config.backbone_arguments.get("num_outputs")
    if config.num_outputs and declared is not None and declared != config.num_outputs:
        raise ConfigError(
            f"backbone_arguments.num_outputs is {declared}, but {config.task} of {len(config.aus)} "
            f"AUs needs {config.num_outputs}."
        )


def _check_merge(config: CalibratorConfig) -> None:
    options = config.merge_options
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"Expected merge_options to be an object, but got {type(options).__name__}."
        )
    for name, value in options.items():
        if not isinstance(name, str) or not _IDENTIFIER.match(name):
            raise ConfigError(
                f"merge_options has the name {str(name)[:80]!r}; a plain word is allowed."
            )
        _check_argument(value, f"merge_options.{name}", depth=0)
    if config.merge != CUSTOM:  # a user's own is checked when it is passed
        merges.get(config.merge)
        check_merge_options(config.merge, options)


def _check_input_shape(shape: tuple[int, ...]) -> None:
    whole = all(type(side) is int and side > 0 for side in shape)
    if not (len(shape) == 3 and whole and shape[0] <= 16 and max(shape[1:]) <= _LARGEST_SIDE):
        raise ConfigError(
            f"CalibratorConfig.input_shape is {str(shape)[:80]}; (C, H, W) with at most 16 "
            f"channels and {_LARGEST_SIDE} pixels a side is allowed."
        )


def _check_preprocessing(preprocessing: Preprocessing) -> None:
    if not 8 <= preprocessing.size <= _LARGEST_SIDE:
        raise ConfigError(
            f"preprocessing.size is {preprocessing.size}; 8 to {_LARGEST_SIDE} pixels are allowed."
        )
    for name in ("mean", "std"):
        for value in getattr(preprocessing, name):
            _is(value, float, f"preprocessing.{name}")
    if 0 in preprocessing.std:
        raise ConfigError("preprocessing.std holds a zero, by which would be divided.")


def _check_aus(config: CalibratorConfig) -> None:
    aus = config.aus
    if len(aus) > 128 or not all(type(au) is int and 0 < au < 1000 for au in aus):
        raise ConfigError(
            f"CalibratorConfig.aus is {str(aus)[:80]}; AU numbers 1 to 999 are allowed."
        )
    if len(set(aus)) != len(aus):
        raise ConfigError(f"CalibratorConfig.aus names an AU twice: {aus}.")
    if not aus and config.task not in ("raw", "custom"):
        raise ConfigError(f"CalibratorConfig.aus is empty, but the task is {config.task}.")
    for name, kind in (("au_names", str), ("thresholds", float), ("au_status", str)):
        items = getattr(config, name)
        if len(items) != len(aus):
            raise ConfigError(
                f"CalibratorConfig.{name} has {len(items)} entries for {len(aus)} AUs; one each."
            )
        for item in items:
            _is(item, kind, name)
            if kind is str:
                _plain(item, name, 100)
    for name in _AT_REFERENCE:
        if getattr(config, name) and config.task != "intensity":
            raise ConfigError(
                f"CalibratorConfig.{name} is for intensities, but the task is {config.task}."
            )
    if config.zero_at_reference and config.rest_to_zero:
        raise ConfigError(
            "CalibratorConfig.zero_at_reference and rest_to_zero both take off what is read of the "
            "reference against itself; set one to False."
        )
    check_range("CalibratorConfig.soft_zero", config.soft_zero, 0, 1)
    if config.soft_zero and config.task != "intensity":
        raise ConfigError(
            f"CalibratorConfig.soft_zero is for intensities, but the task is {config.task}."
        )
    if config.scale and (config.task != "intensity" or len(config.scale) != len(aus)):
        raise ConfigError(
            f"CalibratorConfig.scale has {len(config.scale)} entries for {config.task} of "
            f"{len(aus)} AUs; one each for intensities, or none."
        )
    for factor in config.scale:
        check_range("CalibratorConfig.scale", factor, 0.01, 100)
    for status in config.au_status:
        if status not in AU_STATUSES:
            raise ConfigError(
                f"CalibratorConfig.au_status holds {status!r}; allowed: {', '.join(AU_STATUSES)}."
            )


def _check_text(config: CalibratorConfig) -> None:
    lengths = {"backbone": 300, "licence": 100, "siamcal_version": 50}
    checksums = ("base_checksum", "weights_checksum")
    for entry in dataclasses.fields(config):
        if entry.type != "str":
            continue
        value = getattr(config, entry.name)
        _is(value, str, entry.name)
        _plain(value, entry.name, lengths.get(entry.name, 20_000))
        if entry.name in checksums and not re.fullmatch(r"([0-9a-f]{64})?", value):
            raise ConfigError(f"CalibratorConfig.{entry.name} isn't a SHA-256: {value[:80]!r}.")


def _check_points(config: CalibratorConfig) -> None:
    points = config.points
    if len(points) > _MOST_POINTS:
        raise ConfigError(
            f"CalibratorConfig.merge_at names {len(points)} merge points; {_MOST_POINTS} at most."
        )
    for name in points:
        _plain(name, "merge_at", 300)
        if not name:
            raise ConfigError("CalibratorConfig.merge_at is empty; name the merge point.")
    for flag in _AT_REFERENCE:
        if getattr(config, flag) and len(points) > 1:
            raise ConfigError(
                f"CalibratorConfig.{flag} reads the reference's own features from the merge point "
                f"on, but merge_at names {len(points)}; set it to False."
            )


def _plain(value: str, name: str, longest: int) -> None:
    if len(value) > longest:
        raise ConfigError(
            f"CalibratorConfig.{name} has {len(value)} characters; {longest} at most."
        )
    if _CONTROL.search(value):
        # They could rewrite what `siamcal show` prints on a terminal.
        raise ConfigError(f"CalibratorConfig.{name} holds control characters.")


def _is(value: Any, kind: type, name: str) -> None:
    if kind is float and type(value) in (int, float) and abs(value) < 1e6:
        return
    if type(value) is not kind:
        raise ConfigError(
            f"CalibratorConfig.{name} must be {kind.__name__}, but got {type(value).__name__} "
            f"{str(value)[:60]!r}."
        )


def _check_version(version: Any) -> None:
    if type(version) is not int or version < 1:
        raise ConfigError(
            f"format_version is {str(version)[:40]!r}; a whole number from 1 on is expected. This "
            "isn't the config of a siamcal calibrator."
        )
    if version > FORMAT_VERSION:
        raise ConfigError(
            f"This calibrator has format version {version}; siamcal {siamcal.__version__} reads up "
            f"to {FORMAT_VERSION}. Upgrade siamcal: pip install --upgrade siamcal"
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a field occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't a number")

"""A recipe: every setting of a training or comparison, as one frozen description.

Recipes are Python functions in `recipes/` that return a `Recipe`; variants are made with
`dataclasses.replace`. Every run writes its recipe as `recipe.json`, which loads back strictly:
an unknown or misspelled key is an error, never ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamcal.errors import ConfigError
from siamcal.preprocessing import Preprocessing
from siamcal.registry import recipes

__all__ = [
    "Augmentation",
    "Recipe",
    "from_dict",
    "load_recipe",
    "override",
    "parse_value",
    "to_dict",
]

TASKS = ("intensity", "detection")
PRECISIONS = ("fp32", "bf16", "fp16")
PAPER_PREPROCESSING = Preprocessing(
    align="ffhq_quad", illumination="csn_released", contrast="none", mask="none"
)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training crops; the defaults are the paper authors' code's.

    Attributes:
        flip: Probability of a horizontal flip.
        crop_scale: Range of the cropped share of the area.
        crop_ratio: Range of the crop's aspect ratio (width / height).
        brightness: Largest relative change of brightness (0 switches it off).
        contrast: Largest relative change of contrast (0 switches it off).
        shared: Draw once for a target and its reference; the paper draws independently.
    """

    flip: float = 0.5
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (19 / 20, 20 / 19)
    brightness: float = 0.0
    contrast: float = 0.0
    shared: bool = False


@dataclass(frozen=True)
class Recipe:
    """Settings of a training; the defaults are the paper's (arXiv:2409.00240 and its code).

    Attributes:
        name: The recipe's name.
        dataset: Name of the data set.
        dataset_options: Its options (`size`, `bias`, `seed` of the rendered set, ...).
        task: "intensity" or "detection"; each is a training of its own, as in the paper.
        backbone: Name of the backbone (`siamcal ls backbones`).
        backbone_options: Further arguments of the backbone.
        weights: Start weights: "" (random), "asset:NAME" (in the package), "pretrained" (timm's,
            torchvision's, transformers' own) or the path of a face-recognition state dict.
        merge_at: Merge point; "layer4" means at the entrance of `layer4`.
        merge: Form of the merge.
        branches: "separate" forwards of target and reference (the paper) or "concatenate".
        freeze_pre_batchnorm: Keep BatchNorm before the merge point at its running statistics.
        freeze_batchnorm: Keep every BatchNorm at its running statistics.
        sync_batchnorm: On several GPUs BatchNorm sees the whole batch, not each GPU's share.
        references_per: "target" (the paper: each target has its own augmented reference) or
            "participant" (each participant's reference is encoded once a step: about the plain
            network's cost).
        participants_per_batch: 0 shuffles all frames (the paper); k > 0 draws every batch from k
            participants, which makes references_per="participant" cheap. NCG gets the same batches.
        preprocessing: Frame -> network input.
        augmentation: Random changes of the training crops.
        epochs: Passes over the training frames; ignored where `steps` is set.
        steps: Optimisation steps; 0 means: as many as `epochs` takes.
        batch_size: Targets per step, over all processes.
        accumulate: Split each batch into this many parts to save memory.
        learning_rate: For all but the last layer.
        learning_rate_last: For the last layer.
        weight_decay: Strength of the decay.
        decoupled_decay: False: L2 in Adam (the paper); True: AdamW.
        schedule: "constant" (the paper) or "cosine" (with `warmup_steps`).
        warmup_steps: Steps of linear warm-up of the cosine schedule.
        printed_eq7: Class weights of Eq. 7 as printed instead of as released.
        loss_weights: Of the MSE, cosine and ordinal parts (Eq. 2).
        seed: Seed of start, order, augmentation and dropout.
        precision: "fp32", "bf16" or "fp16".
        compile: Use torch.compile.
        deterministic: Ask torch for deterministic algorithms.
        note: Where the recipe's numbers come from.
    """

    name: str
    dataset: str = "disfa"
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    task: str = "intensity"
    backbone: str = "ir50"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    merge_at: str = "layer4"
    merge: str = "reference_minus_target"
    branches: str = "separate"
    freeze_pre_batchnorm: bool = False
    freeze_batchnorm: bool = False
    sync_batchnorm: bool = True
    references_per: str = "target"
    participants_per_batch: int = 0
    preprocessing: Preprocessing = PAPER_PREPROCESSING
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: float = 3
    steps: int = 0
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-5
    learning_rate_last: float = 1e-4
    weight_decay: float = 5e-4
    decoupled_decay: bool = False
    schedule: str = "constant"
    warmup_steps: int = 0
    printed_eq7: bool = False
    loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 42
    precision: str = "fp32"
    compile: bool = False
    deterministic: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        allowed = {
            "task": TASKS,
            "branches": ("separate", "concatenate"),
            "references_per": ("target", "participant"),
            "schedule": ("constant", "cosine"),
            "precision": PRECISIONS,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(
                    f"Recipe.{name} is {getattr(self, name)!r}; "
                    f"allowed: {', '.join(repr(v) for v in values)}."
                )


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of that name, or the one in a `recipe.json` or a TOML file.

    Raises:
        UnknownNameError: Nothing is registered under the name.
        ConfigError: The file has unknown keys or wrong types.
    """
    path = Path(name)
    if path.suffix == ".json":
        return from_dict(json.loads(_read(path)), Recipe)
    if path.suffix == ".toml":
        import tomllib

        return from_dict(tomllib.loads(_read(path)), Recipe)
    return recipes.get(str(name))()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"Can't read the recipe {path}: {error.strerror}.") from None


def to_dict(recipe: Any) -> dict[str, Any]:
    """Nested plain dict of a recipe (or part of one), ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def from_dict(values: Mapping[str, Any], kind: type[Any]) -> Any:
    """Build a dataclass from a plain dict, strictly.

    Raises:
        ConfigError: Unknown key (with near matches), missing key or wrong type.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(_unknown_key(key, kind, known))
    arguments = {
        key: _convert(value, hints[key], f"{kind.__name__}.{key}") for key, value in values.items()
    }
    missing = [
        n
        for n, f in known.items()
        if n not in arguments
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{kind.__name__} needs {', '.join(missing)}.")
    return kind(**arguments)


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Apply `key=value` settings (`epochs=1`, `augmentation.flip=0`), checked for field and type.

    Raises:
        ConfigError: No such field (with near matches and their present values) or a wrong type.
    """
    values = to_dict(recipe)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"Got the setting {setting!r}; write it as key=value, like epochs=1.")
        _assign(values, key.strip(), text.strip(), Recipe)
    return from_dict(values, Recipe)


def _assign(values: dict[str, Any], key: str, text: str, kind: type[Any]) -> None:
    head, dot, rest = key.partition(".")
    hints = typing.get_type_hints(kind)
    if head not in hints:
        raise ConfigError(_unknown_key(head, kind, dict.fromkeys(hints), values))
    if not dot:
        if _is_mapping(hints[head]) or dataclasses.is_dataclass(hints[head]):
            raise ConfigError(f"{head} has parts; set one of them, like {head}.KEY=value.")
        values[head] = parse_value(text, hints[head], f"{kind.__name__}.{head}")
    elif dataclasses.is_dataclass(hints[head]):
        _assign(values[head], rest, text, typing.cast(type[Any], hints[head]))
    elif _is_mapping(hints[head]):
        values[head][rest] = _guess(text)
    else:
        raise ConfigError(f"{head} has no parts; write {head}=value.")


def parse_value(text: str, hint: Any, where: str) -> Any:
    """Text of the command line -> a value of the field's type."""
    if hint in (str, Path):
        return hint(text)
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(f"{where} takes true or false, but got {text!r}.")
        return text.lower() in ("true", "1")
    if typing.get_origin(hint) is tuple:
        parts = [p for p in text.strip("()[] ").split(",") if p.strip()]
        return _convert([_guess(p.strip()) for p in parts], hint, where)
    return _convert(_guess(text), hint, where)


def _guess(text: str) -> Any:
    """Number, boolean or text."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} takes a table of settings, but got {value!r}.")
        return from_dict(value, typing.cast(type[Any], hint))
    if _is_mapping(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} takes a table, but got {value!r}.")
        return dict(value)
    if origin is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, list | tuple) or (
            kinds[-1] is not Ellipsis and len(value) != len(kinds)
        ):
            raise ConfigError(f"{where} takes {len(kinds)} values, but got {value!r}.")
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        return tuple(_convert(v, k, where) for v, k in zip(value, kinds, strict=True))
    if origin is types.UnionType:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where} takes {hint.__name__}, but got {value!r}.")
    return value


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _unknown_key(
    key: str, kind: type[Any], known: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> str:
    near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.5) or sorted(known)
    shown = [f"{n} (now {values[n]!r})" if values and n in values else n for n in near]
    return f"{kind.__name__} has no field {key!r}; near: {', '.join(shown)}."

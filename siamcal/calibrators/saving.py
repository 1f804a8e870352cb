"""Save calibrators and load them: weights as safetensors, everything else as a strict config.

A saved calibrator is a folder with `model.safetensors`, `config.json` and `README.md`. Nothing in
it is ever executed or unpickled. The network is made again by its name and arguments; one that has
no name (a user's own class) is passed to `load_calibrator`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from siamcal.calibrators.adapters import (
    base_network,
    check_base,
    fetches_base,
    pre_merge_names,
)
from siamcal.calibrators.bounded_build import ADAPTER_BUDGET, Budget, build_within
from siamcal.calibrators.config import (
    CalibratorConfig,
    check_backbone_arguments,
    config_to_dict,
    read_config,
)
from siamcal.calibrators.stranger import (
    check_contact,
    check_header,
    check_probe,
    name_to_build,
    reached,
)
from siamcal.calibrators.telling import check_input_and_outputs, preprocessing_of
from siamcal.errors import ConfigError, WeightsError
from siamcal.files import checksum_of_file, write_atomically
from siamcal.graph import input_spec
from siamcal.graph.record import CutRecord
from siamcal.model.create import create_backbone, is_file_name, may_be_named
from siamcal.model.heads import DetectionHead, IntensityHead, make_head
from siamcal.model.merges import CUSTOM, MergeForm
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import (
    MAX_WEIGHTS_BYTES,
    TensorInfo,
    checksum_of_tensors,
    read_header,
    read_tensors,
    write_tensors,
)
from siamcal.preprocessing import Preprocessing

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "CalibratorConfig",
    "Preprocessing",
    "describe",
    "load_calibrator",
    "save_calibrator",
]

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"


def describe(
    model: CalibratingSiamese, config: CalibratorConfig | None = None, **facts: Any
) -> CalibratorConfig:
    """The config of a model: its structure as it is, and the facts that only its author knows.

    Args:
        model: The calibrator.
        config: What is known of it; None takes `model.config`.
        **facts: Fields of `CalibratorConfig` that the model can't tell: `aus`, `training_data`,
            `licence`, ... They go before those of the config. `preprocessing` where the network
            doesn't state its size and normalisation.

    Raises:
        ConfigError: The AUs are missing or aren't as many as the outputs, the preprocessing isn't
            known or can't be read, or a fact contradicts the model.
    """
    known = {f.name for f in dataclasses.fields(CalibratorConfig)}
    for name in facts:
        if name not in known:
            raise ConfigError(f"CalibratorConfig has no field '{name}'; it has: {sorted(known)}.")
    config = config or model.config
    if config is not None:
        told = {name: getattr(config, name) for name in known}
        if "aus" in facts and tuple(facts["aus"]) != told["aus"]:
            for name in ("au_names", "thresholds", "au_status"):
                told.pop(name)
        facts = {**told, **facts}
    aus = facts.setdefault("aus", ())
    if not isinstance(aus, list | tuple) or not all(type(au) is int for au in aus):
        raise ConfigError(f"aus takes whole numbers, like (1, 2, 4), but got {aus!r:.80}.")
    _check_head(model, tuple(aus), facts.get("task"))
    structure = _structure(model)
    task = structure["task"]
    if facts.get("preprocessing") is None:
        facts["preprocessing"] = preprocessing_of(model, task)
    if isinstance(facts["preprocessing"], Preprocessing):  # else the config refuses it
        check_input_and_outputs(model, task, tuple(aus), facts["preprocessing"])
    for name in ("merge_at", "branches"):
        if facts.get(name) not in (None, structure[name]):
            raise ConfigError(
                f"The config says {name}={facts[name]!r}, but the model has {structure[name]!r}."
            )
    return CalibratorConfig(**{**facts, **structure})


def save_calibrator(
    model: CalibratingSiamese,
    config: CalibratorConfig | None,
    folder: str | Path,
    *,
    card: str | None = None,
    adapter: bool = False,
    base: nn.Module | None = None,
    half: bool = False,
) -> CalibratorConfig:
    """Write a calibrator into a folder, each file atomically.

    Args:
        model: The calibrator.
        config: Its description; what the model itself knows (backbone, merge, ...) is filled in.
            None takes `model.config`.
        folder: Where to; made if needed.
        card: Text of README.md; None writes a short one.
        adapter: Write the merge, the null reference, the post-merge part and the head only.
        base: For adapters: the public backbone, to prove that its pre-merge weights are unchanged.
        half: Round what is written to half precision: half the size, and a model that reads
            about a thousandth otherwise.

    Returns:
        The config as written.

    Raises:
        ConfigError: The config contradicts the model or lacks what can't be guessed.
        WeightsError: An adapter was asked for, but the weights before the merge have changed.
    """
    config = describe(model, config)
    folder = Path(folder)
    tensors, base_checksum = _tensors_to_save(model, config, adapter, base)
    if half:
        single = torch.float32
        tensors = {n: t.half() if t.dtype == single else t for n, t in tensors.items()}
    config = dataclasses.replace(
        config,
        base_model=config.base_model if adapter else "",
        base_checksum=base_checksum,
        half=half,
        weights_checksum=write_tensors(tensors, folder / WEIGHTS_FILE),
    )
    text = json.dumps(config_to_dict(config), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CONFIG_FILE, text)
    write_atomically(folder / CARD_FILE, card if card is not None else _short_card(config))
    return config


def load_calibrator(
    path: str | Path,
    *,
    backbone: nn.Module | str | None = None,
    head: nn.Module | None = None,
    merge: MergeForm | None = None,
    base: str | Path | None = None,
    strict: bool = True,
    example_inputs: Any = None,
    verify: bool | CutRecord = True,
    max_bytes: int = MAX_WEIGHTS_BYTES,
    trust: bool = False,
) -> CalibratingSiamese:
    """Load a calibrator from a folder; nothing in it is executed, and nobody is contacted.

    Args:
        path: A folder written by `save_calibrator`.
        backbone: The network to load into (changed in place), for one that can't be made by name;
            or a name to make it by, such as "./my_net.py:build".
        head: The head, where the author used one of their own.
        merge: The form of the merge, where the author used one of their own.
        base: For adapters over a network without public weights of its own: the file of the
            public weights, such as glint360k's backbone.pth.
        strict: Refuse missing and unexpected weights; False keeps start values and logs them.
        example_inputs: A valid input of the backbone, where it isn't one image.
        verify: Prove the cut, and that an adapter holds all behind it; see `CalibratingSiamese`.
        max_bytes: Largest weights file that is accepted.
        trust: You know who made it: a network or public weights that the config names are fetched
            from where they lie, and images of any size are tried.

    Returns:
        The calibrator in eval mode, with its config as `.config`.

    Raises:
        ConfigError: The config is damaged, newer, asks for something unsafe, or needs `backbone`,
            `head`, `merge` or `trust`.
        WeightsError: The weights are damaged or don't fit.
        HubError: What is trusted can't be fetched.
        UnknownNameError: No backbone has the config's name.
        MergePointError: The network can't be cut at the config's merge point.
    """
    folder = Path(path)
    config = read_config(folder / CONFIG_FILE)
    header = read_header(folder / WEIGHTS_FILE, max_bytes)
    check_header(config, header, head, merge)
    _check_checksum(folder / WEIGHTS_FILE, config.weights_checksum)
    network = _network(config, header, backbone, base, strict, trust)
    if config.num_outputs:
        head = make_head(config.task, len(config.aus), config.scale)
    parts = {"backbone": network, "head": head}
    _check_fit({"backbone": network}, header, strict=strict and not config.is_adapter)
    _check_fit({"head": head}, header, strict)
    if not config.is_adapter:
        _load(parts, folder, max_bytes, config.half)
    if example_inputs is None:
        check_probe(network, config.input_shape, trust)
        example_inputs = torch.rand(
            (2, *config.input_shape), generator=torch.Generator().manual_seed(0)
        )
    model = CalibratingSiamese(
        network.eval(),
        config.merge_at,
        merge=cast(MergeForm, merge) if config.merge == CUSTOM else config.merge,
        merge_options=config.merge_options,
        head=head,
        example_inputs=example_inputs,
        output=config.output,
        verify=verify,
        branches=config.branches,
        freeze_pre_batchnorm=config.freeze_pre_batchnorm,
        null_reference=config.null_reference,
    )
    # Made for the features, so known only now.
    late = {"merge": model.merge_form, "null": model.null_reference}
    _check_fit(late, header, strict)
    if config.is_adapter:
        check_base(model, config, header, example_inputs, verify=verify is True)
    _load(parts | late if config.is_adapter else late, folder, max_bytes, config.half)
    model.config = config
    return model.eval()


def _check_checksum(path: Path, stated: str) -> None:
    if stated and checksum_of_file(path) != stated:
        raise WeightsError(
            f"{path} isn't the file that its config was written with (the checksums differ): it "
            "was damaged or exchanged. Download or save it again."
        )


def _structure(model: CalibratingSiamese) -> dict[str, Any]:
    spec = getattr(model.unwrap(), "siamcal_spec", None)
    name, arguments = "", {}
    if spec is not None and _is_rebuilt(spec, model.unwrap()):
        name, arguments = _portable(spec.name), dict(spec.options)
        if spec.num_outputs is not None:
            arguments["num_outputs"] = spec.num_outputs
    stated = input_spec(model.unwrap())
    shape = {"input_shape": stated.shape} if stated is not None else {}
    selector = model.split.selector
    if callable(selector):
        raise ConfigError(
            "output= is a function, which can't be saved; use a key or an index, or wrap the "
            "backbone in a module that returns the tensor."
        )
    return {
        "backbone": name,
        "backbone_arguments": arguments,
        "merge_at": model.merge_at,
        "merge": model.merge,
        "merge_options": dict(model.merge_options),
        "branches": model.branches,
        "output": selector,
        "freeze_pre_batchnorm": model.freeze_pre_batchnorm,
        "null_reference": model.null_reference is not None,
        "task": _task(model),
        "scale": _scale(model),
        **shape,
    }


def _is_rebuilt(spec: Any, network: nn.Module) -> bool:
    """Whether the network is what its spec makes; a user may have changed it since."""
    if not is_file_name(spec.name):
        if not may_be_named(spec.name):
            return False
        try:
            check_backbone_arguments(dict(spec.options))
        except ConfigError as error:
            logger.warning(
                "The backbone can't be made again from its saved name (%s): loading this "
                "calibrator will need backbone=.",
                error,
            )
            return False
    return True


def _portable(name: str) -> str:
    """The name as it is saved: an own file without its folders, which concern nobody else."""
    if not is_file_name(name):
        return name
    path, _, function = name.rpartition(":")
    return f"./{Path(path).name}:{function}"


def _task(model: CalibratingSiamese) -> str:
    if model.head is None:
        return "raw"
    return model.head.task if isinstance(model.head, IntensityHead | DetectionHead) else "custom"


def _scale(model: CalibratingSiamese) -> tuple[float, ...]:
    scale = getattr(model.head, "scale", None) if _task(model) == "intensity" else None
    return () if scale is None else tuple(round(float(factor), 6) for factor in scale)


def _check_head(model: CalibratingSiamese, aus: tuple[int, ...], task: str | None) -> None:
    actual = _task(model)
    if task is not None and task != actual:
        raise ConfigError(
            f"The config says task={task!r}, but the model's head makes it {actual!r}. Wrap the "
            "network with the head of the task, "
            f"siamcal.model.heads.make_head({task!r}, {len(aus)})."
        )
    num_aus = getattr(model.head, "num_aus", None) if actual in ("intensity", "detection") else None
    if num_aus is not None and num_aus != len(aus):
        raise ConfigError(
            f"The head reads {num_aus} AUs, but aus names {len(aus)}: {aus}. Pass the AU numbers "
            "in the order of the outputs, for example aus=(1, 2, 4, ...)."
        )


def _tensors_to_save(
    model: CalibratingSiamese, config: CalibratorConfig, adapter: bool, base: nn.Module | None
) -> tuple[dict[str, Tensor], str]:
    parts = {"backbone": model.unwrap(), "head": model.head}
    tensors = _state({**parts, "merge": model.merge_form, "null": model.null_reference})
    if not adapter:
        return tensors, ""
    pre = pre_merge_names(model, config.input_shape)
    below = {name: tensors.pop(f"backbone.{name}") for name in pre}
    if base is not None:
        _check_unchanged(below, base.state_dict())
    return tensors, checksum_of_tensors(below)


def _check_unchanged(ours: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    changed = [
        name
        for name, tensor in ours.items()
        if name not in base
        or base[name].shape != tensor.shape
        or not torch.equal(base[name].cpu(), tensor.cpu())
    ]
    if changed:
        raise WeightsError(
            f"{len(changed)} of {len(ours)} tensors before the merge point differ from the public "
            f"backbone ({changed[0]} first), so an adapter over it would predict something else. "
            "Save the whole model, or train with the part before the merge frozen "
            "(freeze_pre_batchnorm=True and no gradients there)."
        )


def _modules(parts: Mapping[str, Any]) -> nn.ModuleDict:
    """Those of a calibrator's parts that hold tensors: neither no head nor a merge function."""
    return nn.ModuleDict({name: p for name, p in parts.items() if isinstance(p, nn.Module)})


def _state(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    state = _modules(parts).state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"'{name}' in the state dict is a {type(value).__name__}; only tensors can be "
                "saved without pickling."
            )
    return state


def _network(
    config: CalibratorConfig,
    header: Mapping[str, TensorInfo],
    backbone: nn.Module | str | None,
    base: str | Path | None,
    strict: bool,
    trust: bool,
) -> nn.Module:
    if isinstance(backbone, nn.Module):
        return backbone
    name = backbone or name_to_build(config)
    downloads = config.is_adapter and fetches_base(config, name, base)
    contact = check_contact(name, downloads, trust or backbone is not None)
    arguments = dict(config.backbone_arguments)
    theirs = {n: info for n, info in header.items() if n.startswith("backbone.")}

    def rehearse() -> None:
        network = create_backbone(name, **arguments)
        if strict and not config.is_adapter:
            _check_fit({"backbone": network}, theirs, strict)

    def build() -> nn.Module:
        if config.is_adapter:
            return base_network(config, name, arguments, base)
        return create_backbone(name, **arguments)

    budget = ADAPTER_BUDGET if config.is_adapter else Budget.of([i.shape for i in theirs.values()])
    # A file that the user named runs once: what it does beside building is theirs to know.
    with reached("" if is_file_name(name) else contact):
        return build_within(budget, build, None if is_file_name(name) else rehearse)


def _check_fit(parts: Mapping[str, Any], header: Mapping[str, TensorInfo], strict: bool) -> None:
    """Hold the file's tensors of these parts against the parts' own."""
    own = _state(parts)
    header = {n: info for n, info in header.items() if n.partition(".")[0] in parts}
    wrong = [n for n, info in header.items() if n in own and tuple(own[n].shape) != info.shape]
    if wrong:
        name = wrong[0]
        raise WeightsError(
            f"{len(wrong)} tensors of {WEIGHTS_FILE} don't fit the network: {name} is "
            f"{header[name].shape} in the file, {tuple(own[name].shape)} in the network."
        )
    missing = [n for n in own if n not in header]
    unexpected = [n for n in header if n not in own]
    for names, what in ((missing, "lacks"), (unexpected, "has beyond the network")):
        if names and strict:
            raise WeightsError(
                f"{WEIGHTS_FILE} {what} {len(names)} tensors, {names[0][:80]} first. Load with the "
                "backbone, head and merge it was saved with, or with strict=False to keep start "
                "values there."
            )
        if names:
            logger.info("%s %s %d tensors, %s first", WEIGHTS_FILE, what, len(names), names[0])


def _load(parts: Mapping[str, Any], folder: Path, max_bytes: int, widened: bool) -> None:
    modules = _modules(parts)
    if not modules:
        return
    tensors = read_tensors(folder / WEIGHTS_FILE, max_bytes)
    if widened:
        tensors = {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
    # The file's precision is the model's: bfloat16 weights in a float32 network would compute
    # something else than what was saved.
    places = dict(modules.named_parameters()) | dict(modules.named_buffers())
    for name, tensor in tensors.items():
        place = places.get(name)
        if place is not None and place.dtype != tensor.dtype:
            place.data = place.data.to(tensor.dtype)
    modules.load_state_dict(tensors, strict=False)


def _short_card(config: CalibratorConfig) -> str:
    aus = ", ".join(f"AU{au}" for au in config.aus) or "raw output"
    points = " and ".join(f"`{name}`" for name in config.points)
    return (
        f"# Calibrator for {aus}\n\nOne-frame calibration by "
        f"[siamcal](https://arxiv.org/abs/2409.00240), merged at {points}.\n\n"
        f"- Training data: {config.training_data} (licence: {config.data_licence})\n"
        f"- Licence of the weights: {config.licence} ({config.licence_reason})\n"
    )

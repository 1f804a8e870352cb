"""Readers of tensors: start weights, checkpoints, references, profiles and calibrators."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from calibrators import tiny
from dlib_files import SmallNetwork
from facesets import squares
from torch import nn

from fuzz.run import Reader
from siamcal.calibrators.config import read_config
from siamcal.calibrators.saving import load_calibrator
from siamcal.inference.prediction import Predictor
from siamcal.inference.profiles import load_profile, save_profile
from siamcal.inference.references import PersonReference
from siamcal.model.heads import make_head
from siamcal.model.reference import Reference
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights import load_face_weights
from siamcal.model.weights_file import checksum_of_tensors, read_state_dict, write_tensors
from siamcal.training.checkpoint import load_trained
from siamcal.training.identity import IDENTITY, claim_folder
from siamcal.training.recipe import Recipe
from siamcal.training.resume import CHECKPOINT, TrainingState

__all__ = ["READERS"]

BUILDER = """
from torch import nn

def build(num_outputs=2):
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, num_outputs))
"""


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)]
    return nn.Sequential(*body)


def _pth(folder: Path) -> Path:
    torch.save({"state_dict": _net().state_dict(), "epoch": 3}, folder / "start.pth")
    return folder / "start.pth"


def _old_pth(folder: Path) -> Path:
    path = folder / "start.pth"
    torch.save(_net().state_dict(), path, _use_new_zipfile_serialization=False)
    return path


def _safetensors(folder: Path) -> Path:
    write_tensors(_net().state_dict(), folder / "start.safetensors")
    return folder / "start.safetensors"


def _dlib(folder: Path) -> Path:
    return SmallNetwork().write(folder / "start.dat")


def _start(path: Path) -> Any:
    return str(load_face_weights(_net(), path))


def _any_state(path: Path) -> Any:
    return checksum_of_tensors(read_state_dict(path))


def _own(folder: Path) -> Path:
    (folder / "net.py").write_text(BUILDER)
    namespace: dict[str, Any] = {}
    exec(BUILDER, namespace)
    torch.save(namespace["build"]().state_dict(), folder / "own.pth")
    return folder / "own.pth"


def _trained(path: Path) -> Any:
    backbone = f"{path.parent / 'net.py'}:build"
    network, head = load_trained(Recipe("own", backbone=backbone, checkpoint=str(path)), 2)
    return checksum_of_tensors(network.state_dict()), type(head).__name__


def _state() -> TrainingState:
    network = _net()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return TrainingState(network, optimizer, 3)


def _checkpoint(folder: Path) -> Path:
    _state().save(folder / CHECKPOINT, "me")
    return folder / CHECKPOINT


def _resumed(path: Path) -> Any:
    """What is taken over; of another training nothing is, which a changed identity looks like."""
    state = TrainingState(_net(), torch.optim.Adam(_net().parameters()), 0)
    if not state.load(path, "me"):
        return _resumed(_checkpoint(path.parent))
    moments = state.optimizer.state_dict()["state"]
    flat = {f"{n}.{k}": v for n, values in moments.items() for k, v in values.items()}
    return state.step, checksum_of_tensors(state.network.state_dict()), checksum_of_tensors(flat)


@functools.cache
def _small() -> CalibratingSiamese:
    return CalibratingSiamese(_net().eval(), "3", example_inputs=torch.rand(2, 3, 4, 4))


def _reference(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    _small().encode(torch.rand(2, 3, 4, 4, generator=generator)).save(folder / "p.safetensors")
    return folder / "p.safetensors"


def _loaded(path: Path) -> Any:
    reference = Reference.load(path, model=_small())
    return [t.tolist() for t in reference.tensors], reference.frames.tolist(), reference.merge_at


@functools.cache
def _predictor(place: Path) -> Predictor:
    folder = place / "calibrator"
    tiny(make_head("intensity", 3)).save_pretrained(folder, aus=(1, 12, 25))
    return Predictor(load_calibrator(folder))


def _profile(folder: Path) -> Path:
    predictor = _predictor(folder)
    size = predictor.config.preprocessing.size
    features = predictor.encode(torch.zeros(size, size, 3, dtype=torch.uint8).numpy())
    facts = {"source": "anna.jpg", "frame": 1, "judgement": 0.2}
    save_profile(PersonReference(features, facts, ("a warning",)), folder / "anna", predictor)
    return folder / "anna"


def _read_profile(path: Path) -> Any:
    person = load_profile(path, _predictor(path.parent))
    facts = {k: v for k, v in person.facts.items() if k != "profile"}
    return [t.tolist() for t in person.features.tensors], facts, person.warnings


def _config(folder: Path) -> Path:
    tiny(make_head("intensity", 3)).save_pretrained(folder, aus=(1, 12, 25))
    return folder / "config.json"


def _weights(folder: Path) -> Path:
    return _config(folder).with_name("model.safetensors")


def _calibrator(path: Path) -> Any:
    return checksum_of_tensors(load_calibrator(path.parent, verify=False).state_dict())


@functools.cache
def _faces(folder: Path) -> Any:
    return squares(folder, people=3, frames=4)


def _identity(folder: Path) -> Path:
    claim_folder(folder, Recipe("squares"), _faces(folder))
    return folder / IDENTITY


def _claimed(path: Path) -> Any:
    claim_folder(path.parent, Recipe("squares"), _faces(path.parent))
    return "ours"


READERS = (
    Reader("start weights, .pth", "bytes", _pth, _start, before=1091),
    Reader("start weights, .pth of torch before 1.6", "bytes", _old_pth, _start),
    Reader("start weights, safetensors", "safetensors", _safetensors, _start),
    Reader("start weights, dlib", "bytes", _dlib, _any_state),
    Reader("any state dict, .pth (convert)", "bytes", _pth, _any_state, before=6),
    Reader("own checkpoint", "bytes", _own, _trained),
    Reader("checkpoint of a training", "safetensors", _checkpoint, _resumed, exact=True),
    Reader("saved Reference", "safetensors", _reference, _loaded, exact=True),
    Reader("profile of a person", "safetensors", _profile, _read_profile, exact=True, before=26),
    Reader("calibrator, config.json", "json", _config, read_config, before=6),
    Reader("calibrator, weights", "safetensors", _weights, _calibrator, exact=True),
    Reader("identity of a run", "json", _identity, _claimed, named=False, exact=True),
)

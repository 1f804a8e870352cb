"""The packed network gives dlib's descriptors; its file holds what it should and nothing else."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from siamcal.backbones.dlib_trunk import DlibDescriptor
from skimage.data import astronaut

from siamcal.faces.descriptor import ASSET, LENGTH, SCALE, DescriptorReader, unpacked
from siamcal.files import asset
from siamcal.model.dlib_file import PACKAGE, found_file, read_dlib
from siamcal.model.weights_file import read_tensors

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"


def distances(descriptors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(descriptors[:, None] - descriptors[None], axis=-1)


def test_descriptors_are_dlibs_but_for_the_rounding() -> None:
    """Written by dlib 20.0.1 (compute_face_descriptor) for chips of 150 x 150 pixels."""
    rendered = np.asarray(Image.open(DATA / "dlib_chips.png").convert("RGB"))
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    chips = [rendered[:, :150], rendered[:, 150:], astronaut()[20:170, 150:300], noise]
    theirs = np.array([*json.loads((DATA / "dlib_descriptors.json").read_text()).values()])
    read = DescriptorReader()
    ours = np.stack([read(chip) for chip in chips])
    assert ours.shape == (4, LENGTH)
    assert theirs.std() > 0.1
    assert np.abs(distances(ours) - distances(theirs)).max() < 0.01
    assert np.linalg.norm(ours - theirs, axis=1).max() < 0.04


def test_the_file_holds_the_whole_network_in_eight_bits() -> None:
    tensors = read_tensors(asset(ASSET))
    network = dict(DlibDescriptor().named_parameters())
    weights = {name for name, value in network.items() if value.dim() > 1}
    assert {n for n, t in tensors.items() if t.dtype == torch.int8} == weights
    assert set(tensors) == set(network) | {name + SCALE for name in weights}
    state = unpacked(tensors)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in network.items()
    }
    assert all(tensors[name].abs().amax() == 127 for name in weights)


def test_a_reader_leaves_the_number_of_threads() -> None:
    """torch's threads are the caller's."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        DescriptorReader()(np.zeros((150, 150, 3), np.uint8))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} isn't installed")
def test_the_file_is_made_of_dlibs() -> None:
    original = read_dlib(found_file())
    for name, value in unpacked(read_tensors(asset(ASSET))).items():
        step = original[name].flatten(1).abs().amax(1) / 127 if value.dim() > 1 else 0
        room = torch.as_tensor(step).view(-1, *[1] * (value.dim() - 1)) * 0.501
        assert ((value - original[name]).abs() <= room).all(), name
    script = ROOT / "scripts" / "build_face_descriptor.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0

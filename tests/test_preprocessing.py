"""Crop -> network input: the formula pixel by pixel, and what no network can take."""

import dataclasses

import numpy as np
import pytest
import torch

from siamcal.errors import ConfigError
from siamcal.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.5, 2.0)
CROPS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)  # (N, H, W, 3)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0, 0, 0), (1, 1, 1)), (MEAN, STD), (MEAN, (1, 1, 1)), ((0, 0, 0), STD), ((0, 0, 0.5), STD)],
)
def test_pixels_become_what_the_formula_says(mean, std) -> None:
    tensor = Preprocessing(mean=mean, std=std).to_tensor(CROPS)
    expected = ((CROPS.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_white_is_1_and_black_is_0() -> None:
    both = np.zeros((2, 1, 1, 3), np.uint8)
    both[1] = 255
    assert Preprocessing().to_tensor(both).flatten().tolist() == [0, 0, 0, 1, 1, 1]


def test_one_crop_is_a_batch_of_one_and_no_input_is_written_to() -> None:
    preprocessing, before = Preprocessing(mean=MEAN, std=STD), CROPS.copy()
    whole = preprocessing.to_tensor(torch.from_numpy(CROPS))
    for number, crop in enumerate(CROPS):
        assert torch.equal(preprocessing.to_tensor(crop), whole[number : number + 1])
    backwards = preprocessing.to_tensor(CROPS[:, :, ::-1])  # no contiguous array
    assert torch.equal(backwards, whole.flip(3))
    assert np.array_equal(CROPS, before)


def test_the_defaults_of_saved_calibrators_stay() -> None:
    assert dataclasses.asdict(Preprocessing()) == {
        "size": 112,
        "align": "rigid",
        "illumination": "none",
        "contrast": "local",
        "mask": "oval",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "detection": "search",
        "jpeg": 0,
    }


@pytest.mark.parametrize(
    "values",
    [
        {"size": 1},
        {"size": 4096},
        {"mean": [0.5, 1e4, -1e4]},
        {"std": (1e-6, 1, 1e4)},
        {"align": "ffhq_quad", "illumination": "csn_rgb", "contrast": "none", "mask": "none"},
        {"align": "csn_quad", "detection": "once", "jpeg": 1},
        {"jpeg": 100},
    ],
)
def test_what_is_in_range_is_taken(values) -> None:
    assert vars(Preprocessing(**values)).items() >= values.items()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 0}, "size"),
        ({"size": 4097}, "size"),
        ({"size": 112.5}, "size"),
        ({"mean": (0, 0)}, "mean takes three numbers"),
        ({"mean": (0, 0, 0, 0)}, "mean takes three numbers"),
        ({"std": 1.0}, "std takes three numbers"),
        ({"mean": (0, 0, 10_001)}, "mean"),
        ({"mean": (-10_001, 0, 0)}, "mean"),
        ({"std": (1, 1, 10_001)}, "std"),
        ({"std": (1, 0, 1)}, "std divides"),
        ({"std": (1, 1, -1)}, "std divides"),
        ({"std": (1, 1, float("nan"))}, "std"),
        ({"align": "none"}, "align"),
        ({"mask": "local"}, "mask"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(values, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Preprocessing(**values)

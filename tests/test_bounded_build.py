"""Networks of strangers are built on the meta device first, and for real only where they fit."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from siamcal.calibrators.bounded_build import Budget, build_within
from siamcal.errors import UnknownNameError, WeightsError
from siamcal.model.create import create_backbone

torch.set_num_threads(1)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
}
# Name -> options; every kind of network, convolutions, attention, windows and positions.
NETWORKS: dict[str, dict[str, Any]] = {
    "ir_tiny": {},
    "ir18": {"widths": (4, 4, 4, 4, 4)},
    "timm:resnet18": {},
    "timm:mobilenetv3_small_050": {},
    "timm:efficientnet_b0": {"drop_path_rate": 0.1},
    "timm:vit_tiny_patch16_224": {"drop_path_rate": 0.1},
    "timm:swin_tiny_patch4_window7_224": {"embed_dim": 24, "drop_path_rate": 0.1},
    "timm:convnext_atto": {"drop_path_rate": 0.1},
    "timm:levit_128s": {},
    "timm:maxvit_pico_rw_256": {},
    "torchvision:resnet18": {},
    "torchvision:shufflenet_v2_x0_5": {},
    "torchvision:squeezenet1_0": {},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:swin_t": {},
    "torchvision:googlenet": {},
    "transformers:vit": SMALL,
    "transformers:swin": {"embed_dim": 24},
    "transformers:convnext": {"hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 2, 1)},
    "transformers:dinov2": SMALL,
}
READS_VALUES = "torchvision:regnet_y_400mf"


@cache
def shapes(name: str) -> dict[str, tuple[int, ...]]:
    network = create_backbone(name, 7, **NETWORKS.get(name, {}))
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_meta_device_tells_names_and_shapes(name: str) -> None:
    found: dict[str, tuple[int, ...]] = {}

    def rehearse() -> None:
        network = create_backbone(name, 7, **NETWORKS[name])
        assert all(value.is_meta for value in network.parameters())
        found.update({key: tuple(value.shape) for key, value in network.state_dict().items()})

    built = build_within(
        Budget.of([*shapes(name).values()]),
        lambda: create_backbone(name, 7, **NETWORKS[name]),
        rehearse,
    )
    assert found == shapes(name)
    assert not any(value.is_meta for value in [*built.parameters(), *built.buffers()])


def test_a_network_that_reads_values_is_watched_instead() -> None:
    calls = []

    def rehearse() -> nn.Module:
        calls.append("rehearsed")
        return create_backbone(READS_VALUES, 7)

    fits = Budget.of([*shapes(READS_VALUES).values()])
    built = build_within(fits, lambda: create_backbone(READS_VALUES, 7), rehearse)
    assert calls == ["rehearsed"]
    assert {k: tuple(v.shape) for k, v in built.state_dict().items()} == shapes(READS_VALUES)
    with pytest.raises(WeightsError, match="larger than"):
        build_within(
            Budget(10**6, 10**4, 10**4), lambda: create_backbone(READS_VALUES, 7), rehearse
        )


@pytest.mark.parametrize(
    "build",
    [
        lambda: create_backbone("timm:vit_tiny_patch16_224", 7, embed_dim=49_152),
        lambda: nn.Linear(65_536, 65_536),
        lambda: nn.Sequential(*(nn.Linear(1, 1) for _ in range(20_000))),
        lambda: nn.Sequential(*(nn.ReLU() for _ in range(20_000))),
        lambda: nn.Linear(int(torch.zeros(65_536, 65_536).shape[0]), 1),  # thrown away again
        lambda: nn.Linear(int(torch.arange(65_536).outer(torch.arange(65_536)).shape[0]), 1),
    ],
)
def test_what_is_too_large_is_never_built(build: Any) -> None:
    def for_real() -> nn.Module:
        raise AssertionError("was built")

    with pytest.raises(WeightsError, match="larger than"):
        build_within(Budget.of([(10,)]), for_real, build)
    with pytest.raises(WeightsError, match="larger than"):
        build_within(Budget.of([(10,)]), build, None)


def test_random_state_stays_and_errors_of_the_name_come_through() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_within(Budget.of([(10,)]), lambda: nn.Linear(3, 4), lambda: nn.Linear(3, 4))
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(UnknownNameError):
        build_within(Budget.of([]), lambda: nn.ReLU(), lambda: create_backbone("ir51"))

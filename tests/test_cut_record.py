"""A recorded cut: the one that a proof finds, believed of its own network and of no other."""

import json

import pytest
import torch
from torch import nn

from siamcal.errors import ConfigError, MergePointError
from siamcal.graph import split_network
from siamcal.graph.record import CutRecord
from siamcal.model.siamese import CalibratingSiamese
from siamcal.settings import from_dict, to_dict

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
EXAMPLE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def network() -> nn.Module:
    """Draws before the merge point; two layers read its map."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.3))
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(784, 5))


class Bypassing(nn.Sequential):
    """The image also goes around all modules."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean((1, 2, 3))[:, None]


def wrapped(verify: bool | CutRecord, backbone: nn.Module | None = None) -> CalibratingSiamese:
    return CalibratingSiamese(
        (backbone or network()).eval(),
        "2",
        merge="concatenated",
        example_inputs=EXAMPLE,
        verify=verify,
        null_reference=True,
    )


@pytest.fixture(scope="module")
def record() -> CutRecord:
    """As a file keeps it."""
    text = json.dumps(to_dict(CutRecord.of(wrapped(True).split)))
    return from_dict(json.loads(text), CutRecord)


def test_it_holds_all_that_a_proof_finds(record) -> None:
    proved, believed = wrapped(True).split, wrapped(record).split
    own = {n: v for n, v in vars(proved).items() if n not in ("network", "hook")}
    assert own == {n: v for n, v in vars(believed).items() if n not in ("network", "hook")}
    assert record.drawing == ("0.2",)
    assert record.channels == (1,)


def test_the_model_reads_and_trains_alike_and_runs_nothing_before(record) -> None:
    runs = []
    backbone = network()
    backbone.register_forward_hook(lambda *_: runs.append(1))
    believed, proved = wrapped(record, backbone), wrapped(True)
    assert not runs
    believed.load_state_dict(proved.state_dict())
    for model in (believed, proved):
        model.fit_anchor(IMAGES)
    for mode in (False, True):
        outputs = []
        for model in (believed, proved):
            torch.manual_seed(3)
            outputs.append(model.train(mode)(IMAGES, IMAGES.flip(0)))
        assert torch.equal(*outputs)


def test_another_backbone_put_in_later_is_cut_anew(record) -> None:
    """A hook can't cut this one: the image passes it by."""
    model, fresh = (
        CalibratingSiamese(net.eval(), "2", merge=torch.sub, example_inputs=EXAMPLE, verify=verify)
        for net, verify in ((network(), record), (Bypassing(*network()), True))
    )
    model.backbone = Bypassing(*network()).eval()
    assert torch.equal(model(IMAGES, IMAGES.flip(0)), fresh(IMAGES, IMAGES.flip(0)))
    assert model.split.mechanism == "shallow fx"


def test_the_record_of_another_place_is_refused(record) -> None:
    with pytest.raises(MergePointError, match="cut at '2' was recorded, but '4' was asked for"):
        CalibratingSiamese(network(), "4", example_inputs=EXAMPLE, verify=record)
    with pytest.raises(ConfigError, match="CutRecord has no field 'merge_to'"):
        from_dict({**to_dict(record), "merge_to": "4"}, CutRecord)


def test_only_a_cut_by_a_hook_is_recorded() -> None:
    split = split_network(network().eval(), "2", example_inputs=EXAMPLE, mechanism="fx")
    with pytest.raises(MergePointError, match="'2' was cut by shallow fx"):
        CutRecord.of(split)

"""Samples of a batch in every layout: taken apart, put together, and sizes that go with them."""

import pytest
import torch

from siamcal.graph.features import BatchLayout, Features, PassedValue

GROUPS = ((1, True), (3, True), (3, False))
LAYOUTS = [BatchLayout(dim, groups, first) for dim in (0, 1) for groups, first in GROUPS]


def batch(layout: BatchLayout, count: int, start: int = 0) -> torch.Tensor:
    """A batch in which the values of sample i are 100 i and their places."""
    slices = torch.arange(count * layout.groups)
    sample = slices // layout.groups if layout.sample_first else slices % count
    slot = slices % layout.groups if layout.sample_first else slices // count
    values = 100 * (sample + start) + 10 * slot  # (B * groups,)
    whole = values[:, None, None] + torch.arange(4).reshape(2, 2)
    return whole.movedim(0, layout.dim)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
class TestLayouts:
    def test_samples_are_counted_and_picked(self, layout) -> None:
        whole = batch(layout, 4)
        assert layout.batch_size(whole) == 4
        index = torch.tensor([2, 0, 2])
        ones = [batch(layout, 1, i) for i in (2, 0, 2)]
        assert torch.equal(layout.select(whole, index), layout.cat(ones))
        assert torch.equal(layout.narrow(whole, 1, 2), batch(layout, 2, 1))
        assert torch.equal(layout.select(whole, torch.tensor([3])), batch(layout, 1, 3))

    def test_batches_are_joined_in_their_order(self, layout) -> None:
        joined = layout.cat([batch(layout, 1), batch(layout, 2, 1), batch(layout, 1, 3)])
        assert torch.equal(joined, batch(layout, 4))

    def test_rows_are_samples(self, layout) -> None:
        whole, one = batch(layout, 4), batch(layout, 1)
        rows = layout.to_rows(whole)
        assert (rows // 100 == torch.arange(4)[:, None]).all()
        assert torch.equal(rows[0], layout.to_rows(one)[0])
        assert torch.equal(layout.from_rows(rows, one.shape), whole)

    def test_one_sample_is_repeated(self, layout) -> None:
        one = batch(layout, 1)
        assert torch.equal(layout.expand(one, 3), layout.cat([one] * 3))


def test_sizes_that_pass_shrink_with_the_batch() -> None:
    size = PassedValue(scales=(True, False))
    assert size.narrow(torch.Size((12, 7)), 0, 2, 3) == torch.Size((8, 7))
    assert PassedValue(scales=(True,)).narrow(12, 1, 1, 3) == 4
    assert PassedValue(scales=(False,)).narrow(12, 1, 1, 3) == 12
    assert PassedValue().narrow("what it is", 0, 1, 3) == "what it is"
    rows = torch.arange(6)
    assert PassedValue(BatchLayout(0, 2)).narrow(rows, 1, 2, 3).tolist() == [2, 3, 4, 5]


def test_other_features_leave_the_rest_as_it_is() -> None:
    one = Features((torch.zeros(1),), (3,), "inputs")
    other = one.with_tensors([torch.ones(1)])
    assert (other.tensors[0].item(), other.passed, other.inputs) == (1, (3,), "inputs")

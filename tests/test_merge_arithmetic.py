"""Each merge form on small tensors, without a network around it: its formula and its limits.

`test_merge_forms.py` holds them against hooks on networks; here a wrong sign is seen in seconds.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from siamcal.errors import ConfigError
from siamcal.graph.features import BatchLayout
from siamcal.model.merges._channels import ChannelForm
from siamcal.model.merges._components import (
    noise_ratio,
    person_means,
    shrinkage,
    variance_components,
)
from siamcal.model.merges.anchored import Anchored
from siamcal.model.merges.attention import Attention
from siamcal.model.merges.concatenated import Concatenated
from siamcal.model.merges.gated import Gated
from siamcal.model.merges.normalised import Normalised
from siamcal.registry import merges

N, C, H, W = 3, 4, 2, 5
SHAPE = (1, C, H, W)


def maps(seed: int, count: int = N, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, C, H, W, generator=torch.Generator().manual_seed(seed))


TARGET, REFERENCE, NEUTRAL = maps(1), maps(2), maps(3, 12) + 2
PEOPLE = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 7, 7]


def fitted(kind: type, people: list[int] | None = None, **options: object):
    return kind(SHAPE, channel_dim=1, **options).fit(NEUTRAL, people)


def mean_of_people() -> Tensor:
    people = torch.tensor(PEOPLE)
    return torch.stack([NEUTRAL[people == p].mean(0) for p in (0, 1, 2, 3, 7)]).mean(0)


def test_the_differences_have_the_signs_of_their_names() -> None:
    assert torch.equal(merges.get("reference_minus_target")(TARGET, REFERENCE), REFERENCE - TARGET)
    assert torch.equal(merges.get("target_minus_reference")(TARGET, REFERENCE), TARGET - REFERENCE)


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_anchored(share) -> None:
    form = fitted(Anchored, PEOPLE, shrinkage=share)
    anchor = mean_of_people()
    torch.testing.assert_close(form.anchor.reshape(C, H, W), anchor)
    expected = TARGET - share * (REFERENCE - anchor)
    torch.testing.assert_close(form(TARGET, REFERENCE), expected)
    channels = fitted(Anchored, PEOPLE, shrinkage=share, per="channel")
    expected = TARGET - share * (REFERENCE - anchor.mean((1, 2), keepdim=True))
    torch.testing.assert_close(channels(TARGET, REFERENCE), expected)
    assert form.no_weight_decay() == {"anchor"}


def by_anova(rows: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between and within of (N, C, P), each position an experiment of its own, then averaged."""
    groups = [rows[people == p] for p in np.unique(people)]
    sizes = np.array([len(g) for g in groups])
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups) / (len(rows) - len(groups))
    grand = rows.mean(0)
    spread = sum(len(g) * (g.mean(0) - grand) ** 2 for g in groups) / (len(groups) - 1)
    n0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    return np.maximum((spread - within).mean(1) / n0, 0), within.mean(1)


def test_variances_between_and_within_people() -> None:
    people = torch.tensor(PEOPLE).unique(return_inverse=True)[1]
    person = maps(8, 5, 3.0).flatten(2)[people].double()
    person[:, 0] = 0  # in the first channel people don't differ
    rows = NEUTRAL.flatten(2).double() + person
    means, counts = person_means(rows, people)
    assert counts.tolist() == [3, 2, 1, 4, 2]
    torch.testing.assert_close(means[3], rows[6:10].mean(0))
    between, within = variance_components(rows, people)
    expected = by_anova(rows.numpy(), people.numpy())
    np.testing.assert_allclose(between, expected[0], rtol=1e-9)
    np.testing.assert_allclose(within, expected[1], rtol=1e-9)
    assert noise_ratio(torch.zeros(2), torch.tensor([0.0, 1.0])).tolist() == [math.inf, math.inf]
    ratio = noise_ratio(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert ratio.tolist() == [math.inf, 1.5]
    assert shrinkage(ratio).tolist() == pytest.approx([0, 0.4])
    several = shrinkage(ratio, torch.tensor([1, 3]))
    assert several.tolist() == [pytest.approx([0, 0.4]), pytest.approx([0, 2 / 3])]


def test_variances_need_two_people_and_one_with_two_frames() -> None:
    rows = NEUTRAL.flatten(2).double()
    for people in ([0, 0], [0, 1, 2], [0]):
        with pytest.raises(ConfigError, match=f"got {len(people)} frames of {len(set(people))}"):
            variance_components(rows[: len(people)], torch.tensor(people))
    variance_components(rows[:3], torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("kind", ["estimated", "learned"])
def test_shrinkage_from_people_with_several_frames(kind) -> None:
    form = fitted(Anchored, PEOPLE, shrinkage=kind)
    people = torch.tensor(PEOPLE).unique(return_inverse=True)[1]
    between, within = variance_components(NEUTRAL.flatten(2).double(), people)
    share = (between / (between + within)).float()
    start = share.clamp(0.01, 0.99) if kind == "learned" else share
    expected = TARGET - start[:, None, None] * (REFERENCE - mean_of_people())
    torch.testing.assert_close(form(TARGET, REFERENCE), expected)
    decays = {"anchor", "logit"} if kind == "learned" else {"anchor"}
    assert form.no_weight_decay() == decays
    if kind == "estimated":
        frames = torch.tensor([1, 2, 9])
        more = (between / (between + within / frames[:, None])).float()[:, :, None, None]
        expected = TARGET - more * (REFERENCE - mean_of_people())
        torch.testing.assert_close(form(TARGET, REFERENCE, frames), expected)


@pytest.mark.parametrize("kind", ["estimated", "learned"])
@pytest.mark.parametrize("people", [None, list(range(12)), [0] * 12])
def test_three_quarters_where_the_shrinkage_cannot_be_estimated(kind, people) -> None:
    form = fitted(Anchored, people, shrinkage=kind)
    anchor = NEUTRAL.mean(0)
    torch.testing.assert_close(
        form(TARGET, REFERENCE), TARGET - 0.75 * (REFERENCE - anchor), rtol=1e-5, atol=1e-5
    )


def test_normalised() -> None:
    form = fitted(Normalised)
    deviation = NEUTRAL.double().var(0).sqrt()
    root = (deviation**2).mean((1, 2), keepdim=True).sqrt()
    spread = NEUTRAL.double().transpose(0, 1).flatten(1).std(1)[:, None, None]
    scale = (spread / torch.maximum(deviation, 0.1 * root)).float()
    expected = NEUTRAL.mean(0) + scale * (TARGET - REFERENCE)
    torch.testing.assert_close(form(TARGET, REFERENCE), expected)
    assert form.no_weight_decay() == {"anchor", "scale"}
    channels = fitted(Normalised, per="channel")
    torch.testing.assert_close(channels.scale[:, :, None], (spread / root).float())
    with pytest.raises(ConfigError, match="two people at least"):
        fitted(Normalised, [4] * 12)
    fitted(Normalised, [4] * 11 + [5])


def test_normalised_where_people_do_not_differ() -> None:
    neutral = NEUTRAL.clone()
    neutral[:, 1] = 3.0  # nobody differs in a channel
    neutral[:, 2, 0, 0] = 1.0  # nobody differs at a position
    form = Normalised(SHAPE, channel_dim=1).fit(neutral)
    scale = form.scale.reshape(C, H, W)
    assert (scale[1] == 1).all()
    root = neutral[:, 2].double().var(0).mean().sqrt()
    spread = neutral[:, 2].double().flatten().std()
    torch.testing.assert_close(scale[2, 0, 0], (spread / (0.1 * root)).float())


def test_gated_starts_at_its_start_and_follows_both_frames() -> None:
    anchor = NEUTRAL.mean(0)
    for start in (0.01, 0.75, 0.99):
        form = fitted(Gated, start=start)
        expected = TARGET - start * (REFERENCE - anchor)
        torch.testing.assert_close(form(TARGET, REFERENCE), expected)
    form = fitted(Gated)
    with torch.no_grad():
        form.excite.normal_(generator=torch.Generator().manual_seed(1))
        form.squeeze_bias.add_(0.2)
    pooled = torch.cat([TARGET.mean((2, 3)), REFERENCE.mean((2, 3))], 1)
    hidden = torch.relu(pooled @ form.squeeze.mT + form.squeeze_bias)
    gate = torch.sigmoid(hidden @ form.excite.mT + form.excite_bias)[:, :, None, None]
    expected = TARGET - gate * (REFERENCE - anchor)
    torch.testing.assert_close(form(TARGET, REFERENCE), expected)


@pytest.mark.parametrize(
    ("channels", "reduction", "units"),
    [(4, 16, 8), (160, 16, 10), (160, 1, 160), (1024, 1, 256), (160, 1024, 8)],
)
def test_hidden_units_of_a_gate(channels, reduction, units) -> None:
    assert Gated((1, channels), reduction=reduction).squeeze.shape == (units, 2 * channels)


def test_attention_finds_a_moved_reference() -> None:
    form = fitted(Attention, width=2)
    anchor = NEUTRAL.mean(0)
    torch.testing.assert_close(form(TARGET, REFERENCE), TARGET - REFERENCE + anchor)
    with torch.no_grad():
        form.mix.copy_(torch.tensor([0.0, 0.5, 1.0, 2.0]))
        form.key.mul_(1.5)
    t, r = TARGET.flatten(2), REFERENCE.flatten(2)
    scores = torch.einsum("dc,ncp,dk,nkq->npq", form.query, t, form.key, r) / 2**0.5
    found = torch.einsum("npq,ncq->ncp", scores.softmax(-1), r)
    expected = t - (r + form.mix[:, None] * (found - r)) + anchor.flatten(1)
    torch.testing.assert_close(form(TARGET, REFERENCE).flatten(2), expected)
    assert Attention(SHAPE, channel_dim=1).query.shape == (C, C)  # at most the channels
    query = Attention((1, 80, 2, 2), channel_dim=1).query
    torch.testing.assert_close(query @ query.mT, torch.eye(64), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="needs features with positions"):
        Attention((1, C))


def test_concatenated_starts_as_target_less_half_the_reference() -> None:
    form = Concatenated(SHAPE, channel_dim=1)
    torch.testing.assert_close(form(TARGET, REFERENCE), TARGET - 0.5 * REFERENCE)
    with torch.no_grad():
        form.weight.normal_(generator=torch.Generator().manual_seed(1))
        form.bias.normal_(generator=torch.Generator().manual_seed(2))
    both = torch.cat([TARGET, TARGET - REFERENCE], 1)
    expected = torch.einsum("oc,nchw->nohw", form.weight, both) + form.bias[:, None, None]
    torch.testing.assert_close(form(TARGET, REFERENCE), expected)
    assert Concatenated((1, 8192)).channels == 8192
    with pytest.raises(ConfigError, match="8193 channels"):
        Concatenated((1, 8193))


def test_before_it_is_fitted_a_form_refuses_and_afterwards_it_is_saved_as_such() -> None:
    form = Anchored(SHAPE, channel_dim=1)
    assert not form.fitted
    with pytest.raises(ConfigError, match="has to be fitted"):
        form(TARGET, REFERENCE)
    copy = Anchored(SHAPE, channel_dim=1)
    copy.load_state_dict(form.fit(NEUTRAL).state_dict())
    assert copy.fitted
    assert torch.equal(copy(TARGET, REFERENCE), form(TARGET, REFERENCE))
    copy.load_state_dict(Anchored(SHAPE, channel_dim=1).state_dict())
    assert not copy.fitted


def test_other_sizes_need_an_anchor_per_channel() -> None:
    wide = torch.randn(N, C, H, W + 1)
    with pytest.raises(ConfigError, match=r"has 10 positions .* have 12"):
        fitted(Anchored)(wide, wide)
    with pytest.raises(ConfigError, match="has 10 positions, but the neutral images give 12"):
        Anchored(SHAPE, channel_dim=1).fit(wide)
    form = Anchored(SHAPE, channel_dim=1, per="channel", shrinkage=1).fit(wide)
    torch.testing.assert_close(form(wide, wide), form.anchor[None, :, :, None].expand_as(wide))
    word = "".join(["posi", "tion"])  # equal, and another object than the one in the source
    with pytest.raises(ConfigError, match="has 10 positions"):
        fitted(Anchored, per=word)(wide, wide)
    with pytest.raises(ConfigError, match="2 persons for 12 frames"):
        fitted(Anchored, [0, 1])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Anchored, {"shrinkage": -0.001}),
        (Anchored, {"shrinkage": 1.001}),
        (Anchored, {"shrinkage": True}),
        (Anchored, {"shrinkage": "none"}),
        (Anchored, {"per": "person"}),
        (Gated, {"start": 0.0099}),
        (Gated, {"start": 0.991}),
        (Gated, {"reduction": 0.99}),
        (Gated, {"reduction": 1025}),
        (Attention, {"width": 0}),
        (Attention, {"width": 1025}),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"merge option {name} takes"):
        kind(SHAPE, channel_dim=1, **options)
    with pytest.raises(ConfigError, match=f"merge option {name} takes"):
        kind.check_options(**options)


def test_channels_are_where_they_are_said_to_be() -> None:
    cases = {
        ((1, 4), 0, None): 1,
        ((4, 1), 1, None): 0,
        ((1, 4, 2, 5), 0, 1): 1,
        ((1, 2, 5, 4), 0, -1): 3,
        ((2, 1, 4), 1, -3): 0,
    }
    for (shape, batch, given), dim in cases.items():
        form = ChannelForm(shape, layout=BatchLayout(batch), channel_dim=given)
        assert form.channel_dim == dim
        assert form.channels * form.positions == math.prod(shape)
    for shape, given in (
        ((1, 4, 2, 5), None),
        ((1,), None),
        (SHAPE, 0),
        (SHAPE, -4),
        (SHAPE, 4),
        (SHAPE, -5),
    ):
        with pytest.raises(ConfigError):
            ChannelForm(shape, channel_dim=given)
    with pytest.raises(ConfigError, match="takes a whole number"):
        ChannelForm(SHAPE, channel_dim=1.0)


@pytest.mark.parametrize(
    ("shape", "layout", "dim", "to_rows"),
    [
        ((3, 4), BatchLayout(), None, lambda x: x[:, :, None]),
        ((3, 5, 4), BatchLayout(), 2, lambda x: x.mT),
        ((5, 3, 4), BatchLayout(1), 2, lambda x: x.permute(1, 2, 0)),
        ((6, 5, 4), BatchLayout(0, 2), 2, lambda x: x.reshape(3, 10, 4).mT),
        (
            (6, 5, 4),
            BatchLayout(0, 2, False),
            2,
            lambda x: x.reshape(2, 3, 5, 4).permute(1, 3, 0, 2).flatten(2),
        ),
    ],
)
def test_rows_are_samples_channels_and_positions(shape, layout, dim, to_rows) -> None:
    features = torch.arange(math.prod(shape)).reshape(shape).float()
    one = list(shape)
    one[layout.dim] = layout.groups
    form = ChannelForm(one, layout=layout, channel_dim=dim)
    assert torch.equal(form.rows(features), to_rows(features))
    assert torch.equal(form.features(form.rows(features), features), features)

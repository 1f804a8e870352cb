"""The named merge forms, each held against a plain forward hook on the network itself."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrators import rewrite
from torch import Tensor, nn

from siamcal import CalibratingSiamese, Recipe
from siamcal.calibrators.config import CalibratorConfig
from siamcal.errors import ConfigError, WeightsError
from siamcal.graph.features import BatchLayout
from siamcal.model.export import Encoder, Reader
from siamcal.model.merges._channels import ChannelForm
from siamcal.model.merges.anchored import Anchored
from siamcal.model.weights_file import read_tensors, write_tensors
from siamcal.registry import merges
from siamcal.settings import from_dict, override, to_dict

torch.set_num_threads(1)

FORMS = ("anchored", "attention", "concatenated", "gated", "normalised")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Maps(nn.Module):
    """Maps (N, 6, 5, 5) cross at `body`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, stride=3), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Dropout(0.5))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """Tokens (N, 16 + 1, 8) cross at `blocks.1`: a small ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 17, 8) / 3)
        self.blocks = nn.ModuleList([Block(8, 2), Block(8, 2)])
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.fc(x[:, 0])


class SequenceFirst(nn.Module):
    """Tokens (16, N, 8) cross at `mix`, the samples in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).permute(2, 0, 1)
        return self.fc(torch.relu(self.mix(x)).mean(0))


# Network, merge module, and what turns its input into (N, C, P) and back.
NETWORKS: dict[str, tuple[type[nn.Module], str, Callable, Callable]] = {
    "maps": (Maps, "body", lambda f: f.flatten(2), lambda r: r.reshape(len(r), 6, 5, 5)),
    "tokens": (Tokens, "blocks.1", lambda f: f.mT, lambda r: r.mT),
    "flat": (Maps, "fc", lambda f: f[:, :, None], lambda r: r[:, :, 0]),
    "sequence first": (
        SequenceFirst,
        "mix",
        lambda f: f.permute(1, 2, 0),
        lambda r: r.permute(2, 0, 1),
    ),
}


def images(count: int, seed: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = NETWORKS[kind][0]()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return made.eval()


def wrapped(kind: str, form: str, **options: object) -> CalibratingSiamese:
    return CalibratingSiamese(
        network(kind),
        NETWORKS[kind][1],
        merge=form,
        merge_options=options,
        example_inputs=images(2, 0),
    )


def fitted(kind: str, form: str, people: object = None, **options: object) -> CalibratingSiamese:
    model = wrapped(kind, form, **options)
    if form != "concatenated":
        model.fit_anchor(images(12, 5), people)
    return model


def stirred(model: CalibratingSiamese) -> CalibratingSiamese:
    """The form's parameters as after a training."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.merge_form.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def crossing(kind: str, x: Tensor) -> Tensor:
    """What enters the merge module, (N, C, P)."""
    net, seen = network(kind), []
    net.get_submodule(NETWORKS[kind][1]).register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    with torch.no_grad():
        net(x)
    return NETWORKS[kind][2](seen[0])


def by_hook(kind: str, x: Tensor, merged: Tensor) -> Tensor:
    """The network's output with its merge module's input exchanged for `merged` (N, C, P)."""
    net = network(kind)
    module = net.get_submodule(NETWORKS[kind][1])
    module.register_forward_pre_hook(lambda _, a: (NETWORKS[kind][3](merged), *a[1:]))
    with torch.no_grad():
        return net(x)


def expected(form: nn.Module, name: str, t: Tensor, r: Tensor, neutral: Tensor) -> Tensor:
    """Each form written out from its formula, with numpy's or plain operations."""
    p = {k: v.detach() for k, v in form.named_parameters()}
    if name == "concatenated":
        both = torch.cat([t, t - r], 1)
        return torch.einsum("oc,ncp->nop", p["weight"], both) + p["bias"][None, :, None]
    anchor = p["anchor"][None]
    if name == "anchored":
        return t - 0.6 * (r - anchor)
    if name == "normalised":
        return anchor + p["scale"][None] * (t - r)
    if name == "gated":
        pooled = torch.cat([t.mean(2), r.mean(2)], 1)
        hidden = (pooled @ p["squeeze"].mT + p["squeeze_bias"]).clamp_min(0)
        gate = 1 / (1 + torch.exp(-(hidden @ p["excite"].mT + p["excite_bias"])))
        return t - gate[:, :, None] * (r - anchor)
    q, k = (torch.einsum("dc,ncp->npd", p[n], v) for n, v in (("query", t), ("key", r)))
    weights = torch.softmax(q @ k.mT / p["query"].shape[0] ** 0.5, -1)  # (N, P target, P reference)
    attended = torch.einsum("nij,ncj->nci", weights, r)
    return t - (r + p["mix"][None, :, None] * (attended - r)) + anchor


def cases() -> list[tuple[str, str]]:
    return [(k, f) for k in NETWORKS for f in FORMS if (k, f) != ("flat", "attention")]


OPTIONS = {"anchored": {"shrinkage": 0.6}}


class TestForms:
    @pytest.mark.parametrize(("kind", "form"), cases())
    def test_as_a_hook_on_the_network_computes_it(self, kind: str, form: str) -> None:
        model = stirred(fitted(kind, form, **OPTIONS.get(form, {})))
        x, y = images(3, 1), images(3, 2)
        t, r, neutral = (crossing(kind, i) for i in (x, y, images(12, 5)))
        want = by_hook(kind, x, expected(model.merge_form[0], form, t, r, neutral))
        with torch.no_grad():
            torch.testing.assert_close(model(x, y), want, **CLOSE)
            torch.testing.assert_close(model(x, model.encode(y)), want, **CLOSE)
            one = by_hook(
                kind, x, expected(model.merge_form[0], form, t, r[:1].expand_as(t), neutral)
            )
            torch.testing.assert_close(model(x, y[:1]), one, **CLOSE)

    @pytest.mark.parametrize(("kind", "form"), cases())
    def test_starts_where_it_says(self, kind: str, form: str) -> None:
        model = fitted(kind, form, **OPTIONS.get(form, {}))
        x, y = images(3, 1), images(3, 2)
        t, r, n = (crossing(kind, i) for i in (x, y, images(12, 5)))
        mean = n.mean(0)
        if form == "normalised":
            n = n.double()
            unit = n.var(0).sqrt()
            floor = 0.1 * n.var(0).mean(1, keepdim=True).sqrt()
            spread = n.transpose(0, 1).flatten(1).std(1)[:, None]
            start = mean + (spread / torch.maximum(unit, floor)).float() * (t - r)
        else:
            start = {
                "anchored": t - 0.6 * (r - mean),
                "attention": t - r + mean,
                "concatenated": t - 0.5 * r,
                "gated": t - 0.75 * (r - mean),
            }[form]
        with torch.no_grad():
            torch.testing.assert_close(model(x, y), by_hook(kind, x, start), **CLOSE)

    @pytest.mark.parametrize("kind", ["maps", "tokens"])
    def test_a_frozen_network_reads_someone_like_the_mean_as_it_is(self, kind: str) -> None:
        model = wrapped(kind, "anchored")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.fit_anchor(images(1, 7))
        x = images(3, 1)
        torch.testing.assert_close(model(x, images(1, 7)), network(kind)(x), **CLOSE)

    @pytest.mark.parametrize("form", FORMS)
    def test_every_parameter_is_trained(self, form: str) -> None:
        options = {"shrinkage": "learned"} if form == "anchored" else {}
        model = stirred(fitted("maps", form, **options))
        model(images(3, 1), images(3, 2)).square().sum().backward()
        for name, parameter in model.merge_form.named_parameters():
            assert parameter.grad.abs().sum() > 0, name

    def test_per_channel_takes_images_of_any_size(self) -> None:
        model = fitted("maps", "anchored", shrinkage=0.6, per="channel")
        mean = crossing("maps", images(12, 5)).mean((0, 2))
        x, y = images(2, 1, size=22), images(2, 2, size=22)
        t, r = model.split.pre(x).tensors[0], model.split.pre(y).tensors[0]
        merged = t - 0.6 * (r - mean[:, None, None])
        net = network("maps")
        net.body.register_forward_pre_hook(lambda _, a: (merged,))
        torch.testing.assert_close(model(x, y), net(x), **CLOSE)
        with pytest.raises(ConfigError, match=r"has 25 positions .* have 49.*'per': 'channel'"):
            fitted("maps", "anchored")(x, y)

    def test_learned_shrinkage_stays_within_0_and_1(self) -> None:
        model = fitted("maps", "anchored", shrinkage="learned")
        form = model.merge_form[0]
        torch.testing.assert_close(form.shrinkage(), torch.full((6,), 0.75))
        form.logit.data = torch.tensor([-90.0, 90, 0, 1, 2, 3])
        assert form.shrinkage().min() >= 0
        assert form.shrinkage().max() <= 1

    @pytest.mark.parametrize("form", FORMS)
    def test_half_precision_stays_half(self, form: str) -> None:
        model = fitted("maps", form).to(torch.bfloat16)
        x = images(2, 1).bfloat16()
        assert model(x, images(2, 2).bfloat16()).dtype == torch.bfloat16


class TestLayouts:
    @pytest.mark.parametrize(
        ("shape", "layout", "dim", "to_rows"),
        [
            ((4, 6, 5, 5), BatchLayout(0), 1, lambda x: x.reshape(4, 6, 25)),
            ((4, 5, 5, 6), BatchLayout(0), 3, lambda x: x.reshape(4, 25, 6).mT),
            ((7, 4, 6), BatchLayout(1), -1, lambda x: x.permute(1, 2, 0)),
            ((4, 6), BatchLayout(0), None, lambda x: x[:, :, None]),
            ((6, 4), BatchLayout(1), None, lambda x: x.mT[:, :, None]),
            # Windows of an attention: 3 a sample, of 5 tokens.
            ((12, 5, 6), BatchLayout(0, 3), 2, lambda x: x.reshape(4, 15, 6).mT),
            (
                (12, 5, 6),
                BatchLayout(0, 3, False),
                2,
                lambda x: x.reshape(3, 4, 5, 6).permute(1, 3, 0, 2).flatten(2),
            ),
        ],
    )
    def test_rows_and_back(self, shape, layout, dim, to_rows) -> None:
        x = torch.randn(shape)
        one = list(shape)
        one[layout.dim] = layout.groups
        form = ChannelForm(one, layout=layout, channel_dim=dim)
        assert (form.channels, form.positions) == (6, x.numel() // 24)
        assert torch.equal(form.rows(x), to_rows(x))
        assert torch.equal(form.features(form.rows(x), x), x)

    def test_channels_are_told_by_the_layers(self) -> None:
        for kind, dim in (("maps", 1), ("tokens", 2), ("flat", 1), ("sequence first", 2)):
            assert wrapped(kind, "anchored").merge_form[0].channel_dim == dim

    def test_channels_last_maps(self) -> None:
        class Swinlike(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)
                self.gelu, self.fc = nn.GELU(), nn.Linear(6, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(self.gelu(self.norm(self.stem(x).permute(0, 2, 3, 1)))).mean((1, 2))

        model = CalibratingSiamese(
            Swinlike().eval(), "gelu", merge="gated", example_inputs=images(2, 0)
        )
        assert (model.merge_form[0].channel_dim, model.merge_form[0].channels) == (3, 6)

    def test_what_no_layer_tells_is_asked_for(self) -> None:
        class Silent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.act, self.weight = nn.ReLU(), nn.Parameter(torch.ones(1))

            def forward(self, x: Tensor) -> Tensor:
                return (self.act(x * self.weight)).mean((2, 3))

        net, example = Silent(), images(2, 0)
        with pytest.raises(ConfigError, match=r"\(1, 3, 16, 16\).*merge_options=.'channel_dim': 1"):
            CalibratingSiamese(net, "act", merge="gated", example_inputs=example)
        for wrong in (0, 4, -5, "1", True):
            with pytest.raises(ConfigError, match="channel_dim"):
                CalibratingSiamese(
                    net,
                    "act",
                    merge="gated",
                    merge_options={"channel_dim": wrong},
                    example_inputs=example,
                )
        model = CalibratingSiamese(
            net, "act", merge="gated", merge_options={"channel_dim": -3}, example_inputs=example
        )
        assert model.merge_form[0].channels == 3

    def test_contradicting_layers_are_asked_about(self) -> None:
        class Square(nn.Module):
            """A map (N, 4, 4, 4): a convolution and a linear layer see the same shape."""

            def __init__(self) -> None:
                super().__init__()
                self.stem, self.act, self.mix = nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.mix(self.act(self.stem(x))).mean((2, 3))

        with pytest.raises(ConfigError, match="can't be told"):
            CalibratingSiamese(Square(), "act", merge="gated", example_inputs=images(2, 0))

    def test_too_many_channels_for_a_full_layer(self) -> None:
        class Wide(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.fc = nn.Conv2d(3, 50, 4), nn.Linear(50 * 169, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(self.stem(x).flatten(1))

        with pytest.raises(ConfigError, match=r"142,805,000 weights for the 8450 channels"):
            CalibratingSiamese(Wide(), "fc", merge="concatenated", example_inputs=images(2, 0))

    def test_attention_needs_positions(self) -> None:
        with pytest.raises(ConfigError, match=r"needs features with positions, but \(1, 8\)"):
            wrapped("flat", "attention")


class TestOptions:
    def test_strict_everywhere(self, tmp_path: Path) -> None:
        near = r"'anchored' has no option 'shrinkag'\. Did you mean 'shrinkage'\?"
        with pytest.raises(ConfigError, match=near):
            wrapped("maps", "anchored", shrinkag=1)
        with pytest.raises(ConfigError, match=near):
            Recipe(name="x", merge="anchored", merge_options={"shrinkag": 1})
        with pytest.raises(ConfigError, match=near):
            override(Recipe(name="x", merge="anchored"), ["merge_options.shrinkag=1"])
        facts = {"merge_at": "fc", "task": "raw", "aus": ()}
        with pytest.raises(ConfigError, match=near):
            CalibratorConfig(merge="anchored", merge_options={"shrinkag": 1}, **facts)
        with pytest.raises(ConfigError, match="no path, URL"):
            CalibratorConfig(merge="anchored", merge_options={"per": "../x"}, **facts)
        with pytest.raises(ConfigError, match="has no option 'layout'"):
            wrapped("maps", "anchored", layout=None)
        for form in ("paper", "target_minus_reference"):
            with pytest.raises(ConfigError, match=r"no option 'per'\. It has: none"):
                Recipe(name="x", merge=form, merge_options={"per": "channel"})
        with pytest.raises(ConfigError, match="takes a mapping"):
            Recipe(name="x", merge="anchored", merge_options=["per"])  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("form", "option", "value"),
        [
            ("anchored", "shrinkage", 1.01),
            ("anchored", "shrinkage", -0.1),
            ("anchored", "shrinkage", float("nan")),
            ("anchored", "shrinkage", True),
            ("anchored", "shrinkage", None),
            ("anchored", "shrinkage", "estimate"),
            ("anchored", "per", "person"),
            ("gated", "start", 1),
            ("gated", "reduction", 0),
            ("attention", "width", "wide"),
            ("attention", "channel_dim", 1.0),
        ],
    )
    def test_wrong_values_are_refused_by_name(self, form: str, option: str, value: object) -> None:
        with pytest.raises(ConfigError, match=option):
            wrapped("maps", form, **{option: value})
        with pytest.raises(ConfigError, match=option):
            Recipe(name="x", merge=form, merge_options={option: value})

    def test_a_recipe_keeps_them(self) -> None:
        recipe = override(
            Recipe(name="x"),
            ["merge=anchored", "merge_options.shrinkage=0.5", "merge_options.per=channel"],
        )
        assert recipe.merge_options == {"shrinkage": 0.5, "per": "channel"}
        assert from_dict(to_dict(recipe), Recipe) == recipe

    def test_functions_of_ones_own_take_options(self) -> None:
        def part(target: Tensor, reference: Tensor, *, share: float = 1.0) -> Tensor:
            return target - share * reference

        x, y = images(3, 1), images(3, 2)
        model = CalibratingSiamese(
            network("maps"),
            "body",
            merge=part,
            merge_options={"share": 0.25},
            example_inputs=images(2, 0),
        )
        t, r = crossing("maps", x), crossing("maps", y)
        torch.testing.assert_close(model(x, y), by_hook("maps", x, t - 0.25 * r), **CLOSE)
        assert torch.equal(copy.deepcopy(model)(x, y), model(x, y))
        with pytest.raises(ConfigError, match=r"'part' has no option 'shar'.*'share'"):
            CalibratingSiamese(network("maps"), "body", merge=part, merge_options={"shar": 1})

    def test_a_module_that_is_made_takes_none(self) -> None:
        form = Anchored((1, 6, 5, 5), channel_dim=1)
        with pytest.raises(ConfigError, match="pass the class"):
            CalibratingSiamese(
                network("maps"), "body", merge=form, merge_options={"per": "channel"}
            )

    def test_every_form_says_what_it_is(self) -> None:
        assert set(FORMS) < set(merges.names())
        for name in FORMS:
            assert "Parameters:" in merges.get(name).__doc__
            assert len(merges.summary(name)) > 20


class TestSaved:
    @pytest.mark.parametrize("kind", ["maps", "tokens"])
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("adapter", [False, True])
    def test_bit_for_bit(self, tmp_path: Path, kind: str, form: str, adapter: bool) -> None:
        options = {"shrinkage": "estimated"} if form == "anchored" else {}
        model = stirred(fitted(kind, form, [0, 1, 2, 3] * 3, **options))
        shape = {"input_shape": (3, 16, 16)}
        config = model.save_pretrained(tmp_path, adapter=adapter, **shape)
        assert (config.merge, config.merge_options) == (form, options)
        loaded = CalibratingSiamese.from_pretrained(tmp_path, backbone=network(kind))
        assert (loaded.fitted, loaded.merge_options) == (True, options)
        x, y = images(3, 1), images(3, 2)
        with torch.no_grad():
            assert torch.equal(loaded(x, y), model(x, y))
            several = [m(x, m.encode([y, y.flip(3), y + 1])) for m in (loaded, model)]
            assert torch.equal(*several)
        loaded.save_pretrained(tmp_path / "again", adapter=adapter, **shape)
        for name in ("model.safetensors", "config.json"):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
        for copied in (copy.deepcopy(loaded), loaded):
            assert torch.equal(copied(x, y), model(x, y))

    @pytest.mark.parametrize("lost", ["anchor", "ratio", "is_fitted"])
    def test_a_missing_tensor_is_an_error(self, tmp_path: Path, lost: str) -> None:
        model = fitted("maps", "anchored")
        model.save_pretrained(tmp_path, input_shape=(3, 16, 16))
        tensors = read_tensors(tmp_path / "model.safetensors")
        del tensors[f"merge.0.{lost}"]
        rewrite(tmp_path, weights_checksum=write_tensors(tensors, tmp_path / "model.safetensors"))
        with pytest.raises(WeightsError, match=rf"lacks 1 tensors, merge\.0\.{lost}"):
            CalibratingSiamese.from_pretrained(tmp_path, backbone=network("maps"))

    def test_saved_before_it_was_fitted_is_refused_at_its_use(self, tmp_path: Path) -> None:
        wrapped("maps", "anchored").save_pretrained(tmp_path, input_shape=(3, 16, 16))
        loaded = CalibratingSiamese.from_pretrained(tmp_path, backbone=network("maps"))
        assert not loaded.fitted
        with pytest.raises(ConfigError, match="fit_anchor"):
            loaded(images(2, 1), images(2, 2))

    def test_state_dicts_carry_it(self) -> None:
        model, other = fitted("maps", "normalised"), wrapped("maps", "normalised")
        other.load_state_dict(model.state_dict())
        assert other.fitted
        assert torch.equal(other(images(2, 1), images(2, 2)), model(images(2, 1), images(2, 2)))

    @pytest.mark.parametrize("kind", ["maps", "tokens"])
    @pytest.mark.parametrize("form", FORMS)
    def test_exported_in_two_parts(self, kind: str, form: str) -> None:
        model = stirred(fitted(kind, form, [0, 1, 2, 3] * 3))
        people, free = [images(1, i) for i in (2, 3, 4)], torch.export.Dim.DYNAMIC
        with torch.no_grad():
            reference = model.encode(people)
            encoder = torch.export.export(Encoder(model), (people[0],)).module()
            one = model.encode(people[0]).tensors[0]
            torch.testing.assert_close(encoder(people[0])[0], one, **CLOSE)
            reader = torch.export.export(
                Reader(model, frames=3),
                (images(2, 1), *reference.tensors),
                dynamic_shapes=({0: free}, (None,)),
            ).module()
            x = images(5, 8)
            # Products in another order, and "normalised" divides by small spreads.
            read = reader(x, *reference.tensors)
            torch.testing.assert_close(read, model(x, reference), rtol=1e-4, atol=1e-5)
            plain = Reader(model, frames=3)
            assert torch.equal(plain(x, *reference.tensors), model(x, reference))
        for wrong in (0, 1.5, True):
            with pytest.raises(ConfigError, match="frames takes a whole number"):
                Reader(model, frames=wrong)  # type: ignore[arg-type]


def test_configs_of_before_have_no_options() -> None:
    config = CalibratorConfig(merge_at="fc", task="raw", aus=())
    values = to_dict(config)
    del values["merge_options"]
    assert from_dict(values, CalibratorConfig) == config
    assert dataclasses.replace(config).merge_options == {}


def test_a_form_starts_alike_and_draws_nothing() -> None:
    torch.manual_seed(0)
    want = torch.rand(1)
    for form in FORMS:
        torch.manual_seed(0)
        first = wrapped("tokens", form)
        assert torch.equal(torch.rand(1), want)
        second = wrapped("tokens", form)
        for a, b in zip(first.merge_form.parameters(), second.merge_form.parameters(), strict=True):
            assert np.array_equal(a.detach().numpy(), b.detach().numpy(), equal_nan=True)

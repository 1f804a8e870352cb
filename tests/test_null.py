"""Without a reference, or with a doubtful one: null reference, trust, another person's."""

import numpy as np
import pytest
import torch
from calibrators import flat, tiny
from test_merge_forms import NETWORKS, crossing, images, network
from torch import Tensor, nn

from siamcal import CalibratingSiamese, Reference
from siamcal.calibrators.saving import describe, load_calibrator, save_calibrator
from siamcal.errors import ConfigError
from siamcal.model.export import Encoder, Reader
from siamcal.model.null import NullReference
from siamcal.model.reference import pool_frames

torch.set_num_threads(1)

FORMS = ("reference_minus_target", "anchored", "gated")
KINDS = sorted(NETWORKS)
NAMES = np.repeat(np.arange(12), 2)
NEUTRAL = images(12, 41)[NAMES] + images(24, 42) / 2


def wrapped(kind: str = "maps", form: str = "paper", **options: object) -> CalibratingSiamese:
    return CalibratingSiamese(
        network(kind),
        NETWORKS[kind][1],
        merge=form,
        example_inputs=images(2, 0),
        null_reference=True,
        **options,  # type: ignore[arg-type]
    )


def fitted(kind: str = "maps", form: str = "paper", **options: object) -> CalibratingSiamese:
    model = wrapped(kind, form, **options).fit_anchor(NEUTRAL, NAMES)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():  # as after a training
        null = model.null_reference.null_0
        null += 0.3 * torch.randn(null.shape, generator=generator)
    return model


def rows_of(kind: str, x: Tensor) -> np.ndarray:
    """(N, C, P) features, by a hook on the network itself."""
    return crossing(kind, x).double().numpy()


class TestNull:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("branches", ["separate", "concatenate"])
    @torch.no_grad()
    def test_stands_for_those_left_out(self, kind: str, form: str, branches: str) -> None:
        model = fitted(kind, form, branches=branches)
        x, y = images(4, 1), images(4, 2)
        left = torch.tensor([True, False, True, False])
        without, with_ = model(x, None), model(x, y)
        want = torch.where(left[:, None], without, with_)
        for got in (
            model(x, y, dropped=left),
            model(x, model.encode(y), dropped=left),
            model(x, y[[1, 0, 3, 2]], [1, 0, 3, 2], dropped=left),
        ):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        one = torch.where(left[:, None], without, model(x, y[:1]))
        torch.testing.assert_close(model(x, y[:1], dropped=left), one, rtol=1e-5, atol=1e-5)
        # The null as an ordinary Reference is the same.
        torch.testing.assert_close(model(x, model.null(4)), without, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(without, with_, atol=1e-3)

    @pytest.mark.parametrize("kind", KINDS)
    def test_starts_at_the_mean_over_people(self, kind: str) -> None:
        model = wrapped(kind).fit_anchor(NEUTRAL, NAMES, batch_size=7)
        rows = rows_of(kind, NEUTRAL)
        mean = np.mean([rows[n == NAMES].mean(0) for n in range(12)], 0)
        to_rows = NETWORKS[kind][2]
        null = to_rows(model.null().tensors[0].detach())[0]
        np.testing.assert_allclose(null, mean, rtol=1e-4, atol=1e-5)

    def test_of_a_frozen_network_is_the_network_itself(self) -> None:
        model = wrapped("maps", "anchored").fit_anchor(NEUTRAL, NAMES)
        torch.testing.assert_close(model(images(3, 1), None), network("maps")(images(3, 1)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_those_left_out_train_it(self, kind: str) -> None:
        model = fitted(kind)
        x, y = images(3, 1), images(3, 2)
        for left, moved in ((torch.zeros(3), False), (torch.tensor([0, 1, 0]), True)):
            model.zero_grad()
            model(x, y, dropped=left.bool()).square().sum().backward()
            gradient = model.null_reference.null_0.grad
            assert gradient is not None  # a process of several may leave nobody out
            assert bool(gradient.any()) == moved

    def test_several_tensors(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.wide = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 5)
                self.mix, self.fc = Both(), nn.Linear(6, 3)

            def forward(self, x):
                return self.fc(self.mix(self.stem(x), self.wide(x)))

        class Both(nn.Module):
            def forward(self, a, b):
                return torch.cat([a.mean((2, 3)), b.amax((2, 3))], 1)

        torch.manual_seed(0)
        model = CalibratingSiamese(
            Two().eval(), "mix", example_inputs=images(2, 0), null_reference=True
        ).fit_anchor(NEUTRAL, NAMES)
        assert len(model.null().tensors) == 2
        left = torch.tensor([True, False])
        got = model(images(2, 1), images(2, 2), dropped=left)
        torch.testing.assert_close(got[0], model(images(2, 1), None)[0])
        torch.testing.assert_close(got[1], model(images(2, 1), images(2, 2))[1])
        assert 0 < float(model.trust(images(1, 3))) <= 1


class TestRefusals:
    @pytest.mark.parametrize("form", ["paper", "anchored"])
    def test_nobody_is_read_without_a_null(self, form: str) -> None:
        x = images(2, 1)
        unfitted = wrapped("maps", form)
        plain = CalibratingSiamese(network("maps"), "body", example_inputs=images(2, 0))
        for call in (lambda m: m(x, None), lambda m: m.null(), lambda m: Reader(m.eval())(x)):
            with pytest.raises(ConfigError, match=r"fit_anchor\(neutral_images\)"):
                call(unfitted)
            with pytest.raises(ConfigError, match="null_reference=True"):
                call(plain)
        for call in (
            lambda: plain.trust(x),
            lambda: plain.same_person(x, x),
            lambda: plain(x, x, use_trust=True),
            lambda: plain(x, x, dropped=torch.zeros(2, dtype=torch.bool)),
        ):
            with pytest.raises(ConfigError, match="null_reference=True"):
                call()
        assert not unfitted.fitted

    def test_what_doesnt_fit(self) -> None:
        model, x = fitted(), images(3, 1)
        for call, words in (
            (lambda: model(x, None, [0, 0, 0]), "nothing that index="),
            (lambda: model(x, None, use_trust=True), "nothing that index="),
            (lambda: model(x, x, dropped=torch.zeros(2, dtype=torch.bool)), "each of the 3"),
            (lambda: model(x, x, dropped=torch.zeros(3)), "torch.float32"),
            (lambda: model(x, x[:2], dropped=torch.ones(3).bool()), "2 references for 3"),
            (lambda: model.null(0), "whole number from 1"),
            (lambda: model.null(True), "whole number from 1"),
            (lambda: model(images(2, 1, size=22), None), "images? of"),
            (lambda: model.trust(images(2, 1, size=22)), "the size that the network was wrapped"),
            (lambda: model.trust(wrapped("flat").encode(x)), "encoded at 'fc'"),
        ):
            with pytest.raises(ConfigError, match=words):
                call()

    def test_too_few_people_judge_nothing(self) -> None:
        model = wrapped().fit_anchor(images(9, 1))
        for call in (
            lambda: model.trust(images(1, 2)),
            lambda: model.same_person(images(1, 2), images(1, 3)),
            lambda: model(images(1, 2), images(1, 3), use_trust=True),
        ):
            with pytest.raises(ConfigError, match=r"10 people at least, but .* fitted to 9"):
                call()
        assert torch.isfinite(model(images(1, 2), None)).all()


def scaled_by_hand(kind: str, x: Tensor, mean: np.ndarray | None = None) -> np.ndarray:
    """(N, C, P) around the mean of the neutral frames, over each channel's deviation."""
    neutral = rows_of(kind, NEUTRAL)
    by_person = np.stack([neutral[n == NAMES].mean(0) for n in range(12)])
    centre = by_person.mean(0)
    variance = ((neutral - centre) ** 2).sum(0).mean(1) / (len(neutral) - 1)  # (C,)
    variance = np.maximum(variance, 1e-3 * variance.mean())
    return (rows_of(kind, x) - (centre if mean is None else mean)) / np.sqrt(variance)[:, None]


class TestTrust:
    @pytest.mark.parametrize("kind", KINDS)
    def test_by_hand(self, kind: str) -> None:
        model, x = fitted(kind), 3 * images(5, 3)
        neutral, distances = rows_of(kind, NEUTRAL), []
        for frame, name in enumerate(NAMES):  # each held against the other people
            others = [neutral[n == NAMES].mean(0) for n in range(12) if n != name]
            scaled = scaled_by_hand(kind, NEUTRAL[frame : frame + 1], np.mean(others, 0))
            distances.append((scaled**2).mean())
        far = np.sort(distances)[23]  # of 24 the ceil(.95 * 25) = 24th
        found = (scaled_by_hand(kind, x) ** 2).mean((1, 2))
        want = np.minimum(1, far / found)
        np.testing.assert_allclose(model.trust(x), want, rtol=2e-3)
        np.testing.assert_allclose(model.trust(model.encode(x)).detach(), want, rtol=2e-3)
        assert want.min() < 0.9
        assert float((model.trust(NEUTRAL) == 1).float().mean()) >= 0.95

    def test_new_neutral_frames_are_trusted(self) -> None:
        # Of the kind fitted to: about 95 % of further people's.
        model = wrapped("flat").fit_anchor(images(200, 1))
        share = float((model.trust(images(600, 2)) == 1).float().mean())
        assert share == pytest.approx(0.95, abs=0.04)

    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_the_untrusted_move_towards_the_null(self, kind: str) -> None:
        model, x, y = (
            fitted(kind),
            images(3, 1),
            images(3, 2) * torch.tensor([1, 4, 9.0])[:, None, None, None],
        )
        trust = model.trust(y)
        own, null = model.encode(y), model.null(3)
        layout = own.layouts[0]
        rows = [layout.to_rows(t.tensors[0]) for t in (own, null)]
        moved = trust[:, None] * rows[0] + (1 - trust[:, None]) * rows[1]
        whole = Reference(
            [layout.from_rows(moved, model.null().tensors[0].shape)], own.layouts, own.merge_at
        )
        want = model(x, whole)
        torch.testing.assert_close(model(x, y, use_trust=True), want, rtol=1e-4, atol=1e-5)
        index = [2, 0, 1]
        torch.testing.assert_close(
            model(x, own, index, use_trust=True), model(x, whole, index), rtol=1e-4, atol=1e-5
        )
        assert trust.min() < 0.5

    def test_looks_at_images_in_eval_mode(self) -> None:
        model = fitted()
        want = model.trust(images(3, 5))
        model.train()
        before = {n: t.clone() for n, t in model.state_dict().items()}
        assert torch.equal(model.trust(images(3, 5)), want)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert model.training

    def test_pooled_frames(self) -> None:
        model = fitted()
        pooled = model.encode([images(1, 1), images(1, 2), images(1, 3)])
        features = [model.encode(images(1, s)).tensors[0] for s in (1, 2, 3)]
        alone = Reference([pool_frames(features)], pooled.layouts, pooled.merge_at)
        assert torch.equal(model.trust(pooled), model.trust(alone))


class TestSamePerson:
    @pytest.mark.parametrize("kind", KINDS)
    def test_by_hand(self, kind: str) -> None:
        model = fitted(kind)
        x, y = images(3, 1), images(3, 2)
        a, b = (scaled_by_hand(kind, v).reshape(3, -1) for v in (x, y))
        want = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        found = model.same_person(x, y)
        np.testing.assert_allclose(found.score, want, rtol=1e-3, atol=1e-4)
        # The threshold: pairs of two people, each pair around the mean of all others.
        neutral, scores = rows_of(kind, NEUTRAL), []
        by_person = np.stack([neutral[n == NAMES].mean(0) for n in range(12)])
        variance = ((neutral - by_person.mean(0)) ** 2).sum(0).mean(1) / 23
        variance = np.maximum(variance, 1e-3 * variance.mean())
        for i in range(24):
            for j in range(i):
                if NAMES[i] != NAMES[j]:
                    others = np.delete(by_person, [NAMES[i], NAMES[j]], 0).mean(0)
                    scaled = (neutral[[i, j]] - others) / np.sqrt(variance)[:, None]
                    u, v = scaled.reshape(2, -1)
                    scores.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        limit = np.sort(scores)[int(np.ceil(0.95 * len(scores))) - 1]
        assert float(model.null_reference.alike) == pytest.approx(limit, rel=1e-3, abs=1e-4)
        assert found.same.tolist() == (want > limit).tolist()

    def test_tells_a_mix_up(self) -> None:
        model = fitted()
        people = images(8, 77)
        first, second = (people + images(8, s) / 3 for s in (1, 2))
        assert model.same_person(first, second).same.all()
        assert not model.same_person(first, second, [1, 2, 3, 4, 5, 6, 7, 0]).same.any()
        assert model.same_person(model.encode(first), second[:1]).same.tolist()[0]
        with pytest.raises(ConfigError, match="3 references for 8"):
            model.same_person(first, second[:3])


class TestKept:
    @pytest.mark.parametrize("adapter", [False, True])
    def test_saved_and_loaded(self, tmp_path, adapter: bool) -> None:
        from siamcal.model.heads import IntensityHead

        model = tiny(IntensityHead(3), merge="anchored", null_reference=True)
        faces = torch.rand(12, 3, 112, 112, generator=torch.Generator().manual_seed(1))
        model.fit_anchor(faces)
        with torch.no_grad():
            model.null_reference.null_0.add_(0.1)
        save_calibrator(model, describe(model, aus=(1, 12, 25)), tmp_path, adapter=adapter)
        base = tiny(IntensityHead(3)).unwrap()
        loaded = load_calibrator(tmp_path, backbone=base)
        x, y = faces[:2], faces[2:4]
        for call in (
            lambda m: flat(m(x, None)),
            lambda m: flat(m(x, y, use_trust=True)),
            lambda m: m.trust(3 * y),
            lambda m: m.same_person(x, y).score,
        ):
            assert torch.equal(call(model), call(loaded))
        assert loaded.config.null_reference
        assert torch.equal(model.null_reference.alike, loaded.null_reference.alike)

    def test_the_null_is_a_reference_of_its_model(self, tmp_path) -> None:
        model = fitted()
        model.null().save(tmp_path / "null.safetensors")
        x = images(2, 1)
        loaded = model.load_reference(tmp_path / "null.safetensors")
        assert torch.equal(model(x, loaded), model(x, None))
        joined = Reference.cat([model.encode(images(1, 2)), model.null()])
        torch.testing.assert_close(model(x, joined, [1, 1]), model(x, None))

    def test_exported(self) -> None:
        model, x = fitted().eval(), images(3, 1)
        program = torch.export.export(Reader(model), (x,)).module()
        torch.testing.assert_close(program(x), model(x, None))
        features = Encoder(model)(images(1, 2))
        torch.testing.assert_close(Reader(model)(x, *features), model(x, images(1, 2)))

    def test_half_precision_and_compiled(self) -> None:
        model = fitted("tokens").eval()
        x, y = images(2, 1), images(2, 2)
        compiled = torch.compile(model, backend="eager")
        left = torch.tensor([True, False])
        torch.testing.assert_close(compiled(x, y, dropped=left), model(x, y, dropped=left))
        torch.testing.assert_close(compiled(x, None), model(x, None))
        half = fitted("tokens").bfloat16()
        found = half.trust(y.bfloat16())
        torch.testing.assert_close(found, model.trust(y), rtol=0.05, atol=0.02)
        assert half(x.bfloat16(), None).dtype == torch.bfloat16

    def test_not_learned_from_a_plain_networks_weights(self) -> None:
        model = fitted()
        model.load_state_dict(network("maps").state_dict(), strict=False)
        assert model.fitted
        assert isinstance(model.null_reference, NullReference)

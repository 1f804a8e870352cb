"""`fit_anchor`: anchors, shrinkage from variance components, several frames, training."""

import dataclasses
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
import torch
from calibrators import tiny
from facesets import RECIPE, squares
from statsmodels.formula.api import ols
from test_merge_forms import crossing, fitted, images, network, stirred, wrapped
from torch import Tensor, nn

import siamcal.registry
from siamcal import CalibratingSiamese, Reference
from siamcal.errors import ConfigError
from siamcal.model.merges._components import noise_ratio, shrinkage, variance_components
from siamcal.model.merges.anchored import Anchored
from siamcal.registry import merges
from siamcal.training.duration import seconds_per_step
from siamcal.training.loop import fit
from siamcal.training.networks import build_network, fit_merge
from siamcal.training.objective import make_optimizer

torch.set_num_threads(1)


def people_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def simulated(counts: list[int], between: float, within: float, seed: int, channels: int = 1):
    generator = np.random.default_rng(seed)
    own = people_of(counts)
    levels = generator.normal(0, between**0.5, (len(counts), channels))
    return levels[own] + generator.normal(0, within**0.5, (len(own), channels)), own


class TestComponents:
    def test_balanced_ones_are_those_of_a_mixed_model(self) -> None:
        # In a balanced design REML is the ANOVA estimator (Searle et al. 1992, section 4.5).
        values, own = simulated([4] * 15, 2.0, 1.0, 1)
        table = pd.DataFrame({"y": values[:, 0], "person": own})
        model = sm.MixedLM.from_formula("y ~ 1", table, groups="person").fit(reml=True)
        between, within = variance_components(torch.tensor(values)[:, :, None], torch.tensor(own))
        assert float(between) == pytest.approx(float(model.cov_re.iloc[0, 0]), rel=1e-3)
        assert float(within) == pytest.approx(model.scale, rel=1e-3)

    def test_mean_squares_are_those_of_an_analysis_of_variance(self) -> None:
        counts = [1, 2, 3, 5, 9]
        values, own = simulated(counts, 1.0, 2.0, 2)
        table = pd.DataFrame({"y": values[:, 0], "person": own})
        anova = sm.stats.anova_lm(ols("y ~ C(person)", table).fit())
        msb, msw = anova["mean_sq"]
        n0 = (20 - sum(n * n for n in counts) / 20) / 4
        between, within = variance_components(torch.tensor(values)[:, :, None], torch.tensor(own))
        assert float(within) == pytest.approx(msw)
        assert float(between) == pytest.approx(max(0.0, (msb - msw) / n0))

    def test_unbiased_over_many_simulations(self) -> None:
        values, own = simulated([1, 2, 2, 3, 4, 6], 4.0, 1.0, 3, channels=20_000)
        between, within = variance_components(torch.tensor(values)[:, :, None], torch.tensor(own))
        assert float(between.mean()) == pytest.approx(4, rel=0.03)  # a draw below 0 is rare here
        assert float(within.mean()) == pytest.approx(1, rel=0.03)

    def test_positions_of_a_channel_are_averaged(self) -> None:
        values, own = simulated([3] * 8, 2.0, 1.0, 4, channels=5)
        whole = torch.tensor(values)[:, None, :]  # 1 channel of 5 positions
        each = variance_components(torch.tensor(values)[:, :, None], torch.tensor(own))
        pooled = variance_components(whole, torch.tensor(own))
        assert float(pooled[1]) == pytest.approx(float(each[1].mean()))
        assert float(pooled[0]) == pytest.approx(float(each[0].mean()))  # none of them was clipped

    def test_shrinkage_is_the_best_weight(self) -> None:
        # The regression of a person's own level on the mean of K frames has this slope.
        generator = np.random.default_rng(0)
        for frames, between, within in ((1, 2.0, 1.0), (4, 0.5, 1.5)):
            level = generator.normal(0, between**0.5, 200_000)
            seen = level + generator.normal(0, (within / frames) ** 0.5, level.size)
            slope = scipy.stats.linregress(seen, level).slope
            ratio = noise_ratio(torch.tensor([between]), torch.tensor([within]))
            ours = shrinkage(ratio, torch.tensor([frames]))
            assert float(ours) == pytest.approx(slope, abs=0.01)

    def test_the_ends(self) -> None:
        ratio = noise_ratio(torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 0, 0]))
        assert shrinkage(ratio).tolist() == [0, 1, 0]
        assert shrinkage(ratio, torch.tensor([9])).tolist() == [[0, 1, 0]]

    @pytest.mark.parametrize("own", [[0, 0, 0], [0, 1, 2]])
    def test_too_little_is_refused(self, own: list[int]) -> None:
        with pytest.raises(ConfigError, match="two people at least, one of them with two frames"):
            variance_components(torch.rand(3, 2, 1), torch.tensor(own))


def faces_of(names: list[str]) -> Tensor:
    """(N, 3, 16, 16): each person has a picture of their own, each frame its noise."""
    known = sorted(set(names))
    own = 2 * images(len(known), 31)
    return own[[known.index(n) for n in names]] + images(len(names), 32)


def merged_in(model: CalibratingSiamese, x: Tensor, reference: Reference) -> Tensor:
    """What the network goes on with behind the merge."""
    seen: list[Tensor] = []
    module = model.backbone.get_submodule(model.merge_at)
    handle = module.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    model(x, reference)
    handle.remove()
    return seen[0]


NAMES = ["anna", "ben", "anna", "cleo", "ben", "anna", "dora", "anna"]


class TestFit:
    @pytest.mark.parametrize("kind", ["maps", "tokens"])
    def test_anchor_and_shrinkage_from_people(self, kind: str) -> None:
        neutral, x, y = faces_of(NAMES), images(3, 1), images(3, 2)
        model = wrapped(kind, "anchored").fit_anchor(neutral, NAMES, batch_size=3)
        rows = crossing(kind, neutral).double().numpy()
        names = np.array(NAMES)
        means = {n: rows[names == n].mean(0) for n in set(NAMES)}
        anchor = np.mean(list(means.values()), 0)
        form = model.merge_form[0]
        np.testing.assert_allclose(form.anchor.detach(), anchor, rtol=1e-5, atol=1e-6)
        # The mean squares written out person by person.
        grand = rows.mean(0)
        ssb = sum((names == n).sum() * (m - grand) ** 2 for n, m in means.items())
        ssw = sum(((rows[names == n] - m) ** 2).sum(0) for n, m in means.items())
        msb, msw = (ssb / 3).mean(1), (ssw / 4).mean(1)
        n0 = (8 - (16 + 4 + 1 + 1) / 8) / 3
        between = np.maximum((msb - msw) / n0, 0)
        share = between / (between + msw)
        np.testing.assert_allclose(form.shrinkage().numpy(), share, rtol=1e-4, atol=1e-6)
        t, r = crossing(kind, x).numpy(), crossing(kind, y).numpy()
        for frames in (1, 3):
            expected = t - (between / (between + msw / frames))[:, None] * (r - anchor)
            reference = Reference(model.encode(y).tensors, model.split.layouts, model.merge_at)
            if frames > 1:
                reference = Reference.pooled([reference] * frames)
            got = merged_in(model, x, reference)
            got = got.flatten(2) if kind == "maps" else got.mT
            np.testing.assert_allclose(got.detach(), expected, rtol=1e-4, atol=1e-5)

    def test_names_arrays_tensors_and_batches_mean_the_same(self) -> None:
        neutral, numbers = faces_of(NAMES), [0, 1, 0, 2, 1, 0, 3, 0]
        want = wrapped("maps", "anchored").fit_anchor(neutral, NAMES).state_dict()
        for people in (numbers, np.array(numbers), torch.tensor(numbers), np.array(NAMES)):
            got = wrapped("maps", "anchored").fit_anchor(neutral, people).state_dict()
            assert all(torch.equal(got[n], want[n]) for n in want if n.startswith("merge_form"))
        loader = torch.utils.data.DataLoader(list(neutral), batch_size=3)
        for given in (loader, iter(neutral.split(5)), list(neutral)):
            got = wrapped("maps", "anchored").fit_anchor(given, NAMES, batch_size=4).state_dict()
            for name in want:
                torch.testing.assert_close(got[name], want[name], msg=name)

    def test_the_network_stays_as_it_was(self) -> None:
        model = wrapped("maps", "anchored")
        model.train()
        model.backbone.fc.eval()
        modes = [m.training for m in model.modules()]
        before = {n: t.clone() for n, t in model.state_dict().items()}
        state = torch.get_rng_state()
        model.fit_anchor(images(8, 5))
        assert [m.training for m in model.modules()] == modes
        now = model.state_dict()
        assert all(torch.equal(now[n], t) for n, t in before.items() if n.startswith("backbone"))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(p.grad is None for p in model.parameters())
        assert model.merge_form[0].anchor.requires_grad
        torch.testing.assert_close(
            model.merge_form[0].anchor.detach(), crossing("maps", images(8, 5)).mean(0)
        )

    @pytest.mark.parametrize("kind", ["estimated", "learned"])
    @pytest.mark.parametrize("people", [None, list(range(8)), [7] * 8])
    def test_without_repeats_the_default_is_taken(self, kind: str, people: object, caplog) -> None:
        model = wrapped("maps", "anchored", shrinkage=kind)
        with caplog.at_level(logging.INFO):
            model.fit_anchor(images(8, 5), people)
        assert "0.75 is taken" in caplog.text
        form = model.merge_form[0]
        for frames in (None, torch.tensor([5])):
            share = form.shrinkage(frames)
            torch.testing.assert_close(share, torch.full_like(share, 0.75))

    def test_a_learned_shrinkage_starts_at_the_estimate(self) -> None:
        models = [
            wrapped("maps", "anchored", shrinkage=kind).fit_anchor(faces_of(NAMES), NAMES)
            for kind in ("estimated", "learned")
        ]
        estimated, learned = (m.merge_form[0].shrinkage().detach() for m in models)
        torch.testing.assert_close(learned, estimated.clamp(0.01, 0.99))

    @pytest.mark.parametrize("form", ["anchored", "attention", "gated", "normalised"])
    def test_unfitted_is_refused_and_says_how(self, form: str) -> None:
        model = wrapped("maps", form)
        assert not model.fitted
        x = images(2, 1)
        for call in (
            lambda: model(x, x),
            lambda: model(x, model.encode(x)),
            lambda: model.merge_form[0](*[model.encode(x).tensors[0]] * 2),
        ):
            with pytest.raises(ConfigError, match=r"model\.fit_anchor\(neutral_images\)"):
                call()
        assert model.fit_anchor(images(3, 5)).fitted
        assert torch.isfinite(model(x, x)).all()

    def test_what_fits_nothing_says_so(self) -> None:
        for form in ("concatenated", "paper"):
            model = wrapped("maps", form)
            assert model.fitted
            with pytest.raises(ConfigError, match="nothing to fit"):
                model.fit_anchor(images(3, 5))

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"neutral_images": torch.zeros(0, 3, 16, 16)}, "no neutral images"),
            ({"neutral_images": iter([])}, "no neutral images"),
            ({"neutral_images": torch.full((2, 3, 16, 16), torch.nan)}, "aren't finite"),
            ({"neutral_images": torch.zeros(3, 16, 16)}, "batches of images"),
            ({"neutral_images": "faces/"}, "batch of images"),
            ({"people": ["a"]}, "names 1 persons for 4 neutral images"),
            ({"people": "anna"}, "one name or number for each of the 4"),
            ({"people": ["a", "b", None, "a"]}, "None, which names nobody"),
            ({"people": [1.0, 2.0, float("nan"), 1.0]}, "nan, which names nobody"),
            ({"people": np.zeros((4, 2))}, "names nobody"),
            ({"batch_size": 0}, "batch_size"),
        ],
    )
    def test_what_does_not_fit_is_answered(self, given: dict[str, object], says: str) -> None:
        model = wrapped("maps", "anchored")
        with pytest.raises(ConfigError, match=says):
            model.fit_anchor(**{"neutral_images": images(4, 5), **given})
        assert not model.fitted

    def test_one_person_has_no_deviation(self) -> None:
        with pytest.raises(ConfigError, match="two people at least"):
            wrapped("maps", "normalised").fit_anchor(images(4, 5), [1] * 4)

    def test_forms_of_ones_own_are_fitted_too(self) -> None:
        class Centred(nn.Module):
            fitted = False

            def __init__(self, shape: torch.Size) -> None:
                super().__init__()
                self.mean = nn.Parameter(torch.zeros(shape))

            def fit(self, features: Tensor, people: list[int]) -> None:
                self.people, self.fitted = people, True
                self.mean.data = features.mean(0, keepdim=True)

            def forward(self, target: Tensor, reference: Tensor) -> Tensor:
                return target - reference + self.mean

        model = CalibratingSiamese(
            network("maps"), "body", merge=Centred, example_inputs=images(2, 0)
        )
        with pytest.raises(ConfigError, match="Centred has to be fitted"):
            model(images(2, 1), images(2, 2))
        model.fit_anchor(faces_of(NAMES), NAMES)
        assert model.merge_form[0].people == [0, 1, 0, 2, 1, 0, 3, 0]
        same = fitted("maps", "anchored", shrinkage=1).fit_anchor(faces_of(NAMES))
        x, y = images(3, 1), images(3, 2)
        torch.testing.assert_close(model(x, y), same(x, y))

    def test_networks_with_several_inputs(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.body = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 2, 3)

            def forward(self, pixels: Tensor, weight: Tensor) -> Tensor:
                return self.body(self.stem(pixels)).mean((2, 3)) * weight

        net = Two().eval()
        example = {"pixels": images(2, 0), "weight": torch.ones(2, 1)}
        model = CalibratingSiamese(net, "body", merge="anchored", example_inputs=example)
        frames = {"pixels": images(7, 5), "weight": torch.ones(7, 1)}
        model.fit_anchor(frames, batch_size=3)
        want = net.stem(images(7, 5)).mean(0).flatten(1)
        torch.testing.assert_close(model.merge_form[0].anchor, want)
        two = [{"pixels": images(1, s), "weight": torch.ones(1, 1)} for s in (1, 2)]
        assert model.encode(two).frames.tolist() == [2]


class TestSeveralFrames:
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
    def test_pooled_as_a_trimmed_mean(self, count: int) -> None:
        model = fitted("maps", "anchored", NAMES + ["eva"] * 4)
        frames = [images(2, 20 + k) for k in range(count)]
        each = np.stack([model.encode(f).tensors[0].detach().numpy() for f in frames])
        # One frame at each end of three and four, a fifth from five on.
        share = 0 if count < 3 else max(0.2, 1 / count)
        want = scipy.stats.trim_mean(each, share + 1e-9, axis=0)
        pooled = model.encode(frames)
        torch.testing.assert_close(pooled.tensors[0].detach(), torch.from_numpy(want))
        assert pooled.frames.tolist() == [count, count]

    def test_one_bad_frame_counts_for_nothing(self) -> None:
        model = wrapped("maps", "anchored")
        good, bad = images(1, 2), 50 + images(1, 3)
        pooled = model.encode([good, bad, good])
        torch.testing.assert_close(pooled.tensors, model.encode(good).tensors)

    def test_images_of_one_person_make_one_reference(self) -> None:
        model = fitted("maps", "anchored")
        a, b = images(2, 4)
        assert len(model.encode([a, b])) == 1
        torch.testing.assert_close(
            model.encode([a, b]).tensors[0],
            model.encode(torch.stack([a, b])).tensors[0].mean(0, keepdim=True),
        )
        assert len(model.encode([a])) == 1

    def test_more_frames_raise_an_estimated_shrinkage(self) -> None:
        model = wrapped("maps", "anchored").fit_anchor(faces_of(NAMES), NAMES)
        form = model.merge_form[0]
        shares = form.shrinkage(torch.tensor([1, 2, 5, 10**6]))
        some = shares[0] > 0.01
        assert (shares.diff(dim=0)[:, some] > 0).all()
        torch.testing.assert_close(shares[-1][some], torch.ones(int(some.sum())))
        assert torch.equal(shares[0], form.shrinkage())

    def test_each_target_by_its_own_references_frames(self, tmp_path) -> None:
        model = wrapped("maps", "anchored").fit_anchor(faces_of(NAMES), NAMES)
        stirred(model)
        one, three = model.encode(images(1, 2)), model.encode([images(1, s) for s in (3, 4, 6)])
        both = Reference.cat([one, three])
        assert both.frames.tolist() == [1, 3]
        both.save(tmp_path / "people.safetensors")
        loaded = model.load_reference(tmp_path / "people.safetensors")
        x, index = images(4, 1), torch.tensor([1, 0, 1, 1])
        want = torch.cat([model(x[i : i + 1], (one, three)[p]) for i, p in enumerate(index)])
        for people in (both, loaded, both.detach(), both.to(torch.float32)):
            assert people.frames.tolist() == [1, 3]
            assert people[1].frames.tolist() == [3]
            assert people[torch.tensor([True, False])].frames.tolist() == [1]
            torch.testing.assert_close(model(x, people, index), want)
            torch.testing.assert_close(model(x, people[index]), want)
        torch.testing.assert_close(model(x, three), model(x, three[[0, 0, 0, 0]]))
        assert not torch.allclose(
            model(x, three), model(x, Reference(three.tensors, three.layouts, three.merge_at))
        )

    @pytest.mark.parametrize("frames", ["[3]", "[0, 1]", "[1.5, 2]", "3", "[true, 1]", "[1,"])
    def test_a_file_with_other_numbers_is_refused(self, tmp_path, frames: str) -> None:
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        model = wrapped("maps", "anchored")
        path = tmp_path / "people.safetensors"
        model.encode([images(2, 1), images(2, 2)]).save(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert metadata["frames"] == "[2, 2]"
        save_file(load_file(path), path, {**metadata, "frames": frames})
        with pytest.raises(ConfigError, match="damaged"):
            Reference.load(path)

    def test_lists_that_make_no_sense_are_refused(self) -> None:
        model = wrapped("maps", "anchored")
        with pytest.raises(ConfigError, match="hold 1 and 2 samples"):
            model.encode([images(1, 1), images(2, 1)])
        with pytest.raises(ConfigError, match="images of one size"):
            model.encode([images(1, 1), images(1, 1, size=22)])
        with pytest.raises(ConfigError, match="network takes"):
            model.encode([])
        pooled = model.encode([images(1, 1), images(1, 2)])
        with pytest.raises(ConfigError, match="pooled before"):
            Reference.pooled([pooled, model.encode(images(1, 3))])

    def test_a_list_in_the_call_is_still_one_each(self) -> None:
        model = fitted("maps", "anchored")
        x, y = images(2, 1), images(2, 2)
        torch.testing.assert_close(model(x, [y[0], y[1]]), model(x, y))


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


class TestTraining:
    def test_fitted_to_the_training_peoples_references_only(self, faces) -> None:
        recipe = dataclasses.replace(RECIPE, merge="anchored", merge_options={"shrinkage": 1})
        rows, _ = faces.fold(0)
        model = build_network(recipe, 2, calibrated=True)
        fit_merge(model, faces, rows)
        used = sorted(set(faces.reference_rows[rows]))
        assert len(used) == 3
        crops = faces.preprocessing.to_tensor(faces.images[used])
        features = []
        net = build_network(recipe, 2, calibrated=False).eval()
        net.backbone.layer2.register_forward_pre_hook(lambda _, a: features.append(a[0]))
        with torch.no_grad():
            net(crops)
        torch.testing.assert_close(
            model.merge_form[0].anchor.detach(), features[0].mean(0).flatten(1)
        )

    @pytest.mark.parametrize("form", ["anchored", "normalised"])
    def test_a_training_fits_trains_and_goes_on(self, faces, tmp_path, form: str) -> None:
        recipe = dataclasses.replace(RECIPE, merge=form, steps=2)
        rows, _ = faces.fold(0)
        model = fit(recipe, faces, rows, calibrated=True, folder=tmp_path)
        assert model.fitted
        start = build_network(recipe, 2, calibrated=True)
        fit_merge(start, faces, rows)
        assert not torch.equal(model.merge_form[0].anchor, start.merge_form[0].anchor)
        again = fit(recipe, faces, rows, calibrated=True, folder=tmp_path)
        assert torch.equal(again.merge_form[0].anchor, model.merge_form[0].anchor)

    @pytest.mark.parametrize("form", ["anchored", "gated", "normalised", "concatenated"])
    def test_what_was_fitted_does_not_decay(self, faces, form: str) -> None:
        options = {"shrinkage": "learned"} if form == "anchored" else {}
        recipe = dataclasses.replace(RECIPE, merge=form, merge_options=options, weight_decay=0.5)
        model = build_network(recipe, 2, calibrated=True)
        fit_merge(model, faces, faces.fold(0)[0])
        names = ("anchor", "logit", "scale")
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = make_optimizer(model, recipe)
        groups = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(groups) == len({id(p) for p in groups}) == len(before)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in model.named_parameters():
            still = torch.equal(parameter, before[name]) and bool(before[name].any())
            assert still == (name.startswith("merge_form") and name.endswith(names)), name

    def test_a_plain_difference_is_left_alone(self, faces) -> None:
        model = build_network(RECIPE, 2, calibrated=True)
        fit_merge(model, faces, faces.fold(0)[0])
        fit_merge(build_network(RECIPE, 2, calibrated=False), faces, faces.fold(0)[0])
        assert model.merge_form.__name__ == "reference_minus_target"

    def test_its_time_can_be_estimated(self) -> None:
        recipe = dataclasses.replace(RECIPE, merge="normalised")
        assert seconds_per_step(recipe, 2, calibrated=True) > 0


def test_a_form_alone_is_fitted_by_hand() -> None:
    form = Anchored((1, 4), shrinkage=1)
    features = torch.rand(5, 4)
    form.fit(features)
    torch.testing.assert_close(form(features, features), features.mean(0).expand(5, 4))
    with pytest.raises(ConfigError, match="2 persons for 5 frames"):
        form.fit(features, [0, 1])


class Residual(nn.Module):
    """Inside the branch two tensors cross: the branch's, and the shortcut beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.second(torch.relu(self.first(x)))).mean((2, 3))


class TestCuts:
    def test_a_form_for_each_tensor_that_crosses(self) -> None:
        net = Residual().eval()
        model = CalibratingSiamese(
            net,
            "second",
            merge="anchored",
            merge_options={"shrinkage": 1},
            example_inputs=images(2, 0),
        )
        neutral, x, y = images(6, 5), images(2, 1), images(2, 2)
        model.fit_anchor(neutral, batch_size=4)

        def both(value: Tensor) -> tuple[Tensor, Tensor]:
            stem = net.stem(value)
            return stem, torch.relu(net.first(stem))

        pairs = zip(both(x), both(y), both(neutral), strict=True)
        shortcut, branch = (t - r + n.mean(0) for t, r, n in pairs)
        want = (shortcut + net.second(branch)).mean((2, 3))
        torch.testing.assert_close(model(x, y), want)

    def test_one_module_is_not_fitted_to_two_tensors(self) -> None:
        with pytest.raises(ConfigError, match=r"2 tensors are merged at 'second'.*pass the class"):
            CalibratingSiamese(
                Residual(),
                "second",
                merge=Anchored((1, 6, 4, 4), channel_dim=1),
                example_inputs=images(2, 0),
            )

    @pytest.mark.parametrize("form", ["anchored", "attention", "concatenated"])
    def test_fx_one_batch_and_compile_give_the_same(self, form: str) -> None:
        model = fitted("maps", form, NAMES + ["eva"] * 4)
        x, y, index = images(3, 1), images(2, 2), torch.tensor([1, 0, 1])
        options = {"merge": form, "example_inputs": images(2, 0)}
        joint = CalibratingSiamese(network("maps"), "body", branches="concatenate", **options)
        traced = CalibratingSiamese(network("maps"), "body", mechanism="fx", **options)
        torch._dynamo.reset()
        with torch.no_grad():
            want = model(x, y, index)
            several = model(x, model.encode([y, y + 1, y - 1]), index)
            for other in (joint, traced):
                other.load_state_dict(model.state_dict())
                other.eval()
                torch.testing.assert_close(other(x, y, index), want)
            compiled = torch.compile(traced, backend="eager", fullgraph=True)
            torch.testing.assert_close(compiled(x, y[index]), want)
            pooled = traced.encode([y, y + 1, y - 1])
            torch.testing.assert_close(compiled(x, pooled, index), several)


def test_the_example_of_the_docs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "merges.md").read_text()
    first, own, several = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    merges.names()
    entries = dict(merges._entries)
    space = {"CalibratingSiamese": CalibratingSiamese, "siamcal": siamcal, "nn": nn, "torch": torch}
    space |= {"net": tiny().unwrap(), "neutral_images": torch.rand(4, 3, 112, 112)}
    space |= {"target": torch.rand(2, 3, 112, 112), "neutral": torch.rand(1, 3, 112, 112)}
    try:
        exec(first, space)
        assert space["au"].shape == (2, 5)
        exec(several, space)
        assert space["au"].shape == (2, 5)
        assert len(space["model"].merge_form) == 2
        exec(own, space)
        model = space["model"]
        with pytest.raises(ConfigError, match="fit_anchor"):
            model(space["target"], space["neutral"])
        model.fit_anchor(space["neutral"])
        plain = model.unwrap()(space["target"])
        torch.testing.assert_close(model(space["target"], space["neutral"]), plain)
    finally:
        merges._entries = entries

"""One step of a training: which rates, which loss, which parts; and what a checkpoint holds."""

import dataclasses

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.model.heads import AUOutput
from siamcal.training.batches import task_labels
from siamcal.training.loop import fit
from siamcal.training.losses import count_levels, intensity_loss, intensity_weights
from siamcal.training.networks import build_network
from siamcal.training.objective import Objective, learning_rate_factor, make_optimizer
from siamcal.training.resume import CHECKPOINT, TrainingState


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


def moved(recipe, faces):
    """Largest change of a parameter in the body and in the last layer."""
    start = build_network(recipe, 2, calibrated=False).state_dict()
    end = fit(recipe, faces, faces.fold(0)[0], calibrated=False)
    change = {True: 0.0, False: 0.0}
    for name, value in end.named_parameters():
        last = name.startswith("backbone.fc.")
        change[last] = max(change[last], float((value.detach() - start[name]).abs().max()))
    return change[False], change[True]


@pytest.mark.parametrize(
    ("schedule", "warmup", "factor"),
    [("constant", 0, 1.0), ("cosine", 4, 0.25), ("cosine", 0, 1.0)],
)
def test_the_first_step_of_adam_is_the_learning_rate_of_its_layer(
    faces, schedule, warmup, factor
) -> None:
    recipe = dataclasses.replace(
        RECIPE, steps=1, learning_rate=1e-4, learning_rate_last=3e-3,
        schedule=schedule, warmup_steps=warmup,
    )  # fmt: skip
    body, last = moved(recipe, faces)
    assert body == pytest.approx(1e-4 * factor, rel=0.02)
    assert last == pytest.approx(3e-3 * factor, rel=0.02)


def test_the_cosine_goes_from_1_behind_the_warm_up_to_0_behind_the_last_step() -> None:
    recipe = dataclasses.replace(RECIPE, schedule="cosine", warmup_steps=10)
    factors = [learning_rate_factor(recipe, step, 50) for step in range(51)]
    np.testing.assert_allclose(factors[:11], [*np.arange(1, 11) / 10, 1])
    assert factors[30] == pytest.approx(0.5)
    assert factors[50] == pytest.approx(0)


def test_parts_of_unequal_length_make_the_step_of_the_whole_batch(faces) -> None:
    base = dataclasses.replace(RECIPE, freeze_batchnorm=True, batch_size=7, steps=3)
    whole, parts = (
        fit(recipe, faces, faces.fold(0)[0], calibrated=True).state_dict()
        for recipe in (base, dataclasses.replace(base, accumulate=3))  # 3, 3 and 1
    )
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-3, atol=1e-5)


def test_frozen_batchnorm_keeps_its_statistics(faces) -> None:
    def means(**changes):
        recipe = dataclasses.replace(RECIPE, steps=2, **changes)
        state = fit(recipe, faces, faces.fold(0)[0], calibrated=True).state_dict()
        return torch.cat([v for n, v in state.items() if n.endswith("running_mean")])

    assert not means(freeze_batchnorm=True).any()
    assert means().any()


def test_the_loss_weighs_its_parts_as_the_recipe_says(faces) -> None:
    labels = task_labels(faces, "intensity")
    generator = torch.Generator().manual_seed(0)
    output = AUOutput(
        torch.randn(9, 2, generator=generator), torch.randn(9, 2, 5, generator=generator)
    )
    wanted = torch.from_numpy(labels[:9])
    parts = intensity_loss(output, wanted, intensity_weights(count_levels(labels)))
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 3, 0.5)):
        recipe = dataclasses.replace(RECIPE, loss_weights=weights)
        loss = Objective(recipe, labels, torch.device("cpu"))(output, wanted)
        expected = sum(w * p for w, p in zip(weights, parts[:3], strict=True))
        torch.testing.assert_close(loss, expected)


def test_the_anchor_does_not_decay_and_all_others_do() -> None:
    recipe = dataclasses.replace(RECIPE, merge="anchored", weight_decay=0.1)
    network = build_network(recipe, 2, calibrated=True)
    groups = make_optimizer(network, recipe).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    (anchor,) = groups[2]["params"]
    assert anchor is network.merge_form[0].anchor
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_checkpoint_holds_weights_moments_and_step(tmp_path) -> None:
    def state():
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        return TrainingState(network, torch.optim.Adam(network.parameters(), lr=0.1))

    def step(state):
        state.network(torch.ones(1, 3)).square().sum().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1

    one = state()
    for _ in range(3):
        step(one)
    one.save(tmp_path / CHECKPOINT, "me")
    again = state()
    assert not again.load(tmp_path / "none", "me")
    assert not again.load(tmp_path / CHECKPOINT, "other")
    assert again.step == 0
    assert again.load(tmp_path / CHECKPOINT, "me")
    assert again.step == 3
    for each in (one, again):
        step(each)
    for mine, theirs in zip(one.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)

"""Batches: every frame once an epoch, draws by the recipe's seed, parts that make the whole."""

import dataclasses

import numpy as np
import pytest
import torch
from facesets import RECIPE, squares

from siamcal.training.batches import Batch, BatchSource, split, task_labels
from siamcal.training.loop import fit
from siamcal.training.networks import build_network
from siamcal.training.recipe import Augmentation


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("squares"))


def source_of(faces, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return BatchSource(recipe, faces, faces.fold(0)[0], task_labels(faces, "intensity"))


def test_a_last_smaller_batch_is_trained_on_too(faces) -> None:
    source = source_of(faces, steps=0, epochs=2.0, batch_size=7)  # 48 rows
    sizes = [len(source[i].rows) for i in range(len(source))]
    assert sizes == [7, 7, 7, 7, 7, 7, 6] * 2
    epochs = [np.concatenate([source[i + e].rows for i in range(7)]) for e in (0, 7)]
    assert all(sorted(rows) == sorted(faces.fold(0)[0]) for rows in epochs)
    assert not np.array_equal(*epochs)  # each epoch has an order of its own


@pytest.mark.parametrize(
    ("people", "size", "each"), [(2, 10, 5), (5, 10, 2), (8, 4, 1), (1, 20, 20)]
)
def test_a_batch_by_participants_has_equal_shares_and_leaves_nobody_out(
    faces, people, size, each
) -> None:
    source = source_of(faces, steps=0, epochs=1.0, batch_size=size, participants_per_batch=people)
    seen, rows = [], faces.fold(0)[0]
    for i in range(source.steps_per_epoch):
        batch = source.global_rows(i)
        seen += batch.tolist()
        chunks = -(-len(batch) // each)
        last = i == source.steps_per_epoch - 1
        assert chunks <= people if last else len(batch) <= people * each
        counts = np.unique(faces.participants[batch], return_counts=True)[1]
        assert counts.max() <= people * each
    assert sorted(seen) == sorted(rows)


def test_steps_or_epochs_set_the_length(faces) -> None:
    assert len(source_of(faces, steps=5, epochs=9.0)) == 5
    assert len(source_of(faces, steps=0, epochs=1.5)) == 9  # 6 batches an epoch
    assert len(source_of(faces, steps=0, epochs=0.01)) == 1


def test_the_recipes_seed_decides_every_draw(faces) -> None:
    changes = {"augmentation": Augmentation(brightness=0.3), "reference_dropout": 0.5}
    one, same = source_of(faces, **changes)[1], source_of(faces, **changes)[1]
    other = source_of(faces, seed=RECIPE.seed + 1, **changes)[1]
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    for name in ("rows", "targets", "references", "dropped"):
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
    later = source_of(faces, **changes)[2]
    assert not torch.equal(one.dropped, later.dropped)


def test_the_share_of_dropped_references_is_the_recipes(faces) -> None:
    def dropped(share):
        source = source_of(faces, reference_dropout=share, batch_size=48, steps=20)
        return np.concatenate([source[i].dropped for i in range(20)])

    assert not dropped(0.0).any()
    assert abs(dropped(0.3).mean() - 0.3) < 0.05  # 960 draws: 3.4 standard errors


def test_labels_of_a_batch_are_those_of_its_rows(faces) -> None:
    batch = source_of(faces)[3]
    assert torch.equal(
        batch.labels, torch.from_numpy(task_labels(faces, "intensity")[batch.rows.numpy()])
    )
    detection = task_labels(faces, "detection")
    assert set(np.unique(detection)) == {0, 1}
    assert np.array_equal(detection, task_labels(faces, "intensity") >= 2)


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 8, 20])
def test_a_batch_in_parts_is_the_batch(faces, parts) -> None:
    batch = source_of(faces, references_per="participant", reference_dropout=0.5)[0]
    pieces = split(batch, parts)
    assert len(pieces) <= max(1, parts)
    assert len({len(piece.rows) for piece in pieces[:-1]}) <= 1
    for name in ("targets", "labels", "rows", "dropped"):
        joined = torch.cat([getattr(piece, name) for piece in pieces])
        assert torch.equal(joined, getattr(batch, name)), name
    given = torch.cat([piece.references[piece.reference_index] for piece in pieces])
    assert torch.equal(given, batch.references[batch.reference_index])
    for piece in pieces[1:]:
        assert len(piece.references) == len(torch.unique(piece.reference_index))
    assert isinstance(pieces[0], Batch)


def test_start_weights_are_drawn_by_the_recipes_seed() -> None:
    def weights(seed):
        torch.manual_seed(99)  # what was drawn before counts for nothing
        network = build_network(dataclasses.replace(RECIPE, seed=seed), 2, calibrated=False)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


DRAWS = '''
import torch
from torch import nn


class Drawing(nn.Module):
    """Notes a random number of each forward in training mode."""

    def __init__(self, num_outputs):
        super().__init__()
        self.first, self.fc = nn.Conv2d(3, 4, 8, 8), nn.Linear(64, num_outputs)
        self.drawn = []

    def forward(self, x):
        if self.training:
            self.drawn.append(float(torch.rand(())))
        return self.fc(self.first(x).flatten(1))


def build(num_outputs=12):
    return Drawing(num_outputs)
'''


def test_draws_inside_the_network_follow_seed_and_step(faces, tmp_path) -> None:
    (tmp_path / "net.py").write_text(DRAWS)
    recipe = dataclasses.replace(
        RECIPE, backbone=f"{tmp_path / 'net.py'}:build", backbone_options={}, steps=3
    )

    def drawn(seed):
        own = dataclasses.replace(recipe, seed=seed)
        return fit(own, faces, faces.fold(0)[0], calibrated=False).backbone.drawn

    one = drawn(1)
    assert len(set(one)) == 3
    assert drawn(1) == one
    assert not set(one) & set(drawn(2))

"""The people of a sheet are chosen far apart."""

import dataclasses
import itertools

import numpy as np
import pytest

from siamcal.errors import ConfigError
from siamcal.synth.plan import draw_person, make_plan
from siamcal.synth.spread import far_apart, unlikeness

PLAN = make_plan("small")
PEOPLE = [draw_person(PLAN, number) for number in range(20)]


def test_unlikeness_is_the_mean_over_ten_traits() -> None:
    base = PEOPLE[0]
    bearded = dataclasses.replace(base, beard="full" if base.beard != "full" else "none")
    older = dataclasses.replace(base, age=base.age + 0.5)
    oldest = dataclasses.replace(bearded, age=base.age + 1.0)
    found = unlikeness([base, bearded, older, oldest])
    expected = np.array([[0, 1, 0.5, 2], [1, 0, 1.5, 1], [0.5, 1.5, 0, 1.5], [2, 1, 1.5, 0]]) / 10
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_unlikeness_sees_the_shape_of_a_face() -> None:
    base = PEOPLE[0]
    name = next(iter(base.weights))
    shaped = [
        dataclasses.replace(base, weights={**base.weights, name: base.weights[name] + k})
        for k in (0.0, 1.0, 4.0)
    ]
    np.testing.assert_allclose(unlikeness(shaped)[0], [0, 0.025, 0.1], atol=1e-12)


def test_each_next_one_is_the_farthest_from_those_chosen() -> None:
    distances = unlikeness(PEOPLE)
    chosen = far_apart(PEOPLE, 6)
    assert chosen[0] == 0
    for k in range(1, 6):
        taken, left = chosen[:k], set(range(20)) - set(chosen[:k])
        gap = {one: min(distances[one][other] for other in taken) for one in left}
        assert gap[chosen[k]] == max(gap.values())


def test_the_chosen_are_farther_apart_than_the_first_ones() -> None:
    distances = unlikeness(PEOPLE)

    def closest(places) -> float:
        return min(distances[a][b] for a, b in itertools.combinations(places, 2))

    assert closest(far_apart(PEOPLE, 6)) > 1.3 * closest(range(6))
    assert sorted(far_apart(PEOPLE, 20)) == list(range(20))


@pytest.mark.parametrize("count", [0, 21])
def test_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} of 20 people"):
        far_apart(PEOPLE, count)

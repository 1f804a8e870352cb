"""Settings are decoded strictly: any dataclass, any of its fields, from JSON or from text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from siamcal.calibrators.config import CalibratorConfig, config_to_dict
from siamcal.errors import ConfigError
from siamcal.settings import from_dict, override, parse_value, to_dict


@dataclass(frozen=True)
class Part:
    rate: float = 0.5
    sides: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part = field(default_factory=Part)
    extra: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    output: str | int | None = None
    limit: float | None = None
    second: Part | None = None


def test_every_kind_of_field_goes_to_json_and_back() -> None:
    whole = Whole("a", Part(1.0), {"x": [1]}, {"n": 3}, ("b", "c"), 4, 0.5, Part())
    assert from_dict(to_dict(whole), Whole) == whole
    assert from_dict(to_dict(Whole("a")), Whole) == Whole("a")
    assert type(from_dict({"name": "a", "limit": 2}, Whole).limit) is float


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "Whole takes a table, but got []"),
        ({}, "Whole needs name"),
        ({"name": "a", "items": "bc"}, "Whole.items takes a list"),
        ({"name": "a", "items": [1]}, "Whole.items takes str"),
        ({"name": "a", "output": 1.5}, "Whole.output takes str | int | None, but got 1.5"),
        ({"name": "a", "output": True}, "Whole.output takes str | int | None"),
        ({"name": "a", "limit": "much"}, "Whole.limit takes float | None"),
        ({"name": "a", "limit": 10**400}, "Whole.limit takes float | None"),
        ({"name": "a", "counts": {"n": 1.5}}, "Whole.counts.n takes int"),
        ({"name": "a", "extra": 1}, "Whole.extra takes a table"),
        ({"name": "a", "part": {"sides": [1]}}, "Part.sides takes 2 values"),
        ({"name": "a", "part": {"sides": [1, True]}}, "Part.sides takes int"),
        ({"name": "a", "part": {"rat": 1}}, "Part has no field 'rat'; near: rate"),
        ({"name": None}, "Whole.name takes str, but got None"),
        ({"name": "a", "n" * 10_000: 1}, "Whole has no field 'nnn"),
    ],
)
def test_what_is_wrong_is_named_in_a_short_message(values: object, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(values, Whole)
    assert str(error.value).startswith(says)
    assert len(str(error.value)) < 300


def test_text_becomes_the_narrowest_type_of_a_union() -> None:
    changed = override(Whole("a"), ["output=3", "limit=1", "part.rate=1", "counts.n=2"])
    assert (changed.output, changed.limit, changed.part.rate) == (3, 1.0, 1.0)
    assert changed.counts == {"n": 2}
    assert override(changed, ["output=logits", "limit=none"]).limit is None
    assert parse_value("5", str | Path, "x") == "5"
    assert parse_value("runs/5", Path | None, "x") == Path("runs/5")
    assert parse_value("none", Path | None, "x") is None
    with pytest.raises(ConfigError, match=r"limit takes float \| None, but got 'much'"):
        override(Whole("a"), ["limit=much"])


def test_the_config_of_a_saved_calibrator_decodes_by_the_same_rules() -> None:
    config = CalibratorConfig(
        "layer4", "intensity", (1, 43), backbone_arguments={"num_outputs": 12}
    )
    values = config_to_dict(config)
    assert from_dict(values, CalibratorConfig) == config
    for name, value in (("aus", "1"), ("aus", [True, 43]), ("output", 1.5), ("merge_at", 4)):
        with pytest.raises(ConfigError, match=f"CalibratorConfig.{name} takes"):
            from_dict(values | {name: value}, CalibratorConfig)

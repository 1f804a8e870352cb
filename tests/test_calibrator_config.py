"""The config of a saved calibrator: strict, primitive, and safe to read from a stranger."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcal.calibrators.config import (
    AU_STATUSES,
    CalibratorConfig,
    config_from_dict,
    config_to_dict,
    read_config,
)
from siamcal.errors import ConfigError
from siamcal.preprocessing import Preprocessing


def a_config(**changes: object) -> CalibratorConfig:
    values: dict[str, object] = {"merge_at": "layer4", "task": "intensity", "aus": (1, 12, 43)}
    return CalibratorConfig(**(values | changes))  # type: ignore[arg-type]


def test_defaults_follow_the_aus() -> None:
    config = a_config()
    assert config.au_names == ("inner brow raiser", "lip corner puller", "eyes closed")
    assert config.thresholds == (2.0, 2.0, 1.0)
    assert config.au_status == ("not validated",) * 3
    assert config.num_outputs == 18
    assert config.input_shape == (3, 112, 112)


def test_a_config_that_does_not_say_rendered_claims_nothing() -> None:
    values = config_to_dict(a_config(training_data="rendered people", rendered=True))
    assert config_from_dict(values).rendered is True
    values.pop("rendered")
    assert config_from_dict(values).rendered is False


@settings(max_examples=50, deadline=None)
@given(
    aus=st.lists(st.integers(1, 99), min_size=1, max_size=8, unique=True),
    status=st.sampled_from(AU_STATUSES),
    size=st.integers(8, 512),
    mean=st.floats(-2, 2),
    arguments=st.dictionaries(
        st.from_regex(r"\Aarg_[a-z]{1,8}\Z"),
        st.one_of(st.booleans(), st.integers(-9, 999), st.none()),
    ),
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
)
def test_json_round_trip_is_exact(
    aus: list[int], status: str, size: int, mean: float, arguments: dict[str, object], text: str
) -> None:
    config = CalibratorConfig(
        merge_at="layer2",
        task="detection",
        aus=tuple(aus),
        au_status=(status,) * len(aus),
        backbone="ir18",
        backbone_arguments=arguments,
        preprocessing=Preprocessing(size=size, mean=(mean, 0.0, 0.0), align="ffhq_quad"),
        training_data=text,
    )
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def changed(**changes: object) -> dict[str, object]:
    return config_to_dict(a_config()) | changes


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "JSON object"),
        ({}, "format_version"),
        (changed(format_version=2), "Upgrade siamcal"),
        (changed(format_version="1"), "format_version"),
        (changed(format_version=True), "format_version"),
        (changed(format_version=0), "format_version"),
        (changed(merge_att="layer3"), "near: merge_at"),
        (changed(weights="../../secret.safetensors"), "no field 'weights'"),
        (changed(merge_at=""), "merge_at is empty"),
        (changed(merge_at=4), "takes str"),
        (changed(rendered="yes"), "rendered takes bool"),
        (changed(task="regression"), "allowed: 'intensity', 'detection'"),
        (changed(aus=[]), "aus is empty"),
        (changed(aus="1"), "takes a list"),
        (changed(aus=[1, 1, 2]), "twice"),
        (changed(aus=[1, 2.0, 43]), "takes int"),
        (changed(aus=[True, 2, 43]), "takes int"),
        (changed(aus=[1, 2000, 43]), "AU numbers"),
        (changed(au_names=["one"]), "1 entries for 3 AUs"),
        (changed(thresholds=[1, 2, "3"]), "takes float"),
        (changed(au_status=["works"] * 3), "allowed: shown on real faces"),
        (changed(preprocessing={"size": 10**9}), "from 1 to 4096"),
        (changed(preprocessing={"sise": 112}), "near: size"),
        (changed(preprocessing={"std": [1, 0, 1]}), "must be over 0"),
        (changed(preprocessing={"align": "../x"}), "allowed: 'rigid'"),
        (changed(preprocessing=[]), "takes a table"),
        (changed(input_shape=[3, 10**6, 10**6]), "pixels a side"),
        (changed(weights_checksum="abc"), "SHA-256"),
        (changed(training_data="\x1b[2Jfine"), "control characters"),
        (changed(training_data="x" * 30_000), "20000 at most"),
        (changed(backbone_arguments={"num_outputs": 10**9}), "at most"),
        (changed(backbone_arguments={"num_outputs": 7}), "needs 18"),
        (changed(backbone_arguments={"checkpoint_path": "/etc/passwd"}), "opens files"),
        (changed(backbone_arguments={"pretrained": True}), "opens files"),
        (changed(backbone_arguments={"norm_layer": "os.system"}), "import string"),
        (changed(backbone_arguments={"act": "../../evil"}), "path"),
        (changed(backbone_arguments={"cfg": {"url": "x"}}), "isn't allowed"),
        (changed(backbone_arguments={"__class__.x": 1}), "plain word"),
        (changed(backbone_arguments={"a": [[[[[[1]]]]]]}), "nested too deep"),
        (changed(backbone_arguments={"a": float("nan")}), "at most"),
        (changed(backbone_arguments=[1]), "takes a table"),
    ],
)
def test_what_is_wrong_is_refused_and_named(values: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_dict(values)


def test_a_missing_field_is_named() -> None:
    values = config_to_dict(a_config())
    del values["task"]
    with pytest.raises(ConfigError, match="needs task"):
        config_from_dict(values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "isn't valid JSON"),
        ("{", "isn't valid JSON"),
        ("[" * 100_000, "isn't valid JSON"),
        ('{"task": "raw", "task": "raw"}', "occurs twice"),
        ('{"format_version": NaN}', "isn't a number"),
        ('{"format_version": ' + "9" * 5000 + "}", "isn't valid JSON"),
        (" " * (1 << 20) + "{}", "at most"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_config(tmp_path / "config.json")


def test_a_folder_without_config_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="save_pretrained"):
        read_config(tmp_path / "config.json")


def test_config_is_frozen_and_hashable() -> None:
    config = a_config(backbone_arguments={"num_outputs": 18})
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.task = "raw"  # type: ignore[misc]

"""The model card: its metadata parse as the Hub parses them, and it claims what was measured."""

import copy
import json
import math

import pytest
from huggingface_hub import ModelCard
from test_hub import RESULTS

from siamcal.calibrators.card import model_card
from siamcal.calibrators.config import CalibratorConfig


def config(**changes: object) -> CalibratorConfig:
    values: dict[str, object] = {
        "merge_at": "layer4",
        "task": "intensity",
        "aus": (1, 12, 25),
        "backbone": "ir_tiny",
        "training_data": "40 people (rendered faces only)",
        "rendered": True,
        "data_licence": "Apache-2.0",
        "licence": "apache-2.0",
        "licence_reason": "made of rendered people",
        "au_status": ("experimental", "shown on real faces", "not validated"),
    }
    return CalibratorConfig(**(values | changes))  # type: ignore[arg-type]


def test_metadata_are_the_hubs() -> None:
    card = ModelCard(model_card(config(), RESULTS, repo_id="me/my-net"))
    assert card.data.library_name == "siamcal"
    assert card.data.license == "apache-2.0"
    assert {"siamcal", "facial-action-units"} <= set(card.data.tags)
    found = {(r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found["icc", "ICC(3,1), mean over AUs"] == 0.71
    assert found["mae", "MAE, mean over AUs"] == 0.4
    assert found["f1", "F1, mean over AUs"] == 61.5
    assert found["icc", "ICC(3,1), AU12"] == pytest.approx(0.81)
    assert not any("AU25" in name for _, name in found)  # never varied: no value, no claim
    assert {r.dataset_name for r in card.data.eval_results} == {"synth"}


def test_text_says_what_it_is_and_is_not() -> None:
    text = model_card(config(), RESULTS, repo_id="me/my-net", figures=["figures/bars.png"])
    for part in (
        "never say how well real faces are read",
        "| AU12 | lip corner puller | 2 | shown on real faces |",
        "| this calibrator (CSN) | 0.710 [0.660, 0.760]",
        "| the same network without calibration (NCG) | 0.550",
        "![bars.png](figures/bars.png)",
        "40 people (rendered faces only)",
        "Shown to work on real faces: AU12.",
        "don't use it to judge",
        'from_pretrained("me/my-net")',
    ):
        assert part in text


def test_non_commercial_weights_say_so_and_why() -> None:
    reason = "derived from glint360k, non-commercial research only"
    text = model_card(
        config(licence="other", licence_reason=reason, training_data="DISFA", rendered=False)
    )
    card = ModelCard(text)
    assert card.data.license == "other"
    assert card.data.license_name == "non-commercial-research"
    assert reason in text
    assert "No results came with these weights" in text
    assert "Rendered faces" not in text
    assert card.data.eval_results is None


def test_rendered_is_what_the_config_records_not_a_word_in_its_text() -> None:
    trained = "These weights were trained on rendered faces"
    assert trained in model_card(config(training_data="40 drawn people", rendered=True))
    surrendered = config(training_data="DISFA, surrendered by its owners", rendered=False)
    assert "endered faces" not in model_card(surrendered)
    measured = model_card(surrendered, RESULTS)  # measured on rendered people, not trained on them
    assert trained not in measured
    assert "Numbers measured on rendered people" in measured


@pytest.mark.parametrize("name", ['a "quoted": name', "yes", "1.0", "DISFA+", "- x", "#1", "null"])
def test_names_cannot_break_the_metadata(name: str) -> None:
    results = copy.deepcopy(RESULTS)
    results["dataset"]["name"] = name  # type: ignore[index]
    card = ModelCard(model_card(config(), results, repo_id=f"me/{name.replace('/', '')}"))
    assert {str(r.dataset_name) for r in card.data.eval_results} == {name}


def test_partial_and_odd_results_make_no_claims() -> None:
    for results in (
        {},
        {"methods": []},
        {"methods": {"csn": {"detection": {"f1": {"mean": 1.0}}}}},
        {"methods": {"csn": {"intensity": {"icc": {"mean": math.nan}}}}},
        {"methods": {"csn": {"intensity": "none"}}},
        json.loads('{"methods": {"csn": {"intensity": {"icc": {"mean": "high"}}}}}'),
    ):
        assert ModelCard(model_card(config(), results)).data.eval_results is None

"""The model card: its metadata parse as the Hub parses them, and it claims what was measured."""

import copy
import json
import math

import pytest
from hub_server import faults, running
from huggingface_hub import ModelCard, constants, metadata_load
from test_hub import RESULTS

from siamcal.calibrators.card import LICENCE_FILE, licence_text, model_card
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


# --- as the Hub reads it -------------------------------------------------------------------------

TRAINED = RESULTS | {"recipe": {"backbone": "ir_tiny", "dataset": "synth", "weights": ""}}
CASES = {
    "plain": (config(), None),
    "measured": (config(), TRAINED),
    "other licence": (config(licence="other", licence_reason="DISFA, non-commercial"), None),
    "adapter": (config(backbone="transformers:google/vit-base", base_checksum="0" * 64), None),
    "no aus": (config(task="raw", aus=(), au_status=()), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hub_takes_the_metadata(case: str, tmp_path, monkeypatch) -> None:
    made, results = CASES[case]
    path = tmp_path / "README.md"
    path.write_text(model_card(made, results, repo_id="me/my-net"))
    assert list(faults(metadata_load(path))) == []
    card = ModelCard.load(path)
    # The library's own objects say the same again; where they have no place for it, it is lost.
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    with running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        card.validate()
        assert server.requests == ["POST /api/validate-yaml"]


def test_what_the_server_of_the_tests_refuses() -> None:
    """So the check above can fail."""
    for wrong in (
        {"license": "other"},
        {"license": "other", "license_name": "x", "license_link": "README"},
        {"base_model": "resnet18"},
        {"datasets": "disfa"},
        {"datasets": ["DISFA (left)"]},
        {"model-index": [{"results": [{"dataset": {"type": "x"}}]}]},
    ):
        assert list(faults(wrong)), wrong


def test_it_says_what_it_was_trained_on_and_measured_at() -> None:
    data = ModelCard(model_card(config(), TRAINED)).data
    assert data.datasets == ["siamcal-synth"]
    assert {r.dataset_type for r in data.eval_results} == {"siamcal-synth"}
    assert {r.dataset_split for r in data.eval_results} == {"test"}
    other = {"name": "DISFA+", "rendered": False}
    recipe = {"dataset": "disfa-plus"}
    data = ModelCard(model_card(config(), RESULTS | {"dataset": other, "recipe": recipe})).data
    assert data.datasets == ["disfa-plus"]
    assert {r.dataset_type for r in data.eval_results} == {"disfa-plus"}
    assert ModelCard(model_card(config())).data.datasets is None


@pytest.mark.parametrize(
    ("backbone", "adapter", "weights", "base"),
    [
        ("transformers:google/vit-base", True, "", "google/vit-base"),
        ("hf-hub:owner/net@v2", True, "", "owner/net"),
        ("timm:resnet18.a1_in1k", False, "pretrained", "timm/resnet18.a1_in1k"),
        ("timm:resnet18", False, "pretrained", None),  # which of its weights isn't known
        ("timm:resnet18.a1_in1k", False, "", None),  # from random weights
        ("ir50", True, "", None),
    ],
)
def test_the_network_below_is_named_where_the_hub_has_it(backbone, adapter, weights, base) -> None:
    made = config(backbone=backbone, base_checksum="0" * 64 if adapter else "")
    data = ModelCard(model_card(made, {"recipe": {"weights": weights}})).data
    assert data.base_model == base
    relation = getattr(data, "base_model_relation", None)
    assert relation == (None if base is None else "adapter" if adapter else "finetune")


def test_another_licence_lies_beside_the_card(tmp_path) -> None:
    reason = "derived from glint360k, non-commercial research only"
    made = config(licence="other", licence_reason=reason)
    card = ModelCard(model_card(made))
    assert card.data.license_link == LICENCE_FILE
    assert reason in licence_text(made)
    assert licence_text(config()) == ""

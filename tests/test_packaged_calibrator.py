"""The calibrator and the start weights inside the package."""

import json
import subprocess
import sys

import torch
from safetensors import safe_open

from siamcal.calibrators.saving import load_calibrator
from siamcal.files import asset
from siamcal.model.create import create_backbone
from siamcal.model.weights import load_face_weights
from siamcal.registry import benchmarks
from siamcal.synth.plan import BENCHMARK_PEOPLE, CHECK_PEOPLE, make_plan
from siamcal.training.recipe import load_recipe


def test_it_reads_rendered_people_it_never_saw(tmp_path) -> None:
    text = benchmarks.get("calibrator")(tmp_path, size="tiny", variations=12)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"]["csn"]["intensity"]["icc"]["mean"] > 0.6
    assert "never say how well real faces are read" in text
    session, other = results["photograph"]["shoots"].values()
    assert session["found"] == 12
    assert 0 <= session["mean"] < 0.15
    assert session["mean"] < other["mean"] < 0.5
    assert max(other["percentile_95"].values()) >= max(other["per_au"].values())


def test_its_card_says_how_it_was_measured_and_what_is_known_of_each_au() -> None:
    config = load_calibrator(asset("calibrator")).config
    card = (asset("calibrator") / "README.md").read_text()
    assert "never say how well real faces are read" in card.replace("\n", " ")
    assert "Measured on synth, 60 people none of whom it was trained on" in card
    assert "| this calibrator (CSN) | 0." in card
    assert "On a real face that is still" in card
    for au, status in zip(config.aus, config.au_status, strict=True):
        assert any(
            line.startswith(f"| AU{au} |") and line.endswith(f"| {status} |")
            for line in card.splitlines()
        )


def test_it_says_what_it_was_trained_on_and_claims_nothing_for_real_faces() -> None:
    config = load_calibrator(asset("calibrator")).config
    assert "rendered faces only" in config.training_data
    assert config.rendered is True
    assert "shown on real faces" not in config.au_status
    assert sum(f.stat().st_size for f in asset("calibrator").iterdir()) < 8e6


def test_loading_it_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys; from siamcal.inference import load_model; load_model()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_an_equal_reference_gives_the_same_whatever_the_face() -> None:
    model = load_calibrator(asset("calibrator"))
    images = torch.rand(3, 3, 112, 112)
    with torch.inference_mode():
        found = model(images, images).intensity
    torch.testing.assert_close(found, found[:1].expand_as(found))


def test_packaged_weights_come_from_people_of_no_benchmark() -> None:
    for name in ("ir_tiny_start", "calibrator"):
        people = set(make_plan(**load_recipe(name).dataset_options).people)
        assert not people & (set(BENCHMARK_PEOPLE) | set(CHECK_PEOPLE))
    assert set(make_plan(**load_recipe("synth").dataset_options).people) <= set(BENCHMARK_PEOPLE)


def test_the_start_weights_fit_all_but_the_last_layer() -> None:
    path = asset("ir_tiny_start.safetensors")
    report = load_face_weights(create_backbone("ir_tiny", 72), path)
    assert set(report.missing) == {"fc.weight", "fc.bias"}
    assert not report.unused
    assert not report.wrong_shape
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["recipe"])["name"] == "ir_tiny_start"

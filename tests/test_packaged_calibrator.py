"""The calibrator and the start weights inside the package."""

import json
import subprocess
import sys

import cv2
import numpy as np
import torch
from rendered import RenderedPerson
from safetensors import safe_open

from siamcal.calibrators.saving import load_calibrator
from siamcal.files import asset
from siamcal.graph.record import CutRecord
from siamcal.inference import Predictor, load_model
from siamcal.inference.models import CUT_FILE
from siamcal.model.create import create_backbone
from siamcal.model.weights import load_face_weights
from siamcal.registry import benchmarks
from siamcal.settings import from_dict
from siamcal.synth.plan import BENCHMARK_PEOPLE, CHECK_PEOPLE, make_plan
from siamcal.training.recipe import load_recipe


def test_it_reads_rendered_people_it_never_saw(tmp_path) -> None:
    text = benchmarks.get("calibrator")(tmp_path, size="tiny", variations=12)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"]["csn"]["intensity"]["icc"]["mean"] > 0.7
    assert "never say how well real faces are read" in text
    session, other = results["photograph"]["shoots"].values()
    assert session["found"] == 12
    assert 0 <= session["mean"] < 0.2
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
    parts = [asset("face_landmarker.task"), asset("face_landmarks.safetensors")]
    weights = [*parts, *asset("calibrator").iterdir()]
    assert sum(file.stat().st_size for file in weights) < 9e6


def test_loading_it_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys; from siamcal.inference import load_model; load_model()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_a_picture_is_read_without_what_only_videos_and_tables_need(tmp_path) -> None:
    """SciPy alone would take a quarter of a second."""
    cv2.imwrite(str(tmp_path / "face.png"), RenderedPerson(0)()[..., ::-1])
    code = (
        "import sys; from siamcal.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*{'av', 'joblib', 'matplotlib', 'pandas', 'pyarrow', 'rich', 'scipy', 'sympy', "
        "'torch._dynamo'} & {*sys.modules})"
    )
    command = ["predict", "face.png", "--reference", "face.png", "-o", "aus.csv"]
    ran = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.stdout == "\n", ran.stderr
    assert "face.png" in (tmp_path / "aus.csv").read_text()


def test_a_resting_face_against_itself_reads_nothing_and_an_action_does() -> None:
    """The form keeps the target's own look, so this is learned, not built in."""
    with Predictor(load_model()) as predictor:
        aus = list(predictor.config.aus)
        for index in range(3):
            person = RenderedPerson(index)
            crop = predictor.pipeline.crop(person())
            reference = predictor.encode(crop)
            assert np.abs(predictor.read(crop[None], reference)).max() < 0.35
            smile = predictor.read(predictor.pipeline.crop(person({12: 4.0}))[None], reference)[0]
            assert smile[aus.index(12)] > 2
            assert aus[int(smile.argmax())] == 12


def test_its_cut_is_proved_here_and_loads_alike() -> None:
    """`load_model` believes what is recorded of the proof."""
    proved, quick = load_calibrator(asset("calibrator"), verify=True), load_model()
    found = CutRecord.of(proved.split)
    assert found == CutRecord.of(quick.split)
    assert found == from_dict(json.loads((asset("calibrator") / CUT_FILE).read_text()), CutRecord)
    assert proved.state_dict().keys() == quick.state_dict().keys()
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = (m(images, images.flip(0)).intensity for m in (proved, quick))
    assert torch.equal(ours, theirs)


def test_it_reads_without_a_reference_too() -> None:
    with Predictor(load_model()) as predictor:
        assert predictor.reads_raw
        person = RenderedPerson(0)
        crops = np.stack([predictor.pipeline.crop(person(act)) for act in ({}, {26: 4.0})])
        still, open_mouth = predictor.read(crops, None)[:, predictor.config.aus.index(26)]
        assert open_mouth > still + 1


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

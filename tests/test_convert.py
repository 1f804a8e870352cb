"""Published checkpoints become calibrators entry by entry, and nothing in them is executed."""

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from calibrators import stirred

from siamcal.calibrators.convert import convert_checkpoint
from siamcal.calibrators.saving import load_calibrator
from siamcal.errors import ConfigError, DataNotFoundError, WeightsError
from siamcal.model.create import create_backbone
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import read_state_dict
from siamcal.paper import paper_aus

torch.set_num_threads(1)
SHAPES = json.loads((Path(__file__).parent / "data" / "iresnet50_state_dict.json").read_text())


def authors_state(backbone: str = "ir18", outputs: int = 72) -> dict[str, torch.Tensor]:
    return dict(stirred(create_backbone(backbone, num_outputs=outputs)).state_dict())


def test_glint360k_backbone_entry_by_entry(tmp_path: Path) -> None:
    """A state dict of the published file's names and shapes; no one may ship the real one."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict(
        (name, torch.rand(shape, generator=generator) if shape else torch.tensor(0))
        for name, shape in SHAPES.items()
    )
    torch.save(state, tmp_path / "backbone.pth")
    report = convert_checkpoint(tmp_path / "backbone.pth", tmp_path / "c")
    assert (report.backbone, report.kind) == ("ir50", "face weights")
    fates = {entry.name: entry.fate for entry in report.entries}
    assert set(fates) == set(SHAPES)
    assert {n for n, fate in fates.items() if fate == "unused"} == {
        n for n in SHAPES if n.startswith("features.")
    }
    assert {n for n, fate in fates.items() if fate == "start value"} == {"fc.weight", "fc.bias"}
    model = load_calibrator(tmp_path / "c", verify=False)
    for name, value in model.unwrap().state_dict().items():
        if fates[name] == "taken":
            assert torch.equal(value, state[name])
    assert model.config.aus == paper_aus("disfa", "intensity")
    assert "non-commercial" in model.config.licence_reason
    assert model.config.preprocessing.illumination == "csn_released"
    assert "fc isn't trained for action units yet" in str(report)
    assert report.to_dict()["taken"] == report.count("taken") == len(SHAPES) - 7


@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict", "both"])
def test_authors_checkpoint_predicts_the_same(tmp_path: Path, wrap: str) -> None:
    state = authors_state()
    content: dict[str, object] = dict(state)
    if wrap in ("module", "both"):
        content = {f"module.{name}": value for name, value in content.items()}
    if wrap in ("state_dict", "both"):
        content = {"epoch": 3, "state_dict": content}
    torch.save(content, tmp_path / "csn.pth")
    report = convert_checkpoint(tmp_path / "csn.pth", tmp_path / "c")
    assert report.kind == "AU weights"
    assert report.count("taken") == len(state)
    assert report.count("start value") == report.count("unused") == 0
    loaded = load_calibrator(tmp_path / "c", verify=False)
    network = create_backbone("ir18", num_outputs=72)
    network.load_state_dict(state)
    direct = CalibratingSiamese(network.eval(), "layer4", verify=False)
    pair = torch.rand(2, 2, 3, 112, 112)
    with torch.no_grad():
        raw, output = direct(pair[0], pair[1]), loaded(pair[0], pair[1])
    assert torch.equal(output.intensity, raw[:, :12])
    assert torch.equal(output.ordinal_logits.flatten(1), raw[:, 12:])


@pytest.mark.parametrize(
    ("outputs", "options", "expected"),
    [
        (72, {}, ("intensity", (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26))),
        (54, {}, ("intensity", (4, 6, 7, 9, 10, 12, 20, 25, 26))),
        (12, {}, ("detection", (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26))),
        (8, {}, ("detection", (1, 2, 4, 6, 9, 12, 25, 26))),
        (10, {}, ("detection", (4, 6, 7, 9, 10, 12, 20, 25, 26, 43))),
        (12, {"aus": (1, 12)}, ("intensity", (1, 12))),
        (3, {"aus": (1, 2, 4)}, ("detection", (1, 2, 4))),
    ],
)
def test_task_and_aus_follow_from_the_outputs(
    tmp_path: Path, outputs: int, options: dict[str, tuple[int, ...]], expected: tuple[object, ...]
) -> None:
    torch.save(authors_state(outputs=outputs), tmp_path / "csn.pth")
    convert_checkpoint(tmp_path / "csn.pth", tmp_path / "c", merge_at="output", **options)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert (config["task"], tuple(config["aus"])) == expected


def test_what_cannot_be_told_or_does_not_fit_is_said(tmp_path: Path) -> None:
    file = tmp_path / "csn.pth"
    torch.save(authors_state(outputs=7), file)
    with pytest.raises(ConfigError, match="--aus"):
        convert_checkpoint(file, tmp_path / "c")
    with pytest.raises(ConfigError, match="need 12 for intensity or 2 for detection"):
        convert_checkpoint(file, tmp_path / "c", aus=(1, 2))
    with pytest.raises(WeightsError, match="--backbone"):
        convert_checkpoint(file, tmp_path / "c", backbone="ir34", aus=(1, 2, 4, 5, 6, 7, 9))
    state = authors_state()
    del state["layer2.0.conv1.weight"]
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight first"):
        convert_checkpoint(file, tmp_path / "c")
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="isn't the state dict of an InsightFace iResNet"):
        convert_checkpoint(file, tmp_path / "c")
    with pytest.raises(DataNotFoundError, match="model zoo"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_command_reports_and_writes_a_calibrator(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    import siamcal.cli.weights
    from siamcal.cli import app

    assert siamcal.cli.weights is not None
    torch.save(authors_state(outputs=12), tmp_path / "csn.pth")
    command = ["convert", str(tmp_path / "csn.pth"), "-o", str(tmp_path / "c"), "--aus", "1,12"]
    done = CliRunner().invoke(app, [*command, "--merge-at", "layer3", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["backbone"], report["kind"]) == ("ir18", "AU weights")
    config = load_calibrator(tmp_path / "c", verify=False).config
    assert (config.merge_at, config.aus, config.task) == ("layer3", (1, 12), "intensity")
    wrong = CliRunner().invoke(app, [*command[:-1], "one,two"])
    assert isinstance(wrong.exception, ConfigError)
    assert "1,2,4" in str(wrong.exception)


def test_a_pickle_with_code_is_refused_unexecuted(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    for number, content in enumerate((Bomb(), {"conv1.weight": Bomb()}, torch.nn.Linear(1, 1))):
        for zipped in (True, False):
            file = tmp_path / f"{number}{zipped}.pth"
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            with pytest.raises(WeightsError, match="without running code"):
                read_state_dict(file)
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(WeightsError):
        read_state_dict(tmp_path / "text.pth")
    assert not (tmp_path / "ran").exists()

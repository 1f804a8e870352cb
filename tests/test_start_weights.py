"""Start weights: enough of them fits, or they are refused; random ones are named in reports."""

import logging

import pytest
import torch
from torch import nn

from siamcal import create_backbone, load_face_weights
from siamcal.errors import ConfigError, WeightsError
from siamcal.evaluation.tables import markdown
from siamcal.training.start import start_note


class Net(nn.Module):
    """Ten equal layers, BatchNorm, and a last layer."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(10)))
        self.fc = nn.Linear(4, outputs)


def saved(state, path):
    torch.save(state, path)
    return path


@pytest.mark.parametrize(("fitting", "refused"), [(10, False), (9, False), (8, True), (1, True)])
def test_nine_of_ten_parts_must_fit_whatever_the_last_layer_is(tmp_path, fitting, refused) -> None:
    state = {f"body.{k}.weight": torch.full((4, 4), 7.0) for k in range(fitting)}
    state |= {"fc.weight": torch.ones(9, 4), "alien.weight": torch.ones(2)}
    net, path = Net(), saved(state, tmp_path / "w.pth")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    if refused:
        with pytest.raises(WeightsError, match=r"fits \d of the 10 entries") as error:
            load_face_weights(net, path)
        assert "body.9.weight" in str(error.value)  # what the file lacks
        assert "alien.weight" in str(error.value)  # what the network lacks
        assert all(torch.equal(net.state_dict()[n], v) for n, v in before.items())
    else:
        report = load_face_weights(net, path)
        assert len(report.loaded) == fitting
        assert torch.equal(net.body[0].weight, state["body.0.weight"])


def test_a_large_layer_counts_by_its_values_and_small_ones_by_their_number(tmp_path) -> None:
    net = nn.Sequential(nn.Linear(100, 100), *(nn.PReLU() for _ in range(30)), nn.Linear(100, 2))
    state = net.state_dict()
    prelus = {n: v for n, v in state.items() if v.numel() == 1}
    for part in (prelus, {n: v for n, v in state.items() if n not in prelus}):
        with pytest.raises(WeightsError, match="at least 90%"):
            load_face_weights(net, saved(part, tmp_path / "w.pth"))


def test_counts_of_batches_are_no_weights(tmp_path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    counts = {n: v for n, v in net.state_dict().items() if n.endswith("num_batches_tracked")}
    assert counts
    with pytest.raises(WeightsError, match=r"Nothing in .* fits"):
        load_face_weights(net, saved(counts, tmp_path / "w.pth"))
    rest = {n: v for n, v in net.state_dict().items() if n not in counts}
    assert len(load_face_weights(net, saved(rest, tmp_path / "w.pth")).loaded) == len(rest)
    alike = {n: v for n, v in rest.items() if "running" not in n}
    with pytest.raises(WeightsError, match="running_mean"):
        load_face_weights(net, saved(alike, tmp_path / "w.pth"))


def test_a_backbone_says_which_part_is_its_head(tmp_path) -> None:
    class Told(Net):
        siamcal_head = ("fc", "body.8", "body.9")

    state = {f"body.{k}.weight": torch.ones(4, 4) for k in range(8)}
    path = saved(state, tmp_path / "w.pth")
    assert len(load_face_weights(Told(), path).loaded) == 8
    with pytest.raises(WeightsError):
        load_face_weights(Net(), path)
    Told.siamcal_head = "classifier"
    with pytest.raises(ConfigError, match="siamcal_head names classifier, but its parts are body"):
        load_face_weights(Told(), path)


def test_the_face_trunk_starts_from_its_trunk() -> None:
    from siamcal.training.start import weights_path

    network = create_backbone("face_trunk", 12)
    report = load_face_weights(network, weights_path("asset:face_trunk"))
    assert all(name.startswith("head.") for name in report.missing)


def test_the_paper_without_weights_says_so() -> None:
    assert "glint360k" in start_note({"backbone": "ir50", "weights": ""})
    assert start_note({"backbone": "ir18", "weights": ""}) == "From random start weights."
    assert not start_note({"backbone": "ir50", "weights": "w.pth"})
    assert not start_note({"backbone": "ir50", "weights": "", "checkpoint": "c.pth"})


def test_random_start_is_told_first_and_beside_every_table(tmp_path, caplog) -> None:
    import dataclasses

    from facesets import RECIPE, squares

    from siamcal.evaluation.compare import Job, compare
    from siamcal.evaluation.run import outlook
    from siamcal.evaluation.tables import write_report

    recipe = dataclasses.replace(RECIPE, steps=1)
    faces = squares(tmp_path, people=4, frames=4)
    job = Job(recipe, tmp_path / "run", methods=("ncg",), folds=(0,))
    assert outlook(job, 4, 16, 2, 2).startswith("From random start weights")
    with caplog.at_level(logging.WARNING):
        results = compare(job, faces).results
    text = markdown(results)
    metrics = len(results["methods"]["ncg"]["intensity"])
    assert text.count("From random start weights.") == 2 + metrics
    write_report(results, tmp_path)
    assert "From random start weights" in (tmp_path / "table.tex").read_text()
    assert (tmp_path / "table.csv").read_text().splitlines()[1].endswith(",random")
    results["recipe"]["weights"] = "w.pth"
    assert "random start" not in markdown(results)

"""Publishing and pulling with the real huggingface_hub client against a small server here."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from calibrators import AUS, predictions, stirred, tiny
from hub_server import TOKEN, HubServer, running
from huggingface_hub import constants
from torch import nn

from siamcal.calibrators.hub import (
    describe,
    list_published,
    parse_source,
    pull,
    push_to_hub,
    upload,
)
from siamcal.calibrators.hub.publication import plan_from_folder
from siamcal.calibrators.saving import describe as describe_model
from siamcal.calibrators.saving import load_calibrator, save_calibrator
from siamcal.errors import ConfigError, HubError, SiamcalError, WeightsError
from siamcal.model.heads import IntensityHead
from siamcal.model.siamese import CalibratingSiamese

torch.set_num_threads(1)
NAME = "tester/calibrator"

RESULTS = {
    "name": "run",
    "dataset": {"name": "synth", "rendered": True, "participants": 40, "frames": 2400},
    "recipe": {"backbone": "ir_tiny"},
    "environment": {},
    "paper": {},
    "methods": {
        method: {
            "intensity": {
                "icc": {
                    "mean": icc,
                    "per_au": {"AU01": icc, "AU12": icc + 0.1, "AU25": None},
                    "interval": [icc - 0.05, icc + 0.05],
                },
                "mae": {"mean": 0.4, "per_au": {"AU01": 0.3}, "interval": [0.3, None]},
                "f1": {"mean": 61.5, "per_au": {"AU01": 61.5}, "interval": [50.0, 70.0]},
            }
        }
        for method, icc in (("ncg", 0.55), ("bs", 0.6), ("csn", 0.71))
    },
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "siamcal"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


@pytest.fixture(scope="module")
def model() -> CalibratingSiamese:
    model = tiny(IntensityHead(3))
    model.config = describe_model(
        model,
        aus=AUS,
        training_data="40 people (rendered faces only)",
        rendered=True,
        licence="apache-2.0",
        licence_reason="made of rendered people",
    )
    return model


@pytest.fixture
def run_folder(tmp_path: Path, model: CalibratingSiamese) -> Path:
    folder = tmp_path / "runs" / "synth"
    save_calibrator(model, model.config, folder / "calibrator")
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "recipe.json").write_text("{}")
    (folder / "table.md").write_text("# table\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "bars.png").write_bytes(b"\x89PNG" + bytes(5000))
    (folder / "checkpoint.pt").write_bytes(b"never to be sent")
    return folder


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_round_trip_is_bit_for_bit(hub: HubServer, model: CalibratingSiamese) -> None:
    pushed = model.push_to_hub(NAME)
    assert pushed.changed
    assert pushed.url == f"{hub.url}/{NAME}"
    back = CalibratingSiamese.from_pretrained(NAME)
    assert torch.equal(predictions(back), predictions(model))
    assert back.config.aus == AUS
    for form in (f"hf-hub:{NAME}", f"hf-hub:{NAME}@main", f"hf-hub:{NAME}@{pushed.commit}"):
        assert torch.equal(
            predictions(CalibratingSiamese.from_pretrained(form)), predictions(model)
        )


def test_local_folders_by_every_name(tmp_path: Path, model: CalibratingSiamese) -> None:
    model.save_pretrained(tmp_path / "c")
    for form in (tmp_path / "c", str(tmp_path / "c"), f"local-dir:{tmp_path / 'c'}"):
        back = CalibratingSiamese.from_pretrained(form)
        assert torch.equal(predictions(back), predictions(model))
    assert "library_name: siamcal" in (tmp_path / "c" / "README.md").read_text()


def test_each_revision_gives_its_own_weights(hub: HubServer) -> None:
    first, second = tiny(), tiny()
    stirred(second.unwrap(), seed=5)
    old = push_to_hub(first, NAME).commit
    push_to_hub(second, NAME)
    push_to_hub(first, NAME, revision="v1")
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(second))
    for revision in (old, "v1"):
        back = CalibratingSiamese.from_pretrained(NAME, revision=revision)
        assert torch.equal(predictions(back), predictions(first))
    with pytest.raises(ConfigError, match="names the revision"):
        CalibratingSiamese.from_pretrained(f"hf-hub:{NAME}@v1", revision="main")


def test_a_second_push_changes_nothing(hub: HubServer, run_folder: Path, tmp_path: Path) -> None:
    plan = plan_from_folder(run_folder, NAME, tmp_path)
    first = upload(plan, NAME)
    hub.requests.clear()
    again = upload(plan, NAME)
    assert (first.changed, again.changed) == (True, False)
    assert again.commit == first.commit
    assert not [r for r in hub.requests if "/commit/" in r or r.startswith("PUT")]


def test_a_run_is_sent_with_card_results_and_figures_only(
    hub: HubServer, run_folder: Path, tmp_path: Path
) -> None:
    upload(plan_from_folder(run_folder, NAME, tmp_path), NAME)
    files = hub.repos[NAME].commits[hub.repos[NAME].refs["main"]]
    assert sorted(files) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "figures/bars.png",
        "model.safetensors",
        "recipe.json",
        "results.json",
        "table.md",
    ]
    folder = pull(NAME, folder=tmp_path / "pulled")
    assert (folder / "figures" / "bars.png").read_bytes() == files["figures/bars.png"].content
    assert not (folder / ".gitattributes").exists()
    assert CalibratingSiamese.from_pretrained(folder).config.aus == AUS


def test_another_licence_travels_with_the_weights(hub: HubServer, tmp_path: Path) -> None:
    model = tiny(IntensityHead(3))
    model.config = describe_model(model, aus=AUS, licence="other", licence_reason="only for me")
    model.save_pretrained(tmp_path / "c")
    assert "only for me" in (tmp_path / "c" / "LICENSE.md").read_text()
    push_to_hub(model, NAME)
    assert "only for me" in (pull(NAME, folder=tmp_path / "p") / "LICENSE.md").read_text()


def test_the_lines_on_the_card_run(hub: HubServer, model: CalibratingSiamese) -> None:
    """What the Hub shows under "Use in siamcal" is the card's own."""
    push_to_hub(model, NAME)
    card = hub.repos[NAME].commits[hub.repos[NAME].refs["main"]]["README.md"].content.decode()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    targets = torch.rand(2, 3, 112, 112)
    scope = {"neutral": targets[:1], "targets": targets}
    with torch.no_grad():
        exec(snippet, scope)
        expected = model(targets, targets[:1])
    assert torch.equal(scope["output"].intensity, expected.intensity)


def test_private_needs_the_token(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(model, NAME, private=True)
    assert hub.repos[NAME].private
    assert CalibratingSiamese.from_pretrained(NAME, token=TOKEN) is not None
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "2")
    with pytest.raises(HubError, match="private and you aren't logged in"):
        CalibratingSiamese.from_pretrained(NAME)
    with pytest.raises(HubError, match="HF_TOKEN"):
        push_to_hub(model, "tester/other")


def test_a_private_push_never_lands_in_public(hub: HubServer, model: CalibratingSiamese) -> None:
    first = push_to_hub(tiny(), NAME)
    with pytest.raises(HubError, match="is public, but a private push"):
        push_to_hub(model, NAME, private=True)
    assert hub.repos[NAME].refs["main"] == first.commit


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("tester/none", "no repository 'tester/none'"),
        (f"hf-hub:{NAME}@v9", "no revision 'v9'"),
        ("tester/empty", r"holds no config\.json, so it isn't a siamcal calibrator"),
        ("tester/half", r"holds no model\.safetensors"),
        ("just-a-name", "neither a folder nor a repository"),
        ("../../etc/passwd", "neither a folder nor a repository"),
        ("a/b/c", "neither a folder nor a repository"),
        ("hf-hub:a/..", "neither a folder nor a repository"),
        ("local-dir:nowhere", "No calibrator in nowhere"),
    ],
)
def test_what_is_missing_is_named(
    hub: HubServer, model: CalibratingSiamese, tmp_path: Path, source: str, says: str
) -> None:
    save_calibrator(model, None, tmp_path / "c")
    config = (tmp_path / "c" / "config.json").read_bytes()
    hub.put(NAME, {"config.json": config})
    hub.put("tester/half", {"config.json": config})
    hub.put("tester/empty", {"weights.bin": b"123"})
    with pytest.raises(SiamcalError, match=says):
        CalibratingSiamese.from_pretrained(source)


@pytest.mark.parametrize("reset", [False, True], ids=["early end", "reset"])
def test_a_cut_download_goes_on_where_it_stopped(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    push_to_hub(model, NAME)
    size = len(hub.repos[NAME].commits[hub.repos[NAME].refs["main"]]["model.safetensors"].content)
    hub.reset, hub.cuts = reset, [size // 3, size // 3]
    hub.sent = 0
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(model))
    ranges = [r for r in hub.requests if "/cdn/" in r and "bytes=" in r]
    assert len(ranges) == 2
    # A reset may lose what was on the way; an early end loses nothing.
    assert hub.sent < size * (2 if reset else 1.02)


def test_what_arrived_before_the_process_ended_is_kept(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(model, NAME)
    size = len(hub.repos[NAME].commits[hub.repos[NAME].refs["main"]]["model.safetensors"].content)
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        hub.cuts = [size // 2]
        with pytest.raises(KeyboardInterrupt):
            CalibratingSiamese.from_pretrained(NAME)
    hub.requests.clear()
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(model))
    [extent] = [r for r in hub.requests if "/cdn/" in r]
    assert size // 2 - (1 << 16) <= int(extent.rpartition("=")[2].rstrip("-")) <= size // 2


def test_a_damaged_download_is_refused_and_forgotten(
    hub: HubServer, model: CalibratingSiamese
) -> None:
    push_to_hub(model, NAME)
    hub.damaged = {"model.safetensors"}
    with pytest.raises(WeightsError, match="arrived damaged"):
        CalibratingSiamese.from_pretrained(NAME)
    hub.damaged = set()
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(model))


def test_offline_from_the_cache(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(model, NAME)
    pull(NAME)
    go_offline(monkeypatch)
    hub.requests.clear()
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(model))
    assert describe(NAME)["config"]["aus"] == list(AUS)
    assert pull(NAME).is_dir()
    assert hub.requests == []
    with pytest.raises(HubError, match="isn't in the cache"):
        CalibratingSiamese.from_pretrained("tester/another")
    with pytest.raises(HubError, match=r"can't be reached|HF_HUB_OFFLINE|failed"):
        push_to_hub(model, NAME)


def test_a_hub_that_does_not_answer(
    model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("time.sleep", never)
    reason = r"127\.0\.0\.1:9 can't be reached \(.*refused"
    for ask in (CalibratingSiamese.from_pretrained, describe, pull):
        with pytest.raises(HubError, match=rf"isn't in the cache, and \S+{reason}"):
            ask(NAME)
    with pytest.raises(HubError, match=r"A folder runs/mine isn't there either\.$"):
        describe("runs/mine")
    with pytest.raises(HubError, match=reason):
        list_published()
    with pytest.raises(HubError, match=rf"{reason}.*Nothing was sent"):
        push_to_hub(model, NAME)
    with pytest.raises(HubError, match=rf"{reason}.*force_download"):
        CalibratingSiamese.from_pretrained(NAME, force_download=True)


def never(seconds: float) -> None:
    raise AssertionError(f"waits for {seconds} s")


def test_what_was_pulled_is_read_at_once_where_the_hub_does_not_answer(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes a connection and says nothing: it is waited for once."""
    push_to_hub(model, NAME)
    pull(NAME)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
        silent.setblocking(False)
        for read in (describe, pull, CalibratingSiamese.from_pretrained):
            assert read(NAME)
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):  # nobody asked a second time
                silent.accept()
        with pytest.raises(HubError, match="timed out"):
            describe("tester/another")


def test_what_the_hub_refuses_is_one_message(tmp_path: Path) -> None:
    """And none of its library's own; retried without the waiting."""
    code = (
        "import sys, time; time.sleep = lambda seconds: None\n"
        "from siamcal.cli import main; sys.argv = ['siamcal', 'pull', 'owner/name']; main()"
    )
    told = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    told.pop("HF_HUB_VERBOSITY", None)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=told, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("siamcal: config.json of owner/name isn't in the cache")


def test_show_and_ls_load_no_weights(hub: HubServer, run_folder: Path, tmp_path: Path) -> None:
    upload(plan_from_folder(run_folder, NAME, tmp_path), NAME)
    hub.put("tester/unrelated", {"README.md": b"---\ntags:\n- other\n---\n"})
    hub.requests.clear()
    about = describe(f"hf-hub:{NAME}")
    assert not [r for r in hub.requests if "/cdn/" in r]
    assert about["bytes"] == (run_folder / "calibrator" / "model.safetensors").stat().st_size
    assert about["config"]["merge_at"] == "layer4"
    assert about["results"]["csn"] == {"icc": 0.71, "mae": 0.4, "f1": 61.5}
    assert about["commit"] == hub.repos[NAME].refs["main"]
    assert [row["name"] for row in list_published()] == [NAME]
    assert list_published("nothing-like-it") == []
    local = describe(run_folder / "calibrator")
    assert local["config"] == about["config"]


def test_oversized_files_are_not_downloaded(hub: HubServer, model: CalibratingSiamese) -> None:
    push_to_hub(model, NAME)
    hub.requests.clear()
    with pytest.raises(HubError, match="It was not downloaded"):
        CalibratingSiamese.from_pretrained(NAME, max_bytes=1000)
    hub.put("tester/bloated", {"config.json": b" " * (2 << 20)})
    with pytest.raises(HubError, match=r"config\.json of tester/bloated has 2,097,152 bytes"):
        CalibratingSiamese.from_pretrained("tester/bloated")
    assert not [r for r in hub.requests if r.startswith("GET") and "resolve/main/config" in r][1:]


def _put(hub: HubServer, folder: Path, prefix: str = "", branch: str = "main") -> str:
    names = ("config.json", "model.safetensors")
    files = {prefix + name: (folder / name).read_bytes() for name in names}
    return hub.put(NAME, files, branch)


def test_a_calibrator_in_a_subfolder(
    hub: HubServer, model: CalibratingSiamese, tmp_path: Path
) -> None:
    other = tiny()
    save_calibrator(other, None, tmp_path / "root")
    save_calibrator(model, model.config, tmp_path / "c" / "in")
    _put(hub, tmp_path / "root")
    _put(hub, tmp_path / "c" / "in", "models/intensity/")
    for source in (NAME, f"hf-hub:{NAME}@main"):
        back = CalibratingSiamese.from_pretrained(source, subfolder="models/intensity")
        assert torch.equal(predictions(back), predictions(model))
    assert torch.equal(predictions(CalibratingSiamese.from_pretrained(NAME)), predictions(other))
    local = CalibratingSiamese.from_pretrained(tmp_path / "c", subfolder="in")
    assert torch.equal(predictions(local), predictions(model))
    with pytest.raises(HubError, match=r"holds no config\.json"):
        CalibratingSiamese.from_pretrained(NAME, subfolder="models")
    for wrong in ("../out", "a/../../b", "~root"):
        with pytest.raises(ConfigError, match="inside the repository"):
            CalibratingSiamese.from_pretrained(NAME, subfolder=wrong)


def test_only_local_files_ask_nobody(hub: HubServer, model: CalibratingSiamese) -> None:
    push_to_hub(model, NAME)
    with pytest.raises(HubError, match="local_files_only=True asks nobody"):
        CalibratingSiamese.from_pretrained(NAME, local_files_only=True)
    CalibratingSiamese.from_pretrained(NAME)
    hub.requests.clear()
    back = CalibratingSiamese.from_pretrained(NAME, local_files_only=True)
    assert torch.equal(predictions(back), predictions(model))
    assert hub.requests == []


def test_a_forced_download_replaces_what_is_in_the_cache(
    hub: HubServer, model: CalibratingSiamese
) -> None:
    push_to_hub(model, NAME)
    weights = pull(NAME) / "model.safetensors"
    weights.resolve().write_bytes(b"rotten")  # by a failing disk
    hub.sent = 0
    back = CalibratingSiamese.from_pretrained(NAME, force_download=True)
    assert torch.equal(predictions(back), predictions(model))
    size = weights.stat().st_size
    assert size <= hub.sent < 1.1 * size  # once, not twice
    with pytest.raises(ConfigError, match="give one"):
        CalibratingSiamese.from_pretrained(NAME, force_download=True, local_files_only=True)


@pytest.mark.parametrize(
    "given",
    [{"dtype": torch.bfloat16}, {"dtype": "bfloat16"}, {"torch_dtype": "torch.bfloat16"}],
    ids=str,
)
def test_device_and_precision(tmp_path: Path, model: CalibratingSiamese, given: dict) -> None:
    model.save_pretrained(tmp_path / "c")
    back = CalibratingSiamese.from_pretrained(tmp_path / "c", device="cpu", **given)
    assert {p.dtype for p in back.parameters()} == {torch.bfloat16}
    images = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        exact = model(images, model.encode(images[:1])).intensity
        read = back(images.bfloat16(), back.encode(images[:1].bfloat16())).intensity
    assert read.float() == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dtype": "bfloat"}, "dtype takes"),
        ({"dtype": torch.int8}, "dtype takes"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "are one thing"),
        ({"device": "gpu"}, "siamcal doctor"),
        ({"device": "cuda:99"}, "siamcal doctor"),
    ],
    ids=str,
)
def test_what_is_no_device_or_precision_is_refused(
    tmp_path: Path, model: CalibratingSiamese, given: dict, says: str
) -> None:
    model.save_pretrained(tmp_path / "c")
    with pytest.raises(ConfigError, match=says):
        CalibratingSiamese.from_pretrained(tmp_path / "c", **given)


def test_adapters_travel_over_their_public_backbone(hub: HubServer, tmp_path: Path) -> None:
    model = tiny()
    push_to_hub(model, NAME, adapter=True, base=tiny().unwrap(), base_model="stirred ir_tiny")
    whole = save_calibrator(model, None, tmp_path / "whole")
    assert whole.base_model == ""
    back = CalibratingSiamese.from_pretrained(NAME, backbone=tiny().unwrap())
    assert torch.equal(predictions(back), predictions(model))
    with pytest.raises(ConfigError, match="stirred ir_tiny"):
        CalibratingSiamese.from_pretrained(NAME)
    card = hub.repos[NAME].commits[hub.repos[NAME].refs["main"]]["README.md"].content.decode()
    assert "siamcal-adapter" in card


def test_own_modules_and_own_files_are_passed_back(hub: HubServer, tmp_path: Path) -> None:
    from siamcal.model.create import create_backbone

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, 8), nn.Conv2d(4, 2, 3), nn.Flatten())

    inputs = torch.rand(2, 3, 112, 112)
    own = CalibratingSiamese(stirred(network()), "1", example_inputs=inputs).eval()
    push_to_hub(own, NAME)
    with pytest.raises(ConfigError, match="backbone=net"):
        CalibratingSiamese.from_pretrained(NAME)
    back = CalibratingSiamese.from_pretrained(NAME, backbone=network())
    assert torch.equal(predictions(back), predictions(own))

    file = tmp_path / "net.py"
    file.write_text("import torch\ndef build():\n    return torch.nn.Conv2d(3, 2, 5)\n")
    named = CalibratingSiamese(create_backbone(f"{file}:build"), "output", example_inputs=inputs)
    push_to_hub(named, "tester/file")
    with pytest.raises(ConfigError, match="never runs a file"):  # not even its author's, from afar
        CalibratingSiamese.from_pretrained("tester/file")


def test_hub_names_are_read() -> None:
    assert parse_source("a/b").repo_id == "a/b"
    assert parse_source("hf-hub:a/b@refs/pr/1").revision == "refs/pr/1"
    assert parse_source("a/b", "main").revision == "main"
    for wrong in ("a/b@", "a/b@../x", "a/b@-x", "hf-hub:", "a b/c"):
        with pytest.raises(ConfigError):
            parse_source(wrong)


def commands(hub: HubServer, tmp_path: Path, *lines: list[str], **more: str) -> list[str]:
    """What each command prints; all in one process of their own, as a user's shell would set it."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **more,
    }
    code = (
        "import json, sys\n"
        "import siamcal.cli.weights\n"
        "from siamcal.cli import app\n"
        "for line in json.load(sys.stdin):\n"
        "    app(line, standalone_mode=False)\n"
        "    print('=' * 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("=========\n")


@pytest.mark.slow
def test_commands_through_a_mirror_and_offline(
    hub: HubServer, run_folder: Path, tmp_path: Path
) -> None:
    push, pulled = ["push", str(run_folder), NAME], ["pull", NAME, "-o", "here"]
    shown, sent, again, place, _ = commands(
        hub, tmp_path, [*push, "--dry-run"], [*push, "--private"], push, ["pull", NAME]
    )
    for part in ("model-index", "library_name: siamcal", "model.safetensors", "results.json"):
        assert part in shown
    assert "Pushed to" in sent
    assert "already holds exactly these files" in again
    assert hub.repos[NAME].private
    assert str(tmp_path / "home") in place
    hub.requests.clear()
    out, _ = commands(hub, tmp_path, pulled, HF_HUB_OFFLINE="1")
    assert out.strip() == "here"
    assert (tmp_path / "here" / "model.safetensors").is_file()
    assert hub.requests == []


@pytest.mark.slow
def test_an_adapter_by_command_over_a_file_of_public_weights(
    hub: HubServer, tmp_path: Path
) -> None:
    torch.save(tiny().unwrap().state_dict(), tmp_path / "public.pth")
    model = tiny()
    with torch.no_grad():
        model.unwrap().get_parameter("fc.weight").mul_(2)
    save_calibrator(model, describe_model(model), tmp_path / "run" / "calibrator")
    push = ["push", "run", NAME, "--adapter", "--base", "public.pth"]
    shown, sent, place, _ = commands(
        hub, tmp_path, [*push, "--dry-run", "--json"], push, ["pull", NAME]
    )
    whole = (tmp_path / "run" / "calibrator" / "model.safetensors").stat().st_size
    assert json.loads(shown)["files"]["model.safetensors"] < whole
    assert "Pushed to" in sent
    loaded = load_calibrator(place.strip(), base=tmp_path / "public.pth")
    assert loaded.config.base_model == "public.pth"
    assert torch.equal(predictions(loaded), predictions(model))


def test_an_adapter_without_its_base_says_what_to_pass(hub: HubServer, run_folder: Path) -> None:
    from typer.testing import CliRunner

    import siamcal.cli.weights
    from siamcal.cli import app

    assert siamcal.cli.weights is not None
    done = CliRunner().invoke(app, ["push", str(run_folder), NAME, "--adapter"])
    assert isinstance(done.exception, ConfigError)
    assert "base=" in str(done.exception)
    assert hub.requests == []


def test_a_mirror_without_xet_is_named_on_pushing_and_pulled_from(
    hub: HubServer, model: CalibratingSiamese, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(model, "tester/there")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    back = CalibratingSiamese.from_pretrained("tester/there")
    assert torch.equal(predictions(back), predictions(model))
    with pytest.raises(HubError, match="HF_HUB_DISABLE_XET=1"):
        push_to_hub(model, NAME)


def test_dry_run_sends_nothing(hub: HubServer, run_folder: Path) -> None:
    from typer.testing import CliRunner

    import siamcal.cli.weights
    from siamcal.cli import app

    assert siamcal.cli.weights is not None
    arguments = ["push", str(run_folder), NAME, "--dry-run", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    plan = json.loads(done.stdout)
    assert hub.requests == []
    assert "figures/bars.png" in plan["files"]
    assert plan["card"].startswith("---\nlibrary_name: siamcal")


def test_no_warning_when_nothing_is_wrong(
    hub: HubServer, model: CalibratingSiamese, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        push_to_hub(model, NAME)
        CalibratingSiamese.from_pretrained(NAME)
    assert [r.message for r in caplog.records if r.name.startswith("siamcal")] == []


@pytest.mark.parametrize("merge", ["concatenated", "gated", "anchored", "attention", "normalised"])
def test_a_merge_with_parameters_is_pushed_and_pulled_bit_for_bit(
    hub: HubServer, merge: str
) -> None:
    model = tiny(IntensityHead(3), merge=merge, null_reference=True)
    generator = torch.Generator().manual_seed(3)
    people = torch.arange(3).repeat_interleave(2)
    model.fit_anchor(torch.rand(6, 3, 112, 112, generator=generator), people)
    with torch.no_grad():
        for parameter in model.merge_form.parameters():
            parameter += 0.01 * torch.rand(parameter.shape, generator=generator)
    model.config = describe_model(model, aus=AUS)
    model.push_to_hub(NAME)
    back = CalibratingSiamese.from_pretrained(NAME)
    assert back.merge == merge
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():  # three people tell no trust: NaN stays NaN
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(predictions(back), predictions(model))

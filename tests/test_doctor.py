"""`siamcal doctor`: what it says of a sound installation and of damaged ones, and what it keeps."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packets import alone_in_a_network, packets_tried

from siamcal import extras
from siamcal.cli import main
from siamcal.environment import missing_libraries
from siamcal.errors import MissingDependencyError
from siamcal.files import bytes_of_folder


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Runs it in this process: (exit code, its stdout, its stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["siamcal", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return run


@pytest.fixture
def versions(monkeypatch):
    """Packages by the versions that a test names; None: not installed."""
    told: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        found = told.get(name, "") or ("" if name in told else real(name))
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return told


def test_a_sound_installation_is_described_without_its_secrets(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SIAMCAL_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("HF_ENDPOINT", "https://ann:secret@mirror.example")
    code, said, error = doctor("--json")
    found = json.loads(said)
    assert (code, error, found["problems"]) == (0, "", [])
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["extras"]["bench"] == "complete"
    assert found["devices"]["cores"] >= 1
    assert found["hub"]["token"] is True
    assert found["hub"]["endpoint"] == "https://mirror.example"
    assert found["caches"]["siamcal"] == "~/kept (not there yet)"
    assert not (tmp_path / "kept").exists()
    assert "secret" not in said
    assert str(tmp_path) not in said


def test_people_get_the_same_in_lines(doctor):
    code, said, _ = doctor()
    assert not code
    for line in ("versions", "extras", "devices", "opencv", "caches", "hub", "problems"):
        assert f"{line}\n" in said
    assert f"torch            {metadata.version('torch')}" in said
    assert said.endswith("problems\n  none\n")


def test_what_an_extra_lacks_stands_with_its_line(doctor, versions):
    versions["numba"] = None
    versions["pandas"] = "1.5.3"
    code, said, _ = doctor("--json")
    found = json.loads(said)
    assert code == 0  # nobody has to have an extra
    lacking = "numba>=0.61 (not installed), pandas>=2.2 (1.5.3 is installed)"
    assert found["extras"]["bench"] == f"pip install 'siamcal[bench]'    # {lacking}"
    assert found["extras"]["predict"].startswith("pip install 'siamcal[predict]'")
    assert found["extras"]["export"] == "complete"


def test_the_core_has_to_be_there(doctor, versions):
    versions["safetensors"] = "0.1"
    code, said, error = doctor("--json")
    assert code == 1
    assert "can't work" in error
    assert json.loads(said)["problems"] == [
        "siamcal needs safetensors>=0.5 (0.1 is installed): pip install 'safetensors>=0.5'"
    ]


def test_two_opencvs_of_different_versions_are_a_problem(doctor, versions):
    versions["opencv-contrib-python"] = "4.11.0.86"
    code, said, _ = doctor("--json")
    found = json.loads(said)
    assert code == 1
    assert found["opencv"]["cv2 comes from"]["opencv-contrib-python"] == "4.11.0.86"
    (problem,) = found["problems"]
    own = metadata.version("opencv-python")
    assert f"pip install --force-reinstall --no-deps 'opencv-contrib-python=={own}'" in problem


def test_what_is_installed_and_does_not_load_is_a_problem(doctor, monkeypatch):
    def broken(name: str) -> None:
        raise OSError(f"libGL.so: cannot open {Path.home()}/lib or {Path.home()}x")

    monkeypatch.setattr("siamcal.faces.engines.make_engine", broken)
    code, said, _ = doctor()
    assert code == 1
    assert said.endswith(f"problems\n  libGL.so: cannot open ~/lib or {Path.home()}x\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the wheels hold all libraries")
def test_libraries_that_cannot_be_loaded_are_found():
    assert missing_libraries(["libc.so.6", "libnobodyhasit.so.1"]) == ["libnobodyhasit.so.1"]


def test_without_an_installation_the_line_is_said(monkeypatch):
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    with pytest.raises(MissingDependencyError, match=r"pip install -e \."):
        extras.lacking()


def test_a_folder_is_measured_without_following_links(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(bytes(700))
    (tmp_path / "outside").write_bytes(bytes(9000))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    assert 700 <= bytes_of_folder(tmp_path / "in") < 9000
    assert bytes_of_folder(tmp_path / "nowhere") == 0


@pytest.mark.slow
@pytest.mark.skipif(not alone_in_a_network(), reason="no network namespaces here")
def test_no_connection_is_opened(tmp_path):
    siamcal = str(Path(sys.executable).with_name("siamcal"))
    assert packets_tried([siamcal, "doctor"], tmp_path) == 0
    assert "problems" in (tmp_path / "out").read_text()

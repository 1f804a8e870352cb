"""Frames that don't fit their labels, copies of pictures, unclear tables: read right or refused."""

from pathlib import Path

import pandas as pd
import pytest
from test_datasets_check import save_video
from test_datasets_licensed import DISFA_AUS, disfa_images, disfa_labels, plus_label, touch

from siamcal.datasets import load_dataset
from siamcal.datasets.base import FaceSet
from siamcal.datasets.check import check_dataset
from siamcal.errors import ConfigError, DataNotFoundError, LabelError
from siamcal.preprocessing import Preprocessing

P, Q = "SN002", "SN006"


def left(root, count=8, person=P):
    disfa_labels(root, (person,), 8)
    disfa_images(root, (person,), count, ("Left",))
    return root / "Images_LeftCamera" / person


def renumber(folder, by):
    files = sorted(folder.iterdir(), key=lambda f: int(f.stem), reverse=by > 0)
    for path in files:
        path.rename(path.with_name(f"{int(path.stem) + by}.jpg"))


def names(source):
    return [path.rsplit("/", 1)[1] for path in source.table["source"]]


def test_another_frame_rate_is_refused_with_both_counts(tmp_path):
    folder = left(tmp_path, 10)
    with pytest.raises(LabelError, match=r"10 frames, but 8 labels.*frame rate") as error:
        load_dataset("disfa", tmp_path)
    assert str(folder) in str(error.value)
    assert len(load_dataset("disfa", tmp_path, allow_mismatch=True).table) == 8


def test_a_video_of_another_frame_rate_is_refused(tmp_path):
    disfa_labels(tmp_path, (P,), 8)
    save_video(tmp_path / "Videos_LeftCamera" / f"LeftVideo{P}_comp.avi", 10)
    with pytest.raises(LabelError, match="10 frames, but 8 labels"):
        load_dataset("disfa", tmp_path)


def test_a_lost_first_frame_counted_from_0_is_told_by_others_or_refused(tmp_path):
    folder = left(tmp_path)
    renumber(folder, -1)
    (folder / "0.jpg").unlink()  # 1 to 7 are labels 2 to 8, or 1 to 7: nobody knows
    with pytest.raises(LabelError, match="off by one"):
        load_dataset("disfa", tmp_path)
    assert names(load_dataset("disfa", tmp_path, first_frame=0))[1] == "1.jpg"
    renumber(left(tmp_path, person=Q), -1)
    table = load_dataset("disfa", tmp_path).table
    own = table[(table["participant"] == P) & (table["frame"] == 2)]
    assert own["source"].iloc[0] == str(folder / "1.jpg")


def test_stray_pictures_and_second_numberings_are_not_mixed_in(tmp_path):
    folder = left(tmp_path)
    touch(folder / "preview_0.jpg", "x")
    for n in range(8):
        touch(folder / f"frame_{n:04d}.jpg", "x")
    assert names(load_dataset("disfa", tmp_path)) == [f"{n}.jpg" for n in range(1, 9)]


def test_originals_go_before_derived_and_incomplete_ones(tmp_path, caplog):
    folder = left(tmp_path)
    for n in range(1, 9):
        touch(tmp_path / "Crops_LeftCamera" / P / f"{n}.jpg", "x")
    table = load_dataset("disfa", tmp_path).table
    assert table["source"].str.startswith(str(folder)).all()
    assert "passed over" in caplog.text
    for n in range(4, 9):
        (folder / f"{n}.jpg").unlink()
    save_video(tmp_path / "OpenFace" / f"LeftVideo{P}_comp.avi", 8)
    save_video(tmp_path / "Videos_LeftCamera" / f"LeftVideo{P}_comp.avi", 8)
    used = load_dataset("disfa", tmp_path).table["source"].unique()
    assert used.tolist() == [str(tmp_path / "Videos_LeftCamera" / f"LeftVideo{P}_comp.avi")]


def test_numbered_parts_are_one_recording(tmp_path):
    folder = left(tmp_path)
    for n in range(1, 9):
        part = folder / f"part{(n - 1) // 4}"
        part.mkdir(exist_ok=True)
        (folder / f"{n}.jpg").rename(part / f"{n}.jpg")
    assert names(load_dataset("disfa", tmp_path)) == [f"{n}.jpg" for n in range(1, 9)]


def test_views_are_words(tmp_path):
    left(tmp_path)
    (tmp_path / "LeftCamera_frames").mkdir()
    (tmp_path / "Images_LeftCamera").rename(tmp_path / "LeftCamera_frames" / "upright")
    assert set(load_dataset("disfa", tmp_path).table["view"]) == {"left"}
    touch(tmp_path / "Video_RightCamera" / f"LeftVideo{P}_comp.avi")
    with pytest.raises(LabelError, match="left and the right"):
        load_dataset("disfa", tmp_path)


def test_disfa_plus_counted_from_1(tmp_path):
    trial = "A1_AU1_TrailNo_1"
    for n in range(4):
        touch(tmp_path / "Images" / "SN001" / trial / f"{n + 1:03d}.jpg")
    for au in DISFA_AUS:
        plus_label(tmp_path / "Labels" / "SN001" / trial / f"AU{au}.txt", 4, au)
    source = load_dataset("disfa-plus", tmp_path)
    assert source.table["frame"].tolist() == [0, 1, 2, 3]
    assert names(source) == ["001.jpg", "002.jpg", "003.jpg", "004.jpg"]
    (tmp_path / "Images" / "SN001").rename(tmp_path / "Images" / "SN999")
    (tmp_path / "Labels" / "SN001").rename(tmp_path / "Labels" / "SN999")
    assert not check_dataset("disfa-plus", tmp_path).ok  # nobody whom the protocol knows


def test_a_few_labels_outside_0_to_5_are_masked(tmp_path, caplog):
    disfa_labels(tmp_path, (P,), 100)
    disfa_images(tmp_path, (P,), 100, ("Left",))
    path = tmp_path / "ActionUnit_Labels" / P / f"{P}_au4.txt"
    lines = path.read_text().splitlines()
    lines[30] = "31,9"
    path.write_text("\n".join(lines))
    table = load_dataset("disfa", tmp_path).table
    assert table["AU04"].tolist().count(-1) == 1
    assert f"{path}, line 31" in caplog.text
    lines[31] = "32,9"
    path.write_text("\n".join(lines))
    with pytest.raises(LabelError, match="2 of 100"):
        load_dataset("disfa", tmp_path)


def unbc(root, frames):
    for n in range(1, frames + 1):
        name = f"ll042t1aaaff{n:03d}"
        touch(root / "Images/042-ll042/ll042t1aaaff" / f"{name}.png", "x")
        touch(root / "Frame_Labels/FACS/042-ll042/ll042t1aaaff" / f"{name}_facs.txt", "4 1 0 0\n")
    return root / "Frame_Labels/FACS/042-ll042/ll042t1aaaff"


def test_unbc_labels_outside_0_to_5_count_by_sequence(tmp_path):
    """20 frames of 10 AUs: two labels are 1 %, three are more."""
    folder = unbc(tmp_path, 20)
    (folder / "ll042t1aaaff005_facs.txt").write_text("6 1 0 0\n4 9 0 0\n4 2 0 0\n")
    (folder / "ll042t1aaaff007_facs.txt").write_text("12 -1 0 0\n30 9 0 0\n")
    source = load_dataset("unbc", tmp_path)
    table = source.table.set_index("frame")
    assert table.loc[5, ["AU04", "AU06", "AU12"]].tolist() == [-1, 1, 0]
    assert table.loc[7, ["AU04", "AU12"]].tolist() == [0, -1]
    found = [(Path(m.file).name, m.line, m.au, m.value) for m in source.masked_labels]
    assert found == [
        ("ll042t1aaaff005_facs.txt", 2, 4, 9),
        ("ll042t1aaaff007_facs.txt", 1, 12, -1),
    ]
    (folder / "ll042t1aaaff008_facs.txt").write_text("43 7 0 0\n")
    with pytest.raises(LabelError, match=r"005_facs.txt, line 2: .*3 of 200 labels of the seq"):
        load_dataset("unbc", tmp_path)
    for broken in ("4 inf 0 0", "4 nan 0 0", "inf 1 0 0", "4 1.5 0 0"):
        (folder / "ll042t1aaaff008_facs.txt").write_text(broken)
        with pytest.raises(LabelError, match=r"008_facs.txt, line 1"):
            load_dataset("unbc", tmp_path)


def masked_disfa(root):
    disfa_labels(root, (P,), 100)
    disfa_images(root, (P,), 100, ("Left",))
    path = root / "ActionUnit_Labels" / P / f"{P}_au4.txt"
    path.write_text(path.read_text().replace("\n31,", "\n31,9", 1))
    return "disfa", f"ActionUnit_Labels/{P}/{P}_au4.txt", 31, 4


def masked_plus(root):
    trial = "A1_AU1_TrailNo_1"
    for n in range(100):
        touch(root / "Images" / "SN001" / trial / f"{n:03d}.jpg", "x")
    for au in DISFA_AUS:
        plus_label(root / "Labels" / "SN001" / trial / f"AU{au}.txt", 100, au)
    path = root / "Labels" / "SN001" / trial / "AU4.txt"
    lines = path.read_text().splitlines()
    lines[10] = lines[10].rsplit(None, 1)[0] + " 8"
    path.write_text("\n".join(lines))
    return "disfa-plus", f"Labels/SN001/{trial}/AU4.txt", 11, 4


def masked_unbc(root):
    folder = unbc(root, 20)
    (folder / "ll042t1aaaff005_facs.txt").write_text("4 9 0 0\n")
    place = (folder / "ll042t1aaaff005_facs.txt").relative_to(root)
    return "unbc", str(place), 1, 4


@pytest.mark.parametrize("make", [masked_disfa, masked_plus, masked_unbc])
def test_masked_labels_are_counted_and_listed(tmp_path, make):
    from siamcal.evaluation.compare import describe_dataset

    name, file, line, au = make(tmp_path)
    report = check_dataset(name, tmp_path, quick=True)
    assert ("masked labels", 1, None) in report.counts
    (listed,) = report.to_dict()["masked_labels"]
    assert (listed["file"], listed["line"], listed["au"]) == (file, line, au)
    assert any(p.place == f"{tmp_path / file}, line {line}" for p in report.problems)
    source = load_dataset(name, tmp_path)
    faces = FaceSet(source, Preprocessing(), tmp_path, source.table, None, source.table[:0])
    assert describe_dataset(faces)["masked_labels"] == {"count": 1, "labels": [listed]}


def manifest(folder, references="first", options=None, **columns):
    rows = len(next(iter(columns.values())))
    for n in range(rows):
        touch(folder / f"{n}.png", "x")
    table = {"path": [f"{n}.png" for n in range(rows)], "participant": "a", **columns}
    pd.DataFrame(table).to_csv(folder / "m.csv", index=False)
    return load_dataset("manifest", folder / "m.csv", references=references, **(options or {}))


def test_manifest_says_what_labels_mean(tmp_path, caplog):
    mixed = {"AU1": [0, 1, 1], "AU12": [0, 3, 5]}
    with pytest.raises(ConfigError, match=r"AU1 hold only 0 and 1.*labels=mixed"):
        manifest(tmp_path, **mixed)
    source = manifest(tmp_path, options={"labels": "mixed"}, **mixed)
    assert source.detection_thresholds == {1: 1, 12: 2}
    assert source.intensity_aus == (12,)
    with pytest.raises(ConfigError, match="scale=1"):
        manifest(tmp_path, AU1=[0, 0.4, 0.9])
    scaled = manifest(tmp_path, options={"scale": 1}, AU1=[0, 0.4, 1.0])
    assert scaled.table["AU01"].tolist() == [0, 2, 5]
    letters = manifest(tmp_path, options={"scale": "A-E"}, AU1=["A", "E", "0"])
    assert letters.table["AU01"].tolist() == [1, 5, 0]
    sides = {"AU12L": [0, 2, 5], "AU12R": [1, 1, 1]}
    with pytest.raises(ConfigError, match="sides=max"):
        manifest(tmp_path, **sides)
    assert manifest(tmp_path, options={"sides": "max"}, **sides).table["AU12"].tolist() == [1, 2, 5]
    with pytest.raises(ConfigError, match="AUs"):
        manifest(tmp_path, AUs=["4+7", "12", ""])
    caplog.clear()
    manifest(tmp_path, "auto", AU12=[3, 2, 5])
    assert "show labelled AUs" in caplog.text


def test_manifest_rows_that_contradict_each_other(tmp_path):
    touch(tmp_path / "0.png", "x")
    (tmp_path / "m.csv").write_text("path,participant,AU1\n0.png,a,0\n0.png,a,3\n")
    with pytest.raises(LabelError, match=r"line 3: .*other labels in lines 2, 3"):
        load_dataset("manifest", tmp_path / "m.csv", references="first")


def described(folder, frames, options=None):
    """A table that has these frames of a video of 40."""
    if not (folder / "v.avi").exists():
        save_video(folder / "v.avi", 40)
    rows = [f"v.avi,a,{n},{n % 3}" for n in frames]
    (folder / "m.csv").write_text("\n".join(["path,participant,frame,AU1", *rows]))
    return load_dataset("manifest", folder / "m.csv", references="first", **options or {})


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (range(32), "40 frames, but 32 described"),
        (range(50), "40 frames, but 50 described"),
        (range(0, 64, 4), "40 frames, but 61 described"),
        (range(0, 32, 4), "40 frames, but 32 described"),
        ((3, 30, 44), "40 frames, but 45 described"),
        (range(40), ""),
        (range(39), ""),
        (range(41), ""),  # one frame, as in the licensed sets
        (range(0, 40, 4), ""),
        (range(3, 40, 4), ""),
        (range(20, 30), ""),  # a part of the recording
        ((0, 3, 30), ""),
    ],
)
def test_manifest_videos_that_drift_from_their_rows(tmp_path, frames, told):
    if not told:
        assert len(described(tmp_path, frames).table) == len(frames)
        return
    with pytest.raises(LabelError, match=rf"v\.avi: {told}.*allow_mismatch=true"):
        described(tmp_path, frames)
    assert len(described(tmp_path, frames, {"allow_mismatch": True}).table) == len(frames)


def test_manifest_says_what_to_do_about_letters_and_people(tmp_path):
    with pytest.raises(
        LabelError, match=r"'B', not a number\. .*scale=A-E \(bench and train: --set"
    ):
        manifest(tmp_path, AU12=["", "B", "2"])
    with pytest.raises(LabelError, match=r"'x', not a number\.$"):
        manifest(tmp_path, AU12=["", "x", "2"])
    (tmp_path / "m.csv").write_text("path,AU1\n0.png,0\n")
    with pytest.raises(ConfigError, match=r"no column participant.*Name in each row who is shown"):
        load_dataset("manifest", tmp_path / "m.csv", references="first")
    (tmp_path / "m.csv").write_text("path,participant,AU1\n0.png,,0\n")
    with pytest.raises(LabelError, match=r"line 2: the participant is empty\. Name in each row"):
        load_dataset("manifest", tmp_path / "m.csv", references="first")


def test_manifest_rows_in_another_order_than_their_pictures(tmp_path, caplog):
    for n in (1, 2, 10):
        touch(tmp_path / f"{n}.png", "x")
    for order, told in (((1, 2, 10), False), ((2, 1, 10), True)):
        caplog.clear()
        rows = [f"{n}.png,a,{n % 3}" for n in order]
        (tmp_path / "m.csv").write_text("\n".join(["path,participant,AU1", *rows]))
        load_dataset("manifest", tmp_path / "m.csv", references="first")
        assert ("the order of the rows counts" in caplog.text) is told


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["1.webp", "2.webp"],
            r"It holds 12 \.txt \(.*\), 2 \.webp \(such as X/SN002/1\.webp\)\.\n",
        ),
        (["00001_left.jpg"], r"1 \.jpg \(such as X/SN002/00001_left\.jpg\)"),
        (["left.zip"], r"1 \.zip \(such as X/SN002/left\.zip\)\. Unpack it\."),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, names, told):
    disfa_labels(tmp_path, (P,), 8)
    for name in names:
        touch(tmp_path / "X" / P / name, "x")
    with pytest.raises(DataNotFoundError, match=told):
        load_dataset("disfa", tmp_path)


def test_manifest_video_frames_from_1(tmp_path):
    save_video(tmp_path / "v.avi", 4)
    for most in (4, 3):
        rows = [f"v.avi,a,{n},{n % 3}" for n in range(1, most + 1)]
        (tmp_path / "m.csv").write_text("\n".join(["path,participant,frame,AU1", *rows]))
        if most == 4:
            source = load_dataset("manifest", tmp_path / "m.csv", references="first")
            assert source.table["source_index"].tolist() == [0, 1, 2, 3]
    given = load_dataset("manifest", tmp_path / "m.csv", references="first", first_frame=1)
    assert given.table["source_index"].tolist() == [0, 1, 2]

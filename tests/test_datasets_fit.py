"""Frames that don't fit their labels, copies of pictures, unclear tables: read right or refused."""

import pandas as pd
import pytest
from test_datasets_check import save_video
from test_datasets_licensed import DISFA_AUS, disfa_images, disfa_labels, plus_label, touch

from siamcal.datasets import load_dataset
from siamcal.datasets.check import check_dataset
from siamcal.errors import ConfigError, LabelError

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

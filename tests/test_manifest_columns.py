"""What the columns of a stranger's table mean, value by value."""

import re

import numpy as np
import pandas as pd
import pytest
from test_datasets_check import save_video
from test_datasets_fit import manifest
from test_datasets_licensed import touch

from siamcal.datasets import load_dataset
from siamcal.datasets.manifest_labels import from_zero, in_steps, occurrence_aus, one_side
from siamcal.datasets.reading import Problems
from siamcal.errors import ConfigError, DataNotFoundError, LabelError


@pytest.fixture
def problems():
    return Problems(strict=False)


# --- sides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", ["AU12L AU12R", "au_12_left AU012-right", "L12 R12", "AUL12 auR12"]
)
@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ("max", [3, 2, 4, 1]),
        ("mean", [2, 1, 4, 1]),
        ("left", [1, 2, 4, np.nan]),
        ("right", [3, 0, np.nan, 1]),
    ],
)
def test_both_sides_become_one(tmp_path, names, sides, expected) -> None:
    left, right = names.split()
    raw = pd.DataFrame({left: [1, 2, 4, -1], right: [3, 0, "", 1], "other": "x"})
    found = one_side(raw, sides, tmp_path)
    assert list(found.columns) == ["other", "AU12"]
    np.testing.assert_array_equal(found["AU12"].to_numpy(float), expected)


def test_a_lone_side_is_the_au_of_its_side_only(tmp_path) -> None:
    raw = pd.DataFrame({"AU12L": [1, 2], "AU1": [0, 3]})
    assert one_side(raw, "max", tmp_path)["AU12"].tolist() == [1, 2]
    assert one_side(raw, "left", tmp_path)["AU12"].tolist() == [1, 2]
    with pytest.raises(ConfigError, match="AU12L"):  # its right side isn't known
        one_side(raw, "right", tmp_path)
    with pytest.raises(ConfigError, match="sides=max"):
        one_side(raw, "", tmp_path)
    with pytest.raises(ConfigError, match="sides is 'both'"):
        one_side(raw, "both", tmp_path)


def test_openfaces_columns_are_no_sides(tmp_path) -> None:
    raw = pd.DataFrame({"AU12_r": [1.5], "AU12_c": [1], "AU01_r": [0.2]})
    for sides in ("", "max", "left"):
        assert one_side(raw, sides, tmp_path).equals(raw)


# --- scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "given", "expected"),
    [
        (5, ["0", "3", ""], ["0", "3", ""]),
        ("5.0", ["0", "3"], ["0", "3"]),
        (1, ["0", "0.4", "1"], [0, 2, 5]),
        ("100", ["20", "x", "100"], [1, "x", 5]),
        ("a-e", [" b ", "E", "0", "?"], ["2", "5", "0", "?"]),
    ],
)
def test_intensities_are_brought_to_0_to_5(scale, given, expected) -> None:
    raw = pd.DataFrame({"AU1": given, "note": given})
    found = in_steps(raw, {1: "AU1"}, scale)
    assert found["AU1"].tolist() == expected
    assert found["note"].tolist() == given
    assert raw["AU1"].tolist() == given  # not written to


@pytest.mark.parametrize("scale", [0, -1, "inf", "nan", "B-F"])
def test_other_scales_are_refused(scale) -> None:
    with pytest.raises(ConfigError, match="scale is"):
        in_steps(pd.DataFrame({"AU1": [1]}), {1: "AU1"}, scale)


# --- occurrence or intensity ---------------------------------------------------------------------

FLAG, RARE, LEVELS = [0, 1, 1], [0, 0, 0], [0, 3, 5]


@pytest.mark.parametrize(
    ("values", "labels", "unscaled", "expected"),
    [
        ({1: FLAG, 2: RARE}, "auto", True, {1, 2}),
        ({1: FLAG, 2: RARE}, "intensity", True, set()),
        ({1: FLAG}, "auto", False, set()),  # of another scale: intensities
        ({1: LEVELS, 2: RARE}, "auto", True, set()),  # rare, but no contradiction
        ({1: LEVELS, 2: LEVELS}, "auto", True, set()),
        ({1: LEVELS, 2: FLAG}, "mixed", True, {2}),
        ({1: LEVELS, 2: FLAG, 3: RARE}, "mixed", True, {2, 3}),
        ({1: LEVELS, 2: FLAG}, "occurrence", True, {1, 2}),
        ({1: [0, 0.5, 2], 2: [0, -1, 0.5]}, "mixed", True, set()),
        ({1: [-1, np.nan, 1]}, "auto", True, {1}),
    ],
)
def test_what_is_occurrence(tmp_path, values, labels, unscaled, expected) -> None:
    values = {au: np.array(column, float) for au, column in values.items()}
    columns = {au: f"AU{au}" for au in values}
    assert occurrence_aus(values, columns, labels, unscaled, tmp_path) == expected


@pytest.mark.parametrize(
    ("values", "labels", "words"),
    [
        ({1: LEVELS, 2: FLAG}, "auto", "AU2 hold only 0 and 1.*go up to 5"),
        ({1: [0, 0.5, 1]}, "auto", "values such as 0.5 and none above 1"),
        ({1: [0, 2.5, 3]}, "occurrence", "values such as 2.5 and none above 3"),
    ],
)
def test_what_cannot_be_told_is_asked(tmp_path, values, labels, words) -> None:
    values = {au: np.array(column, float) for au, column in values.items()}
    with pytest.raises(ConfigError, match=words):
        occurrence_aus(values, {au: f"AU{au}" for au in values}, labels, True, tmp_path)


def test_openfaces_endings_say_which_is_which(tmp_path) -> None:
    values = {1: np.array(LEVELS), 2: np.array(FLAG), 3: np.array(FLAG)}
    columns = {1: "AU01_r", 2: "AU02_r", 3: "AU03_c"}
    assert occurrence_aus(values, columns, "auto", True, tmp_path) == {3}


# --- frames of videos ----------------------------------------------------------------------------


def frames_of(*indices, name="v.avi"):
    return pd.DataFrame({"source": name, "source_index": indices})


@pytest.mark.parametrize(
    ("indices", "first", "expected"),
    [
        ((0, 2, 3), "auto", [0, 2, 3]),
        ((1, 2), 1, [0, 1]),
        ((1, 2), 0, [1, 2]),
        ((3, 4), "1", [2, 3]),
        ((2, 3), "auto", [2, 3]),
        ((-1, -1), 1, [-1, -1]),  # pictures
    ],
)
def test_frames_are_counted_from_0(tmp_path, problems, indices, first, expected) -> None:
    found = from_zero(frames_of(*indices), tmp_path, first, problems)
    assert found.tolist() == expected
    assert not problems.found


def test_the_ends_of_videos_tell_the_first_number(tmp_path, problems) -> None:
    for name in ("v.avi", "w.avi"):
        save_video(tmp_path / name, 4)
    video, other = str(tmp_path / "v.avi"), str(tmp_path / "w.avi")
    past = frames_of(1, 2, 4, name=video)  # of 4 frames the last, counted from 1
    assert from_zero(past, tmp_path, "auto", problems).tolist() == [0, 1, 3]
    assert [p.level for p in problems.found] == ["warning"]
    for table in (
        frames_of(1, 3, name=video),  # the last, counted from 0
        frames_of(1, 2, name=video),  # neither
        pd.concat([past, frames_of(1, 3, name=other)]),  # not of one mind
    ):
        problems.found.clear()
        from_zero(table, tmp_path, "auto", problems)
        assert problems.found[0].level == "error"
        assert "first_frame=0" in problems.found[0].text
    problems.found.clear()
    both = pd.concat([frames_of(1, 4, name=video), frames_of(0, 3, name=other)])
    assert from_zero(both, tmp_path, "auto", problems).tolist() == [1, 4, 0, 3]
    with pytest.raises(ConfigError, match="below first_frame=1"):
        from_zero(frames_of(0, 1), tmp_path, 1, problems)


# --- whole tables --------------------------------------------------------------------------------


def test_duplicates_are_told_by_frame_and_person(tmp_path, caplog) -> None:
    for n in range(2):
        touch(tmp_path / f"{n}.png", "x")

    def of(*rows):
        text = "\n".join(["path,participant,view,AU1,AU2", *rows])
        (tmp_path / "m.csv").write_text(text)
        return load_dataset("manifest", tmp_path / "m.csv", references="first")

    of("0.png,a,left,3,2", "0.png,b,left,4,2", "0.png,a,right,4,2", "1.png,a,left,0,2")
    assert "stands here twice" not in caplog.text
    of("0.png,a,left,3,2", "0.png,a,left,3,2")
    assert "2 rows describe a frame that stands here twice" in caplog.text
    with pytest.raises(LabelError, match=r"line 4: the frame 0\.png .*lines 2, 4 \(AU02\)"):
        of("0.png,a,left,3,2", "1.png,a,left,3,2", "0.png,a,left,3,4")


def test_five_folds_from_the_eleventh_person_on(tmp_path) -> None:
    def folds(people, **options):
        names = [f"p{n:02d}" for n in range(people)]
        return manifest(
            tmp_path, options=options, participant=names, AU1=[n % 6 for n in range(people)]
        ).folds

    assert folds(10) == tuple((f"p{n:02d}",) for n in range(10))
    eleven = folds(11)
    assert [len(fold) for fold in eleven] == [3, 2, 2, 2, 2]
    assert eleven[0] == ("p00", "p05", "p10")
    assert len(folds(11, folds=11)) == len(folds(11, folds=2)) + 9 == 11
    with pytest.raises(ConfigError, match="0 to 11"):
        folds(11, folds=12)
    with pytest.raises(ConfigError, match="folds is -1"):
        folds(11, folds=-1)


def test_groups_are_what_is_the_same_in_all_rows_of_a_person(tmp_path) -> None:
    source = manifest(
        tmp_path,
        participant=["b", "b", "a"],
        AU1=[0, 3, 5],
        sex=["f", "f", "m"],
        mood=["x", "y", "z"],
        site=["", "", ""],
    )
    assert source.participants_table.to_dict("list") == {
        "participant": ["b", "a"],
        "sex": ["f", "m"],
        "site": ["", ""],
    }
    assert manifest(tmp_path, AU1=[0, 5]).participants_table is None


def test_intensity_5_and_the_words_for_not_known(tmp_path) -> None:
    given = [5, "", "nan", "None", -1, 7, "9"]
    found = manifest(tmp_path, options={"invalid": "7, 9"}, AU1=given, AU2=[5] * 7).table["AU01"]
    assert found.iloc[0] == 5
    assert not (found.iloc[1:] >= 0).any()
    with pytest.raises(LabelError, match=r"line 7: AU1 is 7; .*invalid=7"):
        manifest(tmp_path, options={"invalid": "9"}, AU1=given, AU2=[5] * 7)
    with pytest.raises(LabelError, match=r"line 2: AU1 is 5\.5"):
        manifest(tmp_path, AU1=[5.5])


@pytest.mark.parametrize(
    ("frame", "fine"), [("0", 1), ("3.0", 1), ("2.5", 0), ("-1", 0), ("x", 0), ("", 0)]
)
def test_frames_are_whole_numbers_from_0(tmp_path, frame, fine) -> None:
    if fine:
        assert manifest(tmp_path, AU1=[3], frame=[frame]).table["frame"].tolist() == [float(frame)]
        return
    with pytest.raises(LabelError, match=re.escape(f"line 2: frame is {frame!r}")):
        manifest(tmp_path, AU1=[3], frame=[frame])


def test_what_isnt_given_is_taken_from_the_path(tmp_path) -> None:
    touch(tmp_path / "clip1" / "0.png", "x")
    (tmp_path / "m.csv").write_text("Path,PARTICIPANT,au_5\nclip1/0.png, ann ,4\n")
    table = load_dataset("manifest", tmp_path / "m.csv", references="first").table
    row = table.iloc[0]
    assert (row["sequence"], row["view"], row["participant"]) == ("clip1", "front", "ann")
    assert (row["AU05"], row["source_index"], row["frame"]) == (4, -1, 0)


def test_the_table_of_a_folder_and_a_folder_without(tmp_path) -> None:
    with pytest.raises(DataNotFoundError, match="neither"):
        load_dataset("manifest", tmp_path)
    touch(tmp_path / "0.png", "x")
    pd.DataFrame({"path": ["0.png"], "participant": ["a"], "AU1": [3]}).to_parquet(
        tmp_path / "manifest.parquet"
    )
    assert len(load_dataset("manifest", tmp_path, references="first").table) == 1
    with pytest.raises(ConfigError, match="labels is 'both'"):
        load_dataset("manifest", tmp_path, references="first", labels="both")

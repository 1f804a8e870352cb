"""Label files line by line, and which pictures belong to them: the smallest cases of each rule."""

import numpy as np
import pytest
from test_datasets_check import save_video
from test_datasets_licensed import touch

from siamcal.datasets import disfa, disfa_plus, unbc
from siamcal.datasets.base import MaskedLabel
from siamcal.datasets.pictures import (
    Series,
    best_series,
    count_frames,
    first_number,
    is_derived,
    joined_parts,
    mismatch,
    series_in,
    shifts,
    tolerance,
    unclear_numbering,
)
from siamcal.datasets.reading import (
    Problems,
    examples,
    frame_table,
    keep_first,
    last_number,
    mask_foreign,
    read_label_text,
    read_metadata,
    reduced,
    report_gaps,
    walk_files,
)
from siamcal.errors import ConfigError, LabelError


@pytest.fixture
def problems():
    return Problems(strict=False)


def levels(problems):
    return [problem.level for problem in problems.found]


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ", ", " ", ";", "\t,"])
def test_disfa_reads_what_stands_behind_the_frame(tmp_path, problems, separator) -> None:
    lines = [f"{n}{separator}{(2 * n) % 6}" for n in range(1, 9)]
    found = disfa._read_labels(touch(tmp_path / "l.txt", "\n".join(lines)), 4, problems)
    assert found.tolist() == [2, 4, 0, 2, 4, 0, 2, 4]
    assert not problems.found


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("2", "isn't frame,intensity"),
        ("2,1,1", "isn't frame,intensity"),
        ("3,1", "the frame is 3, but line 2"),
        ("2,0.5", "the intensity is 0.5"),
        ("1,1", "the frame is 1, but line 2"),
    ],
)
def test_disfa_names_the_line_that_is_broken(tmp_path, problems, line, fault) -> None:
    path = touch(tmp_path / "l.txt", f"1,0\n{line}\n3,5\n")
    assert disfa._read_labels(path, 4, problems) is None
    (found,) = problems.found
    assert found.place == f"{path}, line 2"
    assert fault in found.text


def test_disfa_masks_at_most_one_label_of_a_hundred(tmp_path, problems) -> None:
    lines = [f"{n},{n % 6}" for n in range(1, 101)]
    lines[9], lines[19] = "10,6", "20,5"
    values = disfa._read_labels(touch(tmp_path / "l.txt", "\n".join(lines)), 4, problems)
    assert np.flatnonzero(values == -1).tolist() == [9]
    assert values[19] == 5
    assert levels(problems) == ["warning"]
    assert problems.masked == [MaskedLabel(str(tmp_path / "l.txt"), 10, 4, 6)]
    lines[29] = "30,-1"
    assert disfa._read_labels(touch(tmp_path / "l.txt", "\n".join(lines)), 4, problems) is None
    assert levels(problems) == ["warning", "error"]
    assert len(problems.masked) == 1  # of a file that isn't used, nothing was masked


def test_disfa_plus_reads_lines_behind_a_header_of_any_small_length(tmp_path, problems) -> None:
    lines = ["000.jpg 0", "001.jpg\t3", "frame_0010.png     5"]
    for header in range(6):
        text = "\n".join(["about the frames"] * header + lines + ["", "  "])
        found = disfa_plus._read_labels(touch(tmp_path / "l.txt", text), 4, problems)
        assert found == {0: 0, 1: 3, 10: 5}
    assert not problems.found
    text = "\n".join(["about the frames"] * 6 + lines)
    assert disfa_plus._read_labels(touch(tmp_path / "l.txt", text), 4, problems) is None


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["h", "000.jpg 0", "000.jpg 1"], 3),  # twice
        (["h", "000.jpg 0", "words"], 3),  # no header any more
        (["h", "h", "000.jpg x"], 3),  # names a picture
        (["h", "abc.jpg 1"], 2),  # without a number
        (["h", "h"], 2),  # no frame at all
        (["000.jpg 0", "001.jpg 6"], 2),  # half of the file
        (["000.jpg -1"], 1),
    ],
)
def test_disfa_plus_names_the_line_that_is_broken(tmp_path, problems, lines, number) -> None:
    path = touch(tmp_path / "l.txt", "\n".join(lines))
    assert disfa_plus._read_labels(path, 4, problems) is None
    assert [found.place for found in problems.found] == [f"{path}, line {number}"]


def test_disfa_plus_masks_at_most_one_label_of_a_hundred(tmp_path, problems) -> None:
    lines = ["h", "h", *(f"{n:03d}.jpg {n % 6}" for n in range(100))]
    lines[11] = "009.jpg 6"
    path = touch(tmp_path / "l.txt", "\n".join(lines))
    values = disfa_plus._read_labels(path, 12, problems)
    assert [frame for frame, value in values.items() if value == -1] == [9]
    assert problems.masked == [MaskedLabel(str(path), 12, 12, 6)]
    assert levels(problems) == ["warning"]
    path.write_text("\n".join(lines[:-1]))  # 99 labels
    assert disfa_plus._read_labels(path, 12, problems) is None
    assert problems.found[-1].place == f"{path}, line 12"


def facs(path, problems, aus=(4, 6, 12, 43)):
    """Intensities of a frame, and what of it lies outside the scale: (line, AU, value)."""
    foreign: list[MaskedLabel] = []
    found = unbc._read_facs(path, aus, foreign, problems)
    assert {label.file for label in foreign} <= {str(path)}
    told = [(label.line, label.au, label.value) for label in foreign]
    return (found if found is None else found.tolist()), told


def test_unbc_takes_the_strongest_of_an_au_and_0_for_what_is_not_listed(tmp_path, problems) -> None:
    text = "6.0 2.0 1 9\n\n12,4,0,0\n6 5\n12 1\n99 7\n"
    assert facs(touch(tmp_path / "l.txt", text), problems) == ([0, 5, 4, 0], [])
    assert facs(touch(tmp_path / "l.txt", ""), problems) == ([0, 0, 0, 0], [])
    assert not problems.found


def test_unbc_masks_what_lies_outside_the_scale(tmp_path, problems) -> None:
    text = "6 6\n6 2\n12 -1\n43 5\n99 -3\n"
    told = [(1, 6, 6), (3, 12, -1)]
    assert facs(touch(tmp_path / "l.txt", text), problems) == ([0, -1, -1, 5], told)
    assert not problems.found  # how many they are is the sequence's to judge


@pytest.mark.parametrize(("frames", "kept"), [(25, 25), (24, 0)])
def test_unbc_masks_one_percent_of_a_sequence(tmp_path, problems, frames, kept) -> None:
    keys = [("p", "s", n) for n in range(1, frames + 1)]
    labels = {key: touch(tmp_path / f"s{key[2]:03d}_facs.txt", "6 1\n") for key in keys}
    labels[keys[4]].write_text("4 3\n6 7\n")
    read = unbc._read_sequence(keys, labels, (4, 6, 12, 43), problems)  # 4 labels a frame
    assert len(read) == kept
    assert problems.found[0].place == f"{labels[keys[4]]}, line 2"
    if kept:
        assert dict(read)[keys[4]].tolist() == [3, -1, 0, 0]
        assert problems.masked == [MaskedLabel(str(labels[keys[4]]), 2, 6, 7)]
    else:
        assert "AU6 has intensity 7" in problems.found[0].text
        assert "1 of 96 labels of the sequence" in problems.found[0].text


@pytest.mark.parametrize("line", ["6", "6.5 1", "six 1", "6 1 x", "6 1.5", "6 inf"])
def test_unbc_names_the_line_that_is_broken(tmp_path, problems, line) -> None:
    path = touch(tmp_path / "l.txt", f"4 1\n{line}\n12 1\n")
    assert facs(path, problems) == (None, [])
    assert [found.place for found in problems.found] == [f"{path}, line 2"]


def test_one_percent_of_foreign_labels_is_the_most(tmp_path, problems) -> None:
    path = tmp_path / "l.txt"
    foreign = [MaskedLabel(str(path), 3, 12, 9.0)]
    assert mask_foreign([], 1, problems)
    assert mask_foreign(foreign, 100, problems)
    assert [(p.level, p.place) for p in problems.found] == [("warning", f"{path}, line 3")]
    assert problems.masked == foreign
    assert not mask_foreign(foreign, 99, problems)
    assert problems.found[-1].place == f"{path}, line 3"
    assert "9; allowed" in problems.found[-1].text
    assert "1 of 99 labels" in problems.found[-1].text


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path, problems) -> None:
    path = tmp_path / "l.txt"
    for place, data in ((1, b"\xff1,0\n"), (3, b"1,0\n2,0\n3,\xff\n")):
        path.write_bytes(data)
        assert read_label_text(path, problems) is None
        assert problems.found[-1].place == f"{path}, line {place}"
    assert read_label_text(tmp_path / "none", problems) is None
    path.write_bytes(b"\xef\xbb\xbf1,0\r\n2,0")
    assert read_label_text(path, problems) == ["1,0", "2,0"]


# --- folders -------------------------------------------------------------------------------------


def test_shallow_folders_come_first_and_each_once(tmp_path) -> None:
    for name in ("b/1.txt", "a/z/2.txt", "a/1.txt", "a/0.txt", "c/.hidden", "__MACOSX/x", ".d/y"):
        touch(tmp_path / name)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    found = [(str(f.relative_to(tmp_path)), names) for f, names in walk_files(tmp_path)]
    assert found == [("a", ["0.txt", "1.txt"]), ("b", ["1.txt"]), ("a/z", ["2.txt"])]


def test_a_copy_must_be_equal(tmp_path, problems) -> None:
    one, same, other = (touch(tmp_path / n, t) for n, t in (("a", "1"), ("b", "1"), ("c", "2")))
    known: dict = {}
    for path in (one, one, same):
        keep_first(known, "k", path, problems)
    assert not problems.found
    keep_first(known, "k", other, problems)
    assert levels(problems) == ["error"]
    assert known == {"k": one}


def test_small_helpers(problems) -> None:
    assert examples(["a", "b", "c"]) == "a, b, c"
    assert examples(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert examples(["a", "b"], 1) == "a and 1 more"
    assert [last_number(s) for s in ("frame_0012", "7", "a", "1a")] == [12, 7, None, None]
    assert reduced([("a", "b"), ("c",), ("d",)], {"b", "d"}) == (("b",), ("d",))
    table = frame_table("p", "v", "s", [1, 2], "x", -1, {4: [0.0, 3.0]})
    assert table["AU04"].tolist() == [0, 3]
    assert table["is_reference"].tolist() == [False, False]
    report_gaps("here", [], [], problems)
    assert not problems.found
    report_gaps("here", ["4"], ["1", "2"], problems)
    assert [p.text.split(" (")[0] for p in problems.found] == [
        "1 frames have no label",
        "2 labelled frames are missing",
    ]


def test_a_table_of_people_may_have_spaces_behind_its_commas(tmp_path) -> None:
    path = touch(tmp_path / "people.csv", "participant, sex, age\n007, f, 30\n")
    assert read_metadata(path).to_dict("list") == {
        "participant": ["007"],
        "sex": ["f"],
        "age": ["30"],
    }
    assert read_metadata(None) is None


def test_a_strict_check_raises_and_another_one_collects(caplog) -> None:
    strict = Problems()
    strict.warning("there", "odd")
    assert "there: odd" in caplog.text
    with pytest.raises(LabelError, match="there, line 4: broken"):
        strict.error("there", "broken", 4)
    with pytest.raises(LabelError, match=r"^there: broken"):
        strict.error("there", "broken")
    caplog.clear()
    collecting = Problems(strict=False)
    collecting.warning("there", "odd")
    collecting.error("there", "broken", 0)
    assert not caplog.text
    assert [(p.level, p.place) for p in collecting.found] == [
        ("warning", "there"),
        ("error", "there, line 0"),
    ]


# --- pictures ------------------------------------------------------------------------------------


def series(tmp_path, numbers, name="f", size=8, derived=False):
    from PIL import Image

    files = {n: tmp_path / name / f"{n}.png" for n in numbers}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size)).save(path)
    return Series(tmp_path / name, files, derived)


@pytest.mark.parametrize(
    ("count", "allowed"), [(1, 1), (99, 1), (100, 1), (199, 1), (200, 2), (4845, 48)]
)
def test_one_percent_of_the_frames_may_be_lost_and_at_least_one(count, allowed, problems) -> None:
    assert tolerance(count) == allowed
    for difference in (0, allowed, -allowed):
        assert not mismatch("here", count + difference, count, problems)
    assert not problems.found
    for frames in (count + allowed + 1, count - allowed - 1):
        assert mismatch("here", frames, count, problems)
        assert not mismatch("here", frames, count, problems, allow=True)
    assert levels(problems) == ["error", "warning"] * 2
    assert f"{count + allowed + 1} frames, but {count} labels" in problems.found[0].text
    assert "another frame rate" in problems.found[0].text
    assert "frames are missing" in problems.found[2].text


def test_both_ends_bound_the_shift() -> None:
    labelled = range(1, 11)
    cases = {
        (1, 10): 0,  # as the labels
        (0, 9): -1,  # counted from 0
        (0, 8): -1,  # and the last is lost
        (2, 10): 0,  # the first is lost
        (1, 9): None,  # the last of 1 to 10, or the first of 0 to 9
        (0, 10): None,  # one too many at either end
        (2, 11): None,  # neither
        (2, 9): None,
    }
    for (first, last), shift in cases.items():
        key = ("p", "left")
        assert shifts({key: range(first, last + 1)}, {key: labelled}, (0, -1)) == {key: shift}


def test_recordings_beside_it_decide_what_one_does_not_tell() -> None:
    labelled = range(1, 11)

    def told(**others):
        numbers = {("p", "left"): range(1, 10)}
        numbers |= {tuple(key.split("_")): value for key, value in others.items()}
        return shifts(numbers, dict.fromkeys(numbers, labelled), (0, -1))[("p", "left")]

    from_0, from_1 = range(10), range(1, 11)
    assert told() is None
    assert told(p_right=from_0) == -1
    assert told(q_left=from_1) == 0
    assert told(q_right=from_0) is None  # neither the person nor the camera
    assert told(p_right=from_0, q_left=from_1) is None  # not of one mind
    assert told(p_right=from_0, q_left=from_0) == -1


def test_numberings_of_a_folder_are_never_mixed(tmp_path) -> None:
    names = ["1.jpg", "2.jpg", "3.jpg", "x_1.jpg", "x_2.jpg", "1.png", "notes.txt", "cover.jpg"]
    found = series_in(tmp_path, names, tmp_path)
    assert [sorted(each.files) for each in found] == [[1, 2, 3], [1, 2], [1]]
    padded = series_in(tmp_path, ["1.jpg", "2.jpg", "0001.jpg", "0002.jpg", "0003.jpg"], tmp_path)
    assert [[p.name for p in each.files.values()] for each in padded] == [
        ["0001.jpg", "0002.jpg", "0003.jpg"],
        ["1.jpg", "2.jpg"],
    ]
    (one,) = series_in(tmp_path, ["08.jpg", "09.jpg", "10.jpg", "100.jpg"], tmp_path)
    assert list(one.files) == [8, 9, 10, 100]


def test_parts_beside_each_other_are_one_where_no_number_stands_twice(tmp_path) -> None:
    def part(name, numbers):
        return Series(tmp_path / name, {n: tmp_path / name / f"{n}.jpg" for n in numbers})

    one, two, again = part("part1", [4, 5]), part("part0", [1, 2]), part("part2", [5, 6])
    (joined,) = joined_parts([one, two])
    assert sorted(joined.files) == [1, 2, 4, 5]
    assert joined.folder == tmp_path
    assert joined_parts([one, again]) == [one, again]
    assert joined_parts([one, part("other", [1])])[0] is one


def test_the_most_complete_original_is_used(tmp_path, problems) -> None:
    whole = series(tmp_path, range(1, 11), "a")
    cases = [
        (series(tmp_path, range(1, 11), "b", derived=True), 0),  # an original
        (series(tmp_path, range(1, 7), "c"), 0),  # complete
        (series(tmp_path, range(1, 11), "d", size=16), 1),  # the larger one
        (series(tmp_path, range(10), "e"), 0),  # counted as the labels
        (series(tmp_path, range(1, 10), "f"), 0),  # the nearer number
    ]
    for other, best in cases:
        pair = [whole, other]
        for found in (pair, pair[::-1]):
            assert best_series(found, 10, "p", problems) is pair[best], other
        assert f"{pair[best]} is used; passed over: {pair[1 - best]}" in problems.found[-1].text
    assert best_series([], 10, "p", problems) is None
    count = len(problems.found)
    assert best_series([whole], 10, "p", problems) is whole
    assert len(problems.found) == count
    assert best_series([cases[0][0]], 10, "p", problems) is cases[0][0]
    assert "aligned, cropped" in problems.found[-1].text
    few, fewer = (series(tmp_path, range(n), f"g{n}", size=4 * n) for n in (5, 4))
    assert best_series([fewer, few], 10, "p", problems) is few


@pytest.mark.parametrize("shift", [0, -1])
def test_lost_and_surplus_pictures_are_told_at_both_ends(tmp_path, problems, shift) -> None:
    numbers = [n + shift for n in (2, 3, 5, 11)]
    found = disfa._of_series(series(tmp_path, numbers), shift, 5, problems)
    assert found == [str(tmp_path / "f" / f"{n + shift}.png") for n in range(1, 6)]
    texts = [problem.text for problem in problems.found if "counted from" not in problem.text]
    assert texts == [
        "1 frames have no label (11): left out.",
        "2 labelled frames are missing (1, 4).",
    ]
    problems.found.clear()
    disfa._of_series(series(tmp_path, [n + shift for n in range(4)], "g"), shift, 5, problems)
    assert "missing (4, 5)" in problems.found[-1].text
    assert "no label (0)" in problems.found[-2].text
    assert len(problems.found) == 2 - shift  # and how they are counted


def test_derived_pictures_are_told_by_words(tmp_path) -> None:
    derived = ("aligned_images", "Crops_left", "OpenFace/v", "simAligned", "x/faceCrops")
    originals = ("Images", "surface", "Interface", "Left_Camera", "scalpel", "flower")
    assert [is_derived(tmp_path.__class__(name)) for name in derived] == [True] * len(derived)
    assert [is_derived(tmp_path.__class__(name)) for name in originals] == [False] * len(originals)


def test_first_number_is_auto_or_whole(problems) -> None:
    assert [first_number(v) for v in ("auto", 0, "1", 12)] == [None, 0, 1, 12]
    for wrong in (-1, "x", 1.5):
        with pytest.raises(ConfigError, match="first_frame"):
            first_number(wrong)
    unclear_numbering("here", [2, 3], range(1, 4), problems)
    assert "numbered 2 to 3 (2), the labels 1 to 3 (3)" in problems.found[0].text
    assert "first_frame=1" in problems.found[0].text
    unclear_numbering("here", [2, 3], range(1, 4), problems, False)
    assert "allow_mismatch=true" in problems.found[1].text


def test_frames_of_a_video_are_counted(tmp_path) -> None:
    save_video(tmp_path / "v.avi", 7)
    assert count_frames(tmp_path / "v.avi") == (7, "")
    touch(tmp_path / "x.avi", "nothing")
    count, fault = count_frames(tmp_path / "x.avi")
    assert count == -1
    assert fault.startswith("unreadable")

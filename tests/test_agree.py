"""`siamcal agree` on tables as the tools write them; the oracle is scipy and numpy by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats
from skimage.io import imread
from tool_tables import LIBREFACE_R, OPENFACE_R, blendshapes, libreface, openface, py_feat

import siamcal.cli
from siamcal.errors import ConfigError
from siamcal.evaluation.two_tables import Options, agree
from siamcal.inference.formats.csv import CsvWriter
from siamcal.inference.prediction import FrameResult
from siamcal.inference.table import AURows
from siamcal.recalibration.action_units import SHAPES_OF_AU, readings_of_shapes
from siamcal.recalibration.tools import BLENDSHAPES


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["siamcal", "agree", *map(str, arguments)])
        code = 0
        try:
            siamcal.cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


def siamcal_table(path, values, aus, failed=(), fps=30.0, every=1, people=1):
    """As `siamcal predict` writes it, of (N, A) intensities."""
    rows = AURows(aus, [2.0] * len(aus), "intensity")
    with path.open("wb") as file:
        writer = CsvWriter(file, rows.columns)
        for index, row in enumerate(values):
            for number in range(people):
                read = None if index in failed else np.asarray(row, np.float32) * (1 - number / 2)
                at = index * every
                result = FrameResult(at, at / fps, "clip.mp4", read, face_id=number, confidence=0.9)
                writer.write(rows.row(result))
        writer.close()
    return path


def moving(rows, columns, seed=0):
    """(rows, columns) smooth traces in 0 to 5, no two alike."""
    rng = np.random.default_rng(seed)
    time = np.arange(rows)[:, None] / 30
    waves = [
        np.sin(time * rng.uniform(0.5, 4, columns) + rng.uniform(0, 6, columns)) for _ in range(3)
    ]
    return np.clip(1.5 + sum(waves), 0, 5)


def read(path):
    return pd.read_csv(path, skipinitialspace=True)


def figures(found):
    return {au.au: au for au in found.aus}


def test_siamcal_against_openface_by_hand(tmp_path) -> None:
    aus, failed_a, failed_b = (1, 6, 12, 28), (0, 7), (3, 20)
    values = moving(60, 4)
    mine = siamcal_table(tmp_path / "mine.csv", values, aus, failed_a)
    theirs = openface(tmp_path / "theirs.csv", rows=60, failed=failed_b)
    found = agree(mine, theirs)
    assert (found.a.tool, found.b.tool) == ("siamcal predict", "OpenFace 2")
    assert (found.a.failed, found.b.failed) == ({"success 0": 2}, {"success 0": 2})
    assert found.matching.by == "frame"
    assert found.notes == ()
    table = read(theirs)
    kept = [i for i in range(60) if i not in (*failed_a, *(f - 1 for f in failed_b))]
    assert list(figures(found)) == [1, 6, 12]  # OpenFace has no reading of AU 28
    for place, au in enumerate((1, 6, 12)):
        x, y = values[kept, place].round(3), table[f"AU{au:02d}_r"].to_numpy()[kept]
        got = figures(found)[au]
        assert got.frames == len(kept)
        assert got.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
        assert got.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-3)
        assert got.mean_a == pytest.approx(x.mean(), abs=1e-3)
        assert got.mean_b == pytest.approx(y.mean())
        assert got.difference == pytest.approx(np.mean(x - y), abs=1e-3)
        assert got.absolute_difference == pytest.approx(np.mean(abs(x - y)), abs=1e-3)
        long = pd.DataFrame({"frame": [*range(len(x))] * 2, "who": ["x"] * len(x) + ["y"] * len(x)})
        table3 = pingouin.intraclass_corr(
            long.assign(value=np.concatenate([x, y])), "frame", "who", "value"
        )
        wanted = table3.set_index("Type").loc[lambda t: t.index.isin(["ICC3", "ICC(C,1)"]), "ICC"]
        assert got.icc == pytest.approx(float(wanted.iloc[0]), abs=1e-3)


def test_negative_readings_count_in_the_icc(tmp_path) -> None:
    a, b = libreface(tmp_path / "a.csv", rows=40), libreface(tmp_path / "b.csv", rows=40)
    table = read(b)
    shifted = table.filter(like="_intensity").columns
    table[shifted] = read(a)[shifted] - 3
    table.to_csv(b, index=False)
    for au in agree(a, b).aus:
        assert au.mean_b < 0
        assert au.icc == pytest.approx(1)
        assert au.difference == pytest.approx(3)


@pytest.mark.parametrize("lag", [-14, 0, 9])
def test_a_planted_lag_is_found(tmp_path, lag) -> None:
    values = moving(240, 3)
    earlier, later = values[60:180], values[60 - lag : 180 - lag]  # later[i] = earlier[i - lag]
    a = siamcal_table(tmp_path / "a.csv", earlier, (1, 2, 12), fps=25)
    b = siamcal_table(tmp_path / "b.csv", later, (1, 2, 12), fps=25)
    for au in agree(a, b).aus:
        assert au.lag_frames == lag
        assert au.lag_seconds == pytest.approx(lag / 25)
        assert au.lag_pearson == pytest.approx(1, abs=1e-6)
        assert lag == 0 or au.pearson < 0.999
    for au in agree(b, a).aus:
        assert au.lag_frames == -lag
    near = agree(a, b, Options(max_lag=0.2))
    assert all(abs(au.lag_frames) <= 5 for au in near.aus)


@pytest.mark.parametrize(
    ("by", "every", "fps"), [("frame", 2, 25), ("time", 3, 25), ("time", 1, 50)]
)
def test_a_planted_lag_is_found_at_other_rates(tmp_path, by, every, fps) -> None:
    values = moving(300, 1)
    earlier, later = values[50:250], values[43:243]  # by 7 frames at 25 a second
    a = siamcal_table(tmp_path / "a.csv", earlier, (12,), fps=25)
    rows = later[::every] if fps == 25 else np.repeat(later, 2, 0)
    b = siamcal_table(tmp_path / "b.csv", rows, (12,), fps=fps, every=every)
    for sign, pair in ((1, (a, b)), (-1, (b, a))):
        (au,) = agree(*pair, Options(by=by)).aus
        assert au.lag_seconds == pytest.approx(sign * 7 / 25)
        assert au.lag_frames == sign * 7 * fps / 25
        assert au.lag_pearson == pytest.approx(1, abs=1e-6)


def test_blendshapes_are_matched_by_time_and_correlated_only(tmp_path) -> None:
    values = moving(50, 2)
    a = siamcal_table(tmp_path / "a.csv", values, (1, 12), fps=1000 / 33)
    b = blendshapes(tmp_path / "b.csv", rows=50)
    found = agree(a, b)
    assert found.matching.by == "time"
    shapes = read(b)
    wanted = {
        1: shapes["browInnerUp"],
        12: shapes[["mouthSmileLeft", "mouthSmileRight"]].mean(axis=1),
    }
    for place, au in enumerate((1, 12)):
        got = figures(found)[au]
        assert got.frames == 50
        assert got.pearson == pytest.approx(
            stats.pearsonr(values[:, place], wanted[au])[0], abs=1e-3
        )
        assert got.icc is got.mean_a is got.difference is None


def test_shapes_of_an_au_are_averaged_over_sides_and_names() -> None:
    names = {name for names in SHAPES_OF_AU.values() for name in names}
    assert all({name, f"{name}Left"} & BLENDSHAPES for name in names)
    found = readings_of_shapes(
        {"eyeSquintLeft": 0.2, "eyeSquintRight": 0.4, "cheekSquintLeft": 0.9}
    )
    assert found == {6: pytest.approx((0.3 + 0.9) / 2), 7: pytest.approx(0.3)}
    assert 9 not in readings_of_shapes(dict.fromkeys(BLENDSHAPES, 0.5))


def test_the_page_shows_the_same_table() -> None:
    page = (Path(__file__).parent.parent / "docs/real.md").read_text()
    for au, names in SHAPES_OF_AU.items():
        shown = "43, 45" if au in (43, 45) else str(au)
        assert f"| {shown} | {', '.join(names)} |" in page


def test_frames_counted_from_0_and_from_1_are_the_same(tmp_path) -> None:
    values = moving(40, len(LIBREFACE_R)).round(3)
    a = siamcal_table(tmp_path / "a.csv", values, LIBREFACE_R)
    b = libreface(tmp_path / "b.csv", rows=40)
    table = read(b)
    for place, au in enumerate(LIBREFACE_R):
        table[f"au_{au}_intensity"] = values[:, place]
    table.to_csv(b, index=False)
    for au in agree(a, b).aus:
        assert (au.frames, au.absolute_difference, au.lag_frames) == (40, pytest.approx(0), 0)
    found = agree(a, py_feat(tmp_path / "c.csv", rows=40))
    assert found.matching.by == "frame"
    assert {au.frames for au in found.aus} == {40}
    assert all(au.icc is None for au in found.aus)


def test_every_fifth_frame_and_other_rates_are_held_against_the_nearest(tmp_path) -> None:
    values = moving(100, 1)
    a = siamcal_table(tmp_path / "a.csv", values, (12,), fps=25)
    b = siamcal_table(tmp_path / "b.csv", values[::5], (12,), fps=25, every=5)
    found = agree(a, b)
    assert (found.aus[0].frames, found.aus[0].absolute_difference) == (20, 0)
    assert found.aus[0].lag_frames == 0
    assert found.notes == ("A has 100 rows and B 20; 20 are in both",)
    faster = siamcal_table(tmp_path / "c.csv", np.repeat(values, 2, 0), (12,), fps=50)
    with pytest.raises(ConfigError, match=r"drift apart by 1\.98 s .* --match time"):
        agree(a, faster)
    found = agree(a, faster, Options(by="time"))
    assert (found.aus[0].frames, found.aus[0].absolute_difference) == (100, 0)
    assert found.notes[0].startswith("A has 25 rows a second and B 50")
    assert "drift apart" in agree(a, faster, Options(by="frame")).notes[0]


def test_fps_gives_times_to_numbers(tmp_path) -> None:
    a, b = py_feat(tmp_path / "a.csv", rows=40), blendshapes(tmp_path / "b.csv", rows=40)
    with pytest.raises(ConfigError, match=r"a.csv has frame numbers only; .*b.csv has times only"):
        agree(a, b)
    found = agree(a, b, Options(fps=1000 / 33))
    assert found.matching.by == "time"
    assert {au.frames for au in found.aus} == {40}


def test_one_of_several_faces_is_named(tmp_path, run) -> None:
    values = moving(40, 2)
    both = siamcal_table(tmp_path / "both.csv", values, (1, 12), people=2)
    alone = siamcal_table(tmp_path / "alone.csv", values / 2, (1, 12))
    code, _, err = run(both, alone)
    assert code == 2
    assert "about 2 people (0, 1)" in err
    assert "--face" in err
    found = agree(both, alone, Options(faces=("1", None)))
    assert all(au.absolute_difference == pytest.approx(0, abs=1e-3) for au in found.aus)
    code, _, err = run(both, alone, "--face", "1", "--face", "0")
    assert code == 2
    assert "alone.csv has no face '0'; it doesn't tell people apart" in err


def test_failed_rows_of_another_face_hide_nothing(tmp_path) -> None:
    values = moving(40, 2)
    alone = siamcal_table(tmp_path / "alone.csv", values, (1, 12))
    table = read(alone)
    readings = [name for name in table if name.startswith("AU")]
    other = table.assign(face_id=1, success=0, **dict.fromkeys(readings))
    table[readings] = table[readings].astype(float)
    table.loc[4, "success"] = 0  # here neither is read
    table.loc[4, readings] = np.nan
    both = pd.concat([table, other]).sort_values(["frame", "face_id"], kind="stable")
    both.to_csv(tmp_path / "both.csv", index=False)
    for pair in ((alone, tmp_path / "both.csv"), (tmp_path / "both.csv", alone)):
        found = agree(*pair)
        assert {au.frames for au in found.aus} == {39}
        assert all(au.absolute_difference == 0 for au in found.aus)


def test_output_plot_and_json(tmp_path, run) -> None:
    a = openface(tmp_path / "a.csv", rows=50, failed=(4,))
    b = openface(tmp_path / "b.csv", rows=60)
    code, out, err = run(a, b, "-o", "new/out.csv", "--plot", "new/out.png")
    assert code == 0, err
    assert "a.csv (OpenFace 2), 50 rows, 1 left out (success 0)" in out
    assert "A has 50 rows and B 60; 50 are in both" in out
    assert "Matched by frame number" in out
    table = read(tmp_path / "new/out.csv")
    assert list(table["au"]) == OPENFACE_R
    x, y = read(a), read(b)[:50]
    good = x["success"] == 1
    wanted = [np.corrcoef(x[c][good], y[c][good])[0, 1] for c in x.filter(regex="_r$")]
    np.testing.assert_allclose(table["pearson"], wanted, atol=1e-9)
    picture = imread(tmp_path / "new/out.png")
    assert picture.shape[1] > 800
    assert picture[..., :3].std() > 5
    code, out, err = run(a, b, "--json", "-o", "new/out.json")
    told = json.loads(out)
    assert told == json.loads((tmp_path / "new/out.json").read_text())
    assert told["pairs"][0]["aus"][0]["pearson"] == pytest.approx(wanted[0])
    assert run(a, b, "-o", "new/out.md")[0] == 0
    assert "| AU45 |" in (tmp_path / "new/out.md").read_text()
    code, _, err = run(a, b, "-o", "new/out.csv")
    assert "exists already" in err
    assert run(a, b, "-o", "new/out.csv", "--overwrite")[0] == 0


def test_folders_are_paired_by_name_and_nothing_is_pooled(tmp_path, run) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    pairs = {"one": 40, "two": 55}
    for seed, (name, rows) in enumerate(pairs.items()):
        siamcal_table(tmp_path / f"a/{name}.csv", moving(rows, 2, seed), (1, 12))
        siamcal_table(tmp_path / f"b/{name}.csv", moving(rows, 2, seed + 10), (1, 12))
    still = moving(40, 2) * [1, 0]
    siamcal_table(tmp_path / "a/still.csv", still, (1, 12))
    siamcal_table(tmp_path / "b/still.csv", still, (1, 12))
    siamcal_table(tmp_path / "a/alone.csv", still, (1, 12))
    (tmp_path / "a/summary.csv").write_text("recording,person\nx,y\n")
    code, out, err = run("a", "b", "-o", "out.json", "--plot", "drawn")
    assert code == 0, err
    assert "6 pairs of a recording and an AU, 5 with a correlation" in out
    assert "Only in A: alone" in out
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == [
        "one.png", "still.png", "two.png",
    ]  # fmt: skip
    told = json.loads((tmp_path / "out.json").read_text())
    each = [au for pair in told["pairs"] for au in pair["aus"]]
    known = [au["pearson"] for au in each if au["pearson"] is not None]
    assert len(known) == 5
    assert told["means"]["pair"]["all"]["pearson"] == pytest.approx(np.mean(known))
    assert told["means"]["au"]["AU12"]["pearson_pairs"] == 2
    one = {p["pair"]: [au["pearson"] for au in p["aus"]] for p in told["pairs"]}["one"]
    assert told["means"]["pair"]["one"]["pearson"] == pytest.approx(np.mean(one))
    (tmp_path / "b/two.csv").write_text("time,x\n1,2\n")
    code, out, err = run("a", "b")
    assert code == 1
    assert "Failed: two:" in err
    assert "4 pairs of a recording" in out


def test_bad_inputs_are_told(tmp_path, run) -> None:
    a = openface(tmp_path / "a.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    openface(tmp_path / "folder/other.csv")
    (tmp_path / "none").mkdir()
    openface(tmp_path / "none/x.csv")
    b = siamcal_table(tmp_path / "b.csv", moving(10, 1), (27,))
    later = openface(tmp_path / "later.csv")
    table = read(later)
    table["frame"] += 500
    table.to_csv(later, index=False)
    failed = openface(tmp_path / "failed.csv", rows=5, failed=range(1, 6))
    labels = tmp_path / "labels.csv"
    labels.write_text("frame,AU01\n1,0\n")
    for arguments, words in [
        ((a, "no.csv"), "no.csv doesn't exist"),
        ((a, a), "are one file"),
        ((a, "folder"), "two tables, or two folders"),
        (("folder", "none"), "other against x"),
        (("folder", "empty"), "holds no tables"),
        ((a, b), "no AU in common: AU01"),
        ((a, later), "no frame in common: 0 to 39 against 500 to 539"),
        ((a, failed), "no row with readings: success 0 in 5 rows"),
        ((a, labels), "isn't a table of readings"),
        ((a, b, "--match", "rows"), "takes auto, frame, time"),
        ((a, b, "--fps", "0"), "above 0"),
        ((a, b, "--max-lag", "-1"), "from 0 on"),
        ((a, b, "-o", "out.xls"), ".csv, .json, .md"),
        ((a, b, "--plot", "out.jpg"), "draws a PNG"),
        ((a, later, "-o", "a.csv", "--overwrite"), "is an input"),
        ((a, b, "--tool", "x"), "isn't known"),
        ((a, b, *["--tool", "openface"] * 3), "given 3 times"),
        ((a, py_feat(tmp_path / "c.csv"), "--match", "time"), "no times; --fps gives them"),
    ]:
        code, _, err = run(*arguments)
        assert code == 2, arguments
        assert words in err, arguments


def test_numbers_that_are_none_and_steps_that_are_tiny(tmp_path) -> None:
    values = moving(30, 1)
    a, b = (siamcal_table(tmp_path / f"{n}.csv", values, (12,)) for n in "ab")
    text = a.read_bytes()
    for wrong in (b"inf,0", b"\xdd,0", b"1e999,0"):
        a.write_bytes(text.replace(b"\n7,0", b"\n" + wrong))
        assert agree(a, b).matching.by == "time"
    table = read(b)
    table["timestamp"] *= 1e-6
    table.to_csv(b, index=False)
    a.write_bytes(text)
    found = agree(a, b, Options(by="time"))  # microseconds: a lag of 2 s isn't 2,000,000 frames
    assert found.aus[0].frames >= 1

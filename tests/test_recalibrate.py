"""`siamcal recalibrate` on tables as the tools write them; the oracle is pandas on both files."""

import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_tables import blendshapes, libreface, openface, py_feat

import siamcal.cli
from siamcal.evaluation.predictions import TaskPredictions
from siamcal.inference.formats.csv import CsvWriter
from siamcal.inference.formats.parquet import ParquetWriter
from siamcal.inference.prediction import FrameResult
from siamcal.inference.table import AURows
from siamcal.recalibration.tools import BLENDSHAPES


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["siamcal", "recalibrate", *map(str, arguments)])
        code = 0
        try:
            siamcal.cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


def read(path):
    return pd.read_csv(path, skipinitialspace=True)


def cells(path):
    return [line.split(",") for line in path.read_bytes().decode().split("\n")]


def columns_of(table, pattern):
    return list(table.filter(regex=pattern).columns)


def test_openface_shift_presence_and_every_other_byte(run, tmp_path):
    source = openface(tmp_path / "of.csv", failed=(3, 20), end="\r\n")
    code, _, err = run(source, "--reference-rows", "1:10", "-o", "out.csv")
    assert code == 0, err
    before, after = read(source), read(tmp_path / "out.csv")
    names = columns_of(before, "_r$")
    good = before["success"] == 1
    neutral = before.loc[good & (before.index < 10), names].mean()  # 9 rows: frame 3 failed
    wanted = (before.loc[good, names] - neutral).clip(0, 5)
    np.testing.assert_allclose(after.loc[good, names], wanted, atol=0.00051)
    for name in names:
        present = (after.loc[good, name] >= 1).astype(int)
        assert (after.loc[good, name[:-1] + "c"] == present).all()
    assert "17 columns calibrated" in err
    assert "2 left as they are (success 0)" in err
    assert "AU28_c" in err
    assert "9 rows" in err
    old, new = cells(source), cells(tmp_path / "out.csv")
    changed = {
        n
        for n, name in enumerate(old[0])
        if name.strip() in (*names, *(n[:-1] + "c" for n in names))
    }
    assert old[0] == new[0]
    assert len(old) == len(new)
    for row, (was, now) in enumerate(zip(old, new, strict=True)):
        failed = row in (3, 20)
        for n, (a, b) in enumerate(zip(was, now, strict=True)):
            assert a == b or (n in changed and not failed)


def test_one_reference_row_is_exact_to_the_last_decimal(run, tmp_path):
    source = openface(tmp_path / "of.csv")
    assert run(source, "--reference-frames", "7", "--no-clip", "-o", "out.csv")[0] == 0
    hundredths = (read(source) * 100).round()
    names = columns_of(hundredths, "_r$")
    found = (read(tmp_path / "out.csv")[names] * 1000).round()
    assert found.equals((hundredths[names] - hundredths.loc[6, names]) * 10 + 0.0)


@pytest.mark.parametrize(("scale", "unit"), [(1 / 30, 1), (1000 / 30, 1000)])
def test_libreface_in_seconds_or_milliseconds(scale, unit, run, tmp_path):
    """LibreFace 0.2 writes seconds under the name frame_time_in_ms."""
    source = libreface(tmp_path / "lf.csv", scale=scale)
    code, _, err = run(source, "--reference-time", "0:0.34", "-o", "out.csv")
    assert code == 0, err
    before, after = read(source), read(tmp_path / "out.csv")
    assert unit == round(before["frame_time_in_ms"].iloc[-1] / (29 / 30))
    names = columns_of(before, "_intensity$")
    wanted = (before[names] - before.loc[:10, names].mean()).clip(0, 5)
    np.testing.assert_allclose(after[names], wanted, atol=1e-12)
    assert (after["au_1"] == (after["au_1_intensity"] >= 1)).all()
    rest = [n for n in before if n not in names and f"{n}_intensity" not in names]
    assert after[rest].equals(before[rest])
    assert "au_7, au_10" in err


def test_py_feat_by_identity_with_quoted_cells(run, tmp_path):
    source = py_feat(tmp_path / "pf.csv", failed=(0, 11))
    code, _, err = run(source, "--reference-frames", "0:9", "-o", "out.csv")
    assert code == 0, err
    before, after = read(source), read(tmp_path / "out.csv")
    names = columns_of(before, r"^AU\d\d$")
    wanted = (before[names] - before.loc[1:9, names].mean()).clip(0, 1)
    np.testing.assert_allclose(after[names], wanted, atol=1e-12)
    assert after[names].loc[[0, 11]].isna().all(axis=None)
    assert after.drop(columns=names).equals(before.drop(columns=names))
    assert "no reading" in err


def test_py_feats_newer_tables_hold_blendshapes_too(run, tmp_path):
    source = py_feat(tmp_path / "pf.csv")
    both = read(source).assign(jawOpen=0.5, _neutral=0.2)
    both.to_csv(source, index=False)
    code, _, err = run(source, "--reference-rows", "1", "-o", "out.csv")
    assert code == 0, err
    after = read(tmp_path / "out.csv")
    assert (after["jawOpen"] == 0).all()
    assert (after["_neutral"] == 0.2).all()
    assert "py-feat: 21 columns" in err


def test_blendshapes_by_milliseconds(run, tmp_path):
    source = blendshapes(tmp_path / "bs.csv")
    code, _, err = run(source, "--reference-time", "0:0.1", "-o", "out.csv")
    assert code == 0, err
    before, after = read(source), read(tmp_path / "out.csv")
    names = [n for n in before if n in BLENDSHAPES]
    assert len(names) == 51
    wanted = (before[names] - before.loc[:3, names].mean()).clip(0, 1)
    np.testing.assert_allclose(after[names], wanted, atol=1e-12)
    assert (after["_neutral"] == before["_neutral"]).all()


def siamcal_table(path, values, thresholds, **options):
    rows = AURows((1, 2, 12), thresholds, "intensity", **options)
    kind = CsvWriter if path.suffix == ".csv" else ParquetWriter
    with path.open("wb") as file:
        writer = kind(file, rows.columns)
        for index, each in enumerate(values):
            raw = np.full(3, index / 10)
            read = (None, 0.9, 0, "no face") if index == 1 else (each, 0.9, 1, "", raw)
            writer.write(rows.row(FrameResult(index, index / 30, f"{index}.png", *read)))
        writer.close()
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("options", [{}, {"openface": True}, {"raw": True, "pictures": True}])
def test_siamcals_own_table_keeps_its_own_thresholds(options, sidecar, suffix, run, tmp_path):
    thresholds = (2.0, 1.5, 3.0) if sidecar else (2.0, 2.0, 2.0)
    values = np.random.default_rng(1).uniform(0, 5, (30, 3))
    values[0] = 0.5
    source = siamcal_table(tmp_path / f"aus.{suffix}", values, thresholds, **options)
    if sidecar:
        facts = [{"au": au, "threshold": t} for au, t in zip((1, 2, 12), thresholds, strict=True)]
        (tmp_path / "aus.json").write_text(json.dumps({"calibrator": {"aus": facts}}))
    code, _, err = run(source, "--reference-rows", "1", "-o", f"out.{suffix}")
    assert code == 0, err
    assert err.startswith("siamcal predict: 3 columns")
    calibrated = np.round(values.clip(0, 5), 3) - 0.5
    wanted = siamcal_table(tmp_path / f"wanted.{suffix}", calibrated, thresholds, **options)
    out = tmp_path / f"out.{suffix}"
    if suffix == "csv":
        assert out.read_text() == wanted.read_text()
    else:
        pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(wanted), atol=1e-9)


@pytest.mark.parametrize(
    ("added", "asked", "tool"),
    [
        ("person", (), "siamcal predict"),
        ("who", ("--person", "who"), "siamcal predict"),
        ("who", (), "OpenFace 2"),
        ("who", ("--tool", "siamcal"), "siamcal predict"),
        ("AU28_c", (), "OpenFace 2"),
    ],
)
def test_siamcals_table_is_known_with_names_beside_its_columns(added, asked, tool, run, tmp_path):
    values = np.random.default_rng(1).uniform(0, 5, (30, 3))
    table = pd.read_csv(siamcal_table(tmp_path / "aus.csv", values, (2.0, 2.0, 2.0)))
    table.assign(**{added: 0}).to_csv(tmp_path / "more.csv", index=False)
    code, _, err = run("more.csv", "--reference-rows", "1", *asked, "-o", "out.csv")
    assert code == 0, err
    assert err.startswith(f"{tool}: 3 columns")


def test_the_plain_networks_table_gives_baseline_subtraction_exactly(run, tmp_path):
    """NCG's predictions as `siamcal bench` stores them; BS as its comparison makes them."""
    rng = np.random.default_rng(4)
    plain, aus = rng.normal(1, 1, (40, 3)), (1, 2, 12)
    people = np.repeat(["ann", "bob"], 20)
    reference_rows = np.repeat([2, 25], 20)
    bs = plain - plain[reference_rows]
    frames = np.tile(np.arange(20), 2)
    stored = pd.DataFrame({"participant": people, "view": "", "sequence": "", "frame": frames})
    preds = {"ncg": plain, "bs": bs}
    TaskPredictions("intensity", aus, stored, np.zeros((40, 3)), preds).save(tmp_path)
    (found,) = TaskPredictions.load(tmp_path)
    table = found.table.copy()
    for a, au in enumerate(aus):
        table[f"AU{au:02d}_r"] = found.preds["ncg"][:, a]
    names = [f"AU{au:02d}_r" for au in aus]
    for suffix in ("csv", "parquet"):
        source, out = tmp_path / f"ncg.{suffix}", tmp_path / f"bs.{suffix}"
        neutral = tmp_path / f"neutral.{suffix}"
        for path, part in ((source, table), (neutral, table.iloc[[2, 25]])):
            part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path)
        arguments = ("--reference-table", neutral, "--no-clip")
        code, _, err = run(source, *arguments, "-o", out)
        assert code == 0, err
        after = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
        np.testing.assert_array_equal(after[names].to_numpy(), found.preds["bs"])


def test_each_face_has_its_own_reference_or_is_refused(run, tmp_path):
    source = openface(tmp_path / "of.csv", rows=10, faces=2)
    code, _, err = run(source, "--reference-frames", "1:3", "-o", "out.csv")
    assert code == 0, err
    before, after = read(source), read(tmp_path / "out.csv")
    names = columns_of(before, "_r$")
    for face in (0, 1):
        mine = before["face_id"] == face
        wanted = before.loc[mine, names] - before.loc[mine & (before["frame"] <= 3), names].mean()
        np.testing.assert_allclose(after.loc[mine, names], wanted.clip(0, 5), atol=0.00051)
    code, _, err = run(source, "--reference-rows", "1", "-o", "one.csv")
    assert code == 2
    assert "person 1: no valid row in --reference-rows 1; 1 rows lie there" in err
    other = openface(tmp_path / "neutral.csv", rows=5, faces=2)
    code, _, err = run(source, "--reference-table", other, "-o", "two.csv")
    assert code == 2
    assert "--person COLUMN" in err
    text = source.read_text().replace("face_id", "other")
    source.write_text(text)
    code, _, err = run(source, "--reference-rows", "1", "-o", "three.csv")
    assert code == 2
    assert "both frame 1" in err
    assert not list(tmp_path.glob("[ot][nwh][eor]*.csv"))


def test_other_modes_agree_with_their_formulas(run, tmp_path):
    source = openface(tmp_path / "of.csv")
    before = read(source)
    names = columns_of(before, "_r$")
    n = before.loc[:9, names].mean()
    v = before.loc[:9, names].var() / 10
    formulas = {
        ("--mode", "shrunken", "--shrinkage", "0.5"): before[names] - 0.5 * n,
        ("--mode", "shrunken"): before[names] - (1 - v / n**2).clip(0) * n,
        ("--mode", "monotone"): (before[names] - n) * np.where(before[names] > n, 5 / (5 - n), 1),
        ("--quantile", "0.2"): before[names] - before.loc[:, names].quantile(0.2),
    }
    for number, (mode, wanted) in enumerate(formulas.items()):
        rows = () if "--quantile" in mode else ("--reference-rows", "1:10")
        code, _, err = run(source, *rows, *mode, "-o", f"{number}.csv")
        assert code == 0, err
        found = read(tmp_path / f"{number}.csv")[names]
        np.testing.assert_allclose(found, wanted.clip(0, 5), atol=0.00051)


def test_quantile_takes_the_distribution_of_other_people(run, tmp_path):
    source = openface(tmp_path / "of.csv", rows=200)
    others = openface(tmp_path / "others.csv", rows=150, faces=3)
    code, _, err = run(source, "--mode", "quantile", "--people", others, "-o", "out.csv")
    assert code == 0, err
    people, after = read(others), read(tmp_path / "out.csv")
    for share in (0.3, 0.6, 0.9):
        each = people.groupby("face_id")["AU12_r"]
        wanted = (each.quantile(share) - each.quantile(0.1)).mean()
        assert after["AU12_r"].quantile(share) == pytest.approx(wanted, abs=0.05)
    code, _, err = run(source, "--mode", "quantile", "-o", "no.csv")
    assert code == 2
    assert "--people" in err


def test_parquet_keeps_types_nulls_and_other_columns(run, tmp_path):
    table = read(openface(tmp_path / "of.csv"))
    table[columns_of(table, "_c$")] = table.filter(regex="_c$").astype("int8")
    table["AU01_r"] = table["AU01_r"].astype("float32")
    table["AU02_r"] = 0
    table["note"] = [None, *map(str, range(39))]
    table.loc[5, "AU04_r"] = np.nan
    table.to_parquet(tmp_path / "of.parquet")
    code, out, err = run("of.parquet", "--reference-rows", "1:3", "-o", "out.parquet", "--json")
    assert code == 0, err
    assert json.loads(out)["references"] == {"": 3}
    old, new = (pq.read_table(tmp_path / name) for name in ("of.parquet", "out.parquet"))
    same = [n for n in old.column_names if not n.endswith(("_r", "_c"))] + ["AU28_c"]
    assert all(old[n].equals(new[n]) for n in same)
    assert [f.type for f in old.schema if f.name != "AU02_r"] == [
        f.type for f in new.schema if f.name != "AU02_r"
    ]
    assert new["AU04_r"][5].as_py() is None
    wanted = (table["AU12_r"] - table["AU12_r"][:3].mean()).clip(0, 5)
    np.testing.assert_allclose(new["AU12_r"], wanted, atol=1e-12)
    assert (np.array(new["AU12_c"]) == (wanted >= 1)).all()


NOTES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(st.integers(0, 500), NOTES), min_size=2, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_what_is_not_calibrated_keeps_its_bytes(run, tmp_path, rows, end, mark):
    """Notes with quotes, commas, any script; spaces; a byte order mark; a missing last line end."""

    def line(number, value, note):
        quoted = '"' + note.replace('"', '""') + '"' if set(note) & set('",') else note
        return f" {number},\t{value} ,{quoted}"

    source = tmp_path / "any.csv"
    header = "frame, AU12_r ,note"

    def recalibrated(values):
        lines = [
            line(n, v, note) for n, (v, (_, note)) in enumerate(zip(values, rows, strict=True))
        ]
        source.write_bytes((mark + end.join([header, *lines])).encode())
        options = ("--reference-rows", "1", "--no-clip", "--overwrite", "-o", "out.csv")
        code, _, err = run(source, *options)
        assert code == 0, err
        return (tmp_path / "out.csv").read_bytes()

    values = [f"{value / 100:.2f}" for value, _ in rows]
    shifted = [(value - rows[0][0]) / 100 for value, _ in rows]
    wanted = [v if rows[0][0] == 0 else f"{s:.3f}" for v, s in zip(values, shifted, strict=True)]
    lines = [line(n, v, note) for n, (v, (_, note)) in enumerate(zip(wanted, rows, strict=True))]
    assert recalibrated(values) == (mark + end.join([header, *lines])).encode()
    assert recalibrated(["0.00", *values[1:]]) == source.read_bytes()


HEAD = "frame,success,AU01_r,AU01_c\n"
ROWS = ("--reference-rows", "1")
REFUSED = {
    "header only": (HEAD, ROWS, "a header and no rows"),
    "empty": ("", ROWS, "is empty"),
    "twice": ("frame,AU01_r, AU01_r\n1,2,3\n", ROWS, "'AU01_r' 2 times"),
    "word": (HEAD + "1,1,0.5,0\n\n2,1,high,0\n", ROWS, "line 4, column AU01_r: 'high'"),
    "decimal comma": ("frame;AU01_r\n1;0,5\n", ROWS, "separated by commas"),
    "underscore": (HEAD + "1,1,1_0,0\n", ROWS, "'1_0'"),
    "infinite": (HEAD + "1,1,inf,0\n", ROWS, "'inf' isn't a finite number"),
    "too large": (HEAD + "1,1,1e999,0\n", ROWS, "too large"),
    "cut off": (HEAD + "1,1,0.5,0\n2,1,0.", ROWS, "line 3 has 3 cells, the header 4"),
    "quote": (HEAD + '1,1,"0.5,0\n', ROWS, "isn't closed"),
    "utf-16": (HEAD.encode("utf-16"), ROWS, "zero bytes"),
    "outside": (HEAD + "1,1,0.5,0\n", ("--reference-rows", "1:2"), "rows go from 1 to 1"),
    "frames outside": (HEAD + "4,1,0.5,0\n", ("--reference-frames", "3"), "go from 4 to 4"),
    "row 0": (HEAD + "1,1,0.5,0\n", ("--reference-rows", "0:1"), "counted from 1"),
    "backwards": (HEAD + "1,1,0.5,0\n", ("--reference-rows", "3:1"), "ends before it begins"),
    "half": (HEAD + "1,1,0.5,0\n", ("--reference-rows", "1.5"), "whole numbers"),
    "no range": (HEAD + "1,1,0.5,0\n", ("--reference-rows", "1-3"), "like 1:30"),
    "no time": (HEAD + "1,1,0.5,0\n", ("--reference-time", "0:1"), "no column timestamp"),
    "one time": ("timestamp,AU01_r\n0,1\n0,1\n", ("--reference-time", "0:1"), "one time in all"),
    "ms": ("timestamp,AU01_r\n0,1\n33,1\n", ("--reference-time", "0:1"), "can't be seconds"),
    "two ways": (HEAD, (*ROWS, "--reference-frames", "1"), "in one way"),
    "none": (HEAD, (), "Neutral rows of the person are needed"),
    "failed": (HEAD + "1,0,0,0\n2,1,1,1\n", ROWS, "no valid row in --reference-rows 1; 1 rows"),
    "all failed": (HEAD + "1,0,0,0\n", ROWS, "success 0 in 1 rows"),
    "nan": ("frame,AU01_r,AU02_r\n1,,1\n2,1,1\n", ROWS, "no number in AU01_r"),
    "scale": (HEAD + "1,1,37.5,0\n", ROWS, "OpenFace 2 writes 0 to 5"),
    "presence": (HEAD + "1,1,0.5,0.7\n", ROWS, "neither 0 nor 1"),
    "unknown": ("frame,brow\n1,2\n", ROWS, "AU01_r, AU02_r, ... (0 to 5)"),
    "labels": ("frame,AU01\n1,2\n", ROWS, "--tool py-feat"),
    "presence only": ("frame,AU01_c\n1,1\n", ROWS, "readings behind are lost"),
    "two tools": ("AU01_r,jawOpen\n1,1\n", ROWS, "--tool openface or blendshapes"),
    "other tool": (HEAD + "1,1,1,1\n", (*ROWS, "--tool", "libreface"), "none of the columns"),
    "no tool": (HEAD + "1,1,1,1\n", (*ROWS, "--tool", "OpenFace"), "isn't known"),
    "person": (HEAD + "1,1,1,1\n", (*ROWS, "--person", "who"), "no column 'who'"),
    "mode": (HEAD + "1,1,1,1\n", (*ROWS, "--mode", "bs"), "shift, shrunken"),
    "one noise": (HEAD + "1,1,1,1\n", (*ROWS, "--mode", "shrunken"), "two or more neutral rows"),
    "shrinkage": (HEAD + "1,1,1,1\n", (*ROWS, "--shrinkage", "1"), "mode 'shrunken'"),
    "few": (HEAD + "1,1,1,1\n", ("--quantile", "0.1"), "20 or more"),
    "top": (HEAD + "1,1,5,1\n", (*ROWS, "--mode", "monotone"), "AU01_r rests at 5"),
    "stretch": (HEAD + "1,1,1,1\n", (*ROWS, "--mode", "monotone", "--no-clip"), "--no-clip out"),
    "threshold": (HEAD + "1,1,1,1\n", (*ROWS, "--threshold", "0"), "above 0"),
    "no presence": ("AU01_r\n1\n", (*ROWS, "--threshold", "1"), "columns of 0 and 1"),
    "confidence": (HEAD + "1,1,1,1\n", (*ROWS, "--min-confidence", "2"), "0 to 1"),
    "people": (HEAD + "1,1,1,1\n", (*ROWS, "--people", "t.csv"), "not shift"),
    "twice a frame": (HEAD + "1,1,1,1\n1,1,2,1\n", ROWS, "both frame 1"),
    "two persons": ("face_id,person,AU01_r\n0,a,1\n1,b,1\n", ROWS, "--person face_id"),
    "nobody": ("person,AU01_r\na,1\n,1\n", ROWS, "whose row is it"),
    "no neutral": (HEAD + "1,1,1,1\n", ("--reference-table", "away.csv"), "doesn't exist"),
    "into": (HEAD + "1,1,1,1\n", ("--reference-table", "t.csv", "-o", "t.csv"), "is an input"),
    "folder": (HEAD + "1,1,1,1\n", (*ROWS, "-o", "."), "is a folder"),
    "kind": (HEAD + "1,1,1,1\n", (*ROWS, "-o", "out.parquet"), "different suffixes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_give_a_wrong_number_is_refused(case, run, tmp_path):
    text, arguments, words = REFUSED[case]
    source = tmp_path / "t.csv"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = run("t.csv", *arguments, *(() if "-o" in arguments else ("-o", "out.csv")))
    assert (code, out) == (2, "")
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_no_file_is_replaced_unasked_and_the_input_never(run, tmp_path):
    source = openface(tmp_path / "of.csv")
    (tmp_path / "out.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(source)
    before = source.read_bytes()
    code, _, err = run(source, *ROWS, "-o", "out.csv")
    assert (code, (tmp_path / "out.csv").read_text()) == (2, "mine")
    assert "--overwrite" in err
    for name in ("of.csv", "link.csv"):
        code, _, err = run(source, *ROWS, "-o", name, "--overwrite")
        assert code == 2
        assert "is an input" in err
    assert source.read_bytes() == before
    assert run(source, *ROWS, "-o", "out.csv", "--overwrite")[0] == 0
    assert (tmp_path / "out.csv").read_text() != "mine"


def test_a_reference_table_of_another_tool_or_with_fewer_columns_is_refused(run, tmp_path):
    source = openface(tmp_path / "of.csv")
    code, _, err = run(source, "--reference-table", libreface(tmp_path / "l.csv"), "-o", "out.csv")
    assert code == 2
    assert "can't be compared" in err
    few = tmp_path / "few.csv"
    read(source).drop(columns="AU12_r").to_csv(few, index=False)
    code, _, err = run(source, "--reference-table", few, "-o", "out.csv")
    assert code == 2
    assert "lacks AU12_r" in err


def test_frames_may_be_names_and_times_dates_where_nothing_is_selected_by_them(run, tmp_path):
    source = tmp_path / "named.csv"
    source.write_text("frame,timestamp,jawOpen\na.jpg,2024-01-01,0.3\nb.jpg,2024-01-02,0.5\n")
    assert run(source, "--reference-rows", "1", "-o", "out.csv")[0] == 0
    assert read(tmp_path / "out.csv")["jawOpen"].tolist() == [0, 0.2]
    for option, word in (("--reference-frames", "a.jpg"), ("--reference-time", "2024-01-01")):
        code, _, err = run(source, option, "0:1", "-o", "no.csv")
        assert code == 2
        assert f"'{word}' isn't a finite number" in err
    source.write_text("frame,jawOpen\na.jpg,0.3\na.jpg,0.5\n")
    code, _, err = run(source, "--reference-rows", "1", "-o", "no.csv")
    assert code == 2
    assert "both frame a.jpg" in err


def test_names_count_in_both_tables_even_where_each_is_about_one_person(run, tmp_path):
    table = "{0},AU01_r\n{1},2\n{1},1\n"
    for column, option in (("participant", ()), ("video", ("--person", "video"))):
        (tmp_path / "t.csv").write_text(table.format(column, "ann"))
        (tmp_path / "n.csv").write_text(table.format(column, "bob"))
        arguments = ("t.csv", "--reference-table", "n.csv", "-o", "out.csv", *option)
        code, _, err = run(*arguments)
        assert code == 2
        assert "person ann: no valid row" in err
        (tmp_path / "n.csv").write_text(table.format(column, "ann"))
        assert run(*arguments)[0] == 0
        assert read(tmp_path / "out.csv")["AU01_r"].tolist() == [0.5, 0]
        (tmp_path / "out.csv").unlink()
    (tmp_path / "t.csv").write_text(table.format("face_id", "0"))
    (tmp_path / "n.csv").write_text(table.format("face_id", "1"))
    assert run("t.csv", "--reference-table", "n.csv", "-o", "out.csv")[0] == 0


def test_the_order_of_columns_of_a_reference_table_does_not_matter(run, tmp_path):
    source = openface(tmp_path / "of.csv")
    neutral = openface(tmp_path / "n.csv", rows=5)
    turned = read(neutral)[read(neutral).columns[::-1]]
    turned.to_csv(tmp_path / "turned.csv", index=False)
    for name in ("n", "turned"):
        code, _, err = run(source, "--reference-table", f"{name}.csv", "-o", f"{name}_out.csv")
        assert code == 0, err
    assert (tmp_path / "n_out.csv").read_bytes() == (tmp_path / "turned_out.csv").read_bytes()


def test_every_column_of_a_table_is_known_as_siamcals() -> None:
    from siamcal.inference.table import AURows
    from siamcal.recalibration.tools import SIAMCAL_MORE

    told = AURows([1, 12], [2.0, 2.0], "intensity", raw=True, pictures=True).columns
    plain = AURows([1, 12], [2.0, 2.0], "intensity", openface=True).columns
    assert all(SIAMCAL_MORE.fullmatch(name) for name in told if name not in plain)

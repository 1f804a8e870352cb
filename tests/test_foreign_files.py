"""Tables, texts and folders that aren't what they should be; where outputs may go."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets_licensed import disfa_images, disfa_labels
from test_parallel import alive, eventually

from siamcal import table_files
from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError, DataNotFoundError, LabelError
from siamcal.files import append_line, kept_lines, read_json, write_atomically
from siamcal.recalibration.people import load_table
from siamcal.table_files import read_table, write_parquet

TABLE = pd.DataFrame({"who": ["a", "b"], "x": [1.5, np.nan], "n": [1, 2], "b": [True, False]})


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


# --- tables ---------------------------------------------------------------------------------------


def test_a_written_table_is_read_back(tmp_path) -> None:
    write_parquet(TABLE, tmp_path / "new" / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "new" / "t.parquet"), TABLE)


@pytest.mark.parametrize("change", ["value", "name"])
def test_a_changed_table_is_refused_though_it_is_sound_parquet(tmp_path, change) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(TABLE, path)
    stored = pq.read_table(path)
    if change == "name":
        kept = stored.schema.metadata
        stored = stored.rename_columns(["who", "y", "n", "b"]).replace_schema_metadata(kept)
    else:
        stored = stored.set_column(1, "x", pa.array([1.25, None]))
    pq.write_table(stored, path)  # with the checksum of what it held before
    with pytest.raises(ConfigError, match=r"t\.parquet .*aren't those that were written"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", r"t\.csv, line 3 has 1 cells, the header 2"),
        ("a,b\n1,2,3\n1,2,3\n", r"line 2 has 3 cells, the header 2"),  # not an index
        ('a,b\n1,"2\n', "line 2"),
        ("a,b,a\n1,2,3\n", "column a twice"),
        ("a,b\n1,\x002\n", "line 2 holds zero bytes"),
        ("", "is empty"),
        ("a,b\n1,\xe9\n".encode("latin-1"), r"no text in UTF-8 \(line 2, byte 6\)"),
        ("a,b\n1,2\n".encode("utf-16"), "no text in UTF-8"),
    ],
)
def test_a_torn_text_table_is_refused_with_its_line(tmp_path, text, words) -> None:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=words):
        read_table(tmp_path / "t.csv")


def test_text_cells_stay_as_they_are(tmp_path) -> None:
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbf,a , b\r\n0,007, "x, y"\r\n\r\n1,,NA\r\n')
    table = read_table(tmp_path / "t.csv")
    assert table.to_dict("list") == {
        "Unnamed: 0": ["0", "1"],
        "a": ["007", ""],
        "b": ["x, y", "NA"],
    }


def test_more_cells_than_any_table_has_are_refused_before_they_are_read(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(table_files, "MAX_CELLS", 1_000_000)  # a billion takes minutes to write
    path = tmp_path / "t.parquet"
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 600_000, pa.int8()), ["x"])
    pq.write_table(pa.table({"a": same, "b": same}), path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ConfigError, match="1,200,000 cells; at most"):
        read_table(path)


def test_a_table_in_a_folder_named_like_a_partition_gets_no_column(tmp_path) -> None:
    path = tmp_path / "sex=f" / "t.parquet"
    write_parquet(TABLE, path)
    assert "sex" not in read_table(path)


def test_lists_in_a_strangers_table_are_left_out_and_said(tmp_path, caplog) -> None:
    TABLE.assign(box=[[1, 2], [3]]).to_parquet(tmp_path / "t.parquet")
    assert "box" not in read_table(tmp_path / "t.parquet")
    assert "box" in caplog.text


def test_cells_of_blanks_and_digits_cost_no_time(tmp_path) -> None:
    head = "frame, face_id, timestamp, confidence, success, AU01_r, AU01_c\n"
    for cell in (" " * 50_000 + "x", "9" * 50_000 + "x", '"' * 2 + " " * 50_000 + "y"):
        (tmp_path / "t.csv").write_text(f"{head}1, 0, 0.0, 0.98, 1, {cell}, 0\n")
        started = time.process_time()
        with pytest.raises(ConfigError, match="line 2, column AU01_r"):
            load_table(tmp_path / "t.csv")
        assert time.process_time() - started < 2


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("frame,AU01_r," + "x" * (5 << 20))
    with pytest.raises(ConfigError, match=r"t\.csv, line 1 is longer than"):
        load_table(path)


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": ' + "9" * 10_000 + "}", "isn't read"),
        ('{"a": "\\ud800"}', "half a character"),
        ("[" * 100_000, "too deep"),
        ('{"a": {"b": 1, "b": 1}}', "has b twice"),
    ],
)
def test_json_that_python_chokes_on_is_refused(tmp_path, text, words) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"a\.json .*{words}"):
        read_json(tmp_path / "a.json")


def test_kept_lines_are_as_they_were_written_or_made_again(tmp_path, caplog) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"name": f"n{n}", "x": 0.1 * n, "list": [n, None]} for n in range(4)]
    for row in rows:
        append_line(path, row)
    lines = path.read_text().splitlines()
    assert all(json.loads(line)["name"] for line in lines)
    lines[1] = lines[1].replace("0.1", "0.7")
    path.write_text("\n".join([*lines[:3], lines[3][:-9]]))
    assert kept_lines(path) == [rows[0], rows[2]]
    assert "line 2 isn't as it was written" in caplog.text
    assert "line 4 isn't" in caplog.text


# --- data folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SN002_au1.txt", "9.jpg", "anything"])
def test_a_pipe_in_a_data_folder_is_refused_at_once(tmp_path, name) -> None:
    disfa_labels(tmp_path)
    disfa_images(tmp_path)
    place = tmp_path / "Images_LeftCamera" / "SN002" / name
    os.mkfifo(place)
    with pytest.raises(DataNotFoundError, match=rf"{name} is a pipe, not a file"):
        load_dataset("disfa", tmp_path)


def test_a_huge_label_file_is_refused_unread(tmp_path) -> None:
    disfa_labels(tmp_path)
    disfa_images(tmp_path)
    sparse(tmp_path / "ActionUnit_Labels" / "SN002" / "SN002_au1.txt", 3 << 30)
    with pytest.raises(LabelError, match=r"SN002_au1\.txt.* has 3,221,225,472 bytes"):
        load_dataset("disfa", tmp_path)


@pytest.mark.parametrize(("kind", "words"), [("pipe", "is a pipe"), ("zero", "is a device")])
def test_a_manifest_names_pictures_and_nothing_else(tmp_path, kind, words) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["path", "participant", "AU01", "is_reference"],
                ["a.jpg", "a", 0, 1],
                [kind, "a", 1, 0],
            ]
        )
    with pytest.raises(LabelError, match=rf"t\.csv, line 3: {kind} {words}"):
        load_dataset("manifest", tmp_path / "t.csv")


@pytest.mark.parametrize(("text", "wrong"), [("1e5", 100_000), ("440.7", None), ("-5", None)])
def test_a_reference_file_s_frame_is_a_number_or_a_name(tmp_path, text, wrong) -> None:
    from siamcal.datasets.references import _frame_number

    assert _frame_number(text) == wrong
    assert _frame_number("a/clip_0440.jpg") == _frame_number("440.0") == 440


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_numbers_that_are_none_are_named(tmp_path, value) -> None:
    disfa_labels(tmp_path)
    disfa_images(tmp_path)
    path = tmp_path / "ActionUnit_Labels" / "SN002" / "SN002_au1.txt"
    path.write_text(path.read_text().replace("3,", f"3,{value}#").split("#")[0])
    with pytest.raises(LabelError, match=r"SN002_au1\.txt, line 3"):
        load_dataset("disfa", tmp_path)


# --- outputs --------------------------------------------------------------------------------------


def test_people_are_not_rendered_into_somebody_s_data(tmp_path) -> None:
    disfa_labels(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"holds ActionUnit_Labels.*--dataset disfa"):
        load_dataset("synth", tmp_path, size="tiny")
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_of_outputs_are_made_and_what_is_in_the_way_is_named(tmp_path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"
    with pytest.raises(ConfigError, match=r"folder .*c\.txt can't be made"):
        write_atomically(tmp_path / "a" / "b" / "c.txt" / "d.txt", "x")
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        write_atomically(tmp_path / "a", "x")


# Two processes of coverage that check models for ever, and say who they are.
ENDLESS = """
import os, sys, time
from pathlib import Path
from siamcal.benchmarks import coverage

def check_model(job):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

coverage.check_model = check_model
if __name__ == "__main__":
    list(coverage._run([coverage.Job("f", str(n)) for n in range(2)], 2, 500.0))
"""


@pytest.mark.long
def test_processes_of_coverage_end_with_their_parent(tmp_path) -> None:
    pids, script = tmp_path / "pids", tmp_path / "run.py"
    pids.mkdir()
    script.write_text(ENDLESS)
    parent = subprocess.Popen([sys.executable, script, pids], stderr=subprocess.DEVNULL)
    eventually(lambda: len(list(pids.iterdir())) == 2)
    parent.kill()
    parent.wait()
    eventually(lambda: not any(alive(int(pid.name)) for pid in pids.iterdir()))

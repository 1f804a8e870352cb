import json

import numpy as np
import pandas as pd
import pytest

from siamcal.datasets import load_dataset
from siamcal.errors import ConfigError, DataNotFoundError, LabelError

PEOPLE = ("ann", "bob", "cy")


@pytest.fixture
def table(tmp_path):
    rows = []
    for participant in PEOPLE:
        (tmp_path / participant).mkdir()
        for frame in range(4):
            path = f"{participant}/{frame}.png"
            (tmp_path / path).write_text("x")
            rows.append([path, participant, frame, int(frame == 1), frame, 0, "f"])
    columns = ["path", "participant", "frame", "is_reference", "AU1", "AU12_r", "sex"]
    return pd.DataFrame(rows, columns=columns)


def load(table, folder, name="manifest.csv", **options):
    path = folder / name
    if name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    return load_dataset("manifest", path, **options)


@pytest.mark.parametrize("name", ["manifest.csv", "other.parquet", "a b.tsv"])
def test_a_table_is_a_data_set(table, tmp_path, name):
    source = load(table, tmp_path, name)
    assert source.intensity_aus == source.detection_aus == (1, 12)
    assert source.detection_thresholds == {1: 2, 12: 2}
    assert source.folds == (("ann",), ("bob",), ("cy",))
    assert source.table["AU01"].tolist() == [0, 1, 2, 3] * 3
    assert source.table["source"].iloc[5] == str(tmp_path / "bob" / "1.png")
    assert source.table["source_index"].unique().tolist() == [-1]
    assert source.table[source.table["is_reference"]]["frame"].tolist() == [1, 1, 1]
    assert source.table["view"].unique().tolist() == ["front"]
    assert source.participants_table.to_dict("list") == {
        "participant": list(PEOPLE),
        "sex": ["f", "f", "f"],
    }


def test_a_folder_with_manifest_csv(table, tmp_path):
    load(table, tmp_path)
    assert len(load_dataset("manifest", tmp_path).table) == 12


def test_frames_of_videos(table, tmp_path):
    (tmp_path / "v.MP4").write_text("x")
    table["path"] = "v.MP4"
    source = load(table, tmp_path)
    assert source.table["source_index"].tolist() == [0, 1, 2, 3] * 3
    assert source.table["sequence"].unique().tolist() == ["v"]
    with pytest.raises(
        ConfigError, match=r"names videos, such as v.MP4, but has no column 'frame'"
    ):
        load(table.drop(columns="frame"), tmp_path)


def test_images_without_numbers_are_counted(table, tmp_path):
    source = load(table.drop(columns="frame"), tmp_path)
    assert source.table["frame"].tolist() == [0, 1, 2, 3] * 3


def test_occurrence_labels_make_a_detection_set(table, tmp_path):
    table["AU1"] = [0, 1, 9, ""] * 3
    with pytest.raises(LabelError, match=r"manifest.csv, line 4: AU1 is 9; .*invalid=9"):
        load(table, tmp_path)
    source = load(table, tmp_path, invalid="9")
    assert source.intensity_aus == ()
    assert source.detection_aus == (1, 12)
    assert source.detection_thresholds == {1: 1, 12: 1}
    values = source.table["AU01"].to_numpy()[:4]
    assert values[:3].tolist() == [0, 1, -1]
    assert np.isnan(values[3])
    assert load(table, tmp_path, invalid="9", labels="intensity").intensity_aus == (1, 12)


@pytest.mark.parametrize("order", [("AU12_r", "AU12_c"), ("AU12_c", "AU12_r")])
def test_intensities_go_before_occurrences_wherever_they_stand(table, tmp_path, order):
    table["AU12_c"] = [1, 0, 1, 0] * 3
    table["AU12_r"] = [5, 0, 3, 2] * 3
    source = load(table[["path", "participant", "frame", "is_reference", *order]], tmp_path)
    assert source.table["AU12"].tolist() == [5, 0, 3, 2] * 3
    assert source.intensity_aus == (12,)
    assert source.detection_thresholds == {12: 2}


@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        ("AU1", "x", LabelError, "line 3: AU1 is 'x', not a number"),
        ("AU12_r", 6, LabelError, "line 3: AU12_r is 6; allowed: 0 to 5"),
        ("frame", "-1", LabelError, "line 3: frame is '-1'"),
        ("is_reference", "maybe", LabelError, "line 3: is_reference is 'maybe'; allowed: 1 or 0"),
        ("is_reference", "0", ConfigError, "marks no reference of ann"),
        ("participant", " ", LabelError, "line 3: the participant is empty"),
        ("path", "", LabelError, "line 3: the path is empty"),
    ],
)
def test_faults_are_named(table, tmp_path, column, value, error, message):
    table[column] = table[column].astype(object)
    table.loc[1, column] = value
    with pytest.raises(error, match=message):
        load(table, tmp_path)


def test_missing_columns_are_named(table, tmp_path):
    with pytest.raises(ConfigError, match=r"no column path; it has participant"):
        load(table.drop(columns="path"), tmp_path)
    with pytest.raises(ConfigError, match=r"has no AU column.*AU01, AU12"):
        load(table.drop(columns=["AU1", "AU12_r"]), tmp_path)
    with pytest.raises(ConfigError, match=r"no column is_reference.*--references auto"):
        load(table.drop(columns="is_reference"), tmp_path)
    with pytest.raises(ConfigError, match="has no rows"):
        load(table.iloc[:0], tmp_path)


def test_references_by_rule_and_file(table, tmp_path):
    plain = table.drop(columns="is_reference")
    auto = load(plain, tmp_path, references="auto").table
    assert auto[auto["is_reference"]]["frame"].tolist() == [0, 0, 0]
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(dict.fromkeys(PEOPLE, 3)))
    by_file = load(plain, tmp_path, references=str(chosen)).table
    assert by_file[by_file["is_reference"]]["frame"].tolist() == [3, 3, 3]


def test_a_frame_named_without_its_recording_is_that_of_the_first_recording(table, tmp_path):
    plain = table.drop(columns="is_reference")
    plain["sequence"], plain["frame"] = ["b", "b", "a", "a"] * 3, [0, 1, 0, 1] * 3
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(dict.fromkeys(PEOPLE, 1)))
    marked = load(plain, tmp_path, references=str(chosen)).table["is_reference"]
    assert marked.tolist() == [False, False, False, True] * 3


def test_folds_by_column_and_by_number(table, tmp_path):
    assert load(table, tmp_path, folds=2).folds == (("ann", "cy"), ("bob",))
    table["fold"] = ["10"] * 4 + ["2"] * 8
    assert load(table, tmp_path).folds == (("bob", "cy"), ("ann",))
    table.loc[0, "fold"] = "2"
    with pytest.raises(ConfigError, match=r"puts ann into several folds"):
        load(table, tmp_path)
    with pytest.raises(ConfigError, match="folds is 9; allowed: 0 to 3"):
        load(table.drop(columns="fold"), tmp_path, folds=9)


def test_missing_files(table, tmp_path, caplog):
    (tmp_path / "ann" / "2.png").unlink()
    assert len(load(table, tmp_path).table) == 12
    assert "1 files don't exist: ann/2.png" in caplog.text
    table["path"] = "lost/" + table["path"]
    with pytest.raises(DataNotFoundError, match="None of the 12 files"):
        load(table, tmp_path)


def test_several_references_are_reported(table, tmp_path, caplog):
    table.loc[2, "is_reference"] = 1
    load(table, tmp_path)
    assert "ann (front): 2 references are marked" in caplog.text


def test_not_a_table(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(ConfigError, match="can't be read as a table"):
        load_dataset("manifest", tmp_path / "x.parquet")

"""Several people in one recording: each read against their own reference."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from crowds import film
from PIL import Image
from test_inference import make_calibrator
from test_inference_cli import run  # noqa: F401
from videos import write_video

from siamcal.faces.media import open_media
from siamcal.inference import (
    Predictor,
    load_model,
    predict_to_table,
    read_reference,
    save_profile,
    traces,
)
from siamcal.inference.choosing import choose_for_everybody
from siamcal.inference.traces import own_picture

PEOPLE = (1, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_calibrator(tmp_path_factory.mktemp("calibrator")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people who cross, and a clip of each alone."""
    folder = tmp_path_factory.mktemp("people")
    frames, places = zip(*film(PEOPLE, "cross", 24), strict=True)
    write_video(folder / "both.mp4", frames, crf="12")
    np.save(folder / "places.npy", np.array(places))
    for person in PEOPLE:
        (still, _), *_ = film((person,), "stand", 1)
        write_video(folder / f"{person}.mp4", [still] * 2, crf="12")
    return folder


@pytest.fixture(scope="module")
def predictor(model):
    with Predictor(load_model(model)) as predictor:
        yield predictor


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_is_read_against_their_own_reference(predictor, folder, tmp_path):
    alone = {
        n: read_reference(str(folder / f"{p}.mp4"), predictor, 0) for n, p in enumerate(PEOPLE)
    }
    output = tmp_path / "aus.csv"
    clip = folder / "both.mp4"
    summary = predict_to_table(clip, output, predictor=predictor, reference=alone)
    rows = rows_of(output)
    assert summary.frames == 24
    assert summary.rows == len(rows)
    assert {row["face_id"] for row in rows} == {"0", "1"}
    assert [row["frame"] for row in rows] == sorted((r["frame"] for r in rows), key=int)
    # The same faces, read one person at a time by a predictor that knows only that person.
    for number in (0, 1):
        single = predictor.results_of_people(open_media(clip), {number: alone[number].features})
        own = {r.index: r.values for r in single if r.face_id == number and r.values is not None}
        mine = [row for row in rows if row["face_id"] == str(number)]
        assert len(own) == len(mine) >= 15
        for row in mine:
            expected = np.clip(own[int(row["frame"]) - 1][0], 0, 5)
            assert float(row["AU01_r"]) == pytest.approx(expected, abs=6e-4)


def test_a_person_without_reference_has_rows_without_values(predictor, folder):
    alone = read_reference(str(folder / "1.mp4"), predictor, 0)
    found = list(predictor.results_of_people(open_media(folder / "both.mp4"), {0: alone.features}))
    other = [r for r in found if r.face_id == 1]
    assert other
    assert {r.problem for r in other} == {"no reference of this person"}
    assert all(r.values is None for r in other)
    assert all(r.values is not None for r in found if r.face_id == 0)


def test_one_person_is_followed_past_the_other(predictor, folder):
    """The wider face changes; the person who was there first stays."""
    alone = read_reference(str(folder / "1.mp4"), predictor, 0)
    places = np.load(folder / "places.npy")
    stream = open_media(folder / "both.mp4")
    results = list(predictor.results(stream, alone.features, alone.measures))
    everybody = predictor.results_of_people(
        open_media(folder / "both.mp4"), {0: alone.features, 1: alone.features}
    )
    of_person = {(r.index, r.face_id): r.values for r in everybody}
    followed = 0
    for result in results:
        own, other = (of_person.get((result.index, number)) for number in (0, 1))
        if own is not None and other is not None and result.faces > 1:
            # Boxes found in tiles differ a little, and with them the crop.
            assert np.abs(result.values - own).mean() < np.abs(result.values - other).mean()
            followed += 1
    assert followed >= 12
    assert len(places) == len(results)
    assert any("the same person was followed" in r.quality for r in results)


def test_everybody_gets_a_reference_or_the_reason(predictor, folder):
    references, refused = choose_for_everybody(folder / "both.mp4", predictor, sound_only=False)
    assert set(references) == {0, 1}
    assert not refused
    assert references[0].facts["source"].endswith("both.mp4")


def test_the_command(run, predictor, folder, tmp_path):  # noqa: F811
    for number, person in enumerate(PEOPLE):
        own = read_reference(str(folder / f"{person}.mp4"), predictor, 0)
        save_profile(own, tmp_path / f"{number}.siamcal", predictor)
    profiles = [
        "--person",
        f"0={tmp_path / '0.siamcal'}",
        "--person",
        f"1={tmp_path / '1.siamcal'}",
    ]
    code, _, err = run("both.mp4", *profiles, "-o", tmp_path / "both.csv")
    assert code == 0, err
    assert {row["face_id"] for row in rows_of(tmp_path / "both.csv")} == {"0", "1"}
    best = ("both.mp4", "--everyone", "--reference", "best")
    code, _, err = run(*best, "-o", tmp_path / "auto.csv")
    assert code == 0, err
    assert re.search(r"Person 0: both\.mp4.*\n.*Person 1: both\.mp4", err)


def test_everybody_is_drawn_with_a_line_each(run, tmp_path):  # noqa: F811
    arguments = ("both.mp4", "--everyone", "--reference", "best", "--plot")
    code, _, err = run(*arguments, "-o", tmp_path / "aus.csv")
    assert code == 0, err
    assert own_picture(tmp_path / "aus.png")
    with Image.open(tmp_path / "aus.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for number, colour in enumerate(traces.PEOPLE[:3]):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        shown = (np.abs(pixels - wanted).max(1) < 8).sum()
        assert (shown > 100) == (number < 2), colour


def test_a_line_stops_where_a_person_isnt_read() -> None:
    table = pd.DataFrame(
        {
            "frame": [1, 1, 2, 3, 3, 4],
            "face_id": [0, 1, 0, 0, 1, None],
            "timestamp": [0.0, 0.0, 0.1, 0.2, 0.2, 0.3],
            "success": [1, 1, 1, 1, 1, 0],
            "AU12_r": [1.0, 2.0, 1.5, 3.0, 4.0, None],
        }
    )
    people = traces._by_person(table)
    assert list(people) == [0, 1]
    np.testing.assert_array_equal(people[0]["AU12_r"], [1.0, 1.5, 3.0, np.nan])
    np.testing.assert_array_equal(people[1]["AU12_r"], [2.0, np.nan, 4.0, np.nan])
    np.testing.assert_array_equal(people[1]["timestamp"], [0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--everyone", "--reference", "0.mp4"], "is one person's"),
        (["--person", "anna.siamcal"], "1=berta.siamcal"),
        (["--person", "0=a.siamcal", "--person", "0=b.siamcal"], "given twice"),
        (["--everyone", "--reference", "0.mp4", "-o", "out/"], "is one person's"),
        (["--person", "0=a.siamcal", "-o", "out/"], "people of one recording"),
    ],
)
def test_what_is_one_persons_is_refused(run, tmp_path, arguments, words):  # noqa: F811
    output = [] if "-o" in arguments else ["-o", tmp_path / "a.csv"]
    code, _, err = run("both.mp4", *arguments, *output)
    assert code == 2
    assert words in err
    assert not Path("out").exists()


def test_each_person_is_smoothed_alone(run, tmp_path):  # noqa: F811
    command = ("both.mp4", "--everyone", "--reference", "best", "-o")
    assert run(*command, tmp_path / "plain.csv")[0] == 0
    assert run(*command, tmp_path / "smooth.csv", "--smooth", 5)[0] == 0
    plain, smooth = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("plain", "smooth"))
    assert list(plain["face_id"]) == list(smooth["face_id"])
    changed = 0
    for number, own in plain.groupby("face_id"):
        own = own.set_index("frame")["AU01_r"].reindex(range(1, 25))
        window = own.rolling(5, center=True, min_periods=1)
        # Of an even number the median is a mean, which the clipped readings don't tell.
        odd = own.notna() & (window.count() % 2 == 1)
        found = smooth[smooth["face_id"] == number].set_index("frame")["AU01_r"].reindex(own.index)
        assert odd.sum() > 12
        np.testing.assert_allclose(found[odd], window.median()[odd], atol=6e-4)
        changed += int((found - own).abs().max() > 0)
    assert changed == 2


def test_everybody_is_drawn_into_the_recording(run, folder, tmp_path):  # noqa: F811
    command = ("both.mp4", "--everyone", "--reference", "best", "-o")
    assert run(*command, tmp_path / "a.csv", "--overlay")[0] == 0
    assert run(*command, tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    frames = [frame.rgb.astype(int) for frame in open_media(tmp_path / "a.mp4")]
    plain = next(iter(open_media(folder / "both.mp4"))).rgb
    places = np.load(folder / "places.npy")
    assert len(frames) == 24
    # In the first frame each person's face is outlined in their colour; the wider face is 0.
    scale = frames[0].shape[0] // plain.shape[0]
    size = (plain.shape[1] * scale, plain.shape[0] * scale)
    before = cv2.resize(plain, size, interpolation=cv2.INTER_CUBIC).astype(int)
    shown = frames[0][: size[1], : size[0]]
    drawn = np.abs(shown - before).max(2) > 60
    middles = []
    for colour in traces.PEOPLE[:2]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        near = drawn & (np.abs(shown - wanted).max(2) < 40)
        assert near.sum() > 100
        middles.append(np.median(np.nonzero(near)[1]) / scale)
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["face_size"][0] > table["face_size"][1]
    widest = [max(places[0, :, 0]), min(places[0, :, 0])]
    np.testing.assert_allclose(middles, widest, atol=40)


def test_a_folder_of_everybody(run, folder, tmp_path):  # noqa: F811
    """Each recording as alone; a second run keeps what is there, and its summary."""
    command = ("both.mp4", "0.mp4", "--everyone", "--reference", "best", "-o")
    assert run(*command, f"{tmp_path}/many/")[0] == 0
    assert run("both.mp4", *command[2:], tmp_path / "both.csv")[0] == 0
    written = tmp_path / "many" / "both.csv"
    assert written.read_bytes() == (tmp_path / "both.csv").read_bytes()
    summary = tmp_path / "many" / "summary.csv"
    told = summary.read_bytes()
    rows = pd.read_csv(summary).set_index("table")
    assert re.search(
        r"person 0: .*both\.mp4.*; person 1: .*both\.mp4", rows["reference"]["both.csv"]
    )
    stamp = written.stat().st_mtime_ns
    code, _, err = run(*command, f"{tmp_path}/many/", "--resume")
    assert code == 0
    assert "(2 were complete)" in err
    assert written.stat().st_mtime_ns == stamp
    assert summary.read_bytes() == told

"""`siamcal bench real` on rendered clips, labelled by the rendering's own truth."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rendered import RenderedPerson
from scipy import stats
from siamcal.benchmarks._real_clips import (
    CALIBRATED,
    RAW,
    SHAPES,
    SUBTRACTED,
    Clip,
    read_clip,
    tools_in,
)
from siamcal.benchmarks._real_labels import read_labels
from siamcal.benchmarks._real_measures import (
    Limits,
    at_rest,
    by_labels,
    by_others,
    over_people,
    with_spread,
)
from test_agree import siamcal_table
from tool_tables import blendshapes
from videos import write_video

import siamcal.cli
from siamcal.calibrators.config import CalibratorConfig
from siamcal.calibrators.saving import save_calibrator
from siamcal.errors import ConfigError
from siamcal.faces.media import open_media
from siamcal.inference import Predictor, load_model
from siamcal.inference.recordings import Asked, find_recordings
from siamcal.inference.references import reference_frame
from siamcal.model.create import create_backbone
from siamcal.model.heads import make_head
from siamcal.model.siamese import CalibratingSiamese
from siamcal.preprocessing import Preprocessing
from siamcal.registry import benchmarks

AUS, FRAMES = (1, 12, 25), 24
TOOL = "OpenFace 2"


def truth(person):
    """(FRAMES, 3) intensities, the first six frames at rest."""
    time, own = np.arange(FRAMES)[:, None] / FRAMES, np.array([0.1, 0.4, 0.7]) + 0.2 * person
    curves = np.round(np.clip(4 * np.sin(2 * np.pi * (time + own)), 0, 4), 2)
    curves[:6] = 0
    return curves


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """clips/, labels.csv and in tables/ a perfect reader's tables."""
    place = tmp_path_factory.mktemp("real")
    for name in ("clips", "tables"):
        (place / name).mkdir()
    labels = []
    for number in range(2):
        person, curves = RenderedPerson(number), truth(number)
        frames = (person(dict(zip(AUS, row, strict=True))) for row in curves)
        write_video(place / f"clips/p{number}.mp4", frames)
        names = [f"AU{au:02d}" for au in AUS]
        own = pd.DataFrame(curves, columns=names)
        own.insert(0, "frame", np.arange(1, FRAMES + 1))
        labels.append(own.assign(clip=f"p{number}", reference=2))
        table = own.rename(columns={n: f"{n}_r" for n in names})
        table.insert(1, "timestamp", (own["frame"] - 1) / 25)
        table.assign(success=1, confidence=0.98).to_csv(place / f"tables/p{number}.csv")
    pd.concat(labels).to_csv(place / "labels.csv", index=False)
    return place


@pytest.fixture(scope="module")
def measured(folder):
    real = benchmarks.get("real")
    return real(
        str(folder / "clips"),
        labels=folder / "labels.csv",
        tables=str(folder / "tables"),
        output=folder / "out",
    )


def test_a_perfect_reader_is_perfect_and_the_calibrator_follows(measured) -> None:
    perfect, own = measured["labels"][TOOL], measured["labels"][CALIBRATED]
    for au in ("AU01", "AU12", "AU25"):
        assert perfect[au]["correlation"] == 1
        assert perfect[au]["mae"] == perfect[au]["rest"] == perfect[au]["absent"] == 0
        assert perfect[au]["slope"] == 1
        assert perfect[au]["people"]["correlation"] == 2
        assert own[au]["correlation"] > 0.7
        assert own[au]["rest"] < 0.3
    assert perfect["mean"]["correlation"] == 1
    assert measured["labels"][SHAPES]["AU12"]["mae"] is None
    assert measured["labels"][SHAPES]["AU12"]["correlation"] > 0.5
    assert set(measured["rest"][CALIBRATED]) == {*(f"AU{a:02d}" for a in measured["aus"]), "mean"}


def test_the_references_are_those_of_the_labels_and_rest_is_found(measured) -> None:
    for clip in measured["clips"]:
        assert clip["reference"] == "frame 2"
        assert clip["frames"] == clip["read"] == clip["labelled_and_read"] == FRAMES
        assert 3 <= clip["at_rest"] < FRAMES
    assert measured["people"] == 2
    # What is left out is said, whichever calibrator the package holds.
    assert any("no null reference" in note for note in measured["notes"]) != (
        RAW in measured["rest"]
    )
    assert measured["rest"][CALIBRATED]["mean"]["reference"] < 0.1
    assert measured["others"][0]["witness"] == TOOL
    assert measured["statuses"]["AU12"] == "experimental"  # two people show nothing


def test_what_is_written_holds_figures_and_no_pictures(measured, folder) -> None:
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "real.json", "real.md", "real.png",
    ]  # fmt: skip
    told = json.loads((folder / "out/real.json").read_text())
    assert told == json.loads(json.dumps(measured))
    text = (folder / "out/real.md").read_text()
    assert str(measured) + "\n" == text
    assert f"| {TOOL} | 1.00 (3) | 0.00 (3) | 0.00 (3) | 0.00 (3) | 1.00 (3) |" in text
    with Image.open(folder / "out/real.png") as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_the_command_without_labels_follows_the_tool(folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    only = folder / "only"
    only.mkdir()
    shutil.copy(folder / "clips/p0.mp4", only)
    (only / "broken.mp4").write_bytes(b"no video")
    arguments = ["bench", "real", "only", "--set", "tables=tables", "--set", "every=2", "--json"]
    arguments += ["--set", "reference=frame:1", "--set", "output=second"]
    monkeypatch.setattr(sys, "argv", ["siamcal", *arguments])
    with pytest.raises(SystemExit) as ended:
        siamcal.cli.main()
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] is None
    assert list(told["failed"]) == ["broken"]
    assert told["clips"][0]["frames"] == FRAMES // 2
    cells = told["others"][0]["readers"][CALIBRATED]
    assert cells["AU12"]["correlation"] > 0.6
    assert cells["AU12"]["people"]["correlation"] == 1


def with_null(folder):
    """A small calibrator that can read without a reference, saved."""
    head = make_head("intensity", 2)
    network = create_backbone("ir_tiny", num_outputs=head.num_outputs).eval()
    model = CalibratingSiamese(network, "layer4", head=head, null_reference=True)
    model.fit_anchor(torch.randn(6, 3, 112, 112), np.repeat(np.arange(3), 2))
    config = CalibratorConfig("layer4", "intensity", (1, 12), preprocessing=Preprocessing(size=112))
    save_calibrator(model, config, folder)
    return folder


def test_uncalibrated_and_subtracted_readings_stand_beside(folder, tmp_path) -> None:
    found = benchmarks.get("real")(
        str(folder / "clips/p0.mp4"),
        calibrator=str(with_null(tmp_path / "null")),
        reference="frame:3",
        output=tmp_path / "out",
    )
    assert {CALIBRATED, RAW, SUBTRACTED, SHAPES} <= set(found["rest"])
    assert found["notes"] == []
    (recording,) = find_recordings([str(folder / "clips/p0.mp4")], Asked("frame", number=3))
    with Predictor(load_model(tmp_path / "null")) as predictor:
        clip = read_clip(recording, recording.reference, predictor, [], 1)
        person = reference_frame(list(recording.inputs), predictor, 3)
        raw = [r.raw for r in predictor.results(open_media(recording.inputs[0]), person.features)]
    for place, au in enumerate((1, 12)):
        values = np.array([each[place] for each in raw])
        np.testing.assert_allclose(clip.readings[RAW][au], values.clip(0, 5), atol=1e-5)
        wanted = (values - values[2]).clip(0, 5)
        np.testing.assert_allclose(clip.readings[SUBTRACTED][au], wanted, atol=1e-4)
        assert clip.reference[SUBTRACTED][au] == 0
    assert not clip.at_rest[2]  # the reference itself
    assert clip.readings[SHAPES][12][2] == pytest.approx(0, abs=1e-6)


def test_people_of_a_list_and_pictures_in_folders(folder, tmp_path) -> None:
    person = RenderedPerson(0, bias=0.0)
    for name in ("day1", "day2"):
        (tmp_path / name).mkdir()
        for number, level in enumerate((0, 0, 2, 4)):
            Image.fromarray(person({12: level})).save(tmp_path / name / f"{number}.png")
    rows = "".join(f"{name},anna,frame:1\n" for name in ("day1", "day2"))
    (tmp_path / "study.csv").write_text("video,person,reference\n" + rows)
    rows = "".join(
        f"{n},{f + 1},{v}\n" for n in ("day1", "day2") for f, v in enumerate((0, 0, 2, 4))
    )
    (tmp_path / "labels.csv").write_text("clip,frame,AU12\n" + rows)
    real = benchmarks.get("real")
    labels = tmp_path / "labels.csv"
    found = real(f"@{tmp_path}/study.csv", labels=labels, output=tmp_path / "out")
    assert found["people"] == 1
    assert [clip["person"] for clip in found["clips"]] == ["anna", "anna"]
    cell = found["labels"][CALIBRATED]["AU12"]
    assert cell["frames"] == 8
    assert cell["people"]["correlation"] == 1
    assert cell["correlation"] > 0.9
    assert SHAPES in found["labels"]


def test_siamcals_and_mediapipes_tables_are_no_independent_witness(folder, tmp_path) -> None:
    for name in ("shapes", "own"):
        (tmp_path / name).mkdir()
    blendshapes(tmp_path / "shapes/p0.csv")
    siamcal_table(tmp_path / "own/p0.csv", truth(0), AUS)
    tools = tools_in(f"{folder / 'tables'}, {tmp_path / 'shapes'},{tmp_path / 'own'}")
    assert [tool.independent for tool in tools] == [True, False, False]
    assert [tool.span for tool in tools] == [(0, 5), (0, 1), (0, 5)]
    (twice,) = tools_in(f"{folder / 'tables'},{folder / 'tables'}")[1:]
    assert twice.name == "OpenFace 2 (tables)"
    blendshapes(tmp_path / "own/p1.csv")
    with pytest.raises(ConfigError, match="of several tools"):
        tools_in(str(tmp_path / "own"))


def clip(name, person, readings, rest=(), **more):
    count = len(next(iter(next(iter(readings.values())).values())))
    resting = np.isin(np.arange(count), rest)
    numbers = np.arange(1, count + 1)
    return Clip(name, person, numbers, np.ones(count, bool), readings, at_rest=resting, **more)


def test_figures_by_hand(tmp_path) -> None:
    rng = np.random.default_rng(0)
    x = [rng.uniform(0, 5, 12) for _ in range(3)]
    y = [rng.integers(0, 3, 12).astype(float) for _ in range(3)]
    y[2][:] = 0  # the third person never moves it
    clips = [
        clip("a", "one", {CALIBRATED: {12: x[0]}, TOOL: {12: y[0]}}, rest=(0, 1)),
        clip("b", "one", {CALIBRATED: {12: x[1]}, TOOL: {12: y[1]}}, rest=(3,)),
        clip("c", "two", {CALIBRATED: {12: x[2]}, TOOL: {12: y[2]}}, rest=(5, 6)),
    ]
    labels = pd.DataFrame(
        [(n, f + 1, y[i][f], None if f else 1) for i, n in enumerate("abc") for f in range(12)],
        columns=["clip", "frame", "AU12", "AU1"],
    )
    labels.to_csv(tmp_path / "labels.csv", index=False)
    told = read_labels(tmp_path / "labels.csv")
    spans = {CALIBRATED: (0.0, 5.0), TOOL: (0.0, 5.0)}
    rows = by_labels(clips, told, spans).query("reader == @CALIBRATED").set_index("person")
    both = np.concatenate(x[:2]), np.concatenate(y[:2])
    assert rows.loc["one", "correlation"] == pytest.approx(np.corrcoef(*both)[0, 1])
    assert rows.loc["one", "mae"] == pytest.approx(np.mean(abs(both[0] - both[1])))
    assert rows.loc["one", "absent"] == pytest.approx(both[0][both[1] == 0].mean())
    idle = np.concatenate([np.arange(12) > 0] * 2) & (both[1] == 0)  # AU 1 is 1 in frame 1
    assert rows.loc["one", "rest"] == pytest.approx(both[0][idle].mean())
    assert rows.loc["one", "slope"] == pytest.approx(np.polyfit(both[1], both[0], 1)[0])
    assert np.isnan(rows.loc["two", "correlation"])
    found = over_people(by_labels(clips, told, spans), ("correlation", "mae"))[CALIBRATED]["AU12"]
    assert found["people"] == {"correlation": 1, "mae": 2}
    assert found["mae"] == pytest.approx(rows["mae"].mean(), abs=1e-4)

    others = by_others(clips, TOOL, spans, Limits()).set_index("clip")
    assert others.loc["a", "correlation"] == pytest.approx(stats.spearmanr(x[0], y[0]).statistic)
    assert others.loc["b", "nothing"] == pytest.approx(x[1][y[1] == 0].mean())
    assert np.isnan(others.loc["c", "correlation"])  # the tool's trace doesn't move
    still = by_others(clips, TOOL, spans, Limits(moves=0.9)).set_index("clip")
    assert still["correlation"].isna().all()

    resting = at_rest(clips)
    spread = over_people(resting, ("rest", "within"))
    with_spread(spread, resting)
    rest = np.concatenate([x[0][:2], x[1][3:4]]).mean(), x[2][5:7].mean()
    within = np.mean([np.concatenate(x[:2]).std(ddof=1), x[2].std(ddof=1)])
    cell = spread[CALIBRATED]["AU12"]
    assert cell["rest"] == pytest.approx(np.mean(rest), abs=1e-4)
    assert cell["between"] == pytest.approx(np.std(rest, ddof=1), abs=1e-4)
    assert cell["ratio"] == pytest.approx(np.std(rest, ddof=1) / within, abs=1e-4)


def test_a_reading_that_stands_still_counts_as_0(tmp_path) -> None:
    moving, still = np.arange(6.0) % 3, np.ones(6)
    own = [clip("a", "a", {CALIBRATED: {1: still}, TOOL: {1: moving}})]
    frames = "".join(f"a,{f + 1},{v}\n" for f, v in enumerate(moving))
    (tmp_path / "l.csv").write_text("clip,frame,AU1\n" + frames)
    spans = {CALIBRATED: (0.0, 5.0), TOOL: (0.0, 5.0)}
    rows = by_labels(own, read_labels(tmp_path / "l.csv"), spans).set_index("reader")
    assert rows.loc[CALIBRATED, "correlation"] == 0
    assert by_others(own, TOOL, spans, Limits())["correlation"].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip,AU01\na,1\n", "needs the columns clip, frame and AU01"),
        ("clip,frame\na,1\n", "needs the columns"),
        ("clip,frame,AU01,mood\na,1,1,x\n", "needs the columns"),
        ("clip,frame,AU01\na,0,1\n", "row 1 of data, frame: '0'; frames are counted from 1"),
        ("clip,frame,AU01\na,x,1\n", "frames are counted from 1"),
        ("clip,frame,AU01\na,1,6\n", "row 1 of data, AU01: '6'; an intensity from 0 to 5"),
        ("clip,frame,AU01\na,1,B\n", "an intensity from 0 to 5"),
        ("clip,frame,AU01\na,1,1\na,1,2\n", "row 2 of data: frame 1 of a is labelled twice"),
        ("clip,frame,AU01,reference\na,1,1,3\na,2,2,4\n", "reference is 4 here, but 3"),
        ("clip,frame,AU01\n,1,1\n", "the cell of clip is empty"),
    ],
)
def test_labels_that_are_wrong_are_refused(tmp_path, text, words) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_labels(path)
    assert words in str(error.value)


def test_settings_that_are_wrong_are_refused(folder, tmp_path) -> None:
    real = benchmarks.get("real")
    clips = str(folder / "clips")
    labels = tmp_path / "labels.csv"
    labels.write_text("clip,frame,AU01\nnobody,1,1\n")
    for arguments, words in [
        ({"labels": labels}, "labels the clip 'nobody', which is none of: p0, p1"),
        ({"tables": str(tmp_path / "no")}, "isn't a folder of tables"),
        ({"reference": "frame:99"}, "None of 2 clips could be read"),
    ]:
        with pytest.raises(ConfigError, match=words):
            real(clips, output=tmp_path / "out", **arguments)

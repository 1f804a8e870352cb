"""What readings move by when only the picture changes: the sums by hand, and a small run."""

import json

import numpy as np
import pandas as pd
import pytest
from siamcal.benchmarks.robustness import (
    REFERENCES,
    TARGETS,
    blurred,
    pictures_of,
    recompressed,
    summarise,
)

from siamcal.errors import ConfigError
from siamcal.faces import FaceDetector
from siamcal.registry import benchmarks
from siamcal.synth.plan import (
    BENCHMARK_PEOPLE,
    CHECK_PEOPLE,
    ROBUSTNESS_PEOPLE,
    TRAINING_PEOPLE,
    TUNING_PEOPLE,
)


def row(person, target, change, *values):
    return {"person": person, "target": target, "change": change} | dict(
        zip(("AU01", "AU12"), values, strict=True)
    )


def test_changes_are_differences_to_the_same_face_as_it_is() -> None:
    table = pd.DataFrame(
        [
            row(1, 0, "", 0.0, 0.5),
            row(1, 1, "", 2.0, 4.0),
            row(2, 0, "", 1.0, 0.0),
            row(1, 0, "blur", 0.5, 0.0),
            row(1, 1, "blur", 1.0, 5.0),
            row(2, 0, "blur", 1.0, 2.0),
            row(3, 0, "blur", 5.0, 5.0),  # the face as it is wasn't found
        ]
    )
    found = summarise(table, (1, 12))
    assert found["all"]["blur"] == pytest.approx({"AU01": 0.5, "AU12": 3.5 / 3})
    assert found["rest"]["blur"] == pytest.approx({"AU01": 0.25, "AU12": 1.25})
    assert found["faces"]["blur"] == 3
    assert found["smile"] == pytest.approx({"AU01": 2.0, "AU12": 4.0})


def test_people_are_nobody_elses() -> None:
    others = (BENCHMARK_PEOPLE, TRAINING_PEOPLE, TUNING_PEOPLE, CHECK_PEOPLE)
    for people in others:
        assert people.stop <= ROBUSTNESS_PEOPLE.start or people.start >= ROBUSTNESS_PEOPLE.stop


def test_each_change_is_what_it_is_called() -> None:
    pictures = list(pictures_of(ROBUSTNESS_PEOPLE.start, 1))
    assert {p.change for p in pictures} == {"", *TARGETS, *REFERENCES}
    assert {p.target for p in pictures} == {-1, 0, 1, 2}
    rest = {p.change: p.rgb for p in pictures if p.target == 0}
    assert len(rest) == 1 + len(TARGETS)  # with the face as it is

    def detail(rgb):
        return float(np.abs(np.diff(rgb.astype(float), axis=1)).mean())

    assert detail(rest["blur"]) < 0.6 * detail(rest[""])
    assert detail(rest["noise and JPEG"]) > 1.05 * detail(rest[""])
    with FaceDetector() as detector:
        seen = {name: detector.detect(rgb, max_faces=1)[0] for name, rgb in rest.items()}

    def height_of_nose(face):  # of the way from the eyes to the chin
        y = face.landmarks[:, 1]
        eyes = y[[33, 263]].mean()
        return (y[1] - eyes) / (y[152] - eyes)

    up, still, down = (height_of_nose(seen[n]) for n in ("nodding up", "", "nodding down"))
    assert up < still < down

    def light(name):  # of the lower half of the face against the upper
        left, top, width, height = map(int, seen[name].box)
        face = rest[name][top : top + height, left : left + width].astype(float)
        return face[height // 2 :].mean() / face[: height // 2].mean()

    assert light("light from below") > light("")
    openings = {
        n: abs(seen[n].landmarks[159, 1] - seen[n].landmarks[145, 1]) for n in ("", "eyes closed")
    }
    assert openings["eyes closed"] < 0.5 * openings[""]


def test_pictures_are_changed_by_as_much_as_is_said() -> None:
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    spread = blurred(np.repeat(point[:, :33].max(1, keepdims=True), 65, 1), 50.0)
    rows = spread[:, 10, 0].astype(float)
    place = np.arange(65) - 32
    deviation = np.sqrt((rows * place**2).sum() / rows.sum())
    assert deviation == pytest.approx(3.0, abs=0.25)  # .06 of 50 pixels
    grey = np.full((64, 64, 3), 120, np.uint8)
    assert 1.5 < recompressed(grey, np.random.default_rng(0)).astype(float).std() < 8


@pytest.mark.slow
def test_a_small_run_writes_its_tables(tmp_path) -> None:
    text = benchmarks.get("robustness")(tmp_path, people=2, frames=1)
    assert text == (tmp_path / "robustness.md").read_text()
    found = json.loads((tmp_path / "robustness.json").read_text())
    assert set(found["all"]) == {*TARGETS, *REFERENCES}
    assert found["faces"]["nodding up"] == 6  # two people, three faces; a blurred one may be lost
    for part in ("all", "rest"):
        assert f"| {TARGETS[0]} |" in text
        assert np.isfinite(list(found[part]["blur"].values())).all()
    with pytest.raises(ConfigError, match="1 to 100 people"):
        benchmarks.get("robustness")(people=0)

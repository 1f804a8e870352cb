"""Are the rendered people what they claim? Judged by a network that has never seen one of them.

MediaPipe's blendshape network was trained on real faces. Each AU is rendered alone on forty people
nothing was tuned on; where the blendshape of the same action rises most, the action reads as it
should. The same pictures give the shift that each action makes against the spread of people at
rest, at both ends of the bias knob. Face detection within the pose limits and the speed of the
renderer complete the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy.stats import spearmanr

from siamcal.faces import FaceDetector
from siamcal.parallel import in_processes
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.actions import AUS
from siamcal.synth.frames import face_at
from siamcal.synth.person import build_person
from siamcal.synth.plan import (
    CHECK_PEOPLE,
    RENDERER_VERSION,
    Plan,
    draw_recording,
    make_plan,
)
from siamcal.synth.preview import STUDIO_CAMERA, STUDIO_LIGHT, studio_wall
from siamcal.synth.render import Face, Sensor, encode_jpeg, expose, render
from siamcal.synth.scene import draw_background
from siamcal.synth.traits import draw_traits, stream

__all__ = ["BLENDSHAPES", "SynthCheck", "measures", "synth"]


#: AU -> MediaPipe's blendshapes of the same action. AU 9 has none that works (noseSneer never
#: rises on any face tried), so its nose wings are measured instead.
BLENDSHAPES: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUp",),
    4: ("browDown",),
    5: ("eyeWide",),
    6: ("eyeSquint", "cheekSquint"),
    12: ("mouthSmile",),
    15: ("mouthFrown",),
    17: ("mouthShrugLower", "mouthShrugUpper"),
    20: ("mouthStretch",),
    25: ("mouthLowerDown", "mouthUpperUp"),
    26: ("jawOpen",),
}
_LEVELS = (1, 2, 3, 4, 5)
_JUDGED = (3, 5)
_YAWS = (-0.12, 0.0, 0.12)  # radians; every reading is the mean over them
_NOSE_WING_RISE = 0.004  # inter-ocular distances, twice MediaPipe's own jitter
_SIZE = 256

# A plain x86-64 processor, for numba, numpy, OpenBLAS, OpenCV and libjpeg-turbo.
_PLAIN_PROCESSOR = {
    "NUMBA_CPU_NAME": "x86-64",
    "NUMBA_CPU_FEATURES": "",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL "
    "AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,AVX512_SKX",
    "JSIMD_FORCESSE2": "1",
}

# AU -> what is measured, in inter-ocular distances.
_MEASURES = {
    1: "inner brow above the eye corners",
    2: "outer brow above the eye corners",
    4: "inner brow above the eye corners",
    5: "opening of the lids",
    6: "opening of the lids",
    9: "nose wings against the eyes",
    12: "mouth corners above the middle of the lips",
    15: "mouth corners above the middle of the lips",
    17: "chin to nose",
    20: "width of the mouth",
    25: "gap between the lips",
    26: "chin to nose",
}


def measures(landmarks: np.ndarray) -> dict[int, float]:
    """Return one landmark measure for each AU, in inter-ocular distances.

    Args:
        landmarks: (478, 3) MediaPipe's, pixels.
    """
    left, right = landmarks[[33, 133]].mean(0)[:2], landmarks[[362, 263]].mean(0)[:2]
    across = right - left
    unit = float(np.linalg.norm(across))
    side = across / unit
    up = np.array([side[1], -side[0]])  # image y points down
    middle = (left + right) / 2
    place = (landmarks[:, :2] - middle) / unit
    x, y = place @ side, place @ up

    def height(*index: int) -> float:
        return float(y[list(index)].mean())

    lids = height(159, 386) - height(145, 374)
    corners = height(61, 291) - height(13, 14)
    return {
        1: height(55, 285, 107, 336),
        2: height(46, 276, 70, 300),
        4: height(55, 285, 107, 336),
        5: lids,
        6: lids,
        9: height(98, 327, 64, 294),
        12: corners,
        15: corners,
        17: height(2) - height(152),
        20: float(x[291] - x[61]),
        25: height(13) - height(14),
        26: height(2) - height(152),
    }


@dataclass
class SynthCheck:
    """The figures of the check.

    Attributes:
        people: Number of people measured.
        bias: Scale of their resting offsets and permanent wrinkles.
        rows: One a (AU): share of pictures where it reads right, rank correlation, shift, spread.
        detection: Frames, found faces.
        speed: Frames a second of one core, and seconds to build a person.
        machines: Pictures compared with those of a plain x86-64 processor, largest difference in
            grey levels, share of values that differ; empty on other processors.
        wrong: AU -> what rose most instead, with counts.
    """

    people: int
    bias: float
    rows: list[dict[str, Any]]
    detection: dict[str, float]
    speed: dict[str, float]
    wrong: dict[int, dict[str, int]] = field(default_factory=dict)
    machines: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The tables."""
        passed = [r["au"] for r in self.rows if r["top_share"] >= 0.85]
        ranked = [r["au"] for r in self.rows if r["spearman"] >= 0.9]
        lines = [
            f"{self.people} people nothing was tuned on, bias {self.bias:g}, renderer "
            f"{RENDERER_VERSION}, {_SIZE} px. "
            "Rendered faces show that the machinery works and how much calibration can help, never "
            "how well real faces are read.",
            "",
            "Reads right in at least 85 % of people at levels 3 and 5: AU "
            f"{', '.join(map(str, passed))} ({len(passed)} of {len(self.rows)}). "
            "Rank correlation with the intensity at least .9: AU "
            f"{', '.join(map(str, ranked))} ({len(ranked)} of {len(self.rows)}).",
            "",
            "| AU | judged by | most at 3 | at 5 | both | Spearman 0..5 | what rose instead |",
            "| --- " * 7 + "|",
        ]
        for r in self.rows:
            au = r["au"]
            instead = ", ".join(f"{n} {c}" for n, c in list(self.wrong.get(au, {}).items())[:3])
            judge = ", ".join(BLENDSHAPES.get(au, ()))
            lines.append(
                f"| {au} | {judge or 'nose wings rise'} | {r['top_3']:.0%} | {r['top_5']:.0%} | "
                f"{r['top_share']:.0%} | {r['spearman']:.2f} | {instead} |"
            )
        lines += [
            "",
            "Shift of one person at level 5 against the spread of people at rest (standard "
            "deviation), inter-ocular distances of MediaPipe's landmarks:",
            "",
            "| AU | measure | shift at 5 | spread, bias 1 | spread, bias 0 | spread 1 / shift |",
            "| --- " * 6 + "|",
        ]
        lines += [
            f"| {r['au']} | {_MEASURES[r['au']]} | {r['shift']:+.3f} | {r['spread_1']:.3f} | "
            f"{r['spread_0']:.3f} | {r['spread_1'] / max(abs(r['shift']), 1e-6):.2f} |"
            for r in self.rows
        ]
        found, frames = self.detection["found"], self.detection["frames"]
        lines += [
            "",
            f"Face found in {found:.0f} of {frames:.0f} frames ({found / frames:.1%}) with yaw up "
            "to 30 and pitch up to 20 degrees, as the data set frames, lights and degrades them.",
            "",
            f"Speed of one core (processor time): {self.speed['render']:.0f} frames/s at {_SIZE} "
            f"px with shading, shadows and anti-aliasing, {self.speed['complete']:.0f} with sensor "
            f"noise and JPEG; {self.speed['person']:.2f} s to build a person.",
        ]
        if self.machines:
            lines += [
                "",
                f"The same {self.machines['pictures']:.0f} pictures by code for a plain x86-64 "
                "processor (no AVX, no FMA), in all libraries used: largest difference "
                f"{self.machines['largest']:.0f} grey levels, {self.machines['share']:.1e} of the "
                "values differ.",
            ]
        return "\n".join(lines) + "\n"


def _stem(name: str) -> str:
    return name.removesuffix("Left").removesuffix("Right")


@dataclass(frozen=True)
class _Reading:
    """What MediaPipe says of a face: actions by name without side, and landmark measures."""

    actions: dict[str, float]
    places: dict[int, float]


def _look(detector: FaceDetector, person: Any, face: Face) -> _Reading | None:
    """Return the mean reading of a face over small turns of the head; None where none is found."""
    actions, places = [], []
    for yaw in _YAWS:
        turned = dataclasses.replace(face, yaw=yaw)
        wall = studio_wall(_SIZE)
        picture = render(person, turned, STUDIO_LIGHT, STUDIO_CAMERA, wall)
        found = detector.detect(expose(picture, Sensor(), None), max_faces=1)
        if found:
            actions.append(_sides_joined(found[0].blendshapes))
            places.append(measures(found[0].landmarks))
    if not actions:
        return None
    return _Reading(
        {name: float(np.mean([a[name] for a in actions])) for name in actions[0]},
        {au: float(np.mean([p[au] for p in places])) for au in places[0]},
    )


def _sides_joined(blendshapes: dict[str, float]) -> dict[str, float]:
    """Return the mean of left and right: every AU here moves both sides."""
    joined: dict[str, list[float]] = {}
    for name, value in blendshapes.items():
        joined.setdefault(_stem(name), []).append(value)
    return {name: float(np.mean(values)) for name, values in joined.items()}


def _alone(au: int, level: float) -> Face:
    intensity = np.zeros(len(AUS))
    intensity[AUS.index(au)] = level
    return Face(intensity)


def _check_person(detector: FaceDetector, number: int, bias: float) -> dict[str, Any]:
    """Return what is measured on one person; without "actions" where the face isn't found."""
    person = build_person(draw_traits(0, number, bias))
    rest = _look(detector, person, _alone(1, 0))
    biased, without = (
        _look(detector, build_person(draw_traits(0, number, b)), _alone(1, 0)) for b in (1.0, 0.0)
    )
    if rest is None or biased is None or without is None:
        return {"number": number, "actions": None}
    result: dict[str, Any] = {
        "number": number,
        "rest_1": {str(au): v for au, v in biased.places.items()},
        "rest_0": {str(au): v for au, v in without.places.items()},
        "actions": {},
    }
    for au in AUS:
        curve, rises, shift = [_strength(au, rest)], {}, None
        for level in _LEVELS:
            seen = _look(detector, person, _alone(au, level))
            if seen is None:
                curve.append(curve[-1])
                continue
            curve.append(_strength(au, seen))
            if level in _JUDGED:
                rise = {name: round(v - rest.actions[name], 4) for name, v in seen.actions.items()}
                rises[str(level)] = rise | {"nose wings": round(seen.places[9] - rest.places[9], 5)}
            if level == _LEVELS[-1]:
                shift = seen.places[au] - rest.places[au]
        result["actions"][str(au)] = {"curve": curve, "rises": rises, "shift": shift}
    return result


_detector: FaceDetector | None = None


def _check_alone(number: int, bias: float) -> dict[str, Any]:
    """Measure one person in a worker process, which keeps its detector."""
    global _detector
    _detector = _detector or FaceDetector()
    return _check_person(_detector, number, bias)


def _strength(au: int, seen: _Reading) -> float:
    if au == 9:
        return seen.places[9]
    return float(sum(seen.actions[name] for name in BLENDSHAPES[au]))


def _top(au: int, rises: dict[str, float] | None) -> str:
    """Return the action that rose most; for AU 9 whether the nose wings did."""
    if rises is None:
        return "no face"
    if au == 9 and rises["nose wings"] > _NOSE_WING_RISE:
        return "nose wings"
    actions = {name: value for name, value in rises.items() if name != "nose wings"}
    return max(actions, key=lambda name: actions[name])


def _right(au: int) -> tuple[str, ...]:
    return BLENDSHAPES.get(au, ("nose wings",))


def _rows(results: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, dict[str, int]]]:
    rows: list[dict[str, Any]] = []
    wrong: dict[int, dict[str, int]] = {}
    for au in AUS:
        own = [r["actions"][str(au)] for r in results]
        tops = {k: [_top(au, a["rises"].get(str(k))) for a in own] for k in _JUDGED}
        hit = {k: [name in _right(au) for name in names] for k, names in tops.items()}
        counts = Counter(n for names in tops.values() for n in names if n not in _right(au))
        wrong[au] = dict(counts.most_common())
        curves = [spearmanr(range(6), a["curve"]).statistic for a in own if np.ptp(a["curve"]) > 0]
        rows.append(
            {
                "au": au,
                "top_3": float(np.mean(hit[3])),
                "top_5": float(np.mean(hit[5])),
                "top_share": float(np.mean(hit[3] + hit[5])),
                "spearman": float(np.mean(curves)),
                "shift": float(np.mean([a["shift"] for a in own if a["shift"] is not None])),
                "spread_1": float(np.std([r["rest_1"][str(au)] for r in results])),
                "spread_0": float(np.std([r["rest_0"][str(au)] for r in results])),
            }
        )
    return rows, wrong


def _detection(detector: FaceDetector, people: range, frames: int) -> dict[str, float]:
    """Return how many faces are found in frames of the data set's own make, at larger poses."""
    plan, found, total = make_plan("small", first_person=people.start), 0, 0
    rng = stream(77)
    for number in people:
        person, recording = build_person(draw_traits(0, number)), draw_recording(plan, number, 0)
        background = draw_background(stream(0, number, 25), _SIZE)
        camera = recording.cameras["front"]
        sensor = Sensor(recording.exposure, recording.noise, recording.blur, recording.quality)
        for _ in range(max(1, frames // len(people))):
            frame = int(rng.integers(len(recording.track)))
            yaw, pitch = np.radians(rng.uniform((-30, -20), (30, 20)))
            face = face_at(recording, frame, neutral=False)
            face = dataclasses.replace(face, yaw=yaw - camera.yaw, pitch=pitch - camera.pitch)
            picture = render(person, face, recording.light.at(frame / 20), camera, background)
            found += bool(detector.detect(expose(picture, sensor, rng), max_faces=1))
            total += 1
    return {"frames": total, "found": found}


def _speed(frames: int) -> dict[str, float]:
    """Return frames a second of processor time, after compilation."""
    plan = Plan(first_person=CHECK_PEOPLE.start)
    number = plan.first_person
    recording = draw_recording(plan, number, 0)
    background, camera = draw_background(stream(1), _SIZE), recording.cameras["front"]
    camera = dataclasses.replace(camera, face_share=0.5)
    person = build_person(draw_traits(0, number))
    started = time.process_time()
    person = build_person(draw_traits(0, number))
    building = time.process_time() - started
    rng, sensor = stream(2), Sensor(1.0, 2.0, 0.4, 85)
    faces = [face_at(recording, k * 7, neutral=False) for k in range(frames + 1)]
    render(person, faces[0], recording.light, camera, background)
    started = time.process_time()
    pictures = [render(person, f, recording.light, camera, background) for f in faces[1:]]
    rendering = time.process_time() - started
    started = time.process_time()
    for picture in pictures:
        encode_jpeg(expose(picture, sensor, rng), sensor.quality)
    sensing = time.process_time() - started
    return {
        "render": frames / rendering,
        "complete": frames / (rendering + sensing),
        "person": building,
    }


def _sample_pictures(people: list[int]) -> np.ndarray:
    """Return pictures (n, S, S, 3) of the data set's own make, with sensor noise."""
    pictures = []
    for number in people:
        recording = draw_recording(make_plan("small", first_person=number), number, 0)
        person, background = build_person(draw_traits(0, number)), draw_background(stream(1), _SIZE)
        sensor = Sensor(recording.exposure, recording.noise, recording.blur, recording.quality)
        for frame in range(0, len(recording.track), len(recording.track) // 3):
            face, light = face_at(recording, frame, neutral=False), recording.light.at(frame / 20)
            picture = render(person, face, light, recording.cameras["front"], background)
            pictures.append(expose(picture, sensor, stream(number, frame)))
    return np.stack(pictures)


def _machines(people: list[int]) -> dict[str, float]:
    """Compare pictures of this processor with those of a plain one, emulated in a process."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    with tempfile.TemporaryDirectory() as cache:
        plain = _PLAIN_PROCESSOR | {"NUMBA_CACHE_DIR": cache}
        with mock.patch.dict(os.environ, plain):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as pool:
                theirs = pool.submit(_sample_pictures, people).result()
    difference = np.abs(_sample_pictures(people).astype(int) - theirs)
    return {
        "pictures": len(theirs),
        "largest": float(difference.max()),
        "share": float((difference > 0).mean()),
    }


@benchmarks.register("realism")
def synth(
    output: Path = Path("runs/synth"),
    bias: float = 1.0,
    limit: int = 0,
    detection_frames: int = 400,
    speed_frames: int = 100,
    workers: int = 1,
) -> SynthCheck:
    """Check the rendered people with MediaPipe's blendshapes and landmarks; measure the renderer.

    Results of each person are kept in `output`, so an interrupted run goes on where it stopped.

    Args:
        output: Folder of results: people.jsonl, check.json and check.md.
        bias: How far people's resting faces differ, which is what makes single actions hard to
            tell from a resting face; 0 judges the actions alone.
        limit: Measure only the first so many people; 0 measures all forty.
        detection_frames: Frames in which a face is sought.
        speed_frames: Frames that are timed.
        workers: Processes.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    log = output / f"readings_{RENDERER_VERSION}_bias{bias:g}.jsonl"
    done = {}
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            done[row["number"]] = row
    people = CHECK_PEOPLE[:limit] if limit else CHECK_PEOPLE
    todo = [number for number in people if number not in done]
    check_one = functools.partial(_check_alone, bias=bias)
    with contextlib.closing(in_processes(check_one, todo, workers, "checks people")) as rows_done:
        for row in progress_bar(rows_done, total=len(todo), description="people", unit="person"):
            done[row["number"]] = row
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    with FaceDetector() as detector:
        detection = _detection(detector, people, detection_frames)
    results = [done[n] for n in people if done[n]["actions"]]
    rows, wrong = _rows(results)
    machines = _machines(list(people[:4]))
    check = SynthCheck(len(results), bias, rows, detection, _speed(speed_frames), wrong, machines)
    (output / "check.json").write_text(json.dumps(dataclasses.asdict(check), indent=1))
    (output / "check.md").write_text(check.to_markdown(), encoding="utf-8")
    return check

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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from siamcal.benchmarks._readings import JUDGED, SIZE, check_person, top
from siamcal.benchmarks._renderer import compare_machines, measure_speed

from siamcal.faces import FaceDetector
from siamcal.files import append_line, kept_lines, make_folder
from siamcal.parallel import in_processes
from siamcal.progress import progress_bar
from siamcal.recalibration.action_units import SHAPES_OF_AU
from siamcal.registry import benchmarks
from siamcal.synth.actions import AUS
from siamcal.synth.frames import face_at
from siamcal.synth.person import build_person
from siamcal.synth.plan import (
    CHECK_PEOPLE,
    RENDERER_VERSION,
    draw_recording,
    make_plan,
)
from siamcal.synth.render import expose, render
from siamcal.synth.scene import draw_background
from siamcal.synth.traits import draw_traits, stream

__all__ = ["SynthCheck", "realism"]


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
            f"{RENDERER_VERSION}, {SIZE} px. "
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
            judge = ", ".join(SHAPES_OF_AU.get(au, ()))
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
            f"Speed of one core (processor time): {self.speed['render']:.0f} frames/s at {SIZE} "
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


_detector: FaceDetector | None = None


def _check_alone(number: int, bias: float) -> dict[str, Any]:
    """Measure one person in a worker process, which keeps its detector."""
    global _detector
    _detector = _detector or FaceDetector()
    return check_person(_detector, number, bias)


def _right(au: int) -> tuple[str, ...]:
    return SHAPES_OF_AU.get(au, ("nose wings",))


def _rows(results: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, dict[str, int]]]:
    rows: list[dict[str, Any]] = []
    wrong: dict[int, dict[str, int]] = {}
    for au in AUS:
        own = [r["actions"][str(au)] for r in results]
        tops = {k: [top(au, a["rises"].get(str(k))) for a in own] for k in JUDGED}
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
        background = draw_background(stream(0, number, 25), SIZE)
        camera = recording.cameras["front"]
        sensor = recording.sensor
        for _ in range(max(1, frames // len(people))):
            frame = int(rng.integers(len(recording.track)))
            yaw, pitch = np.radians(rng.uniform((-30, -20), (30, 20)))
            face = face_at(recording, frame, neutral=False)
            face = dataclasses.replace(face, yaw=yaw - camera.yaw, pitch=pitch - camera.pitch)
            picture = render(person, face, recording.light.at(frame / 20), camera, background)
            found += bool(detector.detect(expose(picture, sensor, rng), max_faces=1))
            total += 1
    return {"frames": total, "found": found}


@benchmarks.register("realism")
def realism(
    output: Path = Path("runs/realism"),
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
    make_folder(output)
    log = output / f"readings_{RENDERER_VERSION}_bias{bias:g}.jsonl"
    done = {row["number"]: row for row in kept_lines(log)}
    people = CHECK_PEOPLE[:limit] if limit else CHECK_PEOPLE
    todo = [number for number in people if number not in done]
    check_one = functools.partial(_check_alone, bias=bias)
    with contextlib.closing(in_processes(check_one, todo, workers, "checks people")) as rows_done:
        for row in progress_bar(rows_done, total=len(todo), description="people", unit="person"):
            done[row["number"]] = row
            append_line(log, row)
    with FaceDetector() as detector:
        detection = _detection(detector, people, detection_frames)
    results = [done[n] for n in people if done[n]["actions"]]
    rows, wrong = _rows(results)
    machines = compare_machines(list(people[:4]))
    check = SynthCheck(
        len(results), bias, rows, detection, measure_speed(speed_frames), wrong, machines
    )
    (output / "check.json").write_text(json.dumps(dataclasses.asdict(check), indent=1))
    (output / "check.md").write_text(check.to_markdown(), encoding="utf-8")
    return check

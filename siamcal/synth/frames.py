"""Rendering of a plan's tasks into JPEG files and tables; what one worker does."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamcal.files import make_folder, write_json
from siamcal.synth.actions import AUS
from siamcal.synth.backdrops import draw_backdrop
from siamcal.synth.occluders import cover
from siamcal.synth.person import Person, build_person
from siamcal.synth.plan import (
    Plan,
    Recording,
    Task,
    draw_person,
    draw_recording,
    reference_frame,
    select_frames,
)
from siamcal.synth.render import Face, encode_picture, expose, render
from siamcal.synth.scene import draw_background
from siamcal.synth.traits import stream
from siamcal.synth.variety import session_of
from siamcal.table_files import write_parquet

__all__ = ["face_at", "picture", "run_task"]


def _session(plan: Plan, clip: int) -> int:
    """The session whose hair and glasses a person wears in a clip; 0 where they never change."""
    return session_of(clip) if plan.look == "varied" else 0


@lru_cache(maxsize=2)
def _person(plan: Plan, number: int, session: int) -> Person:
    return build_person(draw_person(plan, number, session))


@lru_cache(maxsize=2)
def _covered(plan: Plan, number: int, clip: int, kind: str) -> Person:
    person = _person(plan, number, _session(plan, clip))
    return cover(person, kind, stream(plan.seed, number, 24, clip))


@lru_cache(maxsize=4)
def _background(plan: Plan, number: int, clip: int, view: str) -> np.ndarray:
    place = (session_of(clip) if plan.look == "varied" else clip, sorted(plan.views).index(view))
    if plan.look == "shifted":
        return draw_backdrop(stream(plan.seed, number, 55, *place), plan.image_size)
    return draw_background(stream(plan.seed, number, 25, *place), plan.image_size)


def face_at(recording: Recording, frame: int, neutral: bool) -> Face:
    """Return the state of the face in a frame of a recording.

    Args:
        recording: The clip.
        frame: 0-based.
        neutral: Whether this is the reference: nothing moves, the eyes are open, the head is
            nearly straight.
    """
    track = recording.track
    yaw, pitch, roll = (float(v) for v in track.pose[frame])
    gaze = (float(track.gaze[frame, 0]), float(track.gaze[frame, 1]))
    if neutral:
        return Face(
            np.zeros(len(AUS)), 0.3 * yaw, 0.3 * pitch, 0.3 * roll, (0.3 * gaze[0], 0.3 * gaze[1])
        )
    return Face(
        intensity=track.intensity[frame],
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        gaze=gaze,
        blink=float(track.blink[frame]),
        nuisance={
            name: float(curve[frame])
            for name, curve in track.nuisance.items()
            if curve[frame] > 1e-3
        },
    )


def picture(
    plan: Plan,
    task: Task,
    frame: int,
    recording: Recording | None = None,
    neutral: bool | None = None,
) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Render one frame of a task, alone and always alike.

    Args:
        plan: What is rendered.
        task: Person, view and clip.
        frame: 0-based frame of the clip.
        recording: Movements to show instead of the plan's own.
        neutral: Whether to show the resting face; by default in the plan's reference frame.

    Returns:
        uint8 RGB (S, S, 3), the JPEG quality, and the frame's row of the table.
    """
    recording = recording or draw_recording(plan, task.person, task.clip)
    if neutral is None:
        neutral = task.clip == 0 and frame == reference_frame(recording)
    face = face_at(recording, frame, neutral)
    light, camera = recording.light.at(frame / recording.track.fps), recording.cameras[task.view]
    person, occluder = _person(plan, task.person, _session(plan, task.clip)), "none"
    if recording.occluded[frame]:
        occluder = recording.occluder
        person = _covered(plan, task.person, task.clip, occluder)
    background = _background(plan, task.person, task.clip, task.view)
    views = sorted(plan.views).index(task.view)
    purpose = 26 if plan.look == "usual" else 56
    rng = stream(plan.seed, task.person, purpose, task.clip, views, frame)
    sensor = recording.sensor
    image = expose(render(person, face, light, camera, background), sensor, rng)
    place = f"{person.traits.name}/{task.view}/clip{task.clip:02d}"
    row: dict[str, Any] = {
        "participant": person.traits.name,
        "view": task.view,
        "sequence": f"clip{task.clip:02d}",
        "frame": frame + 1,
        "source": f"frames/{place}/{frame + 1:05d}.jpg",
        "source_index": -1,
        "is_reference": neutral,
    }
    row |= {f"AU{au:02d}": float(np.round(v)) for au, v in zip(AUS, face.intensity, strict=True)}
    row |= {f"truth_AU{au:02d}": float(v) for au, v in zip(AUS, face.intensity, strict=True)}
    row |= {
        "yaw": float(np.degrees(face.yaw + camera.yaw)),
        "pitch": float(np.degrees(face.pitch + camera.pitch)),
        "roll": float(np.degrees(face.roll)),
        "gaze_x": float(np.degrees(face.gaze[0])),
        "gaze_y": float(np.degrees(face.gaze[1])),
        "blink": face.blink,
        "speaking": bool(recording.track.speaking[frame]) and not neutral,
        "light_azimuth": float(np.degrees(light.azimuth)),
        "light_elevation": float(np.degrees(light.elevation)),
        "light_key": light.key,
        "light_sky": light.sky,
        "face_share": camera.face_share,
        "noise": sensor.noise,
        "jpeg_quality": sensor.quality,
        "occlusion": occluder,
    }
    return image, sensor.quality, row


def run_task(plan: Plan, task: Task, folder: str) -> int:
    """Render a task into `folder` and return the number of frames written.

    The table and checksum of a task are written last, in one step: without them it is done again.
    """
    root = Path(folder)
    rows, digest = [], hashlib.sha256()
    for frame in select_frames(plan, task.person, task.clip)[task.start : task.stop]:
        image, quality, row = picture(plan, task, int(frame))
        data = encode_picture(image, ".jpg", quality)
        digest.update(data)
        path = root / row["source"]
        make_folder(path.parent)
        path.write_bytes(data)
        rows.append(row | {"bytes": len(data)})
    parts = root / "parts"
    write_parquet(pd.DataFrame(rows), parts / f"{task.name}.parquet")
    write_json(parts / f"{task.name}.json", {"frames": len(rows), "sha256": digest.hexdigest()})
    return len(rows)

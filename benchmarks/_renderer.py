"""How fast the renderer is, and whether another processor gives the same pictures."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import numpy as np
from siamcal.benchmarks._readings import SIZE

from siamcal.synth.frames import face_at
from siamcal.synth.person import build_person
from siamcal.synth.plan import CHECK_PEOPLE, Plan, draw_recording, make_plan
from siamcal.synth.render import encode_picture, expose, render
from siamcal.synth.scene import Sensor, draw_background
from siamcal.synth.traits import draw_traits, stream

__all__ = ["compare_machines", "measure_speed"]

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


def measure_speed(frames: int) -> dict[str, float]:
    """Return frames a second of processor time, after compilation."""
    plan = Plan(first_person=CHECK_PEOPLE.start)
    number = plan.first_person
    recording = draw_recording(plan, number, 0)
    background, camera = draw_background(stream(1), SIZE), recording.cameras["front"]
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
        encode_picture(expose(picture, sensor, rng), ".jpg", sensor.quality)
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
        person, background = build_person(draw_traits(0, number)), draw_background(stream(1), SIZE)
        sensor = recording.sensor
        for frame in range(0, len(recording.track), len(recording.track) // 3):
            face, light = face_at(recording, frame, neutral=False), recording.light.at(frame / 20)
            picture = render(person, face, light, recording.cameras["front"], background)
            pictures.append(expose(picture, sensor, stream(number, frame)))
    return np.stack(pictures)


def compare_machines(people: list[int]) -> dict[str, float]:
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

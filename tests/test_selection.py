"""Which frames are read, and smoothing."""

import dataclasses

import numpy as np
import pytest

from siamcal.errors import ConfigError
from siamcal.faces.media import Frame, FrameStream
from siamcal.inference.prediction import FrameResult
from siamcal.inference.selection import Selection, smoothed

PICTURE = np.zeros((4, 4, 3), np.uint8)


def stream(count=20, kind="video"):
    rate = 10 if kind == "video" else 0
    frames = (Frame(i, i / rate if rate else 0.0, PICTURE, "x") for i in range(count))
    return FrameStream(kind, ("x",), count, rate or None, frames)


def read(selection, kind="video"):
    chosen = selection.of(stream(kind=kind))
    return [(frame.index, round(frame.timestamp, 3)) for frame in chosen]


def test_every_third_frame_keeps_its_number_and_time():
    assert read(Selection(every=3))[:3] == [(0, 0.0), (3, 0.3), (6, 0.6)]
    assert Selection(every=3).of(stream()).total == 7


def test_a_span_of_time():
    assert read(Selection(start=0.5, end=0.8)) == [(5, 0.5), (6, 0.6), (7, 0.7)]
    assert read(Selection(every=2, start=1.65)) == [(17, 1.7), (19, 1.9)]


def test_pictures_have_times_by_a_rate_alone():
    assert read(Selection(fps=5), "images")[:3] == [(0, 0.0), (1, 0.2), (2, 0.4)]
    assert read(Selection(fps=5, start=0.5, end=0.9), "images") == [(3, 0.6), (4, 0.8)]
    with pytest.raises(ConfigError, match="give fps"):
        read(Selection(start=1.0), "images")
    with pytest.raises(ConfigError, match="times of its own"):
        read(Selection(fps=5))


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"start": -1}, {"end": float("nan")}, {"fps": 0}, {"start": 2, "end": 2}],
)
def test_numbers_out_of_range(options):
    with pytest.raises(ConfigError):
        Selection(**options)


def results(values):
    return [
        FrameResult(i, i / 10, "x", None if np.isnan(v) else np.array([v, -v]))
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_the_median_is_pandas(count, width):
    import pandas as pd

    values = np.random.default_rng(count).normal(size=count)
    values[np.arange(count) % 5 == 4] = np.nan
    found = [r.values for r in smoothed(results(values), width)]
    told = pd.Series(values).rolling(width, center=True, min_periods=1).median()
    for own, value, expected in zip(found, values, told, strict=True):
        if np.isnan(value):
            assert own is None
        else:
            np.testing.assert_allclose(own, [expected, -expected])


def test_an_error_comes_after_what_was_read():
    def broken():
        yield from results(np.arange(5.0))
        raise KeyboardInterrupt

    found = smoothed(broken(), 5)
    assert [next(found).index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        next(found)


def test_an_even_width_is_refused():
    with pytest.raises(ConfigError, match="odd"):
        list(smoothed(results([1.0]), 2))


def test_other_fields_stay():
    (own,) = smoothed([dataclasses.replace(results([1.0])[0], confidence=0.5)], 3)
    assert own.confidence == 0.5

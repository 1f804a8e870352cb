"""The chosen reference is neutral where the person mostly acts, or there is said to be none."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from rendered import RenderedPerson
from siamcal.benchmarks.reference import NEUTRAL, draw_clip

from siamcal.errors import NeutralFrameError
from siamcal.faces.media import Frame, FrameStream
from siamcal.inference import Predictor, choose_reference, choosing, load_model
from siamcal.inference.candidates import face_picture, own_candidates
from siamcal.inference.many import resolve_reference
from siamcal.inference.recordings import Asked

# Person, clip and whether the person acts most of the time: a slice of `siamcal bench reference`.
CLIPS = [(6000, 0, True), (6000, 1, False)]


@pytest.fixture(scope="module")
def predictor():
    with Predictor(load_model()) as predictor:
        yield predictor


def stream_of(pictures, total=True, fps=2.0):
    """A recording so slow that every one of some dozens of frames is judged."""
    frames = (Frame(i, i / (fps or 1), rgb, "clip") for i, rgb in enumerate(pictures))
    kind = "video" if fps else "images"
    return FrameStream(kind, ("clip",), len(pictures) if total else None, fps, frames)


def smiles(person, count):
    """Frames of one smile that is held, never quite the same."""
    return [person({12: 4 + 0.5 * np.sin(i), 6: 3 + 0.5 * np.cos(i)}) for i in range(count)]


def test_neutral_frames_win_against_a_smile_that_is_held(predictor):
    person = RenderedPerson(1)
    neutral = [person(yaw=2 * turn, pitch=turn) for turn in (-2, -1, 0, 1, 2)]
    pictures = [*smiles(person, 12), *neutral, *smiles(person, 8)]
    chosen = choose_reference(stream_of(pictures), predictor)
    assert 13 <= chosen.facts["frame"] <= 17
    assert chosen.warnings[0] == "Reference: it was chosen automatically; look at it."


def test_rest_is_told_from_brows_that_are_lowered_most_of_the_time(predictor):
    """Against frames with lowered brows rest reads as an action: they are raised."""
    person = RenderedPerson(1)
    moves = [(0.5 * np.sin(i), 2 * np.sin(1.3 * i), 2 * np.cos(i)) for i in range(18)]
    held = [person({4: 3.5 + wave}, yaw=yaw, pitch=pitch) for wave, yaw, pitch in moves]
    rest = [person(yaw=turn, pitch=2 * turn) for turn in (-1, 0, 1, 0.5, -0.5)]
    chosen = choose_reference(stream_of([*held[:9], *rest, *held[9:]]), predictor)
    assert 10 <= chosen.facts["frame"] <= 14


def test_rest_is_found_by_a_calibrator_that_reads_against_a_reference_only():
    person, model = RenderedPerson(1), load_model()
    model.null_reference = None
    pictures = [*smiles(person, 8), *(person(yaw=2 * turn) for turn in (-1, 0, 1))]
    with Predictor(model) as predictor:
        assert not predictor.reads_raw
        assert choose_reference(stream_of(pictures), predictor).facts["frame"] > 8


def test_a_smile_throughout_has_no_neutral_frame(predictor):
    pictures = smiles(RenderedPerson(1), 22)
    with pytest.raises(NeutralFrameError, match="22 times the face isn't at rest") as told:
        choose_reference(stream_of(pictures), predictor)
    for words in ("Best is frame", "a smile (mouthSmile", "--reference FILE", "--reference best"):
        assert words in str(told.value)
    best = choose_reference(stream_of(pictures), predictor, sound_only=False)
    assert any("a smile" in text for text in best.warnings)
    assert f"--reference-frame {best.facts['frame']} or" in str(told.value)


@pytest.mark.parametrize("how", ["small", "aside", "cut", "smaller", "farther aside", "cut low"])
def test_what_all_frames_have_in_common_rules_out_within_limits(predictor, how):
    """A camera far away or at the side shows no other face, unless too little of one is left."""
    person, aside = RenderedPerson(1), {"aside": 24, "farther aside": 33}.get(how, 0)
    acting = [person({12: 4, 6: 3 + 0.5 * np.sin(i)}, yaw=aside + i / 4) for i in range(14)]
    pictures = [*acting, *(person(yaw=aside + i / 2, pitch=i) for i in range(8))]
    if "small" in how:
        side = 150 if how == "small" else 112
        pictures = [shrunk(picture, side) for picture in pictures]
    if "cut" in how:
        (face,) = predictor.pipeline.detect(pictures[-1], max_faces=1)
        eyes = np.linalg.norm(face.landmarks[33] - face.landmarks[263])
        edge = round(face.landmarks[10, 1] + eyes * (0.2 if how == "cut" else 0.55))
        pictures = [np.ascontiguousarray(picture[edge:]) for picture in pictures]
    words = {"small": "the face is small", "aside": "the head is turned"}.get(how, "cut off")
    if how in ("small", "aside", "cut"):
        chosen = choose_reference(stream_of(pictures), predictor)
        assert chosen.facts["frame"] > 14
        assert any(words in text for text in chosen.warnings)
    else:
        words = "the face is small|the head is turned|cut off"
        with pytest.raises(NeutralFrameError, match=words):
            choose_reference(stream_of(pictures), predictor)


def shrunk(picture, side):
    """The picture with this side in the middle of one as large as before."""
    whole = np.full_like(picture, 90)
    start = (len(whole) - side) // 2
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    whole[start : start + side, start : start + side] = small
    return whole


def test_candidates_are_the_person_who_will_be_read(predictor):
    """The other rests throughout, and comes nearer to the camera than the first."""
    person, other = RenderedPerson(1), RenderedPerson(2)
    faces = [*smiles(person, 12), *(person(yaw=2 * turn) for turn in (-2, -1, 0, 1, 2))]
    far, near = (shrunk(other(), side) for side in (170, 254))
    pictures = [np.hstack([shrunk(f, 220), far if i < 3 else near]) for i, f in enumerate(faces)]
    chosen = choose_reference(stream_of(pictures), predictor)
    assert chosen.facts["frame"] > 12
    alone = predictor.pipeline.crop(shrunk(faces[chosen.facts["frame"] - 1], 220))
    assert np.abs(chosen.crops[0].astype(int) - alone).mean() < 12
    assert np.abs(chosen.crops[0].astype(int) - predictor.pipeline.crop(near)).mean() > 24


def test_best_is_asked_for_by_its_name(predictor, tmp_path):
    for number, picture in enumerate(smiles(RenderedPerson(1), 2)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    with pytest.raises(NeutralFrameError):
        resolve_reference(Asked.parse("auto"), [str(tmp_path)], predictor)
    best = resolve_reference(Asked.parse("best"), [str(tmp_path)], predictor)
    assert best.facts["kind"] == "chosen automatically"


@pytest.mark.parametrize(("person", "clip", "acting"), CLIPS)
def test_clips_of_the_benchmark(predictor, person, clip, acting):
    drawn = draw_clip(person, clip, 60, 0.0, acting=acting)
    chosen = choose_reference(drawn.stream(), predictor)
    assert drawn.truth[chosen.facts["frame"] - 1].sum() <= NEUTRAL


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize(
    ("length", "fps", "most"),
    [
        *((15, 25, 15), (60, 25, 15), (125, 25, 16), (250, 25, 32), (500, 25, 63), (2400, 25, 120)),
        *((500, 100, 63), (60, 2, 60), (300, 10, 60), (90, 6, 30)),  # a slow one: two a second
        *((50, None, 50), (300, None, 60), (600, None, 75)),  # pictures
    ],
)
def test_candidates_are_few_and_even_over_time(monkeypatch, total, length, fps, most):
    seen = []

    def candidate(frame, _, *, pictures):
        assert not pictures  # none was asked for
        seen.append(frame.index)
        return SimpleNamespace(frame=frame.index)

    monkeypatch.setattr(choosing, "_candidate", candidate)
    pictures = [np.zeros((2, 2, 3), np.uint8)] * length
    stream = stream_of(pictures, total, fps)
    kept = [c.frame for c in choosing._candidates(stream, pipeline=None)]
    assert (most - 1 if total else most / 2) <= len(kept) <= (most if total else 2 * most)
    assert len(seen) <= (most if total else 5 * most)
    assert kept[0] == 0
    assert np.ptp(np.diff(kept)) <= 1
    assert kept[-1] >= length - 2 * length / most


def test_what_is_alike_and_lowest_ranks_first():
    rest = np.zeros((5, 3)) + 0.02 * np.arange(5)[:, None]
    held = np.tile([0.9, 0.0, 0.0], (5, 1)) + 0.02 * np.arange(5)[:, None]
    odd = np.eye(3) * 3
    shown = np.concatenate([held, odd, rest])
    score, near = choosing.rank(shown, np.zeros((len(shown), 0)))
    assert int(np.argmin(score)) >= 8
    assert near[5:8].min() > 1 > near[8:].max()
    # What the expressions don't see the readings do.
    blind = np.zeros((10, 3))
    readings = np.concatenate([np.full((7, 2), 2.0), np.zeros((3, 2))])
    assert int(np.argmin(choosing.rank(blind, readings)[0])) >= 7


def test_the_candidates_are_drawn_and_the_chosen_one_marked(predictor, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(choosing, "draw_candidates", lambda *told: drawn.append(told))
    person = RenderedPerson(1)
    neutral = [person(yaw=2 * turn, pitch=turn) for turn in (-2, -1, 0, 1, 2)]
    pictures = [*smiles(person, 12), *neutral, *smiles(person, 8)]
    without = choose_reference(stream_of(pictures), predictor)
    chosen = choose_reference(stream_of(pictures), predictor, sheet=tmp_path / "sheet.png")
    assert chosen.facts == without.facts
    ((shown, title, path),) = drawn
    assert path == tmp_path / "sheet.png"
    assert title == "25 frames of clip were judged; the best:"
    assert len(shown) == 12
    number = chosen.facts["frame"]
    assert shown[0].place == f"frame {number}, {(number - 1) / 2:.2f} s"
    assert [one.mark for one in shown] == ["chosen", *[""] * 11]
    assert {one.place.split(",")[0] for one in shown[:5]} == {f"frame {n}" for n in range(13, 18)}
    assert [one.sound for one in shown] == [True] * 5 + [False] * 7
    assert shown[0].words[0] == "nothing speaks against it"
    assert shown[0].words[-1] in ("some frames look like it", "many frames look like it")
    assert any("a smile" in text for text in shown[5].words)
    # What is shown is the face: as large, and where it was found.
    faces = predictor.pipeline.detect(pictures[number - 1], max_faces=1)
    np.testing.assert_array_equal(shown[0].picture, face_picture(pictures[number - 1], faces[0]))


def test_the_candidates_are_drawn_where_none_is_taken(predictor, tmp_path):
    sheet = tmp_path / "sheet.png"
    with pytest.raises(NeutralFrameError):
        choose_reference(stream_of(smiles(RenderedPerson(1), 5)), predictor, sheet=sheet)
    assert own_candidates(sheet)
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    marked = np.abs(pixels - np.array([0xC4, 0x57, 0x3A])).max(1) < 4
    assert marked.sum() > 1000  # the frame around the one that was refused
    traced = tmp_path / "other.png"
    Image.new("RGB", (8, 8)).save(traced)
    assert not own_candidates(traced)


def test_what_is_seen_is_said_in_words():
    above = np.zeros(16)
    assert choosing._shows(above) == "shows as little as any frame"
    above[11] = 0.3
    assert choosing._shows(above) == "shows a little more of a smile"
    above[15] = 0.9
    assert choosing._shows(above) == "shows some more of closing eyes"
    told = [choosing._seen(near) for near in (0.1, 0.7, 1.2)]
    assert told == [
        "many frames look like it",
        "some frames look like it",
        "hardly any other frame looks like it",
    ]


def test_pictures_are_shown_by_their_names(predictor, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(choosing, "draw_candidates", lambda *told: drawn.append(told))
    for name in ("a", "of_the_ninth_of_november_0002"):
        Image.fromarray(RenderedPerson(1)()).save(tmp_path / f"{name}.png")
    choose_reference(tmp_path, predictor, sheet=tmp_path / "sheet.png")
    ((shown, title, _),) = drawn
    assert title == "2 pictures were judged; the best:"
    assert {one.place for one in shown} == {"a.png", "…th_of_november_0002.png"}
    assert all(len(one.place) <= choosing.MOST_NAME for one in shown)

"""Is a reference noticed that is another person's, and how often is the right one doubted?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from siamcal.benchmarks._sessions import LENGTH, Session

from siamcal.errors import ConfigError
from siamcal.evaluation.tables import to_markdown
from siamcal.faces.media import Frame
from siamcal.inference import Predictor, load_model, read_reference
from siamcal.inference.references import PersonReference
from siamcal.inference.seeing import OTHER, OnePerson
from siamcal.inference.stranger import STRANGER
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks
from siamcal.synth.plan import ROBUSTNESS_PEOPLE

__all__ = ["stranger"]

STRANGERS = 3  # whose references each recording is read with
MOST = 0.5  # a recording is flagged where more of its faces are


@dataclass(frozen=True)
class _Seen:
    """What was said of one recording's N faces.

    Attributes:
        stranger: (N,) another person's than the reference's.
        other: (N,) another person's than before.
    """

    stranger: np.ndarray
    other: np.ndarray

    def halves(self) -> tuple[_Seen, _Seen]:
        """The first half of the faces, and the second."""
        half = len(self.other) // 2
        first = _Seen(self.stranger[:half], self.other[:half])
        return first, _Seen(self.stranger[half:], self.other[half:])


@benchmarks.register("stranger")
def stranger(people: int = 40, frames: int = 80, look: str = "varied", first: int = 0) -> str:
    """Share of recordings that are flagged, by whose reference they are read with.

    Args:
        people: Rendered people, on whom nothing was learnt or chosen.
        frames: Of each recording, evenly over half a minute, in which the person acts freely.
        look: Of people, light and cameras: "usual", "varied", "shifted".
        first: Leave out so many people.

    Returns:
        A table in Markdown: a row a reference; recordings, the share of them that is flagged (in
        more than half of the faces), the share of faces, and that of pictures judged one by one.
    """
    if not 2 <= people <= len(ROBUSTNESS_PEOPLE) - first:
        raise ConfigError(f"people is {people}; allowed: 2 to {len(ROBUSTNESS_PEOPLE) - first}.")
    numbers = ROBUSTNESS_PEOPLE[first : first + people]
    found: dict[str, list[_Seen]] = {}
    alone: dict[str, list[_Seen]] = {}
    with Predictor(load_model()) as predictor:
        cast = [_References.of(number, look, predictor) for number in numbers]
        for place, number in enumerate(progress_bar(numbers, total=people, unit="person")):
            strangers = [(place + step) % people for step in range(1, min(STRANGERS + 1, people))]
            pictures = _pictures(Session(number, look=look), frames)
            cases = [*cast[place].right()]
            cases += [("another person's", cast[other].same) for other in strangers]
            for name, reference in cases:
                found.setdefault(name, []).append(_read(pictures, reference, predictor))
                single = _read(pictures[::4], reference, predictor, followed=False)
                alone.setdefault(name, []).append(single)
            shown = numbers[strangers[0]]
            entering = _pictures(Session(number, look=look, shown=shown), frames)
            for name, reference in cases[:2]:
                halves = _read([*pictures, *entering], reference, predictor).halves()
                for when, half in zip(("before", "after"), halves, strict=True):
                    found.setdefault(f"{name}; {when} another comes in", []).append(half)
    rows = {name: _row(seen, alone.get(name)) for name, seen in found.items()}
    return to_markdown(pd.DataFrame.from_dict(rows, orient="index"), "reference")


@dataclass(frozen=True, eq=False)
class _References:
    """One person's: in the recording's light and camera, in others, with other hair and glasses."""

    same: PersonReference
    other: PersonReference
    restyled: PersonReference

    @classmethod
    def of(cls, number: int, look: str, predictor: Predictor) -> _References:
        sessions = (
            Session(number, look=look),
            Session(number, 1, look=look),
            Session(number, 1, look=look, other_style=True),
        )
        return cls(*(read_reference(session.neutral(), predictor) for session in sessions))

    def right(self) -> Iterator[tuple[str, PersonReference]]:
        yield "right, same session", self.same
        yield "right, another session", self.other
        yield "right, another session, other hair and glasses", self.restyled


def _pictures(session: Session, count: int) -> list[np.ndarray]:
    numbers = np.linspace(0, LENGTH - 1, count).astype(int).tolist()
    return list(session.frames(numbers))


def _read(
    pictures: Sequence[np.ndarray],
    reference: PersonReference,
    predictor: Predictor,
    *,
    followed: bool = True,
) -> _Seen:
    """As `siamcal predict` judges a video of these frames, or each as a picture of its own."""
    watch = predictor._watch(reference.identity, followed=followed)
    find = OnePerson(predictor.pipeline, reference.measures, followed=followed, watch=watch)
    said = []
    for index, rgb in enumerate(pictures):
        ((result, crop),) = find(Frame(index, index / 25, rgb, "rendered"))
        if crop is not None:
            said.append((STRANGER in result.notes, OTHER in result.notes))
    told = np.array(said, bool).reshape(-1, 2)
    return _Seen(told[:, 0], told[:, 1])


def _row(seen: Sequence[_Seen], alone: Sequence[_Seen] | None) -> dict[str, str]:
    flagged = np.array([s.stranger.mean() > MOST for s in seen])
    either = np.array([(s.stranger | s.other).mean() > MOST for s in seen])
    row = {"recordings": str(len(seen)), "flagged": f"{flagged.mean():.3f}"}
    row["flagged so or as a change"] = f"{either.mean():.3f}"
    row["of all faces"] = f"{np.concatenate([s.stranger | s.other for s in seen]).mean():.3f}"
    single = "" if alone is None else f"{np.concatenate([s.stranger for s in alone]).mean():.3f}"
    return {**row, "of single pictures": single}

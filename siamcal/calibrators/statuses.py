"""When an AU may be called shown on real faces: the rule, applied to a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamcal.calibrators.config import AU_STATUSES
from siamcal.errors import ConfigError

__all__ = [
    "LEAST_CORRELATION",
    "LEAST_PEOPLE",
    "MOST_AT_REST",
    "SEEN_TO_FOLLOW",
    "au_statuses",
]

SHOWN, EXPERIMENTAL, NOT_VALIDATED = AU_STATUSES
# The rule: in at least so many people, with at least this mean correlation, and reading at most so
# much of a face at rest, in intensity steps.
LEAST_PEOPLE = 5
LEAST_CORRELATION = 0.6
MOST_AT_REST = 0.15
# From this mean correlation on an AU was seen to follow the action at all.
SEEN_TO_FOLLOW = 0.3


def au_statuses(results: Mapping[str, Any]) -> dict[int, str]:
    """AU -> "shown on real faces", "experimental" or "not validated", by `siamcal bench real`.

    Shown: the AU moved in at least `LEAST_PEOPLE` people, its mean correlation over them is at
    least `LEAST_CORRELATION`, and the mean reading at rest at most `MOST_AT_REST`. Experimental:
    that isn't so, but the correlation is at least `SEEN_TO_FOLLOW`, in however few people. Not
    validated: everything else, as an AU that nobody showed.

    The correlation is that with labels, where the measurement has them; else with the tables of
    the first tool that is neither siamcal nor MediaPipe's blendshapes; else with what there is, by
    which nothing is shown: the blendshapes also choose the reference and tell which frames are at
    rest. At rest are the frames whose labels are all 0, or where there is none those at rest by
    MediaPipe's coefficients.

    Args:
        results: `real.json`, or what the benchmark returns.

    Raises:
        ConfigError: It isn't such a measurement.
    """
    try:
        evidence, independent = _evidence(results)
        rest = results["rest"]["calibrated"]
        return {
            int(name[2:]): _status(cell, rest.get(name, {}), independent)
            for name, cell in evidence.items()
            if name != "mean"
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"These aren't results of siamcal bench real ({type(error).__name__}: {error}); its "
            f"real.json is needed."
        ) from None


def _evidence(results: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The calibrator's cells that count, and whether they can show anything."""
    aus = [f"AU{au:02d}" for au in results["aus"]]
    if results["labels"]:
        found, independent = results["labels"], True
    else:
        known = [*results["others"], {"readers": {}, "independent": False}]
        first = next((other for other in known if other["independent"]), known[0])
        found, independent = first["readers"], bool(first["independent"])
    cells = found.get("calibrated", {})
    return {name: cells.get(name) or {} for name in aus}, independent


def _status(cell: Mapping[str, Any], rest: Mapping[str, Any], independent: bool) -> str:
    correlation, people = cell.get("correlation"), cell.get("people", {}).get("correlation", 0)
    reads = rest.get("rest") if cell.get("rest") is None else cell["rest"]
    if correlation is None or correlation < SEEN_TO_FOLLOW:
        return NOT_VALIDATED
    follows = people >= LEAST_PEOPLE and correlation >= LEAST_CORRELATION
    quiet = reads is not None and reads <= MOST_AT_REST
    return SHOWN if independent and follows and quiet else EXPERIMENTAL

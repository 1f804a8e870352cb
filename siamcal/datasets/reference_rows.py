"""Which row is the neutral reference of each frame, once some frames have been left out."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from siamcal.errors import DataNotFoundError

logger = logging.getLogger(__name__)


def reference_rows(
    kept: pd.DataFrame, table: pd.DataFrame, name: str
) -> tuple[np.ndarray, pd.DataFrame]:
    """Row of each kept frame's reference.

    Each view of a participant has its own reference; a view without one uses another view's. Where
    a reference was left out (no face, missing), the frame of that participant and view which is
    nearest to neutral, and then nearest in time, takes its place and is reported.

    Args:
        kept: Rows that are used, index 0..N-1.
        table: All rows.
        name: Data set, for messages.

    Returns:
        (N,) int64 rows, and the rows of `kept` that replace a lost reference.

    Raises:
        DataNotFoundError: A participant has no reference at all.
    """
    rows = np.full(len(kept), -1, dtype=np.int64)
    replaced: list[int] = []
    people, views = (kept[c].to_numpy(dtype=object) for c in ("participant", "view"))
    marked = kept["is_reference"].to_numpy(dtype=bool)
    wanted = table[table["is_reference"].to_numpy(dtype=bool)]
    for participant, view in sorted(set(zip(people, views, strict=True))):
        members = np.flatnonzero((people == participant) & (views == view))
        own = members[marked[members]]
        lost = wanted[(wanted["participant"] == participant) & (wanted["view"] == view)]
        if len(own):
            rows[members] = own[0]
        elif len(lost):
            rows[members] = _nearest(kept, members, lost.iloc[0])
            replaced.append(int(rows[members[0]]))
    for row in np.flatnonzero(rows < 0):
        others = rows[(people == people[row]) & (rows >= 0)]
        rows[row] = others[0] if len(others) else -1
    _report(people, rows, replaced, name)
    return rows, kept.iloc[replaced].reset_index(drop=True)


def _report(people: np.ndarray, rows: np.ndarray, replaced: list[int], name: str) -> None:
    if (rows < 0).any():
        orphans = sorted(set(people[rows < 0]))
        raise DataNotFoundError(
            f"Data set '{name}' has no reference frame of {', '.join(orphans[:10])}. Mark one "
            f"neutral frame of each participant, or have them chosen: --references auto (or first)."
        )
    if replaced:
        logger.warning(
            "%s: the reference frame of %s can't be used; the nearest neutral frame of the same "
            "participant and view takes its place",
            name,
            ", ".join(sorted(set(people[replaced]))),
        )


def _nearest(kept: pd.DataFrame, members: np.ndarray, lost: pd.Series) -> int:
    """Of the rows `members` the one that stands in for the reference row `lost`."""
    candidates = kept.iloc[members]
    aus = [c for c in kept.columns if c.startswith("AU") and c[2:].isdigit()]
    activity = candidates[aus].clip(lower=0).sum(axis=1).to_numpy()  # NaN counts as 0
    elsewhere = (candidates["sequence"] != lost["sequence"]).to_numpy()
    distance = np.abs(candidates["frame"].to_numpy(np.int64) - int(lost["frame"]))
    return int(members[np.lexsort((distance, elsewhere, activity))[0]])

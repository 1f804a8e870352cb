"""Rendered people with known action units: the data set that needs no licence.

The bias of resting faces is built in, so results on these data show that the machinery works and
how much calibration can help, never how well real faces are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamcal.errors import ConfigError
from siamcal.registry import datasets

if TYPE_CHECKING:
    from siamcal.datasets.base import DatasetSource
    from siamcal.synth.plan import Plan

_FOLDS = 3
_OWN = re.compile(r"[0-9a-f]{16}")  # names of rendered folders


@datasets.register("synth")
def synth(
    data_root: Path | None = None,
    *,
    size: str = "small",
    bias: float = 1.0,
    seed: int = 0,
    participants: int | None = None,
    frames: int | None = None,
    length: int | None = None,
    clips: int | None = None,
    views: tuple[str, ...] | str | None = None,
    image_size: int | None = None,
    first_person: int | None = None,
    occlusion: float | None = None,
    look: str | None = None,
    workers: int | None = None,
) -> DatasetSource:
    """Rendered people whose resting faces differ; made on first use, then kept on disk.

    Args:
        data_root: New or own folder to render into; default the user's cache.
        size: "tiny" (6 people x 10 frames), "small" (60 x 65, the default job), "full"
            (27 x 4,845 x 2 views, as DISFA) or "training" (400 x 40, other people than the rest).
        bias: 0 to 1, scale of resting offsets and permanent wrinkles; 0 is the control arm.
        seed: Another seed gives other people.
        participants: Number of people.
        frames: Frames of each person and view.
        length: Frames of the recordings they are taken from.
        clips: Recordings of a person, each with its own light, background and camera.
        views: Some of "front", "left", "right"; as text, separated by commas.
        image_size: Side of the pictures in pixels.
        first_person: Number of the first person; see
            :data:`siamcal.synth.plan.TRAINING_PEOPLE`.
        occlusion: 0 to 1, share of recordings with something before the face for a while.
        look: "usual" or "shifted" (same people and labels, :mod:`siamcal.synth.looks`).
        workers: Processes that render.

    Raises:
        ConfigError: An option is out of range, the disk too full, or the folder another set's.
    """
    from siamcal.datasets.base import DatasetSource
    from siamcal.synth.actions import AUS
    from siamcal.synth.library import ensure_rendered, read_tables
    from siamcal.synth.plan import FPS, make_plan

    plan = make_plan(
        size,
        bias=float(bias),
        seed=seed,
        participants=participants,
        frames=frames,
        length=length,
        clips=clips,
        views=_views(views),
        image_size=image_size,
        first_person=first_person,
        occlusion=occlusion,
        look=look,
    )
    folder = ensure_rendered(plan, None if data_root is None else _own(data_root), workers)
    table, people = read_tables(folder)
    names = sorted(table["participant"].unique())
    folds = tuple(tuple(names[k::_FOLDS]) for k in range(min(_FOLDS, len(names))))
    return DatasetSource(
        name="synth",
        intensity_aus=AUS,
        detection_aus=AUS,
        folds=folds,
        table=table,
        participants_table=people,
        description=f"Rendered people, size {size}, bias {bias:g}"
        f"{', look shifted' * (plan.look == 'shifted')}: {len(table):,} frames of {len(names)} "
        "participants. They show how much calibration can help, never how well real faces are "
        "read.",
        licence="CC0 geometry (MakeHuman, faceunits01); the pictures may be used freely.",
        rendered=True,
        references="rendered neutral, eyes open",
        fps=FPS,
    )


def plan_of(options: Mapping[str, Any]) -> Plan:
    """What these options of the data set would render.

    Raises:
        ConfigError: The data set has no such option, or one is out of range.
    """
    from siamcal.datasets.base import check_options
    from siamcal.synth.plan import make_plan

    check_options("synth", options)
    given = {name: value for name, value in options.items() if name != "workers"}
    given = {"size": "small", **given, "views": _views(given.get("views"))}
    return make_plan(**given)


def _views(views: tuple[str, ...] | str | None) -> tuple[str, ...] | None:
    named = views.split(",") if isinstance(views, str) else views
    return None if named is None else tuple(view.strip() for view in named)


def _own(root: Path) -> Path:
    """The folder, unless anything but rendered people is in it: the data of a set not named."""
    if not root.exists():
        return root
    found = sorted(e.name for e in root.iterdir()) if root.is_dir() else [root.name]
    foreign = [name for name in found if not _OWN.fullmatch(name) and not name.startswith(".")]
    if foreign:
        raise ConfigError(
            f"People would be rendered into {root}, which holds {', '.join(foreign[:3])[:200]}: "
            "the data set is synth, rendered people, unless another is named. If these are your "
            "data, name it: --dataset disfa, disfa-plus, unbc or manifest. To render, give a new "
            "or empty folder, or leave --data-root out."
        )
    return root

"""Where files lie: the user's cache and the files that ship inside the package."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from siamcal.errors import DataNotFoundError

__all__ = ["asset", "cache_dir"]


def cache_dir() -> Path:
    """The folder for rendered and preprocessed data: `$SIAMCAL_CACHE` or the user's cache folder.

    It is made where it doesn't exist. Everything in it can be deleted and is made again on demand.
    """
    folder = Path(os.environ.get("SIAMCAL_CACHE") or platformdirs.user_cache_dir("siamcal"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def asset(name: str) -> Path:
    """Path of a file or folder in `siamcal/assets`.

    Raises:
        DataNotFoundError: The package doesn't hold it (a broken installation).
    """
    path = Path(__file__).parent / "assets" / name
    if not path.exists():
        raise DataNotFoundError(
            f"The installed siamcal package holds no '{name}' (looked at {path}). "
            f"Install siamcal again: pip install --force-reinstall siamcal"
        )
    return path

"""MediaPipe's two quirks: system libraries that may be missing, and C++ logs nobody asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from siamcal.errors import MissingDependencyError

# Shared library -> Debian and Ubuntu package.
DEBIAN_PACKAGES = {
    "libEGL.so": "libegl1",
    "libGLESv2.so": "libgles2",
    "libGL.so": "libgl1",
    "libglib-2.0.so": "libglib2.0-0",
    "libgthread-2.0.so": "libglib2.0-0",
}


def import_vision(importer: Any = importlib.import_module) -> tuple[Any, Any]:
    """`mediapipe` and `mediapipe.tasks.python.vision`, or an error that says what to install.

    Args:
        importer: Stands for `importlib.import_module` in tests.

    Raises:
        MissingDependencyError: The package or a system library it loads is missing.
    """
    try:
        return importer("mediapipe"), importer("mediapipe.tasks.python.vision")
    except (ImportError, OSError) as error:
        raise missing_library(error) from error


def missing_library(error: Exception) -> MissingDependencyError:
    """Turn a failed load into the line that repairs it."""
    found = re.search(r"(lib[\w.+-]+?\.so)[\w.]*", str(error))
    if found is None:
        return MissingDependencyError(
            f"Finding faces needs the package mediapipe, which can't be imported ({error}). "
            f"Install it: pip install 'mediapipe>=1.2'"
        )
    package = DEBIAN_PACKAGES.get(found.group(1))
    advice = (
        "apt-get install libegl1 libgles2 libgl1 libglib2.0-0"
        if package
        else f"apt-file search {found.group(1)} names the package that holds it"
    )
    return MissingDependencyError(
        f"Finding faces needs the system library {found.group(1)}"
        + (f" (Debian package {package})" if package else "")
        + f", which isn't on this machine. On Debian or Ubuntu: {advice}"
    )


# A line of absl's, TFLite's or LiteRT's log.
_LOG_LINE = re.compile(rb"[IW]\d{4} \d\d:|INFO: |WARNING: Logging before")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop the log lines that C++ code writes to file descriptor 2 inside the block.

    MediaPipe and TFLite log before any setting of theirs is read, so no environment variable
    silences them. Other lines are passed on afterwards; after an error, all of them are.
    """
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all (a service, a frozen window)
        yield
        return
    with contextlib.suppress(AttributeError, ValueError):
        sys.stderr.flush()
    passed_on = True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            passed_on = False
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if passed_on or not _LOG_LINE.match(line):
                    os.write(2, line)

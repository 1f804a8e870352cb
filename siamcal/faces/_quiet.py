"""C++ logs nobody asked for: dropped, while other lines to stderr are passed on."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

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

"""A download goes on where it stopped, also from a server that can't begin in the middle."""

import functools
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest

from siamcal.calibrators.hub.transfer import _append

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def url(tmp_path: Path):
    """Of a file on a plain server, which answers every request with the whole file."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "w").write_bytes(CONTENT)
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/w"
        server.shutdown()


@pytest.mark.parametrize("arrived", [0, 1, 100_000, 299_999, 300_000, 300_001])
def test_a_server_without_ranges_gives_the_whole_file_once(url, tmp_path, arrived) -> None:
    partial = tmp_path / "w.part"
    partial.write_bytes((CONTENT + b"x")[:arrived])
    _append(url, partial, len(CONTENT), {}, "w")
    assert partial.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("announced", "words"), [(299_999, "longer than"), (300_001, "ended after")]
)
def test_another_number_of_bytes_is_an_error(url, tmp_path, announced, words) -> None:
    with pytest.raises(OSError, match=words):
        _append(url, tmp_path / "w.part", announced, {}, "w")

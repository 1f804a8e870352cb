"""One thread for each of pytest-xdist's workers; what `make test-all` runs beyond `make test`."""

import os
import signal

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As `nohup make test &` starts it: commands that the tests interrupt would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, later than this

# Minutes together, of parts that change seldom: `make test` has to end in a few minutes itself.
LONG = {
    "test_demo_page.py",
    "test_fit_anchor.py",
    "test_kills.py",
    "test_merge_forms.py",
    "test_null.py",
    "test_recalibrate.py",
    "test_reference_noise.py",
    "test_study.py",
    "test_synth_looks.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        others = item.path.name == "test_paper_runs.py" and "[disfa]" not in item.name
        if item.path.name in LONG or others:
            item.add_marker(pytest.mark.long)

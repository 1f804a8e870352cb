"""One thread for each of pytest-xdist's workers: they fill the cores themselves."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, later than this

"""The machine and the versions: what made a result, and its cores."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "OPENCV",
    "describe_devices",
    "describe_environment",
    "installed",
    "machine_line",
    "missing_libraries",
    "usable_cores",
]

# The packages that fill the folder `cv2`; of several the one unpacked last is imported.
OPENCV = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)
_PACKAGES = ("torch", "timm", "ai-edge-litert", "opencv-python", "numpy", "numba")


def usable_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment() -> dict[str, Any]:
    """Versions and processor a result is made with, ready for JSON."""
    import torch

    import siamcal

    versions = {"siamcal": siamcal.__version__, "python": platform.python_version()}
    return {
        "versions": versions | installed(_PACKAGES),
        "processor": _processor(),
        "cores": usable_cores(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed; none is imported."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def describe_devices() -> dict[str, Any]:
    """What can compute here: processor, cores this process may use, CUDA devices, MPS."""
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "cuda": [torch.cuda.get_device_name(number) for number in range(cuda)],
        "mps": torch.backends.mps.is_available(),
        "torch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "processors",
    }


def missing_libraries(libraries: Iterable[str]) -> list[str]:
    """Those shared libraries that can't be loaded, on Linux; elsewhere the wheels hold them all."""
    found = []
    for name in libraries if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(name)
        except OSError:
            found.append(name)
    return found


def machine_line(machine: dict[str, Any]) -> str:
    """Versions, processor or accelerator, and date, for the foot of a table."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return f"{versions}; {machine['accelerator'] or machine['processor']}; {machine['date']}."


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""The machine and the versions: what made a result, and its cores."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

__all__ = ["describe_environment", "machine_line", "usable_cores"]

_PACKAGES = ("torch", "timm", "ai-edge-litert", "opencv-python", "numpy", "numba")


def usable_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment() -> dict[str, Any]:
    """Versions and processor a result is made with, ready for JSON."""
    import importlib.metadata

    import torch

    import siamcal

    versions = {"siamcal": siamcal.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "processor": _processor(),
        "cores": usable_cores(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "date": time.strftime("%Y-%m-%d"),
    }


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

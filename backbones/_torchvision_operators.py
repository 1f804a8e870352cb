"""Makes torchvision importable beside a CPU build of torch.

The package registry's torchvision is compiled for CUDA; beside a CPU torch its operators can't be
loaded and the import ends in "operator torchvision::nms does not exist". Its Python part, which
timm and torchvision's classification models need, only wants two operators to be declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

__all__ = ["declare_operators"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[torch.library.Library] = []


def declare_operators() -> None:
    """Declare torchvision's operators where its compiled ones can't be loaded; else do nothing."""
    if _kept or _declared("nms") or not _broken():
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not _declared(name):
            library.define(f"{name}{_SCHEMA}")
    _kept.append(library)  # the declaration lasts as long as the object


def _declared(name: str) -> bool:
    return hasattr(torch.ops.torchvision, name)


def _broken() -> bool:
    """Whether torchvision's compiled operators are there but can't be loaded."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    folder = Path(next(iter(spec.submodule_search_locations)))
    libraries = [p for p in folder.glob("_C.*") if p.suffix in (".so", ".pyd", ".dylib")]
    if not libraries:
        return True
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError:
        return True
    return False

"""Packages that an extra of siamcal brings: which there are, and what installs a missing one.

The core wraps, saves, loads and publishes networks. What reads faces or compares methods needs
more, and says so by `needed_for` where it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from siamcal.errors import MissingDependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = [
    "CORE",
    "INCLUDES",
    "PACKAGES",
    "SYSTEM_LIBRARIES",
    "install_line",
    "lacking",
    "needed_for",
]

CORE = "core"  # in the place of an extra: what siamcal never lacks

# Name at import -> (name to install, extra of pyproject.toml).
PACKAGES = {
    "PIL": ("pillow", "predict"),
    "ai_edge_litert": ("ai-edge-litert", "predict"),
    "av": ("av", "predict"),
    "cv2": ("opencv-python", "predict"),
    "flatbuffers": ("ai-edge-litert", "predict"),
    "joblib": ("joblib", "predict"),
    "matplotlib": ("matplotlib", "predict"),
    "pandas": ("pandas", "predict"),
    "pi_heif": ("pi-heif", "predict"),
    "pyarrow": ("pyarrow", "predict"),
    "scipy": ("scipy", "predict"),
    "timm": ("timm", "timm"),
    "torchvision": ("torchvision", "timm"),
    "accelerate": ("accelerate", "bench"),
    "numba": ("numba", "bench"),
    "psutil": ("accelerate", "bench"),
    "fastapi": ("gradio", "demo"),
    "gradio": ("gradio", "demo"),
    "starlette": ("gradio", "demo"),
    "uvicorn": ("gradio", "demo"),
    "mediapipe": ("mediapipe", "mediapipe"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "onnxscript": ("onnxscript", "export"),
    "ray": ("ray", "ray"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "transformers": ("transformers", "transformers"),
}
# Extra -> the extras that it brings.
INCLUDES = {
    "bench": ("predict", "timm"),
    "demo": ("predict",),
    "mediapipe": ("predict",),
    "ray": ("predict",),
}
# Shared library -> package of Debian and Ubuntu: the first two are mediapipe's, the rest OpenCV's.
SYSTEM_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
}


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'siamcal[{extra}]'"


def lacking() -> dict[str, list[str]]:
    """For the core and each extra, the packages that aren't installed, or not in a version allowed.

    By the installed metadata of siamcal, without importing a package: "av>=17 (not installed)".

    Raises:
        MissingDependencyError: siamcal itself isn't installed, only lies in Python's path.
    """
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("siamcal") or []]
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "siamcal isn't installed, only found in Python's path: run `pip install -e .` in its "
            "checkout."
        ) from None
    core = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    found = {CORE: _lacking(core)}
    for extra in dict.fromkeys(extra for _, extra in PACKAGES.values()):
        found[extra] = list(
            dict.fromkeys(
                text
                for name in _brought(extra)
                for text in _lacking(
                    one
                    for one in wanted
                    if one not in core and one.marker and one.marker.evaluate({"extra": name})
                )
            )
        )
    return found


def _lacking(requirements: Iterable[Requirement]) -> list[str]:
    found = []
    for one in requirements:
        if one.name == "siamcal":  # another extra, which is looked at by its own name
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            found.append(f"{one.name}{one.specifier} (not installed)")
            continue
        if not one.specifier.contains(version, prereleases=True):
            found.append(f"{one.name}{one.specifier} ({version} is installed)")
    return found


@contextmanager
def needed_for(what: str, extra: str = "", otherwise: str = "") -> Iterator[None]:
    """In this block a package or system library that is missing is named with what installs it.

    Args:
        what: What can't be done without ("siamcal demo").
        extra: Named instead of the package's own extra where it brings that too.
        otherwise: What can be done instead, for the end of the message.

    Raises:
        MissingDependencyError: An import failed for want of a package of `PACKAGES` or of a shared
            library. Other errors are raised as they are.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        cause = error.__cause__ if isinstance(error, MissingDependencyError) else error
        # What was explained further in stays, unless all that this block needs is one extra.
        if isinstance(error, MissingDependencyError) and _extra_of(cause) not in _brought(extra):
            raise
        text = _library(cause) or _package(cause, extra)
        if not text:
            raise
        end = f"; or {otherwise}." if otherwise else ""
        raise MissingDependencyError(f"{what} needs {text}{end}") from cause


def _brought(extra: str) -> tuple[str, ...]:
    return (extra, *INCLUDES.get(extra, ())) if extra else ()


def _top(error: BaseException | None) -> str:
    """Name at import of the package that can't be imported."""
    if not isinstance(error, ImportError):
        return ""
    quoted = re.search(r"No module named '(\w+)", str(error))
    return (error.name or (quoted[1] if quoted else "")).partition(".")[0]


def _extra_of(error: BaseException | None) -> str:
    return PACKAGES.get(_top(error), ("", ""))[1]


def _package(error: BaseException | None, extra: str) -> str:
    own = _extra_of(error)
    if not own:
        return ""
    line = install_line(extra if own in _brought(extra) else own)
    return (
        f"the package {PACKAGES[_top(error)][0]}, which can't be imported ({error}). "
        f"Install it: {line}"
    )


def _library(error: BaseException | None) -> str:
    found = re.search(r"(lib[\w.+-]+?\.so)([\w.]*): cannot open shared object", str(error))
    if found is None:
        return ""
    package = SYSTEM_LIBRARIES.get(found[1] + found[2])
    if package is None:
        return (
            f"the system library {found[1]}, which isn't on this machine. On Debian or Ubuntu: "
            f"apt-file search {found[1]} names the package that holds it"
        )
    all_of_them = " ".join(dict.fromkeys(SYSTEM_LIBRARIES.values()))
    return (
        f"the system library {found[1]} (Debian package {package}), which isn't on this machine. "
        f"On Debian or Ubuntu: apt-get install {all_of_them}"
    )

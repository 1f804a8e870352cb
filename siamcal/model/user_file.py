"""Backbones from a user's own Python file: `./my_net.py:build`.

The file is run as `python my_net.py` would run it, so its neighbours can be imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from siamcal.errors import ConfigError, DataNotFoundError, UnknownNameError

__all__ = ["function_of_file", "place_of_error"]

_PREFIX = "siamcal_user_"
# Top-level name of a neighbour that was imported -> the folder it came from.
_neighbours: dict[str, Path] = {}


def function_of_file(path: Path, name: str) -> Callable[..., Any]:
    """A function of a user's own Python file.

    Args:
        path: The file.
        name: Name of the function, or of a class of networks.

    Raises:
        DataNotFoundError: There is no such file.
        ConfigError: It can't be run.
        UnknownNameError: It has no such function.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataNotFoundError(f"There is no file {path}; give ./FILE.py:FUNCTION.")
    module = _module_of(path.resolve())
    function = getattr(module, name, None)
    if not callable(function):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise UnknownNameError(
            f"{path} has no function {name!r}; it has: {', '.join(sorted(known)) or 'none'}."
        )

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _importable(path.resolve().parent):  # it may import neighbours only now
            return function(*args, **kwargs)

    return call


def place_of_error(error: BaseException, file: str) -> str:
    """The line of a file at which an error arose, as " (line 7)"; empty where none did."""
    lines, traceback = [], error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    return f" (line {lines[-1]})" if lines else ""


def _module_of(path: Path) -> ModuleType:
    """The file as a module, run once for as long as it isn't changed.

    It is registered under a name of its own, by which pickles find its classes in this process.
    """
    name = f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    stamp = (path.stat().st_mtime_ns, path.stat().st_size)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__siamcal_stamp__", None) == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} can't be read as a Python file.")
    module = importlib.util.module_from_spec(spec)
    module.__siamcal_stamp__ = stamp  # type: ignore[attr-defined]
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        _put_back(name, known)
        place = place_of_error(error, str(path))
        raise ConfigError(
            f"{path} can't be run: {type(error).__name__}: {error}{place}."
        ) from error
    return module


def _put_back(name: str, known: ModuleType | None) -> None:
    if known is None:
        del sys.modules[name]
    else:
        sys.modules[name] = known


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder comes first among those that modules are imported from.

    Neighbours of the same names in another user's folder are forgotten: `import model` means the
    one that lies beside the file.
    """
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if _neighbours.get(top, folder) != folder and _is_beside(folder, top):
            del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            top = name.partition(".")[0]
            if _is_beside(folder, top):
                _neighbours[top] = folder


def _is_beside(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


class _NoSuchFile:
    """Says in a process that knows nothing of the file why a pickle can't be read."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.startswith(_PREFIX):
            stem = name.removeprefix(_PREFIX).rpartition("_")[0]
            raise ModuleNotFoundError(
                f"This pickle holds a network from the file {stem}.py, which this process hasn't "
                f"run. Call siamcal.create_backbone('./{stem}.py:FUNCTION') on the same file "
                "first, or save a state dict or a calibrator instead of a pickle.",
                name=name,
            )
        return None


sys.meta_path.append(_NoSuchFile)

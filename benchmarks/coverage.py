"""Is the cut exact on every architecture? Every model file of timm, or a sample of its variants.

Each model is cut at three legal merge points (after the stem, before the last stage, before the
head) and at one place inside a branch. A point counts as exact when, at two batch sizes, both
halves together give the network's output bit for bit, and when equal inputs leave nothing of the
image: the calibrated output of (x, x) is the same for every x.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from siamcal.benchmarks._cuts import Job, ModelResult, check_model

import siamcal
from siamcal.errors import ConfigError
from siamcal.files import append_line, kept_lines, make_folder, read_json
from siamcal.parallel import end_with
from siamcal.progress import progress_bar
from siamcal.registry import benchmarks, late_module
from siamcal.settings import from_dict

__all__ = ["CoverageTable", "coverage"]

logger = logging.getLogger(__name__)

SETS = ("families", "variants")
LARGEST_VARIANT = 60e6  # parameters; larger variants repeat blocks of smaller ones
OVER_TIME = 75  # exit code of a process that ended itself


@dataclass
class CoverageTable:
    """All results, with the versions they hold for."""

    results: list[ModelResult]
    versions: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The table, a summary above it."""
        run = [r for r in self.results if r.points]
        points = sum(len(r.points) for r in run)
        exact = sum(r.num_exact for r in run)
        inner = [r.inner for r in run if r.inner]
        wrong = sum(p.outcome == "wrong" for r in run for p in (*r.points, r.inner) if p)
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        lines = [
            f"{sum(r.complete for r in run)} of {len(run)} models exact at every legal point tried "
            f"({exact} of {points} points); {len(self.results) - len(run)} models couldn't run. "
            f"Places inside a branch: {sum(p.outcome == 'exact' for p in inner)} exact, "
            f"{sum(p.outcome == 'refused' for p in inner)} refused. Wrong numbers: {wrong}.",
            "",
            f"Versions: {versions}.",
            "",
            "| family | model | M params | input | merge points | tried | mechanism | exact "
            "| inside a branch | s | cause |",
            "| --- " * 11 + "|",
        ]
        return "\n".join([*lines, *(_row(r) for r in self.results)]) + "\n"


def _row(result: ModelResult) -> str:
    mechanisms = dict.fromkeys(p.mechanism for p in result.points if p.mechanism)
    causes = [f"{p.name}: {p.detail}" for p in result.points if p.outcome != "exact"]
    inner = result.inner
    if inner and inner.outcome == "wrong":
        causes.append(f"{inner.name}: {inner.detail}")
    cells = [
        result.family,
        result.name,
        f"{result.parameters / 1e6:.1f}",
        "x".join(map(str, result.input_shape[1:])),
        result.num_points,
        ", ".join(p.name for p in result.points),
        ", ".join(mechanisms),
        f"{result.num_exact}/{len(result.points)}",
        f"{inner.name}: {inner.mechanism or inner.outcome}" if inner else "",
        f"{result.seconds:.0f}",
        "; ".join([result.failure] * bool(result.failure) + causes),
    ]
    return "| " + " | ".join(str(c).replace("|", "/").replace("\n", " ") for c in cells) + " |"


@benchmarks.register("coverage")
def coverage(
    output: str | Path = Path("runs/coverage"),
    models: str = "families",
    limit: int = 0,
    number: int = 150,
    seed: int = 0,
    workers: int = 1,
    time_limit: float = 60.0,
) -> CoverageTable:
    """Cut every architecture of timm (models=families), or a sample of variants (models=variants).

    Results are kept in `output` as they come, so an interrupted run goes on where it stopped.

    Args:
        output: Folder of the results: MODELS.jsonl and MODELS.md.
        models: "families" takes the smallest model of each model file, "variants" a random sample
            of all others.
        limit: Check only the first so many; 0 checks all.
        number: Size of the sample of variants.
        seed: Seed of the sample.
        workers: Processes.
        time_limit: Seconds of processor time for one model, after which its process is ended.

    Raises:
        ConfigError: An unknown set of models.
    """
    if models not in SETS:
        raise ConfigError(f"models takes {' or '.join(SETS)}, but got {models!r}.")
    output = Path(output)
    make_folder(output)
    versions = _versions()
    jobs = _select(_sizes(output / "sizes.json", versions), models, number, seed)
    jobs = jobs[:limit] if limit else jobs
    done = _read(output / f"{models}.jsonl", versions)
    todo = [job for job in jobs if job.name not in done]
    for result in _run(todo, workers, time_limit):
        done[result.name] = result
        _append(output / f"{models}.jsonl", result, versions)
    table = CoverageTable([done[j.name] for j in jobs if j.name in done], versions)
    (output / f"{models}.md").write_text(table.to_markdown(), encoding="utf-8")
    return table


def _versions() -> dict[str, str]:
    return {
        "siamcal": siamcal.__version__,
        "torch": torch.__version__,
        "timm": _timm().__version__,
    }


def _timm() -> Any:
    return late_module("siamcal.backbones.timm").load_timm()


def _sizes(path: Path, versions: dict[str, str]) -> dict[str, dict[str, int]]:
    """Family -> model -> number of parameters, counted without allocating any."""
    if kept := _kept_sizes(path, versions["timm"]):
        return kept
    timm = _timm()
    sizes: dict[str, dict[str, int]] = {}
    pairs = [(f, n) for f in timm.list_modules() for n in timm.list_models(module=f)]
    for family, name in progress_bar(pairs, description="sizes", unit="model"):
        sizes.setdefault(family, {})
        try:
            with torch.device("meta"):
                network = timm.create_model(name)
        except Exception:  # a model that needs what isn't installed; its family shows it
            continue
        sizes[family][name] = sum(p.numel() for p in network.parameters())
    path.write_text(json.dumps({"timm": versions["timm"], "sizes": sizes}), encoding="utf-8")
    return sizes


def _kept_sizes(path: Path, version: str) -> dict[str, dict[str, int]]:
    """The numbers that an earlier run counted for this timm; none where they are damaged."""
    if not path.exists():
        return {}
    try:
        kept = read_json(path)
        found = {str(f): {str(n): int(s) for n, s in members.items()}
                 for f, members in kept["sizes"].items()}  # fmt: skip
    except (AttributeError, LookupError, ArithmeticError, TypeError, ValueError) as error:
        logger.warning("%s can't be read (%s): counted again", path, error)
        return {}
    return found if kept.get("timm") == version else {}


def _select(sizes: dict[str, dict[str, int]], models: str, number: int, seed: int) -> list[Job]:
    """The models to check."""
    smallest = {
        family: min(members, key=lambda name: (members[name], name))
        for family, members in sizes.items()
        if members
    }
    if models == "families":
        return [Job(family, name) for family, name in sorted(smallest.items())]
    others = [
        Job(family, name)
        for family, members in sorted(sizes.items())
        for name, size in sorted(members.items())
        if name != smallest[family] and size <= LARGEST_VARIANT
    ]
    sample = random.Random(seed).sample(others, min(number, len(others)))
    return sorted(sample, key=lambda job: (job.family, job.name))


def _read(path: Path, versions: dict[str, str]) -> dict[str, ModelResult]:
    """Finished results of the same versions."""
    results = {}
    for row in kept_lines(path):
        if row.pop("versions", None) != versions:
            continue
        result = from_dict(row, ModelResult)
        results[result.name] = result
    return results


def _append(path: Path, result: ModelResult, versions: dict[str, str]) -> None:
    append_line(path, {**asdict(result), "versions": versions})


def _run(jobs: Sequence[Job], workers: int, time_limit: float) -> Iterator[ModelResult]:
    """Check the models, each within its time limit."""
    slots = threading.local()
    opened: list[_Worker] = []

    def one(job: Job) -> ModelResult:
        if not hasattr(slots, "worker"):
            slots.worker = _Worker()
            opened.append(slots.worker)
        return slots.worker.check(job, time_limit)

    try:
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            yield from progress_bar(
                pool.map(one, jobs), total=len(jobs), description="coverage", unit="model"
            )
    finally:
        for worker in opened:
            worker.close()


class _Worker:
    """A process that checks models; it is ended and replaced when one takes too long."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def check(self, job: Job, time_limit: float) -> ModelResult:
        """Check one model."""
        pipe = self._pipe or self._start()
        started = time.monotonic()
        pipe.send((job, time_limit))
        try:
            # A busy machine stretches the clock, so the process watches its own processor time;
            # this longer wait is for one that hangs.
            if pipe.poll(20 * time_limit + 60):
                return pipe.recv()
            failure = f"no result within {20 * time_limit + 60:g} s"
        except EOFError:
            self._process.join()
            failure = "its process ended (out of memory?)"
            if self._process.exitcode == OVER_TIME:
                failure = f"no result within {time_limit:g} s of processor time"
        self.close()
        return ModelResult(
            job.family, job.name, seconds=time.monotonic() - started, failure=failure
        )

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # ready: imports don't count against the first model's time
        return self._pipe

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._pipe = None


def _serve(pipe: Connection, parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)
    _timm()
    deadline = [float("inf")]
    threading.Thread(target=_end_after, args=(deadline,), daemon=True).start()
    pipe.send("ready")
    while True:
        try:
            job, time_limit = pipe.recv()
        except EOFError:
            return
        deadline[0] = time.process_time() + time_limit
        result = check_model(job)
        deadline[0] = float("inf")
        pipe.send(result)


def _end_after(deadline: list[float]) -> None:
    """End this process once its processor time passes the deadline."""
    while True:
        if time.process_time() > deadline[0]:
            os._exit(OVER_TIME)
        time.sleep(0.2)

"""Mutation testing: change one place of a module, run its fast tests, see whether they notice.

python scripts/mutants.py --most 60 --seed 0 --results build/mutants.json [MODULE ...]
python scripts/mutants.py --again build/mutants.json      # only what survived

Cosmic Ray makes the changes (operators, comparisons, numbers, conditions, loops, decorators). At
each place one change of a kind is drawn by the seed; what only changes a type or the words of a
message is left out. A change lives in the memory of a forked process: no file is written, so
that the checkout can be worked in meanwhile; tests that start processes of their own don't see it.

`tests/data/equivalent_mutants.toml` lists changes that change nothing, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parent.parent
EQUIVALENT = ROOT / "tests" / "data" / "equivalent_mutants.toml"
# They need arguments.
_LEFT_OUT = {"core/VariableReplacer", "core/VariableInserter"}

_LICENSED = "test_label_lines.py test_datasets_licensed.py test_datasets_fit.py"
_MANIFEST = "test_manifest_columns.py test_datasets_manifest.py test_datasets_fit.py"
_CROPS = "test_cache_keys.py test_damaged_crops.py test_datasets_prepare.py"
_FORMS = "test_merge_arithmetic.py test_merges.py"
# Module -> the tests that take seconds and are about it, the most telling first.
TESTS = {
    "siamcal/evaluation/metrics.py": "test_sums.py test_metrics.py test_own_metric.py",
    "siamcal/evaluation/sums.py": "test_sums.py test_metrics.py",
    "siamcal/training/losses.py": "test_losses.py",
    "siamcal/preprocessing.py": "test_preprocessing.py",
    "siamcal/datasets/disfa.py": _LICENSED,
    "siamcal/datasets/disfa_plus.py": _LICENSED,
    "siamcal/datasets/unbc.py": _LICENSED,
    "siamcal/datasets/reading.py": _LICENSED,
    "siamcal/datasets/pictures.py": _LICENSED,
    "siamcal/datasets/manifest.py": _MANIFEST,
    "siamcal/datasets/manifest_labels.py": _MANIFEST,
    "siamcal/training/batches.py": "test_batches.py test_frozen.py test_loop.py test_training.py",
    "siamcal/datasets/crops/fingerprints.py": _CROPS,
    "siamcal/datasets/crops/prepare.py": _CROPS,
    "siamcal/datasets/crops/store.py": _CROPS,
    "siamcal/datasets/crops/units.py": _CROPS,
    "siamcal/datasets/reference_rows.py": _CROPS,
    "siamcal/training/kept.py": "test_kept.py test_frozen.py",
    "siamcal/training/identity.py": "test_identity.py",
    "siamcal/model/merges/_anchor.py": _FORMS,
    "siamcal/model/merges/_channels.py": _FORMS,
    "siamcal/model/merges/_components.py": _FORMS,
    "siamcal/model/merges/anchored.py": _FORMS,
    "siamcal/model/merges/attention.py": _FORMS,
    "siamcal/model/merges/concatenated.py": _FORMS,
    "siamcal/model/merges/differences.py": _FORMS,
    "siamcal/model/merges/gated.py": _FORMS,
    "siamcal/model/merges/normalised.py": _FORMS,
    "siamcal/recalibration/calibration.py": "test_output_calibration.py",
    "siamcal/recalibration/population.py": "test_output_calibration.py",
}


@dataclass
class Mutant:
    """One change, and what became of it: "killed", "survived", "equivalent" or "" (not tried)."""

    file: str
    number: int  # of the line, from 1
    line: str
    becomes: str
    operator: str
    occurrence: int
    outcome: str = ""


def main() -> None:
    """Parse the arguments, try the mutants, write results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="parts of their paths; all by default")
    parser.add_argument("--most", type=int, default=60, help="mutants of a module at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutants.json")
    parser.add_argument("--again", type=Path, help="earlier results: try the survivors only")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the child, too
    known = [Mutant(**m) for m in json.loads(given.again.read_text())] if given.again else []
    results: list[Mutant] = []
    for file, tests in TESTS.items():
        if given.modules and not any(part in file for part in given.modules):
            continue
        ours = [m for m in known if m.file == file]
        ours = ours or drawn(file, given.most, random.Random(f"{given.seed} {file}"))
        try_all(ours, tests.split())
        results += ours
        given.results.parent.mkdir(parents=True, exist_ok=True)
        rest = [m for m in known if m.file not in {r.file for r in results}]
        given.results.write_text(json.dumps([asdict(m) for m in results + rest], indent=1))
    print(table(results))


def drawn(file: str, most: int, generator: random.Random) -> list[Mutant]:
    """At most `most` mutants of a file, in the order of its lines."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree, meant = get_ast(source), _meaning(source)
    places = defaultdict(list)
    for name in sorted(set(operator_names()) - _LEFT_OUT):
        operator, occurrence = get_operator(name)(), 0
        for node in ast_nodes(tree):
            for place in operator.mutation_positions(node):
                places[place, name.partition("_")[0]].append((name, occurrence))
                occurrence += 1
    chosen = []
    for place in generator.sample(sorted(places), len(places)):
        name, occurrence = generator.choice(places[place])
        mutated = mutate_code(source, get_operator(name)(), occurrence)
        if _meaning(mutated) in (None, meant):
            continue
        number, line, becomes = _difference(source, mutated)
        chosen.append(Mutant(file, number, line, becomes, name, occurrence))
        if len(chosen) == most:
            break
    return sorted(chosen, key=lambda m: (m.number, m.operator, m.occurrence))


class _Bare(ast.NodeTransformer):
    """Takes away types and the words of messages."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def _meaning(source: str | None) -> str | None:
    """What of a source is run; None of what is no Python."""
    try:
        return ast.dump(_Bare().visit(ast.parse(source or "")))
    except SyntaxError:
        return None


def _difference(before: str, after: str) -> tuple[int, str, str]:
    """Number and text of the first line that differs, before and after."""
    old, new = before.splitlines(), after.splitlines()
    number = next(i for i, pair in enumerate(zip(old, new, strict=False)) if len({*pair}) == 2)
    # A decorator that is taken away leaves one line less.
    becomes = new[number] if len(old) == len(new) else ""
    return number + 1, old[number].strip(), " ".join(becomes.split())


def try_all(mutants: list[Mutant], tests: list[str]) -> None:
    """Fill in the outcomes of one module's mutants that haven't been killed yet."""
    harmless = {(m["file"], m["line"], m["becomes"]) for m in _equivalent()}
    file, start = mutants[0].file, time.monotonic()
    wait = _baseline(tests)
    for mutant in mutants:
        if (mutant.file, mutant.line, mutant.becomes) in harmless:
            mutant.outcome = "equivalent"
        if mutant.outcome in ("killed", "equivalent"):
            continue
        code = mutate_code(
            (ROOT / file).read_text(encoding="utf-8"),
            get_operator(mutant.operator)(),
            mutant.occurrence,
        )
        mutant.outcome = "survived" if _passes(tests, wait, file, code) else "killed"
        if mutant.outcome == "survived":
            print(f"{file}:{mutant.number}: {mutant.line}\n    -> {mutant.becomes}", flush=True)
    seconds = time.monotonic() - start
    print(f"{file}: {_counts(mutants)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def _equivalent() -> list[dict[str, str]]:
    if not EQUIVALENT.exists():
        return []
    found: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return found


_known: dict[str, float] = {}  # tests -> `_baseline` of them
_alive: list[Any] = []


def _baseline(tests: list[str]) -> float:
    """Seconds after which a mutant's tests hang; the tests must pass without a change.

    What they import of other packages is imported here once, for all mutants.
    """
    key = " ".join(tests)
    if key not in _known:
        with tempfile.TemporaryDirectory() as folder:
            modules, start = Path(folder) / "modules.json", time.monotonic()
            if not _passes(tests, 900, modules=modules):
                raise SystemExit(f"{key} fail without a change, or take 15 minutes.")
            seconds = time.monotonic() - start
            _preload(json.loads(modules.read_text()))
        print(f"{key}: {seconds:.0f} s", file=sys.stderr, flush=True)
        _known[key] = 20 + 4 * seconds
    return _known[key]


def _preload(names: list[str]) -> None:
    """Import other packages' modules, and forget siamcal's own, which are to be changed."""
    operators = importlib.import_module("siamcal.backbones._torchvision_operators")
    operators.declare_operators()
    _alive.append(operators)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # made at run time: no loss but of time
            continue
    for name in [name for name in sys.modules if name.partition(".")[0] == "siamcal"]:
        del sys.modules[name]


def _passes(
    tests: list[str],
    wait: float,
    file: str = "",
    code: str | None = None,
    modules: Path | None = None,
) -> bool:
    """Whether the tests pass in a process of their own, in `wait` seconds, with `file` changed."""
    folder = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setsid()
            status = _run(tests, Path(folder), file, code, modules)
        finally:
            os._exit(status)
    end = time.monotonic() + wait
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                child = 0
                return os.waitstatus_to_exitcode(status) == 0
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
    finally:
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _run(tests: list[str], folder: Path, file: str, code: str | None, modules: Path | None) -> int:
    """In the forked process: the tests, with a cache and temporary files of their own."""
    os.chdir(ROOT)
    os.environ["SIAMCAL_CACHE"] = str(folder / "cache")
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    sys.path.insert(0, str(ROOT / "tests"))
    if code is not None:
        name = file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Changed(name, str(ROOT / file), code))  # type: ignore[arg-type]
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/temp"]
    options += ["-m", "not slow", "-k", "not pingouin"]  # whose import takes longer than the rest
    status = int(pytest.main([*options, *(str(ROOT / "tests" / test) for test in tests)]))
    if modules is not None:
        own = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"siamcal", "__main__"}
        names = [name for name in sys.modules if name.partition(".")[0] not in own]
        modules.write_text(json.dumps(names))
    return status


class _Changed(SourceFileLoader):
    """Finds one module, and gives a changed source for it."""

    def __init__(self, name: str, path: str, code: str) -> None:
        super().__init__(name, path)
        self.changed = code

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """The module's place, if it is this one."""
        return (
            importlib.util.spec_from_file_location(name, loader=self) if name == self.name else None
        )

    def get_code(self, fullname: str) -> CodeType:
        """Compiled from the changed source, never from a cached file."""
        return compile(self.changed, self.path, "exec")


def _counts(mutants: list[Mutant]) -> str:
    counts = {o: sum(m.outcome == o for m in mutants) for o in ("killed", "survived", "equivalent")}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def table(results: list[Mutant]) -> str:
    """Mutants, killed, survivors and equivalent ones of each module, as Markdown."""
    lines = ["| module | mutants | killed | survived | equivalent | score |", "| --- " * 6 + "|"]
    for file in [*dict.fromkeys(m.file for m in results), "all"]:
        of_file = [m for m in results if file in (m.file, "all")]
        killed, survived, same = (
            sum(m.outcome == outcome for m in of_file)
            for outcome in ("killed", "survived", "equivalent")
        )
        score = f"{100 * killed / max(1, killed + survived):.0f} %"
        name = file.removeprefix("siamcal/")
        lines.append(f"| {name} | {len(of_file)} | {killed} | {survived} | {same} | {score} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

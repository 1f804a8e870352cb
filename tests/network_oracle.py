"""What a calibrated network has to give, computed without the library's ways of cutting.

Two oracles for a `random_networks.Program` and a merge module:

- `by_hook`: the plain network, the module's input replaced through a forward pre-hook. Right where
  the whole image passes the module.
- `by_plan`: the plan's statements before the merge module run for the reference and the target,
  every value that crosses and depends on the image is differenced, and the other statements go on.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import re
from collections.abc import Iterator

import torch
from random_networks import DISCRETE, SCOPE, Plan, Program, Step, call_text, packed, wrapped
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class UndefinedError(Exception):
    """The plan says that the place is no merge point; the message says why."""


# -- random state ---------------------------------------------------------------------------------


def seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)


def random_state() -> tuple[object, object]:
    return torch.get_rng_state(), random.getstate()


def set_random_state(state: tuple[object, object]) -> None:
    torch.set_rng_state(state[0])
    random.setstate(state[1])


def run(network: nn.Module, inputs: object) -> object:
    inputs = fresh(inputs)
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def fresh(inputs: object) -> object:
    """Copies, for networks that write into their input."""
    return pytree.tree_map(lambda v: v.clone(), inputs)


def values_of(inputs: object) -> list[Tensor]:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def tensors_of(value: object) -> list[Tensor]:
    """All tensors of an output, those in plain objects too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif not isinstance(value, (tuple, list)):
        value = list(vars(value).values()) if hasattr(value, "__dict__") else []
    return [t for v in value for t in tensors_of(v)]


# -- the plan, flat -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flat:
    """A statement with the names it has from outside.

    Attributes:
        step: The statement; all names are those of the whole network.
        lines: Its source.
        path: Path of the module it calls, "" for none.
        exact: Whether the source does what the program does (a skipped block can't be inlined).
    """

    step: Step
    lines: tuple[str, ...]
    path: str = ""
    exact: bool = True


def flatten(network: Program, merge_at: str, everything: bool) -> tuple[list[Flat], Plan]:
    """The network's statements, the blocks around the merge module (or all of them) unrolled."""

    def inside(path: str, module: nn.Module) -> bool:
        if not isinstance(module, Program | nn.Sequential) or path == merge_at:
            return False
        return everything or merge_at.startswith(path + ".")

    counter = iter(range(10**6))

    def unrolled(
        module: nn.Module, path: str, prefix: str, contexts: tuple[str, ...], exact: bool
    ) -> Iterator[Flat]:
        own = "self" + "".join(f".get_submodule({path!r})" for _ in [0] if path)
        assert isinstance(module, Program)
        for step in module.plan.steps:
            named = _renamed(step, prefix, path)
            wrap = (*contexts, *step.wrap)
            child_path = ".".join(p for p in (path, step.module) if p) if step.module else ""
            child = module.get_submodule(step.module) if step.module else None
            if child is None or not inside(child_path, child):
                text = _rename_text(call_text(step, module), prefix, own)
                yield Flat(named, tuple(wrapped(text, wrap)), child_path, exact)
                continue
            always = "random" not in step.text and "torch.rand" not in step.text
            inner = f"{prefix}i{next(counter)}_"
            if isinstance(child, nn.Sequential):
                yield from _sequential(child, child_path, named, inner, wrap, exact)
                continue
            for param, arg in zip(child.plan.params, named.args, strict=True):
                yield _alias(inner + param, arg)
            yield from unrolled(child, child_path, inner, wrap, exact and always)
            for out, kind, name in zip(named.out, named.kinds, child.plan.returns, strict=True):
                yield _alias(out, _local(name, inner, child_path), kind)
            if not always:
                # Where the merge module runs, the block around it wasn't skipped.
                past = () if merge_at.startswith(child_path + ".") else named.args[:1]
                skipped = Step("", named.out, (*named.out, *past), named.kinds)
                yield Flat(skipped, (), "", False)

    return list(unrolled(network, "", "", (), True)), network.plan


def _sequential(
    child: nn.Sequential, path: str, step: Step, inner: str, wrap: tuple[str, ...], exact: bool
) -> Iterator[Flat]:
    value = step.args[0]
    for name, _ in child.named_children():
        out = f"{inner}{name}"
        text = f"{out} = self.get_submodule('{path}.{name}')({value})"
        one = Step(text, (out,), (value,), ("map",), args=(value,))
        yield Flat(one, tuple(wrapped(text, wrap)), f"{path}.{name}", exact)
        value = out
    yield _alias(step.out[0], value, step.kinds[0])


def _alias(name: str, other: str, kind: str = "") -> Flat:
    text = f"{name} = {_readable(other)}"
    return Flat(Step(text, (name,), (other,), (kind,), alias=other), (text,))


def _readable(name: str) -> str:
    """A name in source: attributes are named "path:attribute"."""
    path, _, attribute = name.rpartition(":")
    return f"self.get_submodule({path!r}).{attribute}" if attribute and ":" in name else name


def _local(name: str, prefix: str, path: str) -> str:
    """The name of a variable from outside."""
    return f"{path}:{name[5:]}" if name.startswith("self.") else prefix + name


def _rename_text(text: str, prefix: str, own: str) -> str:
    text = re.sub(r"\b(v\d+|result|y)\b(?!=[^=])", rf"{prefix}\1", text)
    return re.sub(r"\bself\b", own, text)


def _renamed(step: Step, prefix: str, path: str) -> Step:
    def local(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_local(n, prefix, path) for n in names)

    return dataclasses.replace(
        step,
        out=local(step.out),
        reads=local(step.reads),
        args=local(step.args),
        writes=local(step.writes),
        alias=_local(step.alias, prefix, path) if step.alias else "",
    )


# -- what depends on what -------------------------------------------------------------------------


class Analysis:
    """Data flow of a flat plan, in program order, memory shared by views included.

    Attributes:
        merge: Position of the statement that calls the merge module.
        before: Positions of the statements before the merge, by data flow.
        images: Variables whose value depends on the image.
    """

    def __init__(self, flat: list[Flat], plan: Plan, merge_at: str) -> None:
        self.flat, self.plan = flat, plan
        calls = [i for i, f in enumerate(flat) if f.path == merge_at]
        if merge_at == "output":
            calls = [len(flat)]
        if len(calls) != 1:
            raise UndefinedError(f"called {len(calls)} times")
        self.merge = calls[0]
        self.kinds: dict[str, str] = {}
        self.base: dict[str, str] = {p: p for p in plan.params}
        self.definer: dict[str, int] = {}
        self.parents: list[set[int]] = []  # statements each one needs
        self.writers: dict[str, list[int]] = {}
        self._link()
        self.images = self._depends()
        self.before = self._before() if merge_at != "output" else set(range(len(flat)))

    def _link(self) -> None:
        for i, f in enumerate(self.flat):
            step = f.step
            needs: set[int] = set()
            for name in (*step.reads, *step.writes):
                base = self.base.setdefault(name, name)
                if name in self.definer:
                    needs.add(self.definer[name])
                needs.update(self.writers.get(base, ()))
            self.parents.append(needs)
            for name in step.writes:
                self.writers.setdefault(self.base[name], []).append(i)
            for name, kind in zip(step.out, step.kinds, strict=True):
                alias = self.base.get(step.alias, step.alias) if step.alias else name
                self.base[name] = alias or name
                self.definer[name] = i
                self.kinds[name] = kind or self.kinds.get(step.alias, "")

    def _depends(self) -> set[str]:
        """Variables that the image reaches; a written base counts from the write on."""
        found = {self.plan.params[0]}
        bases: set[str] = {self.plan.params[0]}
        for f in self.flat:
            reads = any(n in found or self.base[n] in bases for n in f.step.reads)
            if reads and not f.step.shape_only:
                found.update(f.step.out)
                bases.update(self.base[w] for w in f.step.writes)
                bases.update(self.base[o] for o in f.step.out)
        return found | {n for n in self.base if self.base[n] in bases and n in self.definer}

    def _closure(self, start: set[int]) -> set[int]:
        seen: set[int] = set()
        stack = list(start)
        while stack:
            i = stack.pop()
            if i not in seen:
                seen.add(i)
                stack.extend(self.parents[i])
        return seen

    def _before(self) -> set[int]:
        before = self._closure(set(self.parents[self.merge]))
        while True:
            bases = {self.base[o] for i in before for o in self.flat[i].step.out}
            bases |= set(self.plan.params)
            more = {
                i
                for i, f in enumerate(self.flat[: self.merge])
                if i not in before and any(self.base[w] in bases for w in f.step.writes)
            }
            if not more:
                return self._with_dead(before)
            before |= self._closure(more)

    def _with_dead(self, before: set[int]) -> set[int]:
        """What nobody reads stays where it stands in the program, for it may draw or count."""
        live = self._live()
        for i in range(self.merge):
            if i not in live and self.flat[i].step.reads and self.parents[i] <= before:
                before = before | {i}
        return before

    def bypassed(self) -> bool:
        """Whether the image reaches the output around what enters the merge module."""
        reached: set[object] = {self.plan.params[0]}
        base = dict(self.base)
        for i, f in enumerate(self.flat):
            for name in f.step.out:
                if i == self.merge or base.get(f.step.alias) != self.base.get(f.step.alias):
                    # What enters the module is replaced, so what it returns is no view of it.
                    base[name] = name if i == self.merge else base[f.step.alias]
            if i == self.merge:
                given = [n for n in f.step.args if self.kinds.get(n) in DISCRETE]
                reads = [n for n in f.step.reads if n not in f.step.args] + given
            else:
                reads = list(f.step.reads)
            if f.step.shape_only:
                continue
            if any(n in reached or ("memory", base[n]) in reached for n in reads):
                reached.update(f.step.out)
                reached.update(("memory", base[w]) for w in f.step.writes if i != self.merge)
                reached.update(
                    ("memory", base[o])
                    for o in f.step.out
                    if base[o] != o or o in self.writers or i == self.merge
                )
        return any(n in reached or ("memory", base.get(n)) in reached for n in self.plan.returns)

    def crossing(self) -> list[str]:
        """Variables made before the merge and read behind it."""
        behind = [f.step for i, f in enumerate(self.flat) if i not in self.before]
        read = [n for s in behind for n in (*s.reads, *s.writes)] + list(self.plan.returns)
        made = {o for i in self.before for o in self.flat[i].step.out} | set(self.plan.params)
        return [n for n in dict.fromkeys(read) if n in made]

    def check_order(self, training: bool) -> None:
        """Raise where running all statements before the merge first isn't what the program does."""
        live = self._live()
        behind = [i for i in range(self.merge) if i not in self.before and i in live]
        for i in behind:
            for name in self.flat[i].step.reads if not self.is_alias(i) else ():
                later = [w for w in self.writers.get(self.base[name], ()) if w > i]
                if any(w in self.before for w in later):
                    raise UndefinedError("a value is overwritten before the merge")
        draws = {
            i
            for i, f in enumerate(self.flat)
            if f.step.draws == "always" or (f.step.draws and training)
        }
        if draws & set(behind) and draws & self.before:
            raise UndefinedError("random draws of both parts alternate")

    def dead_paths(self) -> set[str]:
        """Modules whose results are never used; they may run on either side of the merge."""
        live = self._live()
        return {f.path for i, f in enumerate(self.flat) if i not in live and f.path}

    def _live(self) -> set[int]:
        ends = {self.definer[n] for n in self.plan.returns if n in self.definer}
        for name in self.plan.returns:
            ends.update(self.writers.get(self.base.get(name, name), ()))
        return self._closure(ends)

    def is_alias(self, i: int) -> bool:
        """Whether a statement only gives memory another name."""
        step = self.flat[i].step
        return bool(step.alias) and not self.flat[i].path and not step.writes

    def again(self, crossing: list[str]) -> tuple[list[str], list[int]]:
        """Crossing variables without those that are views, and the statements that make these."""
        roots, repeated = [], []
        stack = list(reversed(crossing))
        while stack:
            name = stack.pop()
            i = self.definer.get(name)
            if i is not None and self.is_alias(i):
                repeated.append(i)
                stack.append(self.flat[i].step.alias)
            elif name not in roots:
                roots.append(name)
        return roots, repeated


# -- the oracles ----------------------------------------------------------------------------------


class _StopError(BaseException):
    pass


def by_hook(
    network: Program, merge_at: str, depends: list[bool] | None, target: object, reference: object
) -> object:
    """The plain network's output, reference - target entering the merge module.

    Args:
        depends: For each leaf of the module's arguments: whether it depends on the image.
    """
    module = network.get_submodule(merge_at)
    caught: list[list[object]] = []

    def catch(_: object, args: object, kwargs: object) -> None:
        caught.append(pytree.tree_leaves((args, kwargs)))
        raise _StopError

    state = random_state()
    handle = module.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        run(network, reference)
        raise UndefinedError("called 0 times")
    except _StopError:
        pass
    finally:
        handle.remove()
    set_random_state(state)
    calls = []

    def replace(_: object, args: object, kwargs: object) -> object:
        calls.append(1)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        marks = depends if depends is not None else [True] * len(leaves)
        new = [
            theirs - own if isinstance(own, Tensor) and own.is_floating_point() and d else own
            for own, theirs, d in zip(leaves, caught[0], marks, strict=True)
        ]
        return pytree.tree_unflatten(new, spec)

    handle = module.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        output = run(network, target)
    finally:
        handle.remove()
    if len(calls) != 1:
        raise UndefinedError(f"called {len(calls)} times")
    return output


def by_plan(network: Program, analysis: Analysis, target: object, reference: object) -> object:
    """The output of the plan cut in two, crossing values differenced.

    Raises:
        UndefinedError: A value crosses that can't be differenced, or the order matters.
    """
    a = analysis
    a.check_order(network.training)
    if not all(f.exact for f in a.flat):
        raise UndefinedError("a block is skipped at random")
    crossing, repeated = a.again(a.crossing())
    differenced = [n for n in crossing if n in a.images]
    if not any(n in a.images for n in a.flat[a.merge].step.args):
        raise UndefinedError("what enters doesn't depend on the image")
    for name in differenced:
        if a.kinds.get(name) in DISCRETE:
            raise UndefinedError("an integer that depends on the image crosses")
        if ":" in name:
            raise UndefinedError("an attribute or buffer crosses")
    written = {a.base[w] for i, f in enumerate(a.flat) if i not in a.before for w in f.step.writes}
    roots = [a.base[n] for n in crossing]
    if any(roots.count(b) > 1 and b in written for b in roots):
        raise UndefinedError("two views of what is written behind the merge cross")
    state = random_state()
    ours = _part(network, a, reference, sorted(a.before), {})
    theirs = {n: ours[n] for n in differenced}
    set_random_state(state)
    scope = _part(network, a, target, sorted(a.before), {})
    new = {n: theirs[n] - scope[n] for n in differenced}
    kept = {n: scope[n] for n in crossing if n not in new and ":" not in n}
    rest = sorted({i for i in range(len(a.flat)) if i not in a.before} | set(repeated))
    scope = _part(network, a, None, rest, {**kept, **new})
    exec("answer = " + packed(a.plan.returns, a.plan.gives), scope)
    return scope["answer"]


def _part(
    network: Program, analysis: Analysis, inputs: object, order: list[int], values: dict
) -> dict[str, object]:
    scope: dict[str, object] = {**SCOPE, "self": network, **values}
    if inputs is not None:
        scope.update(zip(analysis.plan.params, values_of(fresh(inputs)), strict=True))
    for i in order:
        exec("\n".join(analysis.flat[i].lines), scope)
    return scope


def twin_of(network: Program) -> Program:
    """A copy without gradient checkpointing, which changes nothing but the memory that is used."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, Program):
            module.ckpt = False
    return twin

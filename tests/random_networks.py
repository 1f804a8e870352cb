"""Random networks as people write them, each with a plan: what every statement reads and writes.

`build(rng)` makes a `Program`: a module whose forward is Python source, one statement after the
other, and whose class holds the same statements as data. From these, `network_oracle` computes what
a cut has to give without tracing or hooking anything.

Values are named v0, v1, ... and have a kind: "map" (B, 4, 4, 4), "vec" (B, 4), "mask" (a boolean
map), "ids" (B,) integers, "mat" (4, 4) without samples, "num" a Python number.
"""

from __future__ import annotations

import dataclasses
import random
from collections import namedtuple
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

C = 4  # channels, height and width of every map
DISCRETE = ("mask", "ids", "num")
INPUTS = ("vec", "mat", "ids", "msk")  # kinds of second inputs; "msk" is a boolean vec

Pair = namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class Answer:
    """An output that torch's pytree doesn't know."""

    first: object
    second: object = None


SCOPE = {
    "torch": torch, "F": F, "random": random, "checkpoint": checkpoint, "nn": nn, "Pair": Pair,
    "Answer": Answer, "SimpleNamespace": SimpleNamespace,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Step:
    """One statement of a forward.

    Attributes:
        text: Its source; a call of a module stands there as `{call}`.
        out: Variables that it binds; "self.x" is an attribute of the module.
        reads: Variables whose values it uses.
        kinds: Kind of each of `out`.
        alias: Variable whose memory `out` may share.
        writes: Variables whose memory it writes to.
        shape_only: The values of `reads` don't matter.
        draws: It draws random numbers, "train" or "always".
        module: Path of the module that it calls, below `self`.
        args: The variables that this module gets.
        wrap: Contexts around it.
    """

    text: str
    out: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    alias: str = ""
    writes: tuple[str, ...] = ()
    shape_only: bool = False
    draws: str = ""
    module: str = ""
    args: tuple[str, ...] = ()
    wrap: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """A forward: parameters, statements and what is returned.

    Attributes:
        params: Names of the parameters.
        takes: "plain" arguments, one "tuple" or one "dict" of all, or "keyword" arguments.
        steps: The statements.
        returns: The variables that are returned.
        gives: "tensor", "tuple", "list", "dict", "namedtuple", "dataclass" or "namespace".
    """

    params: tuple[str, ...]
    takes: str
    steps: tuple[Step, ...]
    returns: tuple[str, ...]
    gives: str


class Program(nn.Module):
    """A module whose class holds the plan of its forward; see `make_program`."""

    plan: Plan

    def source(self) -> str:
        """The forward as one would write it, those of submodules behind it."""
        own = f"{type(self).__name__}:\n{type(self).text}"
        parts = [f"  {n}: {m}" for n, m in self.named_children() if not isinstance(m, Program)]
        inner = [m.source() for m in self.modules() if isinstance(m, Program) and m is not self]
        return "\n".join([own, *parts, *dict.fromkeys(inner)])


def call_text(step: Step, owner: nn.Module | Program, self_name: str = "self") -> str:
    """The source of a statement that calls a module or doesn't."""
    if not step.module:
        return step.text
    child = owner.get_submodule(step.module)
    plan = child.plan if isinstance(child, Program) else None
    args = list(step.args)
    takes = plan.takes if plan else "plain"
    if takes == "tuple":
        given = f"({', '.join(args)},)"
    elif takes == "dict":
        given = "{" + ", ".join(f"'k{i}': {a}" for i, a in enumerate(args)) + "}"
    elif takes == "keyword":
        given = ", ".join(f"{p}={a}" for p, a in zip(plan.params, args, strict=True))
    else:
        given = ", ".join(args)
    name = f"{self_name}.{_attribute(step.module)}"
    return step.text.replace("{call}", f"{name}({given})").replace("{name}", f"{name}, {given}")


def _attribute(path: str) -> str:
    """ "parts.0" -> "parts[0]"."""
    head, _, rest = path.partition(".")
    return f"{head}[{rest}]" if rest.isdigit() else path


def make_program(name: str, plan: Plan, children: dict[str, nn.Module]) -> Program:
    """A module with this plan and these submodules, parameters and buffers."""
    program = Program()
    for child, module in children.items():
        program.add_module(child, module)
    lines = {"tuple": ["given"], "dict": ["given"]}.get(plan.takes, list(plan.params))
    body = []
    if plan.takes == "tuple":
        body.append(", ".join(plan.params) + ", = given")
    if plan.takes == "dict":
        body += [f"{p} = given['k{i}']" for i, p in enumerate(plan.params)]
    for step in plan.steps:
        body += wrapped(call_text(step, program), step.wrap)
    body.append("return " + packed(plan.returns, plan.gives))
    text = f"def forward({', '.join(['self', *lines])}):\n" + "".join(f"    {b}\n" for b in body)
    scope = dict(SCOPE)
    exec(text, scope)
    program.__class__ = type(
        name, (Program,), {"plan": plan, "text": text, "forward": scope["forward"]}
    )
    return program


def wrapped(text: str, contexts: tuple[str, ...]) -> list[str]:
    """Lines of a statement inside its contexts."""
    lines = text.split("\n")
    if not contexts:
        return lines
    return [f"with {', '.join(contexts)}:", *(f"    {line}" for line in lines)]


def packed(names: tuple[str, ...], gives: str) -> str:
    """Source of the value that holds these variables."""
    if gives == "tuple":
        return f"({', '.join(names)},)"
    if gives == "list":
        return f"[{', '.join(names)}]"
    if gives == "dict":
        return "{" + ", ".join(f"'k{i}': {n}" for i, n in enumerate(names)) + "}"
    if gives in ("namedtuple", "dataclass", "namespace"):
        kind = {"namedtuple": "Pair", "dataclass": "Answer", "namespace": "SimpleNamespace"}[gives]
        both = (*names, "None")[:2]
        return f"{kind}(first={both[0]}, second={both[1]})"
    return names[0]


def unpacked(outs: tuple[str, ...], gives: str, call: str) -> str:
    """Source that binds variables to the parts of what a call gives."""
    if gives in ("tuple", "list"):
        return f"{', '.join(outs)}, = {call}"
    if gives == "dict":
        return "\n".join(
            [f"result = {call}", *(f"{o} = result['k{i}']" for i, o in enumerate(outs))]
        )
    return f"{outs[0]} = {call}"


class Builder:
    """Writes one forward, statement by statement.

    Args:
        rng: Where all choices come from.
        depth: How many modules are around it.
        kinds: Kinds of the parameters.
    """

    def __init__(self, rng: random.Random, depth: int, kinds: tuple[str, ...]) -> None:
        self.rng = rng
        self.depth = depth
        self.steps: list[Step] = []
        self.children: dict[str, nn.Module] = {}
        self.tensors: dict[str, torch.Tensor] = {}  # buffers and parameters
        self.settings: dict[str, object] = {"scale": 1.5, "ckpt": rng.random() < 0.1}
        self.kinds: dict[str, str] = {}
        self.params = tuple(self._bind(kind) for kind in kinds)
        self.count = 0

    # -- values -------------------------------------------------------------------------------

    def _bind(self, kind: str) -> str:
        name = f"v{len(self.kinds)}"
        self.kinds[name] = kind
        return name

    def pick(self, kind: str) -> str:
        """A variable of a kind, mostly the latest; made where there is none."""
        names = [n for n, k in self.kinds.items() if k == kind]
        if names:
            return names[-1] if self.rng.random() < 0.65 else self.rng.choice(names)
        made = {
            "vec": ("{o} = {a}.mean((2, 3))", "map"),
            "map": ("{o} = {a}[:, :, None, None] * torch.ones(1, 4, 4, 4)", "vec"),
            "mask": ("{o} = {a} > 0.1", "map"),
            "ids": ("{o} = {a}.mean((2, 3)).argmax(1)", "map"),
        }
        text, source = made[kind]
        return self.say(text, kind, a=self.pick(source))

    def say(self, text: str, kind: str, **options: object) -> str:
        """Append a statement; {a}, {b} are the values read and {o} the new one."""
        reads = {k: options.pop(k) for k in ("a", "b") if k in options}
        out = self._bind(kind)
        extra = tuple(options.pop("more", ()))
        self.steps.append(
            Step(
                text.format(o=out, call="{call}", name="{name}", **reads),
                (out,),
                (*reads.values(), *extra),
                (kind,),
                **options,
            )
        )
        return out

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    # -- statements ---------------------------------------------------------------------------

    def grow(self, number: int) -> None:
        """Append about so many statements."""
        choices = (
            [self.layer] * 7
            + [self.block] * (4 if self.depth < 2 else 0)
            + [self.function] * 4
            + [self.join] * 4
            + [self.residual] * 3
            + [self.in_place] * 2
            + [self.side, self.integer, self.state, self.context, self.control, self.vector]
            + [self.random_part, self.token, self.number, self.shape]
        )
        for _ in range(number):
            self.rng.choice(choices)()

    def layer(self) -> None:
        """A module of torch on a map, or one that was called before."""
        a = self.pick("map")
        if self.children and self.rng.random() < 0.07:
            convs = (n for n, m in self.children.items() if isinstance(m, nn.Conv2d))
            own = [n for n in convs if self.children[n].in_channels == C]
            if own:
                self.call(self.rng.choice(own), (a,))
                return
        module, alias, draws = _map_layer(self.rng)
        self.call(self.add(module), (a,), alias=alias, draws=draws)

    def add(self, module: nn.Module) -> str:
        """Register a module, sometimes in a list."""
        if self.rng.random() < 0.15:
            parts = self.children.setdefault("parts", nn.ModuleList())
            parts.append(module)
            return f"parts.{len(parts) - 1}"
        name = self.name("m")
        self.children[name] = module
        return name

    def module(self, path: str) -> nn.Module:
        head, _, rest = path.partition(".")
        return self.children[head][int(rest)] if rest else self.children[head]

    def call(self, path: str, args: tuple[str, ...], **options: object) -> str:
        module = self.module(path)
        writes = args[:1] if getattr(module, "inplace", False) is True else ()
        shares = options.pop("alias", False) or writes
        return self.say(
            "{o} = {call}",
            "map",
            more=args,
            module=path,
            args=args,
            writes=writes,
            alias=args[0] if shares else "",
            **options,
        )

    def block(self) -> None:
        """A module of one's own, with any number of arguments and results."""
        rng = self.rng
        number = rng.choice((1, 1, 1, 2))
        args = [self.pick("map") for _ in range(number)]
        for kind in ("vec", "ids", "mat", "mask"):
            if kind in self.kinds.values() and rng.random() < 0.2:
                args.append(self.pick(kind))
        kinds = tuple(self.kinds[a] for a in args)
        inner = Builder(rng, self.depth + 1, kinds)
        inner.grow(rng.randint(1, 4))
        if rng.random() < 0.5:
            inner.residual_end()
        gives = rng.choice(("tensor",) * 6 + ("tuple", "tuple", "list", "dict"))
        maps = [n for n, k in inner.kinds.items() if k in ("map", "vec", "mask", "ids")]
        returns = [[n for n in maps if inner.kinds[n] == "map"][-1]]
        if gives != "tensor":
            returns.append(rng.choice(maps))
        takes = rng.choice(("plain",) * 6 + ("tuple", "dict", "keyword"))
        program = inner.finish(f"Block{self.depth}", tuple(returns), gives, takes)
        path = self.add(program)
        self.call_block(path, tuple(args), [inner.kinds[r] for r in returns], gives)
        if rng.random() < 0.08 and gives == "tensor" and number == 1:  # the same block once more
            self.call_block(path, (self.pick("map"), *args[1:]), ["map"], gives)

    def call_block(self, path: str, args: tuple[str, ...], kinds: list[str], gives: str) -> None:
        rng, program = self.rng, self.module(path)
        outs = tuple(self._bind(kind) for kind in kinds)
        text, wrap = unpacked(outs, gives, "{call}"), ()
        more: tuple[str, ...] = ()
        draws = drawing(program)
        if gives == "tensor" and program.plan.takes == "plain" and rng.random() < 0.15:
            text = (
                f"{outs[0]} = checkpoint({{name}}, use_reentrant=False) "
                "if self.ckpt and self.training else {call}"
            )
        elif gives == "tensor" and rng.random() < 0.1:
            keep = rng.choice(("random.random()", "torch.rand(())", "torch.rand(1).item()"))
            more, draws = (args[0],), "train"
            text = f"{outs[0]} = {{call}} if not self.training or {keep} > 0.3 else {args[0]}"
        elif rng.random() < 0.1:
            wrap = (rng.choice(("torch.no_grad()", "torch.autocast('cpu', enabled=False)")),)
        self.steps.append(
            Step(
                text,
                outs,
                (*args, *more),
                tuple(kinds),
                alias=args[0] if _may_alias(program) else "",
                writes=tuple(a for a, w in zip(args, written(program), strict=True) if w),
                draws=draws,
                module=path,
                args=args,
                wrap=wrap,
            )
        )

    def function(self) -> None:
        """A function on one map."""
        text, draws, alias = self.rng.choice(_FUNCTIONS)
        a = self.pick("map")
        if "{p}" in text:
            self.say(text.replace("{p}", self.tensor()), "map", a=a)
        else:
            self.say(text, "map", a=a, draws=draws, alias=a if alias else "")

    def tensor(self) -> str:
        """A parameter or buffer of one value a channel; gates are 0."""
        name, rng = self.name("p"), self.rng
        value = torch.zeros(4, 1, 1) if rng.random() < 0.3 else torch.randn(4, 1, 1)
        self.tensors[name] = nn.Parameter(value) if rng.random() < 0.6 else value
        return f"self.{name}"

    def join(self) -> None:
        """Two maps become one."""
        a, b = self.pick("map"), self.pick("map")
        text = self.rng.choice(_JOINS)
        if "cat" in text:
            both = self.say(text, "wide", a=a, b=b)
            name = self.name("m")
            self.children[name] = nn.Conv2d(8, 4, 1)
            self.call(name, (both,))
        else:
            self.say(text, "map", a=a, b=b)

    def residual(self) -> None:
        """A layer or two, and what went in added."""
        start = self.pick("map")
        self.layer()
        if self.rng.random() < 0.4:
            self.layer()
        end = [n for n, k in self.kinds.items() if k == "map"][-1]
        self.say(self.rng.choice(("{o} = {a} + {b}", "{o} = torch.add({a}, {b})")), "map",
                 a=start, b=end)  # fmt: skip

    def residual_end(self) -> None:
        maps = [n for n, k in self.kinds.items() if k == "map"]
        gate = f" * {self.tensor()}" if self.rng.random() < 0.4 else ""
        self.say("{o} = {a} + {b}" + gate, "map", a=maps[0], b=maps[-1])

    def in_place(self) -> None:
        """A write into a map, or into a view of it."""
        a, b = self.pick("map"), self.pick("map")
        if self.rng.random() < 0.3:
            view = self.say("{o} = {a}[:, :2]", "half", a=a, alias=a)
            self.steps.append(Step(f"{view}.mul_(0.5)", (), (view,), writes=(view,)))
            return
        text, second = self.rng.choice(_IN_PLACE)
        reads = (a, b) if second else (a,)
        self.steps.append(Step(text.format(a=a, b=b), (), reads, writes=(a,)))

    def side(self) -> None:
        """A second input is used."""
        kinds = [k for k in ("vec", "ids", "mat", "msk") if k in self.kinds.values()]
        if not kinds:
            self.function()
            return
        kind = self.rng.choice(kinds)
        b, a = self.pick(kind), self.pick("map")
        if kind == "ids":
            name = self.name("m")
            self.children[name] = nn.Embedding(8, 4)
            found = self._bind("vec")
            self.steps.append(
                Step(f"{found} = {{call}}", (found,), (b,), ("vec",), module=name, args=(b,))
            )
            self.say("{o} = {a} + {b}[:, :, None, None]", "map", a=a, b=found)
        elif kind == "mat":
            self.say("{o} = torch.einsum('bchw,cd->bdhw', {a}, {b})", "map", a=a, b=b)
        elif kind == "msk":
            self.say("{o} = {a}.masked_fill({b}[:, :, None, None], 0.0)", "map", a=a, b=b)
        else:
            self.say("{o} = {a} * torch.sigmoid({b})[:, :, None, None]", "map", a=a, b=b)

    def integer(self) -> None:
        """Integers or booleans are made from a map, or read."""
        if self.rng.random() < 0.4:
            self.say("{o} = {a} > 0.1", "mask", a=self.pick("map"))
        elif self.rng.random() < 0.5:
            self.say("{o} = {a}.mean((2, 3)).argmax(1)", "ids", a=self.pick("map"))
        else:
            a, b = self.pick("map"), self.pick("mask")
            self.say("{o} = torch.where({b}, {a}, 0.1 * {a})", "map", a=a, b=b)

    def state(self) -> None:
        """A buffer is counted or averaged, an attribute written and read."""
        kind, a = self.rng.choice(("count", "average", "attribute", "attribute")), self.pick("map")
        name = self.name("s")
        own = f"self.{name}"
        if kind == "count":
            self.tensors[name] = torch.zeros((), dtype=torch.long)
            self.steps.append(Step(f"{own} += 1", (), (own,), writes=(own,)))
            if self.rng.random() < 0.5:
                self.say(f"{{o}} = {{a}} / (1.0 + {own})", "map", a=a, more=(own,))
        elif kind == "average":
            self.tensors[name] = torch.zeros(4, 1, 1)
            text = f"{own}.mul_(0.9).add_(0.1 * {a}.detach().mean((0, 2, 3))[:, None, None])"
            self.steps.append(Step(text, (), (own, a), writes=(own,)))
            if self.rng.random() < 0.5:
                self.say(f"{{o}} = {{a}} - {own}", "map", a=a, more=(own,))
        else:
            self.settings[name] = None
            self.steps.append(Step(f"{own} = {a}", (own,), (a,), ("map",), alias=a))
            if self.rng.random() < 0.4:
                self.layer()
                self.say(f"{{o}} = {{a}} + {own}", "map", a=self.pick("map"), more=(own,))

    def context(self) -> None:
        """A function or module under no_grad or without autocast."""
        wrap = self.rng.choice(("torch.no_grad()", "torch.autocast('cpu', enabled=False)"))
        a = self.pick("map")
        if self.rng.random() < 0.6:
            module, alias, draws = _map_layer(self.rng)
            self.call(self.add(module), (a,), alias=alias, draws=draws, wrap=(wrap,))
        else:
            self.say("{o} = torch.tanh({a}.float()) + {a}.float()", "map", a=a, wrap=(wrap,))

    def control(self) -> None:
        """Control flow on a shape or on the mode of training."""
        self.say(self.rng.choice(_CONTROL), "map", a=self.pick("map"))

    def shape(self) -> None:
        """Something is made from the shape of a map alone."""
        a = self.pick("map")
        made = self.say("{o} = torch.zeros_like({a}) + 0.5", "map", a=a, shape_only=True)
        self.say("{o} = {a} * {b}", "map", a=a, b=made)

    def vector(self) -> None:
        """Pooled features go through a layer and back into a map."""
        pooled = self.pick("vec")
        name = self.name("m")
        make = (lambda: nn.Linear(4, 4), lambda: nn.LayerNorm(4), lambda: nn.BatchNorm1d(4))
        self.children[name] = self.rng.choice(make)()
        out = self._bind("vec")
        self.steps.append(
            Step(f"{out} = {{call}}", (out,), (pooled,), ("vec",), module=name, args=(pooled,))
        )
        if self.rng.random() < 0.6:
            a = self.pick("map")
            self.say("{o} = {a} * torch.sigmoid({b})[:, :, None, None]", "map", a=a, b=out)

    def random_part(self) -> None:
        """Something is drawn, by torch or Python."""
        text, draws = self.rng.choice(_RANDOM)
        self.say(text, "map", a=self.pick("map"), draws=draws)

    def token(self) -> None:
        """Windows or tokens go through a layer: samples are folded into other dimensions."""
        into, layer, back = self.rng.choice(_FOLDED)
        a = self.pick("map")
        folded = self.say(into, "folded", a=a, alias=a)
        name = self.name("m")
        self.children[name] = layer()
        done = self._bind("folded")
        self.steps.append(
            Step(f"{done} = {{call}}", (done,), (folded,), ("folded",), module=name, args=(folded,))
        )
        self.say(back, "map", a=done)

    def number(self) -> None:
        """A value leaves torch: a number that decides or scales."""
        a = self.pick("map")
        if self.rng.random() < 0.5:
            number = self.say("{o} = {a}.abs().mean().item()", "num", a=a)
            self.say("{o} = {a} * (1.0 + {b})", "map", a=self.pick("map"), b=number)
        else:
            number = self.say("{o} = bool({a}.sum() > 0)", "num", a=a)
            self.say("{o} = {a} * 2.0 if {b} else {a}", "map", a=self.pick("map"), b=number)

    # -- the whole ----------------------------------------------------------------------------

    def finish(
        self, name: str, returns: tuple[str, ...], gives: str, takes: str = "plain"
    ) -> Program:
        plan = Plan(self.params, takes, tuple(self.steps), returns, gives)
        program = make_program(name, plan, self.children)
        for key, value in self.tensors.items():
            if isinstance(value, nn.Parameter):
                program.register_parameter(key, value)
            else:
                program.register_buffer(key, value)
        for key, setting in self.settings.items():
            setattr(program, key, setting)
        return program


_FUNCTIONS = (
    ("{o} = F.relu({a})", "", False),
    ("{o} = torch.tanh({a}) + 0.1", "", False),
    ("{o} = F.gelu({a})", "", False),
    ("{o} = {a} * self.scale", "", False),
    ("{o} = {a} + {p}", "", False),
    ("{o} = {a} * {p}", "", False),
    ("{o} = {a} * {p}", "", False),
    ("{o} = F.dropout({a}, 0.3, self.training)", "train", False),
    ("{o} = F.layer_norm({a}, {a}.shape[1:])", "", False),
    ("{o} = {a}.detach() * 0.5 + {a} * 0.5", "", False),
    ("{o} = {a}.detach()", "", True),
    ("{o} = torch.roll({a}, 1, 3)", "", False),
    ("{o} = {a}.transpose(2, 3)", "", True),
    ("{o} = {a}.flatten(2).view({a}.shape)", "", True),
    ("{o} = {a} + torch.zeros_like({a}).add(1.0)", "", False),
    ("{o} = F.avg_pool2d({a}, 3, 1, 1)", "", False),
    ("{o} = torch.matmul({a}, {a}.transpose(2, 3)) / 4", "", False),
    ("{o} = {a} / {a}.norm(dim=1, keepdim=True).clamp_min(0.1)", "", False),
)
_JOINS = (
    "{o} = {a} + {b}",
    "{o} = {a} * torch.sigmoid({b})",
    "{o} = torch.maximum({a}, {b})",
    "{o} = torch.cat([{a}, {b}], 1)",
    "{o} = torch.cat(({a}, {b}), dim=1)",
    "{o} = torch.matmul({a}, {b}.softmax(-1))",
    "{o} = torch.stack([{a}, {b}]).mean(0)",
)
_IN_PLACE = (
    ("{a}.relu_()", False),
    ("{a} += {b}", True),
    ("{a}.mul_(0.7)", False),
    ("{a}[:, 1] = {b}[:, 0]", True),
    ("{a}[:, :, 0] = 0.5", False),
    ("F.relu({a}, inplace=True)", False),
    ("F.leaky_relu_({a})", False),
    ("{a} -= 0.5 * {b}", True),
)
_CONTROL = (
    "{o} = {a} * 1.5 if self.training else {a} * 1.0",
    "{o} = {a} * 2.0 if {a}.shape[2] == 4 else {a}.flip(3)",
    "{o} = sum({a} * (i + 1) for i in range({a}.shape[3] // 2))",
    "{o} = {a} / {a}.size(1) ** 0.5",
)
_RANDOM = (
    ("{o} = {a} + 0.1 * torch.randn_like({a}) if self.training else {a} + 0.0", "train"),
    ("{o} = {a} * random.uniform(0.5, 1.5) if self.training else {a} * 1.0", "train"),
    ("{o} = F.dropout({a}, 0.2)", "always"),
    ("{o} = {a} * 2.0 if self.training and torch.rand(()) < 0.5 else {a} * 1.0", "train"),
    ("{o} = {a} + torch.rand(1, 4, 1, 1) * float(self.training)", "always"),
)
_FOLDED = (
    (
        "{o} = {a}.reshape(-1, 4, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, 2, 2)",
        lambda: nn.Conv2d(4, 4, 1),
        "{o} = {a}.reshape(-1, 2, 2, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, 4, 4)",
    ),
    (
        "{o} = {a}.flatten(2).transpose(1, 2)",
        lambda: nn.Linear(4, 4),
        "{o} = {a}.transpose(1, 2).unflatten(2, (4, 4))",
    ),
    (
        "{o} = {a}.permute(2, 0, 3, 1).reshape(-1, 4)",
        lambda: nn.Linear(4, 4),
        "{o} = {a}.reshape(4, -1, 4, 4).permute(1, 3, 0, 2)",
    ),
    (
        "{o} = {a}.flatten(2).permute(2, 0, 1)",
        lambda: nn.LayerNorm(4),
        "{o} = {a}.permute(1, 2, 0).reshape(-1, 4, 4, 4)",
    ),
)


def _map_layer(rng: random.Random) -> tuple[nn.Module, bool, str]:
    """A layer, whether it may return its input, and whether it draws."""
    make, alias, draws = rng.choice(
        (
            (lambda: nn.Conv2d(4, 4, 3, padding=1), False, ""),
            (lambda: nn.Conv2d(4, 4, 1), False, ""),
            (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), False, ""),
            (lambda: nn.BatchNorm2d(4), False, ""),
            (lambda: nn.GroupNorm(2, 4), False, ""),
            (lambda: nn.ReLU(), False, ""),
            (lambda: nn.ReLU(inplace=True), True, ""),
            (lambda: nn.GELU(), False, ""),
            (lambda: nn.Tanh(), False, ""),
            (lambda: nn.Identity(), True, ""),
            (lambda: nn.Dropout(0.3), True, "train"),
            (lambda: nn.Dropout2d(0.3), True, "train"),
            (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)), False, ""),
            (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Tanh()), False, ""),
        )
    )
    return make(), alias, draws


def written(program: Program) -> tuple[bool, ...]:
    """Which of its arguments a program may write to."""
    base: dict[str, str] = {}
    found = set()
    for step in program.plan.steps:
        for out in step.out:
            base[out] = base.get(step.alias, step.alias) or out
        found.update(base.get(w, w) for w in step.writes)
    return tuple(p in found for p in program.plan.params)


def drawing(module: nn.Module) -> str:
    """Whether a module draws random numbers: "", "train" or "always"."""
    draws = {s.draws for m in module.modules() if isinstance(m, Program) for s in m.plan.steps}
    return "always" if "always" in draws else "train" if "train" in draws else ""


def _may_alias(program: Program) -> bool:
    """Whether what is returned may share memory with the first argument."""
    base: dict[str, str] = {}
    for step in program.plan.steps:
        for out in step.out:
            base[out] = base.get(step.alias, step.alias) or out
    return any(base.get(r, r) == program.plan.params[0] for r in program.plan.returns)


def build(rng: random.Random, size: int = 7) -> tuple[Program, tuple[str, ...]]:
    """A network and the kinds of its inputs; the first one is the image.

    Weights are drawn from torch's generator, which is seeded by `rng`.
    """
    torch.manual_seed(rng.randrange(2**31))
    extra = tuple(k for k in INPUTS if rng.random() < 0.25)
    top = Builder(rng, 0, ("map", *extra))
    if rng.random() < 0.8:  # a stem, without which the image itself is read everywhere
        first = nn.Conv2d(4, 4, 1)
        top.children["stem"] = first
        top.call("stem", (top.params[0],))
        top.kinds[top.params[0]] = "image"
    top.grow(rng.randint(2, size))
    last = [n for n, k in top.kinds.items() if k == "map"][-1]
    top.children["neck"] = nn.Conv2d(4, 4, 1)
    last = top.call("neck", (last,))
    pooled = top.say("{o} = {a}.mean((2, 3))", "vec", a=last)
    top.children["head"] = nn.Linear(4, 3)
    top.steps.append(Step("y = {call}", ("y",), (pooled,), ("y",), module="head", args=(pooled,)))
    gives = rng.choice(
        ("tensor",) * 8 + ("tuple", "list", "dict", "dict", "namedtuple", "dataclass", "namespace")
    )
    returns = ["y"]
    if gives != "tensor" and rng.random() < 0.7:
        returns.append(rng.choice([n for n, k in top.kinds.items() if k in ("map", "vec")]))
    takes = rng.choice(("plain",) * 3 + ("keyword",)) if extra else "plain"
    return top.finish("Net", tuple(returns), gives, takes), ("map", *extra)


def make_inputs(network: Program, kinds: tuple[str, ...], batch: int, seed: int) -> object:
    """Random inputs: a tensor, a tuple or a dict of keywords."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for kind in kinds:
        if kind == "map":
            values.append(torch.randn(batch, 4, 4, 4, generator=generator))
        elif kind == "vec":
            values.append(torch.randn(batch, 4, generator=generator))
        elif kind == "mat":
            values.append(torch.randn(4, 4, generator=generator))
        elif kind == "ids":
            values.append(torch.randint(0, 8, (batch,), generator=generator))
        else:
            values.append(torch.rand(batch, 4, generator=generator) < 0.4)
    if network.plan.takes == "keyword":
        return dict(zip(network.plan.params, values, strict=True))
    return values[0] if len(values) == 1 else tuple(values)

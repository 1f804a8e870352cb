"""Tracing a network with torch.fx without leaving a trace in it, and compiling parts of it.

The compiled code runs with `self` = the original network, so parameters, buffers and submodules
stay where they are: the state dict, device moves and replaced submodules keep working.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from siamcal.errors import MergePointError
from siamcal.graph.dataflow import Cut
from siamcal.graph.inputs import InputSignature, OutputSelector, place_of, select_output
from siamcal.graph.randomness import RandomState
from siamcal.graph.state import unchanged

__all__ = ["ModuleCall", "Program", "Trace", "UntraceableError", "compile_parts", "trace"]

_CONSTANT = "_siamcal_constant_"


class UntraceableError(MergePointError):
    """A trace of the network would do something else than the network."""


@dataclass(frozen=True)
class ModuleCall:
    """One call of a submodule during a trace.

    Attributes:
        inputs: Nodes of the tensors it takes.
        index: Number of nodes traced before the call.
    """

    inputs: tuple[fx.Node, ...]
    index: int


@dataclass
class Trace:
    """A traced network.

    Attributes:
        graph: Its graph; the placeholders are the input tensors.
        calls: Module path -> its calls, in order.
        owner: Node -> path of the module whose forward made it.
        through: Paths of the modules whose forward was traced, the network itself ("") included.
        constants: Tensors that the trace computed and that are no parameters or buffers.
    """

    graph: fx.Graph
    calls: dict[str, list[ModuleCall]]
    owner: dict[fx.Node, str]
    through: tuple[str, ...]
    constants: list[Tensor]


class _Proxy(fx.Proxy):
    """A stand-in that records in-place operators as such.

    torch.fx's own turns `x += y` into `x = x + y`, which another view of x wouldn't see, and has no
    item assignment.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    """Records module calls; takes the network's inputs as given, not as its signature says."""

    def __init__(
        self,
        signature: InputSignature,
        selector: OutputSelector,
        is_leaf: Callable[[nn.Module, str], bool],
        functions: tuple[Callable[..., Any], ...],
        proxy_buffers: bool,
    ) -> None:
        super().__init__(autowrap_functions=functions)
        self.proxy_buffer_attributes = proxy_buffers
        self.signature = signature
        self.selector = selector
        self.leaf = is_leaf
        self.path = ""
        self.calls: dict[str, list[ModuleCall]] = {}
        self.owner: dict[fx.Node, str] = {}
        self.through: list[str] = []
        self.constants: list[Tensor] = []

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        proxies = [
            self.create_proxy("placeholder", f"input_{i}", (), {})
            for i in range(self.signature.num_tensors)
        ]
        network = self.root

        def forward(*tensors: fx.Proxy) -> Any:
            args, kwargs = self.signature.unflatten(tensors)
            return select_output(network(*args, **kwargs), self.selector)

        return forward, proxies

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return bool(module_qualified_name) and self.leaf(m, module_qualified_name)

    def path_of_module(self, mod: nn.Module) -> str:
        return "" if mod is self.root else super().path_of_module(mod)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        inputs = [a.node for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, fx.Proxy)]
        call = ModuleCall(tuple(dict.fromkeys(inputs)), len(self.graph.nodes))
        self.calls.setdefault(self.path, []).append(call)
        try:
            if self.is_leaf_module(m, self.path):
                return self.create_proxy("call_module", self.path, args, kwargs)
            self.through.append(self.path)
            return forward(*args, **kwargs)
        finally:
            self.path = outer

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(*args, **kwargs)
        self.owner[proxy.node] = self.path
        return proxy

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter) and not self._is_attribute(a):
            self.constants.append(a)
            name = f"{_CONSTANT}{len(self.constants) - 1}"
            self.tensor_attrs[a] = name
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def _is_attribute(self, tensor: Tensor) -> bool:
        return tensor in self.tensor_attrs or any(tensor is b for b in self.root.buffers())


def trace(
    network: nn.Module,
    signature: InputSignature,
    selector: OutputSelector,
    *,
    merge_at: str | None,
    proxy_buffers: bool = True,
) -> Trace:
    """Trace a network in its present training mode; the network is left as it was.

    Args:
        network: The network.
        signature: Structure of its inputs.
        selector: Part of the output that is meant.
        merge_at: Trace only through the modules that hold this one and take every other as one
            opaque step (a shallow trace); None traces through everything but torch's own layers
            and the modules that timm marks as untraceable.
        proxy_buffers: Record reads of buffers instead of computing with their present values.

    Raises:
        UntraceableError: The network draws random numbers or writes to buffers by itself.
    """
    modules, functions = _untraceable()

    def opaque(module: nn.Module, path: str) -> bool:
        if merge_at is None:
            return isinstance(module, modules) or _is_torch_layer(module)
        return path == merge_at or not merge_at.startswith(path + ".")

    tracer = _Tracer(signature, selector, opaque, functions, proxy_buffers)
    random, buffers = RandomState(place_of(network)[0]), list(network.buffers())
    versions = [b._version for b in buffers]
    try:
        with unchanged(network):
            graph = tracer.trace(network)
        if random.moved():
            raise UntraceableError("it draws random numbers that a trace would draw only once")
        if versions != [b._version for b in buffers]:
            raise UntraceableError("it writes to a buffer, which a trace would do only once")
    finally:
        random.restore()
    return Trace(graph, tracer.calls, tracer.owner, tuple(tracer.through), tracer.constants)


def _is_torch_layer(module: nn.Module) -> bool:
    """Torch's own layers are opaque; its containers only call others and are looked through."""
    inside = module.__module__.startswith(("torch.nn", "torch.ao.nn"))
    return inside and not isinstance(module, nn.Sequential)


def _untraceable() -> tuple[tuple[type, ...], tuple[Callable[..., Any], ...]]:
    """Timm's lists of modules and functions that must stay opaque, if timm is in use at all."""
    if "timm" not in sys.modules:
        return (), ()
    from timm.layers import get_notrace_functions, get_notrace_modules

    return tuple(get_notrace_modules()), tuple(get_notrace_functions())


class Program:
    """Compiled code of a part of a graph, run on the original network.

    Args:
        graph: The part; its first placeholders are the constants.
        constants: Values of these.
    """

    def __init__(self, graph: fx.Graph, constants: tuple[Tensor, ...]) -> None:
        code = graph.python_code("self")
        scope = dict(code.globals)
        exec(compile(code.src, "<siamcal graph>", "exec"), scope)
        self.source = code.src
        self.constants = constants
        self._function = scope["forward"]

    def __call__(self, network: nn.Module, *values: Any) -> Any:
        """Run on a network with the part's input values."""
        return self._function(network, *self.constants, *values)


def compile_parts(traced: Trace, cut: Cut) -> tuple[Program, Program]:
    """Pre-merge and post-merge programs of a cut.

    The first takes the input tensors and returns the tuple of crossing values, the second takes
    these and returns the output.
    """
    order = list(traced.graph.nodes)
    pre = _Part(traced)
    for node in order:
        if node.op == "placeholder":
            pre.placeholder(node)
    for node in order:
        if node in cut.pre and node.op != "placeholder":
            pre.copy(node)
    pre.graph.output(tuple(pre.copies[c] for c in cut.crossing))

    post = _Part(traced)
    for node in cut.crossing:
        post.placeholder(node)
    for node in order:
        if node.op == "get_attr":
            if any(u not in cut.pre for u in node.users):
                post.copy(node)
        elif node.op == "output":
            post.graph.output(fx.node.map_arg(node.args[0], post.copies.__getitem__))
        elif node not in cut.pre:
            post.copy(node)
    return pre.compile(), post.compile()


class _Part:
    """A graph under construction that holds a copy of some nodes of another one."""

    def __init__(self, traced: Trace) -> None:
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.constants = tuple(traced.constants)
        self._constants = [
            self.graph.placeholder(f"{_CONSTANT}{i}") for i in range(len(self.constants))
        ]

    def placeholder(self, node: fx.Node) -> None:
        self.copies[node] = self.graph.placeholder(f"value_{len(self.copies)}")

    def copy(self, node: fx.Node) -> None:
        if node.op == "get_attr" and str(node.target).startswith(_CONSTANT):
            number = int(str(node.target).removeprefix(_CONSTANT))
            self.copies[node] = self._constants[number]
        else:
            self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)

    def compile(self) -> Program:
        self.graph.lint()
        return Program(self.graph, self.constants)

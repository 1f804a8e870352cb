"""Which values of a network lie before a place, which behind, and which cross.

`Dataflow` works on torch.fx graphs, `gradient_functions` on what autograd recorded. In a graph,
data flow alone isn't enough: in-place writes change a value without an edge, and shape reads look
like uses of an image without carrying any of it.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

__all__ = ["Cut", "Dataflow", "gradient_functions"]

_SHAPE_ATTRIBUTES = {"shape", "ndim", "device", "dtype", "is_cuda", "requires_grad", "layout"}
_SHAPE_METHODS = {
    "size", "dim", "numel", "stride", "is_contiguous", "ndimension", "get_device", "__len__",
    "is_floating_point", "new_zeros", "new_ones", "new_empty", "new_full",
}  # fmt: skip
_SHAPE_FUNCTIONS = {
    torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, torch.rand_like,
    torch.randn_like, torch.numel, torch.is_floating_point, len,
}  # fmt: skip
_INPLACE_OPERATORS = {
    operator.setitem, operator.iadd, operator.imul, operator.isub, operator.itruediv,
}  # fmt: skip
# Calls whose result may share memory with their first argument; writing to one writes to both.
_VIEWS = {
    "getitem", "view", "reshape", "view_as", "transpose", "permute", "unsqueeze", "squeeze",
    "flatten", "unflatten", "chunk", "split", "tensor_split", "expand", "expand_as", "narrow",
    "select", "t", "T", "mT", "contiguous", "unbind", "unfold", "movedim", "swapaxes", "detach",
    "getattr", "moveaxis", "swapdims", "diagonal", "to", "type_as", "float",
}  # fmt: skip


def gradient_functions(
    edges: Iterable[tuple[Any, int]], block: Collection[Any] = frozenset()
) -> Iterator[Any]:
    """The functions that autograd recorded behind some values, each once.

    Args:
        edges: (`tensor.grad_fn`, `tensor.output_nr`) of the values; the function may be None.
        block: Edges and functions that aren't passed.
    """
    stack, seen = list(edges), set()
    while stack:
        edge = stack.pop()
        function = edge[0]
        if function is None or function in seen or function in block or edge in block:
            continue
        seen.add(function)
        yield function
        stack.extend(function.next_functions)


@dataclass(frozen=True)
class Cut:
    """A division of a graph's nodes.

    Attributes:
        pre: Nodes before the merge point.
        crossing: Those among them that nodes behind the merge point read, in program order.
    """

    pre: frozenset[fx.Node]
    crossing: tuple[fx.Node, ...]


class Dataflow:
    """Data flow of one graph, in-place writes included.

    Args:
        graph: A torch.fx graph whose placeholders are the network's input tensors.
        root: The network, to recognise modules that write into their input.
        images: For each placeholder: whether it is an image.
    """

    def __init__(self, graph: fx.Graph, root: nn.Module, images: Sequence[bool]) -> None:
        self._root = root
        self._images = images
        self.order = list(graph.nodes)
        self.index = {node: i for i, node in enumerate(self.order)}
        self._inputs: dict[fx.Node, list[fx.Node]] = {}
        self._base: dict[fx.Node, fx.Node] = {}
        self._link_writes()
        self.depends_on_image = self._image_nodes()
        self.live = self.ancestors(n for n in self.order if n.op == "output")

    def ancestors(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """The nodes and everything they were computed from."""
        seen: set[fx.Node] = set()
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(self._inputs[node])
        return seen

    def cut(self, merge_inputs: Iterable[fx.Node], index: int) -> Cut:
        """Divide the graph in front of a call that takes `merge_inputs`.

        Args:
            merge_inputs: Input nodes of the merge module's call.
            index: Number of nodes traced before that call.
        """
        pre = self.ancestors(merge_inputs)
        pre.update(n for n in self.order if n.op == "placeholder")
        self._keep_writes(pre, index)
        self._keep_dead(pre, index)
        self._keep_shape_reads(pre)
        crossing = tuple(
            n
            for n in self.order
            if n in pre and n.op != "get_attr" and any(u not in pre for u in n.users)
        )
        return Cut(frozenset(pre), crossing)

    def sharing(self) -> frozenset[str]:
        """Modules taken as one step whose input other nodes read too.

        Were one of them to write into its input, the graph wouldn't show it.
        """
        readers: dict[fx.Node, set[fx.Node]] = {}
        for node in self.order:
            for source in node.all_input_nodes:
                if not _is_view(node) and not _is_shape_read(node):
                    readers.setdefault(self._base[source], set()).add(node)
        return frozenset(
            str(node.target)
            for node in self.order
            if node.op == "call_module"
            and not self._mutates(node)
            and any(len(readers[self._base[i]]) > 1 for i in node.all_input_nodes)
        )

    def _keep_writes(self, pre: set[fx.Node], index: int) -> None:
        """In-place writes to what lies before the merge happen before it, as in the program.

        So do writes to buffers, which each branch's run counts for.
        """
        for node in self.order[:index]:
            if node in pre or not self._mutates(node):
                continue
            if self._base[node] in pre or self._base[node].op == "get_attr":
                pre |= self.ancestors([node])

    def _keep_dead(self, pre: set[fx.Node], index: int) -> None:
        """Asserts and unused unpackings before the merge must not drag their inputs across it."""
        for node in self.order[:index]:
            inputs = [i for i in node.all_input_nodes if i.op != "get_attr"]
            if node not in pre and node not in self.live and inputs and pre.issuperset(inputs):
                pre.update(self.ancestors([node]))

    def _keep_shape_reads(self, pre: set[fx.Node]) -> None:
        """Shapes are read before the merge where the tensor itself need not cross it."""
        readers = {
            node
            for node in self.order
            if node not in pre and node.op != "output" and self._reads_shape(node)
        }
        needed = {
            node for node in pre if any(u not in pre and u not in readers for u in node.users)
        }
        for node in readers:
            inputs = [i for i in node.all_input_nodes if i.op != "get_attr"]
            if pre.issuperset(inputs) and not needed.issuperset(inputs):
                pre.update(self.ancestors([node]))

    def _mutates(self, node: fx.Node) -> bool:
        """Whether the node writes into its first argument."""
        if node.op == "call_module":
            return getattr(self._root.get_submodule(str(node.target)), "inplace", False) is True
        if node.op == "call_function":
            if node.target in _INPLACE_OPERATORS or node.kwargs.get("inplace") is True:
                return True
            name = getattr(node.target, "__name__", "")
        elif node.op == "call_method":
            name = str(node.target)
        else:
            return False
        return name.endswith("_") and not name.endswith("__")

    def _reads_shape(self, node: fx.Node) -> bool:
        return node not in self.depends_on_image and any(
            i in self.depends_on_image for i in node.all_input_nodes
        )

    def _image_nodes(self) -> set[fx.Node]:
        """Nodes whose value, not only whose shape, depends on an image's values."""
        inputs = [node for node in self.order if node.op == "placeholder"]
        depends = {node for node, is_image in zip(inputs, self._images, strict=True) if is_image}
        for node in self.order:
            if node.op in ("placeholder", "get_attr", "output") or _is_shape_read(node):
                continue
            if any(i in depends for i in self._inputs[node]):
                depends.add(node)
        return depends

    def _link_writes(self) -> None:
        """Make every later reader of a written tensor depend on the write."""
        writes: dict[fx.Node, list[fx.Node]] = {}
        for node in self.order:
            inputs = list(node.all_input_nodes)
            for source in node.all_input_nodes:
                inputs.extend(w for w in writes.get(self._base[source], ()) if w not in inputs)
            self._inputs[node] = inputs
            self._base[node] = node
            first = node.args[0] if node.args else None
            if isinstance(first, fx.Node) and (_is_view(node) or self._mutates(node)):
                self._base[node] = self._base[first]
            if self._mutates(node):
                writes.setdefault(self._base[node], []).append(node)


def _is_view(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _VIEWS
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _VIEWS


def _is_shape_read(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _SHAPE_ATTRIBUTES
    return node.target in _SHAPE_FUNCTIONS

"""Which values of a network lie before a place, which behind, and which cross.

`Dataflow` works on torch.fx graphs, `gradient_functions` on what autograd recorded. In a graph,
data flow alone isn't enough: in-place writes change a value without an edge, and shape reads look
like uses of an image without carrying any of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from siamcal.errors import MergePointError
from siamcal.graph.writes import gives_new, written

__all__ = ["Cut", "Dataflow", "WriteError", "gradient_functions"]

_SHAPE_ATTRIBUTES = {"shape", "ndim", "device", "dtype", "is_cuda", "requires_grad", "layout"}
_SHAPE_METHODS = {
    "size", "dim", "numel", "stride", "is_contiguous", "ndimension", "get_device", "__len__",
    "is_floating_point", "new_zeros", "new_ones", "new_empty", "new_full",
}  # fmt: skip
_SHAPE_FUNCTIONS = {
    torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, torch.rand_like,
    torch.randn_like, torch.numel, torch.is_floating_point, len,
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


class WriteError(MergePointError):
    """An in-place write doesn't let the parts of a network run one after the other."""


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
        self._images = images
        self.order = list(graph.nodes)
        self.index = {node: i for i, node in enumerate(self.order)}
        self._inputs: dict[fx.Node, list[fx.Node]] = {}
        self._base: dict[fx.Node, fx.Node] = {}
        self._written = {node: written(node, root) for node in self.order}
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

        Raises:
            WriteError: The parts can't run one after the other.
        """
        pre = self.ancestors(merge_inputs)
        pre.update(n for n in self.order if n.op == "placeholder")
        self._keep_writes(pre, index)
        self._keep_dead(pre, index)
        self._keep_shape_reads(pre)
        self._check_memory(pre)
        self._check_order(pre, index)
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
            and not self._written[node]
            and any(len(readers[self._base[i]]) > 1 for i in node.all_input_nodes)
        )

    def _keep_writes(self, pre: set[fx.Node], index: int) -> None:
        """In-place writes to what lies before the merge happen before it, as in the program.

        Not those to buffers: these outlive the forward, so no value of theirs has to cross.
        """
        before = [n for n in self.order[:index] if self._written[n]]
        more = True
        while more:
            more = False
            for node in before:
                bases = self._written_bases(node)
                if node not in pre and any(b in pre and b.op != "get_attr" for b in bases):
                    pre |= self.ancestors([node])
                    more = True

    def _keep_dead(self, pre: set[fx.Node], index: int) -> None:
        """What nobody reads stays where it stands in the program: asserts, counters, statistics.

        Each branch's run counts for these. It must not drag what it reads across the merge, and
        `average.mul_(0.9).add_(x)` runs as a whole or not at all.
        """
        dead = [n for n in self.order[:index] if n not in self.live and n.op != "get_attr"]
        blocked: set[fx.Node] = set()
        while True:
            kept = set(pre)
            for node in dead:
                inputs = [i for i in self._inputs[node] if i.op != "get_attr"]
                acts = bool(inputs) or bool(self._buffers_written(node))
                if acts and node not in blocked and kept.issuperset(inputs):
                    kept.add(node)
            torn = {
                node
                for node in kept - pre
                if self._written[node]
                and any(node in self._written[user] and user not in kept for user in node.users)
            }
            if not torn:
                break
            blocked |= torn
        pre |= self.ancestors(kept)

    def _check_memory(self, pre: set[fx.Node]) -> None:
        """Refuse what running all that lies before the merge first would change.

        Raises:
            WriteError: A value is read behind the merge and written over before it, or a
                buffer carries the image past it, or is written on both sides of it.
        """
        writers = [n for n in self.order if n in pre and self._written[n]]
        for node in self.order:
            acts = node in self.live or bool(self._written[node])
            if node in pre or not acts or _is_view(node) or _is_shape_read(node):
                continue
            bases = {self._base[i] for i in node.all_input_nodes}
            for writer in writers:
                for base in bases.intersection(self._written_bases(writer)):
                    if self.index[writer] > self.index[node]:
                        raise WriteError(
                            f"{_name(base)} is read behind the merge as it is before the part "
                            "in front of the merge writes to it"
                        )
                    carries = base.op == "get_attr" and writer in self.depends_on_image
                    if carries and node in self.live:
                        raise WriteError(
                            f"{_name(base)} is written from the image before the merge and read "
                            "behind it, and no difference can be taken of a buffer"
                        )
            self._check_sides(node, pre)

    def _check_order(self, pre: set[fx.Node], index: int) -> None:
        """Refuse to move a buffer's write behind the merge: the reference's forward would lack it.

        Raises:
            WriteError: A buffer is written in front of the merge module and read behind it.
        """
        for node in self.order[:index]:
            if node in self.live and node not in pre and self._buffers_written(node):
                raise WriteError(
                    f"{_name(self._buffers_written(node)[0])} is written in front of the merge and "
                    "read behind it, so that it would be written once instead of with each frame"
                )

    def _check_sides(self, node: fx.Node, pre: set[fx.Node]) -> None:
        """A buffer that nobody reads isn't written half before and half behind the merge."""
        buffers = [] if node in self.live else self._buffers_written(node)
        sources = self.ancestors([node]) & pre - self.live if buffers else set()
        if any(n.op not in ("get_attr", "placeholder") for n in sources):
            raise WriteError(
                f"{_name(buffers[0])} is written from values of both sides of the merge that "
                "nothing else needs, so it isn't known on which side the write belongs"
            )

    def _written_bases(self, node: fx.Node) -> list[fx.Node]:
        return [self._base[n] for n in self._written[node]]

    def _buffers_written(self, node: fx.Node) -> list[fx.Node]:
        return [b for b in self._written_bases(node) if b.op == "get_attr"]

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
            if _is_view(node) and isinstance(first, fx.Node):
                self._base[node] = self._base[first]
            elif self._written[node] and not gives_new(node):
                self._base[node] = self._base[self._written[node][0]]
            for base in self._written_bases(node):
                writes.setdefault(base, []).append(node)


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


def _name(base: fx.Node) -> str:
    return f"the buffer '{base.target}'" if base.op == "get_attr" else f"the value {base.name!r}"

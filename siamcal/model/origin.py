"""Which network a Reference was encoded by: a checksum of everything that acts before the merge."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from siamcal.errors import ConfigError
from siamcal.graph.behind import acts_behind, modules_behind
from siamcal.graph.inputs import Inputs, example_inputs_for, place_of
from siamcal.model.weights_file import checksum_of_tensors

if TYPE_CHECKING:
    from siamcal.graph.split import Split

__all__ = ["Origin", "Provenance"]


class Origin:
    """A network that encodes References, as it is cut now.

    Args:
        split: Its cut.
        example_inputs: A valid input; None: an image of the size it was made for.
    """

    def __init__(self, split: Split, example_inputs: Inputs | None) -> None:
        self.split = split
        self._example = example_inputs

    def versions(self) -> tuple[int, ...]:
        """Counts how often each parameter and buffer was written to: cheap, unlike a checksum."""
        network = self.split.network
        tensors = [*network.parameters(), *network.buffers()]
        return tuple(0 if t.is_inference() else t._version for t in tensors)

    def fingerprint(self) -> str:
        """SHA-256 of merge point, layouts, and the weights that act before the (last) merge point.

        Whatever isn't known to act only behind the merge point counts as acting before it.
        """
        split = self.split
        state = split.network.state_dict()
        behind = modules_behind(split.points[-1], self.inputs())
        kept = {n: t for n, t in state.items() if not acts_behind(split.network, n, behind)}
        layouts = [None if layout is None else asdict(layout) for layout in split.layouts]
        told = repr((split.merge_at, layouts, [tuple(s) for s in split.shapes]))
        return hashlib.sha256((told + checksum_of_tensors(kept)).encode()).hexdigest()

    def inputs(self) -> Inputs:
        """A valid input of the network, where and in the precision in which it is."""
        network, example = self.split.network, self._example
        device, dtype = place_of(network)
        example = example_inputs_for(network) if example is None else example

        def placed(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.to(device, dtype) if leaf.is_floating_point() else leaf.to(device)

        return pytree.tree_map(placed, example)


@dataclass(eq=False)
class Provenance:
    """Where features come from; shared by all References that are made of one.

    Attributes:
        origin: The network that encoded them, as long as it exists.
        versions: Its weights' versions then; None where they weren't noted.
        fingerprint: Its fingerprint, "" where it isn't known yet.
        accepted: Other networks that were shown to have the same one.
    """

    origin: ref[Origin] | None = None
    versions: tuple[int, ...] | None = None
    fingerprint: str = ""
    accepted: WeakSet[Origin] = field(default_factory=WeakSet)

    def known_fingerprint(self) -> str:
        """The fingerprint of the network that encoded the features.

        Raises:
            ConfigError: The network is gone or was changed since.
        """
        if self.fingerprint:
            return self.fingerprint
        origin = None if self.origin is None else self.origin()
        if origin is None:
            raise ConfigError(
                "This Reference doesn't know the model that made it (it was unpickled, made by "
                "hand, or the model is gone). Encode it again, or pass the model: "
                "reference.save(path, model=model)."
            )
        if self.versions is not None and self.versions != origin.versions():
            raise ConfigError(
                "The network's weights were changed (or moved) since this Reference was encoded; "
                "encode it again with model.encode(images)."
            )
        self.fingerprint = origin.fingerprint()
        return self.fingerprint

    def check(self, origin: Origin) -> None:
        """Refuse a network that isn't shown to give the same features.

        Raises:
            ConfigError: Its weights before the merge point differ.
        """
        if torch.compiler.is_compiling():
            # As a decorator it would import the compiler with the package, a second's work.
            why = "use model.load_reference(path), which checks at once"
            torch.compiler.disable(self._check, reason=why)(origin)
        else:
            self._check(origin)

    def _check(self, origin: Origin) -> None:
        known = None if self.origin is None else self.origin()
        if origin is known or origin in self.accepted or not (self.fingerprint or known):
            return
        if self.known_fingerprint() != origin.fingerprint():
            raise ConfigError(
                "This Reference was encoded by another network: the weights before "
                f"{origin.split.merge_at!r} (or their precision) differ from this model's, so its "
                "features mean nothing here. Encode the person's image with this model."
            )
        self.accepted.add(origin)

    def __getstate__(self) -> dict[str, Any]:
        # A network isn't found again in another process; its fingerprint says the same.
        return {"fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(origin=None, versions=None, accepted=WeakSet(), **state)

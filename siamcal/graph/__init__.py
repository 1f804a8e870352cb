"""Cutting a network in two at a named place. Knows nothing of faces.

`list_merge_points(network)` names the places, `split_network(network, "layer4")` cuts at the
entrance of `layer4` and proves the cut exact.
"""

from siamcal.graph.cutting import split_network
from siamcal.graph.features import BatchLayout, Features
from siamcal.graph.inputs import InputSpec, example_inputs_for, input_spec, probes
from siamcal.graph.points import MergePoint, list_merge_points
from siamcal.graph.split import Split

__all__ = [
    "BatchLayout",
    "Features",
    "InputSpec",
    "MergePoint",
    "Split",
    "example_inputs_for",
    "input_spec",
    "list_merge_points",
    "probes",
    "split_network",
]

"""What a placement counts on every core: each resource with its words, its remedies and how its amount is worked out.

A new limit is one entry of :data:`RESOURCES`, and a line in the table of every chip: its value, or why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snn_export.hardware_sims.placement.resources import CoreContents


@dataclass(frozen=True)
class Resource:
    """Something that a core holds only so much of.

    Attributes:
        title: what there are so many of, "input axons" for example.
        amount: of what lies on a core.
        remedies: what makes a layer need less of it; "the layer" is the one that is cut.
        explained: what one of them is, where the title does not say it.
        may_bind: False where a population by itself hardly fills it, so that it says nothing about why that takes its core.
        holds_synapses: it is memory in bits, and all bits of synapses count in it.
        adds_up: two parts on one core take at least the sum of what each takes on its own.
    """

    title: str
    amount: Callable[[CoreContents], int]
    remedies: tuple[str, ...]
    explained: str = ""
    may_bind: bool = True
    holds_synapses: bool = False
    adds_up: bool = False


_LESS_MEMORY = ("fewer weight bits", "fewer channels in the layer or in front of it", "more zero weights (pruning)")

RESOURCES: Mapping[str, Resource] = MappingProxyType(
    {
        "neurons": Resource(
            "neurons", lambda core: core.neurons, ("fewer channels in the layer", "a larger stride, or pooling in front of it"),
            adds_up=True,
        ),
        "synapse_memory": Resource(
            "bits of synapses", lambda core: core.synapse_memory, _LESS_MEMORY, holds_synapses=True, adds_up=True
        ),
        "core_memory": Resource(
            "bits of synapses and neuron state", lambda core: core.synapse_memory + core.neurons * core.table.neuron_state,
            _LESS_MEMORY, holds_synapses=True, adds_up=True,
        ),
        "axons_in": Resource(
            "input axons", lambda core: core.axons_in,
            (
                "fewer channels in front of the layer, or groups in its convolution",
                "a larger stride or pooling in an earlier layer",
                "a layer of neurons in between that hears only a part each",
            ),
            "distinct source neurons that reach the core",
        ),
        "axons_out": Resource(
            "output axons", lambda core: core.axons_out,
            (
                "fewer cores in the layers it feeds: fewer channels there, or fewer weight bits",
                "a layer of relay neurons that splits its targets",
            ),
            "one per neuron and core it sends to", adds_up=True,
        ),
        "delay_slots": Resource(
            "neurons times the steps that their longest synapse takes",
            lambda core: core.neurons * max(need.steps for need in core.needs),
            ("shorter delays", "a relay population in place of a long delay"), adds_up=True,
        ),
        "neuron_formats": Resource(
            "distinct pairs of decays (du, dv)", lambda core: len({part.population.decays for part in core.parts}),
            ("the same decays in populations that are small",), may_bind=False,
        ),
        "threshold_formats": Resource(
            "distinct thresholds", lambda core: len(frozenset().union(*(part.population.thresholds for part in core.parts))),
            ("the same thresholds in populations that are small",), may_bind=False,
        ),
        "synapse_formats": Resource(
            "distinct formats of synapses", lambda core: len(frozenset().union(*(need.formats for need in core.needs))),
            ("the same weight bits and weight exponent in all layers into one population",),
            "weight bits, signs, exponent, delay bits, encoding", may_bind=False,
        ),
    }
)  # fmt: skip
"""By name. A chip limits each, does not publish its limit, or covers it by another one."""

MEMORIES = tuple(name for name, resource in RESOURCES.items() if resource.holds_synapses)
"""Resources that synapses take bits of."""

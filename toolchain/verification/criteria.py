"""What a verification demands, and which setting demands it: a layer of a target before a layer before a target before all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from snn_export.config_schema import Agreement, LayerGates, TargetGates, toml_key
from snn_export.verification.compare import Tolerance

TargetLimit = Literal["accuracy", "accuracy_drop", "accuracy_significance", "spike_mismatch", "decision_mismatch", "overflows"]
LayerLimit = Literal["spike_mismatch", "membrane_difference", "dead", "saturated", "rate_min", "rate_max"]
ACTIVITY: tuple[LayerLimit, ...] = ("dead", "saturated", "rate_min", "rate_max")
"""Limits on how a layer of one run fires; the others hold its difference from another run."""


@dataclass(frozen=True)
class Demand:
    """A limit and the setting it comes from, e.g. ``gates.layers.lif2.spike_mismatch``; empty where a caller states it."""

    limit: float
    setting: str


@dataclass(frozen=True)
class Criteria:
    """What a verification demands.

    Attributes:
        exact: pairs of rungs that must agree in every spike, membrane and current. Pairs that are compared and could agree so
            are held to it whether they stand here or not; a pair that stands here must be compared.
        accuracy: (baseline rung, rung, largest drop in points), one per rung.
        significance: a drop beyond its limit fails only where McNemar's p is below this; None: it fails.
        baseline: rung that a target with a drop of its own is measured against.
        overflows: rung in which wraps and saturations are counted, and how many are allowed.
        tolerance: how far forms of the network may differ where the numbers were changed on purpose; the default of all rungs.
        clipped_inputs: percent of input values that may lie outside the declared range.
        minimum_accuracy: percent by rung.
        targets: what is demanded of single rungs, by the name of a rung or of a backend (all its rungs).
        layers: what is demanded of single layers.
        backends: by rung, the backend that runs it; of a backend's model nothing is demanded.
        table: of the settings that all this stands in, e.g. ``gates``; empty where a caller states it.
    """

    exact: tuple[tuple[str, str], ...] = ()
    accuracy: tuple[tuple[str, str, float], ...] = ()
    significance: float | None = None
    baseline: str = ""
    overflows: tuple[str, int] | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    clipped_inputs: float = 1.0
    minimum_accuracy: tuple[tuple[str, float], ...] = ()
    targets: Mapping[str, TargetGates] = field(default_factory=dict)
    layers: Mapping[str, LayerGates] = field(default_factory=dict)
    backends: Mapping[str, str] = field(default_factory=dict)
    table: str = ""

    def setting(self, *path: str) -> str:
        """A setting's name, ``gates.layers.lif2.dead``; empty where the demands come from a caller."""
        return ".".join(map(toml_key, (self.table, *path))) if self.table else ""

    def names_of(self, rung: str) -> tuple[str, ...]:
        """What ``targets`` may call a rung: its own name, and with less weight its backend's."""
        return tuple(dict.fromkeys((rung, self.backends.get(rung, rung))))

    def of_target(self, rung: str, name: TargetLimit) -> Demand | None:
        """What is demanded of one rung alone; None where nothing is."""
        return _demand(self._of_target(rung, name))

    def agreement(self, rung: str) -> tuple[Agreement, str] | None:
        """The least agreement that is demanded of a rung, and by which setting."""
        return self._of_target(rung, "agree")

    def of_layer(self, rung: str, layer: str, name: LayerLimit) -> Demand | None:
        """What is demanded of one layer in a rung; None where nothing names the layer."""
        for key in self.names_of(rung):
            own = self.targets[key].layers.get(layer) if key in self.targets else None
            if own is not None and getattr(own, name) is not None:
                return Demand(getattr(own, name), self.setting("targets", key, "layers", layer, name))
        return self.of_layer_anywhere(layer, name)

    def of_layer_anywhere(self, layer: str, name: LayerLimit) -> Demand | None:
        """What is demanded of a layer in every rung that has no demand of its own on it."""
        own = self.layers.get(layer)
        if own is not None and getattr(own, name) is not None:
            return Demand(getattr(own, name), self.setting("layers", layer, name))
        if name == "spike_mismatch" and layer in self.tolerance.layers:
            return Demand(self.tolerance.layers[layer], "")
        return None

    def spikes(self, rung: str, layer: str | None = None) -> Demand:
        """Percent of a layer's spikes that may lack a counterpart in a rung; without a layer, of those that nothing names."""
        found = None if layer is None else self.of_layer(rung, layer, "spike_mismatch")
        return found or self.of_target(rung, "spike_mismatch") or Demand(self.tolerance.spikes, self.setting("spike_mismatch"))

    def decisions(self, rung: str) -> Demand:
        """Percent of samples that a rung may classify differently."""
        return self.of_target(rung, "decision_mismatch") or Demand(self.tolerance.decisions, self.setting("decision_mismatch"))

    def significance_of(self, rung: str) -> Demand | None:
        """The p below which an accuracy counts as lost; None: any loss beyond the limit does."""
        general = None if self.significance is None else Demand(self.significance, self.setting("accuracy_significance"))
        return self.of_target(rung, "accuracy_significance") or general

    def tolerance_for(self, rung: str) -> Tolerance:
        """How far a rung may differ from what it is compared with, layers with limits of their own included."""
        layers = {layer: self.spikes(rung, layer).limit for layer in self.named_layers(rung)}
        return Tolerance(self.spikes(rung).limit, self.decisions(rung).limit, layers)

    def named_layers(self, rung: str) -> frozenset[str]:
        """Layers whose spikes in a rung have a limit of their own."""
        names = {*self.layers, *self.tolerance.layers}
        for key in self.names_of(rung):
            names |= self.targets[key].layers.keys() if key in self.targets else set()
        return frozenset(layer for layer in names if self.of_layer(rung, layer, "spike_mismatch") is not None)

    def watched(self) -> Iterator[str]:
        """Rungs in which single layers must fire in some way: somebody has to look."""
        for rung in self.backends:
            own = (self.targets[key].layers.values() for key in self.names_of(rung) if key in self.targets)
            if any(getattr(layer, name) is not None for layers in own for layer in layers for name in ACTIVITY):
                yield rung

    def _of_target(self, rung: str, name: str) -> tuple[Any, str] | None:
        for key in self.names_of(rung):
            value = getattr(self.targets[key], name) if key in self.targets else None
            if value is not None:
                return value, self.setting("targets", key, name)
        return None


def _demand(found: tuple[Any, str] | None) -> Demand | None:
    return None if found is None else Demand(*found)

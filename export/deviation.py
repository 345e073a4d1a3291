"""What a backend's neuron does otherwise than the contract says, in terms that the reference can compute.

A package whose neurons fire at the threshold, or subtract where the contract resets to zero, runs another network. Refusing it
would hide by how much; running it in silence would hide that it does. A backend therefore declares, population by population,
what its neuron does otherwise. :func:`deviating` is the network with these deviations, for the float64 interpreter: what
separates it from the given one is what the deviations cost on these inputs, and the backend must equal it up to rounding, which
proves that they are all there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from snn_export.export.deployment import Deployment, Firing
from snn_export.models.spec import NeuronSpec


@dataclass(frozen=True)
class Deviation:
    """What one population of a backend does.

    Attributes:
        spec: its neuron; differs from the contract's where the reset does.
        told: every difference in one sentence, e.g. "fires at its threshold, not only above it".
        at_threshold, several_spikes: see :class:`~snn_export.export.deployment.Firing`.
    """

    spec: NeuronSpec
    told: tuple[str, ...]
    at_threshold: bool = False
    several_spikes: bool = False

    def __post_init__(self) -> None:
        if not self.told or not all(sentence.strip() for sentence in self.told):
            raise ValueError("a deviation says in a sentence what it is")

    @property
    def firing(self) -> Firing:
        """The part that a NeuronSpec does not say."""
        return Firing(self.at_threshold, self.several_spikes)


def deviating(deployment: Deployment, deviations: Mapping[str, Deviation]) -> Deployment:
    """The network as a backend with these deviations runs it: for the interpreter and the reference, never for a file.

    Raises:
        ValueError: for a population that is not there, or one whose neuron differs in more than firing and reset. What filters,
            leaks or integrates otherwise is another neuron, and is refused, not declared.
    """
    for name, found in deviations.items():
        given = deployment.contract.neurons.get(name)
        resets = {key: getattr(found.spec, key) for key in ("reset", "reset_delay", "clears_input", "double_to_refire")}
        if given is None or replace(given, **resets) != found.spec:
            raise ValueError(f"{name}: a deviation of a neuron says how it fires and resets, and nothing else")
    neurons = {**deployment.contract.neurons, **{name: found.spec for name, found in deviations.items()}}
    firing = {name: found.firing for name, found in deviations.items()}
    contract = deployment.contract.model_copy(update={"neurons": neurons})
    return deployment.replace(contract=contract, firing=MappingProxyType(firing))


def sentences(deviations: Mapping[str, Deviation]) -> tuple[str, ...]:
    """Every difference once, with the populations it holds for: "fires at its threshold (lif1, lif2)"."""
    found: dict[str, list[str]] = {}
    for name, deviation in deviations.items():
        for told in deviation.told:
            found.setdefault(told, []).append(name)
    return tuple(f"{told} ({', '.join(names)})" for told, names in found.items())

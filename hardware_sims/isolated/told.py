"""What the neurons of a package do otherwise than the contract: one sentence per difference, the same for every package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.models.spec import NeuronSpec, Reset

AT_THRESHOLD = "fires at its threshold, not only above it"
SEVERAL_SPIKES = "emits as many spikes in one step as its membrane holds thresholds"
NOT_TO_ZERO = "subtracts its threshold, where the contract resets to zero"
NOT_NEVER = "subtracts its threshold, where the contract never resets"
NOT_LATE = "is reset in the step of its spike, not later"
LATE = "is reset one step after its spike, not in the step of it"
KEEPS_INPUT = "keeps the input of the step after its spike"
FIRES_AGAIN = "fires again above its threshold, not only above twice its threshold"

_OTHER_RESET: Mapping[tuple[Reset, Reset], str] = {("zero", "subtract"): NOT_TO_ZERO, ("none", "subtract"): NOT_NEVER}
"""By the contract's reset and the package's."""


def deviations_of(
    deployment: Deployment, held: Mapping[str, NeuronSpec], *, at_threshold: bool = False, several_spikes: bool = False
) -> dict[str, Deviation]:
    """By population that spikes and does otherwise than the contract: what it does, and all of it in sentences.

    Args:
        deployment: with the contract.
        held: by population, the contract's neuron with the reset that the package has.
        at_threshold: every neuron fires there; see :class:`~snn_export.export.deployment.Firing`.
        several_spikes: every neuron may; see there too.

    Raises:
        KeyError: for a reset that no sentence is there for.
    """
    always = (*((AT_THRESHOLD,) if at_threshold else ()), *((SEVERAL_SPIKES,) if several_spikes else ()))
    found = {}
    for name, asked in deployment.contract.neurons.items():
        told = (*always, *_reset(asked, held[name])) if asked.spiking else ()
        if told:
            found[name] = Deviation(held[name], told, at_threshold=at_threshold, several_spikes=several_spikes)
    return found


def _reset(asked: NeuronSpec, held: NeuronSpec) -> Iterator[str]:
    """What differs between the contract's reset and the package's."""
    if held.reset != asked.reset:
        yield _OTHER_RESET[asked.reset, held.reset]
    if asked.reset != "none" and held.reset_delay != asked.reset_delay:
        yield NOT_LATE if held.reset_delay < asked.reset_delay else LATE
    if asked.clears_input and not held.clears_input:
        yield KEEPS_INPUT
    if asked.double_to_refire and not held.double_to_refire:
        yield FIRES_AGAIN

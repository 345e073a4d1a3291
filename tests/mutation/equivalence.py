"""Why a fault changes nothing on any input: a reason that is checked, or all inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snn_export.export.bounds import PopulationBounds, population_bounds
from snn_export.hardware_sims.trace import Trace
from snn_export.models.arithmetic import CURRENT_MAX, DECAY_MAX, DECAY_ONE, STATE_MAX, STATE_SHIFT
from tests.mutation import edits
from tests.mutation.backends import Faulty
from tests.mutation.kinds import Injected
from tests.mutation.networks import Network

Reason = Callable[[Network, str, PopulationBounds], str | None]


def proof(fault: str, network: Network, layer: str, injected: Injected) -> str | None:
    """The proof that an integer network does the same with this fault, on every input of its range; None: there is none."""
    if not network.integer:
        return None
    if injected.runs is not None and edits.same_network(network.deployment, injected.runs):
        return "the same numbers stand in every register: it already held its last value, or what was exchanged is equal"
    reason = REASONS.get(fault)
    found = None if reason is None else reason(network, layer, population_bounds(network.deployment, layer))
    return found or (_by_exhaustion(network, injected) if network.exhaustive else None)


def _out_of_reach(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    """No membrane ever comes to the threshold."""
    threshold = (network.deployment.populations[layer].threshold - 1) << STATE_SHIFT
    if bound.membrane > threshold:
        return None
    return f"|v| stays within {bound.membrane:,} on every input, and {threshold:,} are needed for a difference: it never fires"


def _no_fraction(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    population = network.deployment.populations[layer]
    if population.dv or population.du != DECAY_MAX:
        return None
    return "dv = 0 keeps all of v and du = 4095 nothing of u: no product is ever rounded"


def _current_fits(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    if bound.current >= CURRENT_MAX:
        return None
    return f"|u| stays within {bound.current:,} on every input; it wraps above {CURRENT_MAX:,}"


def _membrane_fits(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    if bound.membrane > STATE_MAX:
        return None
    return f"|v| stays within {bound.membrane:,} on every input; it saturates above {STATE_MAX:,}"


def _on_multiples(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    """Membranes are multiples of 128, and none lies between an even threshold and the next one."""
    deployment = network.deployment
    population, spec = deployment.populations[layer], deployment.contract.neurons[layer]
    forgets = population.dv == DECAY_MAX and bound.membrane < DECAY_ONE
    kept = population.dv == 0 or forgets
    even = all(not (edits.effective(deployment, name) & 1).any() for _, name in edits.synapses(deployment, layer))
    biased = deployment.bias(layer).any() or deployment.current_bias(layer).any()
    if not (kept and even and population.du == DECAY_MAX and spec.reset == "zero") or biased or population.threshold & 1:
        return None
    return (
        "weights are even, there is no bias and no decay that rounds: v is a multiple of 128, and none lies above "
        f"{population.threshold << STATE_SHIFT:,} and not above {(population.threshold + 1) << STATE_SHIFT:,}"
    )


def _forgets(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    population = network.deployment.populations[layer]
    if population.dv != DECAY_MAX or population.du != DECAY_MAX or bound.membrane >= DECAY_ONE:
        return None
    return f"|v| stays within {bound.membrane:,}, so trunc(v / 4096) = 0: neither u nor v is remembered"


def _forgets_twice(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    if network.deployment.populations[layer].dv != DECAY_MAX or 2 * bound.membrane >= DECAY_ONE:
        return None
    return f"|v| stays within {bound.membrane:,}, so trunc(2 v / 4096) = 0 as trunc(v / 4096) is"


def _current_forgets(network: Network, layer: str, bound: PopulationBounds) -> str | None:
    if network.deployment.populations[layer].du != DECAY_MAX or bound.current >= DECAY_ONE:
        return None
    return f"|u| stays within {bound.current:,}, so trunc(u / 4096) = 0, as nothing is"


REASONS: dict[str, Reason] = {
    "threshold - 1": _out_of_reach,
    "threshold + 1": _on_multiples,
    ">= for >": _out_of_reach,
    "delayed reset": _out_of_reach,
    "rounding down": _no_fraction,
    "saturation for wrap": _current_fits,
    "wrap for saturation": _membrane_fits,
    "state not cleared": _forgets,
    "decay - 1": _forgets_twice,
    "current decay - 1": _current_forgets,
}
"""Why a fault may change nothing in a layer, by fault."""


def _by_exhaustion(network: Network, injected: Injected) -> str | None:
    """Both run on every input there is; compared array by array, without the verifier."""
    backend = injected.backend
    if not isinstance(backend, Faulty):
        return None
    found = backend.run(backend.compile(network.deployment), network.inputs, ("spikes", "membrane", "current"))
    if not identical(network.sound, found):
        return None
    samples = len(found.predictions)
    return f"run on all {samples:,} inputs there are: every spike, membrane, current and decision is equal, bit for bit"


def identical(first: Trace, second: Trace) -> bool:
    """Whether two traces hold the same integers."""
    if not np.array_equal(first.predictions, second.predictions) or first.layers.keys() != second.layers.keys():
        return False
    return all(
        np.array_equal(getattr(layer, what), getattr(second.layers[name], what))
        for name, layer in first.layers.items()
        for what in ("spikes", "membrane", "current", "counts", "overflows")
    )

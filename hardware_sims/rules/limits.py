"""Limits as the documentation shows them: what the rule holds a network to on a target, and where the figure stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import get_args

from snn_export.export.bounds import MEMORYLESS_LIMIT
from snn_export.export.chains import MATRIX_LIMIT
from snn_export.export.chips import Chip, chip_of
from snn_export.export.graph import PATH_LIMIT, POPULATION_TYPES
from snn_export.export.netx_layers import BIAS_EXPONENT, GEOMETRY_MAX, MAX_DELAY
from snn_export.export.readiness import LINEAR_TYPES
from snn_export.export.targets import BackendName, CheckTarget, ChipName
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.models.arithmetic import BIAS_MANTISSA_MAX, BIAS_MANTISSA_MIN
from snn_export.models.weight_grid import WEIGHT_BITS, WEIGHT_EXPONENT_MAX

DAVIES = (
    "Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, IEEE Micro 38(1), 2018, "
    "doi:10.1109/MM.2018.112130359"
)
LAVA = "lava-nc 0.10.0, the fixed_pt models of lava.proc.lif, lava.proc.dense and lava.proc.conv"
NETX = "lava-dl 0.6.0, lava.lib.dl.netx, and lava-nc 0.10.0"
NIR = "NIR: what its nodes and edges mean, package nir 1.0.8, https://neuroir.org"
MICROCODE = "Open Neuromorphic, Loihi 2, https://open-neuromorphic.org/neuromorphic-computing/hardware/loihi-2-intel/"
REGISTERS = f"{DAVIES}; {LAVA}"
OURS = "snn-export: what it has an exact form for"


@dataclass(frozen=True)
class StatedLimit:
    """A limit in words, and its source."""

    text: str
    source: str


LimitOnTarget = Callable[[CheckTarget], StatedLimit]


def fixed(text: str, source: str) -> LimitOnTarget:
    """The same for every target."""
    return lambda _target: StatedLimit(text, source)


def register(words: Callable[[Chip], str]) -> LimitOnTarget:
    """What a register or synapse holds, of the chip that the target is or stands for."""
    return lambda target: StatedLimit(words(chip_of(target)), REGISTERS)


def of_core(resource: str) -> LimitOnTarget:
    """What a core holds, from the chip's table."""

    def stated(target: CheckTarget) -> StatedLimit:
        chip = _chip(target)
        limit = chip.limits.get(resource)
        if limit is None:
            return StatedLimit("nothing to check", chip.not_published.get(resource, chip.covered.get(resource, "")))
        value = f"{limit.value:,}" if isinstance(limit.value, int) else ", ".join(map(str, limit.value))
        return StatedLimit(f"{value} {limit.unit}", limit.citation)

    return stated


def of_any_core(*resources: str) -> LimitOnTarget:
    """Several of them: those that the chip limits."""

    def stated(target: CheckTarget) -> StatedLimit:
        chip = _chip(target)
        found = [of_core(name)(target) for name in resources if name in chip.capacities]
        return StatedLimit("; ".join(item.text for item in found), "; ".join(dict.fromkeys(item.source for item in found)))

    return stated


DELAY_SOURCES: Mapping[CheckTarget, str] = {
    "loihi1": f"{DAVIES}, p. 92",
    "loihi2": "lava-dl 0.6.0, lava.lib.dl.netx, which clips longer delays",
    **dict.fromkeys(get_args(BackendName), f"{LAVA}; {NETX}"),
}


def delays(target: CheckTarget) -> StatedLimit:
    """Steps that a synapse holds a spike back; Lava's own delays end a step later."""
    text = f"{chip_of(target).delays[1]} steps a synapse holds a spike back"
    return StatedLimit(text, DELAY_SOURCES[target])


def resets(target: CheckTarget) -> StatedLimit:
    """What may come after a spike, in its step."""
    if chip_of(target).programmable_neurons:
        source = f"{LAVA}; neurons are programs: {MICROCODE}"
        return StatedLimit("to zero or by subtraction, in the step of the spike", source)
    return StatedLimit("to zero, in the step of the spike", DAVIES if target in get_args(ChipName) else LAVA)


def cores(target: CheckTarget) -> StatedLimit:
    """Cores of a chip, from its mesh."""
    mesh = _chip(target).mesh
    return StatedLimit("no limit checked", "") if mesh is None else StatedLimit(f"{mesh.cores} cores per chip", mesh.citation)


@cache
def _chip(target: CheckTarget) -> ChipTable:
    return load_chip(target)


EDGES = fixed("every edge joins two nodes, once", NIR)
TYPES = fixed(", ".join(kind.__name__ for kind in (*LINEAR_TYPES, *POPULATION_TYPES)), OURS)
LOOPS = fixed("a population in every loop", OURS)
ENDS = fixed("one input, one output", OURS)
SHAPES = fixed("the shapes of nodes that are joined agree", NIR)
WAYS = fixed(f"{PATH_LIMIT:,} nodes on all ways between populations", OURS)
STEPS = fixed("whole steps, 0 or more", NIR)
LOOP_STEPS = fixed("as many steps of delay as connections in every loop: each takes one", LAVA)
OWN_STEP = fixed("1 step of delay in every loop", NIR)
TO_ZERO = fixed("to zero, in the step of the spike", LAVA)
DECAYS = register(lambda chip: f"0..{(1 << chip.decay_bits) - 1} of {1 << chip.decay_bits}")
THRESHOLDS = fixed("1 threshold and 1 pair of decays per population", LAVA)
MEMORY = fixed(f"|v| of {MEMORYLESS_LIMIT:,}: the largest decay forgets no more", LAVA)
WEIGHTS_OF_ONE = fixed("1 weight layer per connection", REGISTERS)
INTEGERS = fixed("integers for every weight layer and population", OURS)


def _weights(chip: Chip) -> str:
    return f"weights: even {_range(chip.weight_range)}, of one sign up to {chip.single_sign_weight}"


def _neurons(chip: Chip) -> str:
    return f"threshold 0..{(1 << chip.threshold_bits) - 1}; decays 0..{(1 << chip.decay_bits) - 1}"


def _biases(chip: Chip) -> str:
    return f"bias {_range(chip.bias_mantissa)} << {_range(chip.bias_exponents)}"


def _range(values: tuple[int, int]) -> str:
    return f"{values[0]}..{values[1]}"


SHIFTS = fixed(f"weight exponent 0..{WEIGHT_EXPONENT_MAX}: it shifts the sum up only", LAVA)
WEIGHT_VALUES, NEURON_VALUES, BIAS_VALUES = register(_weights), register(_neurons), register(_biases)
NETX_LAYERS = fixed(f"dense layers and Conv2d with sizes up to {GEOMETRY_MAX}", NETX)
NETX_BIASES = fixed(f"bias mantissa {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX} << {BIAS_EXPONENT}", NETX)
NETX_WEIGHTS = fixed(f"weights of {WEIGHT_BITS} bits without an exponent", NETX)
NETX_DELAYS = fixed(f"delays of dense layers, up to {MAX_DELAY} steps", NETX)
NETX_NEURONS = register(lambda chip: f"{_neurons(chip)}; one periodic reset for all layers")
VALUES = register(
    lambda chip: f"{_weights(chip)}; weight exponent {_range(chip.weight_exponents)}; {_neurons(chip)}; {_biases(chip)}"
)
BIAS_SUMS = register(lambda chip: f"{chip.bias_mantissa[0]}..{chip.bias_mantissa[1]}, all connections of a neuron together")
STATE = register(lambda chip: f"{chip.state_bits} bits: u wraps, v saturates")
GRADED = fixed("spikes of 1 bit, or a bias from the host", DAVIES)
BIASES_OF_HOSTS = fixed("no synaptic filter where the host turns the input into a bias", OURS)
CONNECTED = fixed("1 way to the output", OURS)
ONE_WEIGHT = fixed("1 weight that is not zero", OURS)
FIRES = fixed("1 neuron whose membrane can pass its threshold", OURS)
EXACT_SUMS = fixed("sums below 2^53, which float64 adds exactly", "IEEE 754-2019, binary64")
MATRIX = fixed(f"a matrix of {MATRIX_LIMIT:,} entries, where a chain of layers has no other form", OURS)
DELAY_PLACES = fixed("a delay per feature in front of the first weight layer or behind the last", OURS)
GAINS = fixed("1 resistance for neurons that share weights", OURS)

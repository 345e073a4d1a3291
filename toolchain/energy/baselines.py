"""Ordinary ANNs on the same samples, and this network on the same terms: what its spikes have to beat.

Three networks, all charged with one table of an ordinary process (Horowitz's figures), at FP32 and INT8, arithmetic alone and
with memory:

the twin      the same layers, run once per inference: every synapse is one multiply-accumulate (MAC), not one per step. Layers
              that the export merged are carried out one after the other: pool first, then convolve. Data that change over time
              are one frame per step to it: it runs once per frame, since a sum of all frames would be another task
the teacher   its own MACs, counted on its activations
this network  one accumulation (AC) per synaptic event, a MAC per graded operation and step, and per state variable and update a
              multiplication by the decay and an addition; the MACs of a first layer that the host computes. Layers are worked off
              one after the other, T steps each: no step of a chip in which spikes only travel

Padding is not multiplied. An 8-bit ANN is the fair opponent, since the spiking network has 8-bit weights too; FP32 is shown
because papers compare with it.

Memory is a model, the same for all three: 64 bits from a cache of 8 kB cost what Horowitz gives, whatever holds them.

value   operands are read for every operation: weight and input of a MAC, the weight of an AC; state, as wide as the chip holds
        it, is read and written in every update; sums stay in a register
low     perfect reuse: every weight, input and activation is moved once per inference (of this network: a bit per neuron and step,
        spike or not, written and read; a bit per binary input and step), state never leaves its register
high    no reuse: the 32-bit sum is read and written for every operation as well
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from snn_export.energy.charging import Amount, coefficient
from snn_export.energy.cost_table import CostTable
from snn_export.reporting.energy_records import AnnOperations, EnergyFigure, EnergyOperations, MemoryAccesses, StepOperations

CACHE_LINE_BITS = 64
SUM_BITS = 32
Precision = Literal["FP32", "INT8"]
PRECISIONS: Final[tuple[tuple[Precision, int], ...]] = (("FP32", 32), ("INT8", 8))
MEMORY_MODEL = (
    "Figures with memory are a model, not a measurement: 64 bits from a cache of 8 kB per access, the operands of every "
    "operation read from there. Low: every weight, input and activation moves once per inference, that of a spiking layer as one "
    "bit per neuron and step. High: the 32-bit sum is read and written for every operation too."
)


@dataclass(frozen=True)
class Terms:
    """How a network is charged.

    Attributes:
        precision: of weights and operands.
        memory: accesses to memory are charged, not arithmetic alone.
        zeros_skipped: what is multiplied by zero is left out.
    """

    precision: Precision
    memory: bool = False
    zeros_skipped: bool = False

    @property
    def key(self) -> str:
        """For programs, e.g. ``int8_memory``."""
        return self.precision.lower() + "_memory" * self.memory + "_zeros_skipped" * self.zeros_skipped

    @property
    def title(self) -> str:
        """For readers, e.g. ``INT8, with memory``."""
        return f"{self.precision}, {'with memory' if self.memory else 'arithmetic'}{', zeros skipped' * self.zeros_skipped}"


@dataclass(frozen=True)
class Work:
    """What one network does per inference.

    Attributes:
        macs, fewest_macs: multiplications with a value, and those left if zeros are skipped.
        acs, fewest_acs: additions of a weight that a spike selects.
        updates: of state variables.
        state_bits: of one of them; at a wider precision it is as wide as that.
        moved_bits: weights and activations, each once, by precision.
    """

    macs: float
    fewest_macs: float
    acs: float = 0.0
    fewest_acs: float = 0.0
    updates: float = 0.0
    state_bits: int = 0
    moved_bits: tuple[float, float] = (0.0, 0.0)


def mac(table: CostTable, precision: str) -> Amount:
    """One multiply-accumulate, arithmetic only. INT8: an 8-bit sum, or a 32-bit one as the upper end of the range."""
    if precision == "FP32":
        return coefficient(table, "fp32_multiply") + coefficient(table, "fp32_add")
    return coefficient(table, "int8_multiply") + accumulation(table, precision)


def accumulation(table: CostTable, precision: str) -> Amount:
    """One addition of a weight. INT8: into 8 bits, or into 32 as the upper end of the range."""
    if precision == "FP32":
        return coefficient(table, "fp32_add")
    narrow, wide = coefficient(table, "int8_add"), coefficient(table, "int32_add")
    return Amount(narrow.value, narrow.low, wide.high)


def update(table: CostTable, precision: str) -> Amount:
    """One update of a state variable: times the decay, plus what arrived. INT8 weights have wider states: 32-bit integers."""
    if precision == "FP32":
        return coefficient(table, "fp32_multiply") + coefficient(table, "fp32_add")
    return coefficient(table, "int32_multiply") + coefficient(table, "int32_add")


def twin_work(found: EnergyOperations) -> Work:
    """The ANN twin. Zeros of its input are skipped as measured; how sparse its later activations would be is not known.

    A layer that the host computes for this network is one of its own.
    """
    frames, host = found.data_frames, found.host_macs / found.samples
    dense = host + frames * sum(layer.twin_macs for layer in found.layers)
    first = host + sum(layer.twin_input_macs for layer in found.layers) / found.samples
    fewest = first + frames * sum(layer.twin_nonzero_macs for layer in found.layers)
    activations = frames * (found.input_values + 2 * sum(layer.neurons for layer in found.layers))
    weights = found.host_weights + sum(layer.twin_weights for layer in found.layers)
    return Work(dense, fewest, moved_bits=_moved(weights, activations))


def teacher_work(teacher: AnnOperations) -> Work:
    """The teacher, as counted on its activations."""
    return Work(
        float(teacher.dense_macs),
        teacher.effective_macs / teacher.samples,
        moved_bits=_moved(teacher.weights, teacher.activations),
    )


def own_work(found: EnergyOperations) -> Work:
    """This network, with all its steps."""
    host = found.host_macs / found.samples
    updates = sum(layer.updates for layer in found.layers) / found.samples
    return Work(
        macs=host + found.graded() / found.samples,
        fewest_macs=host + found.graded(effective=True) / found.samples,
        acs=found.synops() / found.samples,
        fewest_acs=found.synops(effective=True) / found.samples,
        updates=sum(layer.updates * layer.state_variables for layer in found.layers) / found.samples,
        state_bits=found.state_bits,
        moved_bits=_own_moved(found, updates),
    )


def early_work(found: EnergyOperations, done: StepOperations) -> Work:
    """This network, where only some of the steps were carried out, as many in every layer."""
    whole, samples, binary = own_work(found), found.samples, found.binary_input
    share = done.updates / sum(layer.updates for layer in found.layers)  # of the steps: every neuron is updated in each
    host = found.host_macs / samples
    return replace(
        whole,
        macs=host + done.graded(binary) / samples,
        fewest_macs=host + done.graded(binary, effective=True) / samples,
        acs=done.synops(binary) / samples,
        fewest_acs=done.synops(binary, effective=True) / samples,
        updates=whole.updates * share,
        moved_bits=_own_moved(found, done.updates / samples, share),
    )


def _own_moved(found: EnergyOperations, updates: float, share: float = 1.0) -> tuple[float, float]:
    """Bits that this network moves once: weights, inputs, and a bit per neuron and step, written and read.

    Inputs that change move anew in every step that is taken (``share`` of them); binary ones are a bit each. Where the host
    computes the first layer, it reads the input as values, and the biases that it makes are written and read.
    """
    weights = found.host_weights + sum(layer.weights for layer in found.layers)
    sent = found.input_values * (found.input_frames * share if found.input_frames > 1 else 1.0)
    binary = sent if found.binary_input and not found.host_macs else 0.0
    fp32, int8 = _moved(weights, sent - binary + 2 * found.host_biases)
    return fp32 + binary + 2 * updates, int8 + binary + 2 * updates


def _moved(weights: float, activations: float) -> tuple[float, float]:
    fp32, int8 = (bits * (weights + activations) for _, bits in PRECISIONS)
    return fp32, int8


def figures(name: str, work: Work, table: CostTable) -> dict[Terms, EnergyFigure]:
    """Energy per inference of one network: each precision, arithmetic alone, with zeros skipped, and with memory."""
    made: dict[Terms, EnergyFigure] = {}
    for (precision, bits), moved in zip(PRECISIONS, work.moved_bits, strict=True):
        arithmetic, told = _arithmetic(work, table, precision), _told(work, table, precision)
        all_, fewest = work.macs + work.acs, work.fewest_macs + work.fewest_acs
        charged = [(Terms(precision), all_, arithmetic, told)]
        if (work.fewest_macs, work.fewest_acs) != (work.macs, work.acs):
            charged.append((Terms(precision, zeros_skipped=True), fewest, _skipping(work, table, precision), told))
        memory = arithmetic + _memory(work, table, bits, moved)
        charged.append((Terms(precision, memory=True), all_, memory, f"{told}; and memory, by a model"))
        made |= {terms: _figure(name, terms, count, amount, text, table) for terms, count, amount, text in charged}
    return made


def _arithmetic(work: Work, table: CostTable, precision: str) -> Amount:
    """All operations; the lower end is not lowered by zeros, which have a figure of their own."""
    return mac(table, precision) * work.macs + accumulation(table, precision) * work.acs + update(table, precision) * work.updates


def _skipping(work: Work, table: CostTable, precision: str) -> Amount:
    return (
        mac(table, precision) * work.fewest_macs
        + accumulation(table, precision) * work.fewest_acs
        + update(table, precision) * work.updates
    )


def _memory(work: Work, table: CostTable, bits: int, moved: float) -> Amount:
    """Cache traffic of an inference, see the module's model."""
    bit = coefficient(table, "cache_8_kib_64_bit") * (1 / CACHE_LINE_BITS)
    state = 2 * max(bits, work.state_bits) * work.updates
    operands = 2 * bits * work.macs + bits * work.acs + state
    sums = 2 * SUM_BITS * (work.macs + work.acs)
    return Amount(bit.value * operands, bit.low * min(moved, operands), bit.high * (operands + sums))


def _told(work: Work, table: CostTable, precision: str) -> str:
    """The coefficients in words."""
    wide = "; high: a 32-bit sum" if precision == "INT8" and (work.macs or work.acs) else ""
    parts = (
        (work.macs, mac(table, precision), "MAC"),
        (work.acs, accumulation(table, precision), "AC"),
        (work.updates, update(table, precision), "update of a state variable"),
    )
    return ", ".join(f"{amount.value:g} pJ per {what}" for times, amount, what in parts if times) + wide


def _figure(name: str, terms: Terms, count: float, amount: Amount, told: str, table: CostTable) -> EnergyFigure:
    return EnergyFigure(
        component=f"{name}, {terms.title}", operation=terms.key, count=count, value=amount.value, low=amount.low,
        high=amount.high, coefficient=told, source=table.coefficients["fp32_add"].citation,
    )  # fmt: skip


def memory_accesses(found: EnergyOperations) -> MemoryAccesses:
    """Accesses of this network per inference: what the figures with memory charge."""
    work = own_work(found)
    return MemoryAccesses(
        model="one weight is read per synaptic and per graded operation; every state variable (the membrane, and the current of "
        "a neuron with a synaptic filter) is read and written once per step; a sum that is kept in memory is read and written "
        "per operation",
        weight_reads=work.macs + work.acs,
        state_reads=work.updates,
        state_writes=work.updates,
        sum_accesses=2 * (work.macs + work.acs),
    )

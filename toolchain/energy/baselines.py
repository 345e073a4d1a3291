"""The same network as an ordinary ANN: what its spikes have to beat.

The twin has the same layers and runs once per inference: every synapse is one multiply-accumulate (MAC), not one per step.
MACs are counted from fan-out, so padding is not multiplied. Coefficients are Horowitz's for 45 nm. An 8-bit network is the
fair opponent, since the spiking one has 8-bit weights too; FP32 is shown because papers compare with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from snn_export.energy.cost_table import CostTable
from snn_export.energy.counts import Counts
from snn_export.reporting.report import EnergyFigure

_CACHE_LINE_BITS = 64


@dataclass(frozen=True)
class Amount:
    """Picojoule with a range."""

    value: float
    low: float
    high: float

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Amount:
        return Amount(self.value * times, self.low * times, self.high * times)


def mac_fp32(table: CostTable) -> Amount:
    """One FP32 multiply-accumulate, arithmetic only."""
    return _amount(table, "fp32_multiply") + _amount(table, "fp32_add")


def mac_int8(table: CostTable) -> Amount:
    """One INT8 multiply-accumulate, arithmetic only: an 8-bit sum, or a 32-bit one as the upper end of the range."""
    product, narrow, wide = (_amount(table, name) for name in ("int8_multiply", "int8_add", "int32_add"))
    return product + Amount(narrow.value, narrow.low, wide.high)


def twin_baselines(counts: Counts, table: CostTable) -> tuple[EnergyFigure, ...]:
    """Energy per inference of the ANN twin: FP32 and INT8, arithmetic alone, with memory, and with zeros skipped."""
    dense, effective = float(counts.synapses), effective_macs(counts)
    weights = sum(layer.weights for layer in counts.structure.values())
    source = table.coefficients["fp32_add"].citation
    fp32, int8 = mac_fp32(table), mac_int8(table)
    wide_sum = "; high: a 32-bit sum" if int8.high > int8.value else ""
    arithmetic = (
        _figure("ANN, FP32, arithmetic", dense, fp32 * dense, f"{fp32.value:g} pJ per MAC", source),
        _figure("ANN, INT8, arithmetic", dense, int8 * dense, f"{int8.value:g} pJ per MAC{wide_sum}", source),
        _figure("ANN, INT8, arithmetic, zero inputs and weights skipped", effective, int8 * effective,
                f"{int8.value:g} pJ per MAC{wide_sum}", source),
    )  # fmt: skip
    with_memory = []
    for name, bits, mac in (("FP32", 32, fp32), ("INT8", 8, int8)):
        memory = _memory(table, dense, weights, bits)
        rule = f"{mac.value:g} pJ per MAC, and {memory.value / dense:g} pJ for reading weight and input from an 8 kB cache"
        spread = "; low: each weight is read once per inference; high: partial sums are written and read back too"
        with_memory.append(_figure(f"ANN, {name}, with memory", dense, mac * dense + memory, rule + spread, source))
    return (*arithmetic, *with_memory)


def effective_macs(counts: Counts) -> float:
    """MACs per inference of a twin that skips zero weights, and zero inputs of the first layer as measured.

    Later layers count dense: how sparse the activations of an ANN would be is not known from the spiking network.
    """
    first = sum(layer.twin_input_macs for layer in counts.layers.values()) / counts.samples
    return first + sum(layer.nonzero_synapses for layer in counts.structure.values())


def _memory(table: CostTable, macs: float, weights: int, bits: int) -> Amount:
    """Cache traffic of an inference.

    value: weight and input are read for every MAC. low: perfect reuse, each stored weight is read once. high: no reuse at all,
    the 32-bit partial sum is read and written for every MAC as well.
    """
    bit = _amount(table, "cache_8_kib_64_bit") * (1 / _CACHE_LINE_BITS)
    operands = 2 * bits * macs
    return Amount(bit.value * operands, bit.low * bits * weights, bit.high * (operands + 2 * 32 * macs))


def _amount(table: CostTable, operation: str) -> Amount:
    coefficient = table.coefficients[operation]
    return Amount(coefficient.value, coefficient.low, coefficient.high)


def _figure(component: str, count: float, amount: Amount, coefficient: str, source: str) -> EnergyFigure:
    return EnergyFigure(
        component=component,
        count=count,
        value=amount.value,
        low=amount.low,
        high=amount.high,
        coefficient=coefficient,
        source=source,
    )

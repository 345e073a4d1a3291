"""From operation counts to picojoule: an estimate with ranges and sources, never one bare number.

An operation is charged only if a table has a published figure for it. What has none (a graded synaptic operation, a message
that enters the chip) is listed with its count and without an energy, and stays out of the total; in particular a graded
operation is never charged at the figure of a binary spike.

Ranges: ``low`` and ``high`` are the ends of the coefficient's range times the count. ``low`` of synaptic operations counts
nonzero weights only, because whether zeros are stored as synapses is the mapper's choice. A layer's energy is what happens
in it and the messages its own spikes cause, so layers add up to the total.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snn_export.energy.baselines import mac_int8, twin_baselines
from snn_export.energy.cost_table import CostTable, load_table
from snn_export.energy.counts import Counts, wrong_deployment
from snn_export.export.deployment import Deployment
from snn_export.reporting.energy_records import EnergyFigure, EnergyReport, LayerEnergy

BREAK_EVEN_RATE = 0.057
"""Spikes per neuron and step below which an SNN of T = 5 beats the quantised ANN (Yan et al., arXiv 2409.08290 v4)."""
BREAK_EVEN_STEPS = 5
COMPETITIVE_SPIKES = (0.15, 1.38)
"""Spikes per synapse and inference (Dampfhoffer et al., 2023): the stricter and the more lenient ANN implementation."""


@dataclass(frozen=True)
class _Component:
    """One kind of operation: how often it happens in each layer per inference, and the smallest defensible count of it."""

    operation: str
    title: str
    counts: dict[str, float]
    fewest: dict[str, float]


@dataclass(frozen=True)
class _Charge:
    """Picojoule per inference; all None where there is no figure."""

    value: float | None
    low: float | None
    high: float | None


def estimate(deployment: Deployment, counts: Counts, table: CostTable) -> EnergyReport:
    """Energy per inference of the counted run, with ranges, sources, baselines and break-even rates.

    Args:
        deployment: the network that was counted.
        counts: from :class:`snn_export.energy.counts.Counter`.
        table: the chip's coefficients, see :func:`snn_export.energy.cost_table.load_table`.

    Raises:
        UserError: SNX321 where the counts belong to another deployment.
    """
    if counts.fingerprint != deployment.fingerprint:
        raise wrong_deployment(counts.fingerprint, deployment.fingerprint)
    cmos = load_table("cmos45")
    components = _components(counts)
    figures = [_figure(component, table) for component in components]
    total = _sum(_Charge(figure.value, figure.low, figure.high) for figure in figures)
    return EnergyReport(
        label=_label(deployment, table),
        samples=counts.samples,
        table=table.name,
        layers=tuple(_layer(name, counts, components, table) for name in counts.layers),
        figures=(*figures, *_unpriced(counts, table, cmos)),
        total=total.value,
        total_low=total.low,
        total_high=total.high,
        baselines=twin_baselines(counts, cmos),
        spikes_per_synapse=counts.spikes_per_synapse,
        break_even=_break_even(deployment, counts),
        limits=_limits(deployment, counts, table, cmos),
    )


def _components(counts: Counts) -> tuple[_Component, ...]:
    def per_inference(amounts: dict[str, int]) -> dict[str, float]:
        return {name: amount / counts.samples for name, amount in amounts.items()}

    def simple(operation: str, title: str, field: str) -> _Component:
        amounts = per_inference({name: getattr(layer, field) for name, layer in counts.layers.items()})
        return _Component(operation, title, amounts, amounts)

    return (
        _Component(
            "synaptic_operation",
            "synaptic operations",
            per_inference({name: counts.synops(name) for name in counts.layers}),
            per_inference({name: counts.synops(name, effective=True) for name in counts.layers}),
        ),
        simple("neuron_update_active", "active neuron updates", "active_updates"),
        simple("neuron_update_inactive", "inactive neuron updates", "inactive_updates"),
        simple("spike_message", "spike messages within a tile", "messages"),
    )


def _charge(table: CostTable, operation: str, count: float, fewest: float) -> _Charge:
    coefficient = table.coefficients.get(operation)
    if coefficient is None:
        return _Charge(None, None, None)
    return _Charge(coefficient.value * count, coefficient.low * fewest, coefficient.high * count)


def _sum(charges: Iterable[_Charge]) -> _Charge:
    """Sum of what has a figure; None where nothing has."""
    priced = [(c.value, c.low, c.high) for c in charges if c.value is not None and c.low is not None and c.high is not None]
    if not priced:
        return _Charge(None, None, None)
    return _Charge(*(sum(column) for column in zip(*priced, strict=True)))


def _figure(component: _Component, table: CostTable) -> EnergyFigure:
    count, fewest = sum(component.counts.values()), sum(component.fewest.values())
    coefficient, charge = table.coefficients.get(component.operation), _charge(table, component.operation, count, fewest)
    if coefficient is None:
        return _without_figure(component.title, count, table.reason(component.operation))
    spread = f" ({coefficient.low:g} to {coefficient.high:g})" if coefficient.low < coefficient.high else ""
    return EnergyFigure(
        component=component.title, count=count, value=charge.value, low=charge.low, high=charge.high,
        coefficient=f"{coefficient.value:g} pJ{spread}", source=coefficient.citation,
    )  # fmt: skip


def _unpriced(counts: Counts, table: CostTable, cmos: CostTable) -> tuple[EnergyFigure, ...]:
    """What enters from outside: listed, not in the total. Graded operations also as what they are arithmetically, 8-bit MACs."""
    messages = _without_figure("input messages", counts.input_events / counts.samples, table.reason("input_message"))
    graded = sum(counts.graded(name) for name in counts.layers) / counts.samples
    if not graded:
        return (messages,)
    effective, mac = sum(counts.graded(name, effective=True) for name in counts.layers) / counts.samples, mac_int8(cmos)
    equivalent = EnergyFigure(
        component="graded operations as 8-bit MACs in 45 nm, for comparison only, not in the total",
        count=graded,
        value=mac.value * graded,
        low=mac.low * effective,
        high=mac.high * graded,
        coefficient=f"{mac.value:g} pJ per MAC, arithmetic only; high: a 32-bit sum",
        source=cmos.coefficients["int8_multiply"].citation,
    )
    return _without_figure("graded operations", graded, table.reason("graded_operation")), equivalent, messages


def _without_figure(component: str, count: float, reason: str) -> EnergyFigure:
    return EnergyFigure(component=component, count=count, value=None, low=None, high=None, coefficient="no figure", source=reason)


def _layer(name: str, counts: Counts, components: tuple[_Component, ...], table: CostTable) -> LayerEnergy:
    charges = (_charge(table, item.operation, item.counts[name], item.fewest[name]) for item in components)
    total, layer = _sum(charges), counts.layers[name]
    return LayerEnergy(
        layer=name,
        synops=counts.synops(name) / counts.samples,
        graded_operations=counts.graded(name) / counts.samples,
        active_updates=layer.active_updates / counts.samples,
        inactive_updates=layer.inactive_updates / counts.samples,
        value=total.value,
        low=total.low,
        high=total.high,
    )


def _target(deployment: Deployment) -> str | None:
    quantisation = deployment.contract.quantisation
    return None if quantisation is None else quantisation.target


def _label(deployment: Deployment, table: CostTable) -> str:
    label = f"estimate from operation counts; {table.title}"
    if _target(deployment) == "loihi2" and table.name == "loihi1":
        return f"{label}, because no energy per operation is published for Loihi 2"
    if _target(deployment) is None:
        return f"{label}; the network is not quantised, so no chip runs it as it is"
    return label


def _break_even(deployment: Deployment, counts: Counts) -> tuple[str, ...]:
    spiking = [layer for name, layer in counts.layers.items() if deployment.contract.neurons[name].spiking]
    updates = sum(layer.updates for layer in spiking)
    rate = sum(layer.spikes for layer in spiking) / updates if updates else 0.0
    bits = counts.steps.bit_length()  # ceil(log2(T + 1)) for every T >= 1
    side = "below" if rate < BREAK_EVEN_RATE else "above"
    steps = "" if counts.steps == BREAK_EVEN_STEPS else f", though that limit is for T = {BREAK_EVEN_STEPS}"
    low, high = COMPETITIVE_SPIKES
    measured = counts.spikes_per_synapse
    verdict = "above both" if measured > high else "below both" if measured < low else "between the two"
    return (
        f"Measured firing rate of the spiking layers: {100 * rate:.1f} % per step, at T = {counts.steps}. "
        f"Against a quantised ANN of ceil(log2(T + 1)) bits (here {bits}), an SNN at T = {BREAK_EVEN_STEPS} needs less than "
        f"about {100 * BREAK_EVEN_RATE:.1f} % (Yan, Bai, Tang and Wong, arXiv 2409.08290 v4; earlier versions: 6.4 %). "
        f"This network lies {side} it{steps}.",
        f"Measured: {measured:.3f} spikes per synapse and inference. With memory accesses counted, integrate-and-fire networks "
        f"compete only below {low} to {high}, depending on the ANN's implementation, and leaky neurons cost more (Dampfhoffer et "
        f"al., Are SNNs really more energy-efficient than ANNs?, IEEE TETCI 7(3), 2023). This network lies {verdict}.",
    )


def _limits(deployment: Deployment, counts: Counts, table: CostTable, cmos: CostTable) -> tuple[str, ...]:
    travel = max(deployment.contract.latency.values(), default=0)
    notes = [
        "An update counts as active where the neuron spikes. If active meant that anything arrives or there is a bias, "
        "nearly every update would be: the upper end of the range.",
        "All synapses are charged; the lower end leaves out those with a weight of zero.",
        f"Updates are counted for the {counts.steps} steps of an inference. Not charged: the steps in which spikes travel "
        f"through the layers (up to {travel}), and clearing the state between inputs.",
    ]
    if _target(deployment) == "loihi2" and table.name == "loihi1":
        notes.insert(0, "No energy per operation is published for Loihi 2: these are Loihi 1's figures, for orientation.")
    return (*notes, *table.limits, *cmos.limits)

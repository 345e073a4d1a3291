"""From operation counts to picojoule: an estimate with ranges and sources, never one bare number.

An operation is charged only if a table has a published figure for it. What has none (a graded synaptic operation, a message
that enters the chip) is listed with its count and without an energy, and stays out of the total; in particular a graded
operation is never charged at the figure of a binary spike.

Ranges: ``low`` and ``high`` are the ends of the coefficient's range times the count. ``low`` of synaptic operations counts
nonzero weights only, because whether zeros are stored as synapses is the mapper's choice. A layer's energy is what happens
in it and the messages its own spikes cause, so layers add up to the total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from snn_export.energy import baselines, break_even, curve, latency, limits, neurobench, verdicts
from snn_export.energy.charging import Amount, charge, total
from snn_export.energy.cost_table import TITLES, CostTable, load_table, table_names
from snn_export.energy.counts import Counts
from snn_export.energy.operations import (
    NOTHING,
    Beside,
    Component,
    carries_values,
    components,
    operations_of,
    spikes_per_synapse,
)
from snn_export.export.deployment import Deployment
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import (
    EarlyExit,
    EnergyFigure,
    EnergyOperations,
    EnergyReport,
    LayerEnergy,
    LayerPart,
    UsedTable,
)

_OF_THE_HOST = ("encoded_value", "host_mac")
"""Components that no chip's table can price."""
_UNPLACED = "not placed on cores"
_OF_A_PLACEMENT = ("spike_message", "hop_east_west", "hop_north_south", "hop_between_chips")
"""Operations whose counts belong to the chip that the network is placed on, where it is placed."""


def estimate(deployment: Deployment, counts: Counts, table: CostTable, beside: Beside = NOTHING) -> EnergyReport:
    """Energy per inference of the counted run, with ranges, sources, baselines and break-even rates.

    Args:
        deployment: the network that was counted.
        counts: from :class:`snn_export.energy.counts.Counter`.
        table: the chip's coefficients, see :func:`snn_export.energy.cost_table.find_table`.
        beside: what else is known: steps, early exit, teacher, placement.

    Raises:
        UserError: SNX321 where the counts or the placement belong to another deployment.
    """
    return estimate_from(operations_of(deployment, counts, beside), table)


def estimate_from(found: EnergyOperations, table: CostTable) -> EnergyReport:
    """The same from the record that a report keeps of its counts; with another table it is another estimate of the same run."""
    cmos, kept = load_table("cmos45"), found
    found, table = _fitting(found, table)
    parts = _titled(found)
    charges = [charge(table, item.operation, item.total, item.least) for item in parts]
    whole = total((amount, item.total) for amount, item in zip(charges, parts, strict=True))
    own, early = _own(found, cmos)
    others = _others(found, cmos)
    unpriced = tuple(item.title for item, amount in zip(parts, charges, strict=True) if amount is None and item.total)
    chip = verdicts.ChipEstimate(table.title, table.process, whole, unpriced)
    compared = verdicts.compare(own, early, others, chip)
    points, early_exit = curve.points(found, table), curve.exit_report(found, table)
    knee, knee_chosen_on = curve.knee_of(found, points)
    return EnergyReport(
        label=_label(found, table),
        samples=found.samples,
        table=table.name,
        table_digest=table.digest,
        table_file=table.file,
        tables=tuple(UsedTable(name=item.name, digest=item.digest, file=item.file) for item in (table, cmos, *_comparisons())),
        layers=_layers(found, parts, table),
        figures=(*_figures(found, parts, charges, table), *_graded_equivalent(found, cmos)),
        total=None if whole is None else whole.value,
        total_low=None if whole is None else whole.low,
        total_high=None if whole is None else whole.high,
        process=cmos.process,
        cmos=(*own.values(), *early.values()),
        baselines=tuple(others["twin"].values()),
        teacher=tuple(others["teacher"].values()) if "teacher" in others else (),
        comparisons=compared,
        verdict=verdicts.verdict(compared, cmos.process, chip, _accuracies(found, early_exit)),
        spikes_per_synapse=spikes_per_synapse(found),
        break_even=break_even.sentences(found),
        curve=points,
        knee=knee,
        knee_chosen_on=knee_chosen_on,
        early_exit=early_exit,
        memory=baselines.memory_accesses(found),
        neurobench=neurobench.metrics(found),
        latency=latency.estimate_latency(found, table),
        other_chips=_other_chips(found),
        limits=_limits(found, table, cmos),
        operations=kept,
    )


def _fitting(found: EnergyOperations, table: CostTable) -> tuple[EnergyOperations, CostTable]:
    """Counts and table such that no packet and no hop of one chip is charged at the figures of another.

    A table that belongs to no chip prices spikes as if nothing were placed, which is what a run with that table does. One of
    another chip has no figure for packets and hops: on that chip they would be others.
    """
    if not found.journeys or found.placed_on == table.chip:
        return found, table
    if not table.chip:
        why = f"the table {table.name} names no chip"
        bare = {"journeys": (), "placed_on": "", "placed_cores": 0, "placed_tiles": 0, "placed_chips": 0, "cores": ()}
        return found.model_copy(update={**bare, "unplaced": why}), table
    here, there = (TITLES.get(name, name) for name in (found.placed_on, table.chip))
    why = f"counted on {here}; on {there}, which the table prices, they are others: a run with this table counts them"
    coefficients = {name: item for name, item in table.coefficients.items() if name not in _OF_A_PLACEMENT}
    reasons = {**table.no_figure, **dict.fromkeys(_OF_A_PLACEMENT, why)}
    return found, table.model_copy(update={"coefficients": coefficients, "no_figure": reasons})


def _titled(found: EnergyOperations) -> tuple[Component, ...]:
    """The components; packets and hops say where the network was placed, if that is not the chip it was made for."""
    made = components(found)
    if not found.journeys or found.placed_on == found.target:
        return made
    where = f", placed on {TITLES.get(found.placed_on, found.placed_on)}"
    return tuple(replace(item, title=f"{item.title}{where}") if item.operation in _OF_A_PLACEMENT else item for item in made)


def _comparisons() -> tuple[CostTable, ...]:
    return tuple(load_table(name) for name in table_names("comparison"))


def _accuracies(found: EnergyOperations, early: EarlyExit | None) -> verdicts.Accuracies:
    """What an early exit does to the accuracy, and the teacher's, where they are known; percent."""
    teacher = found.teacher
    right = None if teacher is None or teacher.correct is None else 100.0 * teacher.correct / teacher.samples
    return verdicts.Accuracies(None if early is None else early.accuracy, None if early is None else early.accuracy_full, right)


def _own(found: EnergyOperations, cmos: CostTable) -> tuple[verdicts.Figures, verdicts.Figures]:
    """This network on the terms of the ANNs; and with early exit, on the fairest of them alone, where it has one."""
    own = baselines.figures(verdicts.OWN, baselines.own_work(found), cmos)
    if found.early_exit is None:
        return own, {}
    stopped = baselines.figures(verdicts.EARLY, baselines.early_work(found, found.early_exit.total), cmos)[verdicts.FAIREST]
    return own, {verdicts.FAIREST: stopped.model_copy(update={"operation": f"{stopped.operation}_early_exit"})}


def _others(found: EnergyOperations, cmos: CostTable) -> dict[verdicts.Opponent, verdicts.Figures]:
    """The ANNs: the twin, and the teacher where it was counted."""
    work: dict[verdicts.Opponent, baselines.Work] = {"twin": baselines.twin_work(found)}
    if found.teacher is not None:
        work["teacher"] = baselines.teacher_work(found.teacher)
    return {name: baselines.figures(verdicts.OPPONENTS[name], each, cmos) for name, each in work.items()}


def _figures(
    found: EnergyOperations, parts: Sequence[Component], charges: Sequence[Amount | None], table: CostTable
) -> tuple[EnergyFigure, ...]:
    made = []
    for item, amount in zip(parts, charges, strict=True):
        if amount is None:
            made.append(
                EnergyFigure(
                    component=item.title, operation=item.operation, count=item.total, value=None, low=None, high=None,
                    coefficient="no figure", source=_reason(item.operation, table),
                )
            )  # fmt: skip
            continue
        coefficient = table.coefficients[item.operation]
        made.append(
            EnergyFigure(
                component=item.title, operation=item.operation, count=item.total, value=amount.value, low=amount.low,
                high=amount.high, coefficient=coefficient.told, source=coefficient.citation,
            )
        )  # fmt: skip
        if item.operation == "spike_message" and not found.journeys:
            made.append(
                EnergyFigure(
                    component="hops between tiles", operation="hop", count=None, value=None, low=None, high=None,
                    coefficient=_UNPLACED, source=f"{_UNPLACED}: how far a spike travels is not known",
                )
            )  # fmt: skip
    return tuple(made)


def _reason(operation: str, table: CostTable) -> str:
    return "work of the host, which no table of a chip prices" if operation in _OF_THE_HOST else table.reason(operation)


def _graded_equivalent(found: EnergyOperations, cmos: CostTable) -> tuple[EnergyFigure, ...]:
    """Graded operations as what they are arithmetically, 8-bit MACs: for orientation, not in the total."""
    many, few = found.graded() / found.samples, found.graded(effective=True) / found.samples
    if not many:
        return ()
    mac = baselines.mac(cmos, "INT8")
    return (
        EnergyFigure(
            component=f"graded operations as 8-bit MACs in {cmos.process}, for comparison only, not in the total",
            operation="graded_operation_int8",
            count=many,
            value=mac.value * many,
            low=mac.low * few,
            high=mac.high * many,
            coefficient=f"{mac.value:g} pJ per MAC, arithmetic only; high: a 32-bit sum",
            source=cmos.coefficients["int8_multiply"].citation,
        ),
    )


def _layers(found: EnergyOperations, parts: Sequence[Component], table: CostTable) -> tuple[LayerEnergy, ...]:
    """Every layer; and where packets begin or end outside the cores, if that has a figure."""
    outside = dict.fromkeys(name for item in parts for name in item.counts if name not in {layer.layer for layer in found.layers})
    made = [_layer(layer.layer, found, parts, table) for layer in found.layers]
    rows = (_layer(name, found, parts, table) for name in outside)
    return (*made, *(row for row in rows if row.value))


def _layer(name: str, found: EnergyOperations, parts: Sequence[Component], table: CostTable) -> LayerEnergy:
    rows = [
        (item, charge(table, item.operation, item.counts.get(name, 0.0), item.least_of(name)))
        for item in parts
        if name in item.counts
    ]
    whole = total((amount, item.counts[name]) for item, amount in rows)
    layer = next((item for item in found.layers if item.layer == name), None)
    samples = found.samples
    return LayerEnergy(
        layer=name,
        synops=0.0 if layer is None else layer.synops(found.binary_input) / samples,
        graded_operations=0.0 if layer is None else layer.graded(found.binary_input) / samples,
        active_updates=0.0 if layer is None else layer.spikes / samples,
        inactive_updates=0.0 if layer is None else (layer.updates - layer.spikes + found.idle_updates(layer)) / samples,
        value=None if whole is None else whole.value,
        low=None if whole is None else whole.low,
        high=None if whole is None else whole.high,
        parts=tuple(
            LayerPart(
                component=item.title, operation=item.operation, count=item.counts[name], value=amount.value, low=amount.low,
                high=amount.high,
            )
            for item, amount in rows if amount is not None
        ),
    )  # fmt: skip


def _other_chips(found: EnergyOperations) -> tuple[EnergyFigure, ...]:
    """This network's synaptic operations at the figures of other chips: for orientation, none of them is a target."""
    many, few = found.synops() / found.samples, found.synops(effective=True) / found.samples
    made = []
    for table in _comparisons():
        for chip, item in table.coefficients.items():
            amount = Amount(item.value * many, item.low * few, item.high * many)
            made.append(
                EnergyFigure(
                    component=item.title or chip, operation=chip, count=many, value=amount.value, low=amount.low,
                    high=amount.high, coefficient=item.told, source=item.citation,
                )
            )  # fmt: skip
    return tuple(made)


def _label(found: EnergyOperations, table: CostTable) -> str:
    label = f"estimate from operation counts; {table.title}"
    label += f" (file {table.file})" if table.file else ""
    if found.target == "loihi2" and table.shipped:
        return f"{label}, because no energy per operation is published for Loihi 2"
    if found.target is None:
        return f"{label}; the network is not quantised, so no chip runs it as it is"
    if table.chip and table.chip != found.target:
        here, there = (TITLES.get(name, name) for name in (table.chip, found.target))
        return f"{label}, which belong to {here}; the network is quantised for {there}"
    return label


def _limits(found: EnergyOperations, table: CostTable, cmos: CostTable) -> tuple[str, ...]:
    notes = [*limits.of_the_count(found), _transport_note(found, table), *limits.of_stopping_early(found)]
    if found.target == "loihi2" and table.shipped:
        notes.insert(0, "No energy per operation is published for Loihi 2: these are Loihi 1's figures, for orientation.")
    if table.process != cmos.process:
        notes.append(f"Two processes: {table.title} are figures for {table.process}, the ANNs are charged in {cmos.title}.")
    others = (limit for item in _comparisons() for limit in item.limits)
    return (*notes, *table.limits, *cmos.limits, baselines.MEMORY_MODEL, *others)


def _transport_note(found: EnergyOperations, table: CostTable) -> str:
    if not found.journeys:
        why = f" ({found.unplaced})" if found.unplaced else ""
        return (
            f"Not placed on cores{why}: hops between tiles are not charged. Each spike is charged one message inside a tile; a "
            "neuron that reaches several cores sends one to each."
        )
    if found.placed_on != table.chip:
        return f"Packets and hops: {table.reason('spike_message')}."
    spikes = [item for item in found.journeys if not carries_values(found, item)]
    packets, near = (sum(getattr(item, name) for item in spikes) for name in ("packets", "within_router"))
    return (
        f"Packets and hops are those of a placement on {found.placed_on}, made with this run's activity. Every packet "
        "of a spike is charged as one spike within a tile, whether it leaves its tile or not, and its hops besides, since "
        f"the source of the figures does not say whether a hop includes it; {formatting.amount(near)} of "
        f"{formatting.amount(packets)} packets per inference stay at their tile."
    )

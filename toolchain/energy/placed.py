"""A placement as the record that a report keeps of it."""

from __future__ import annotations

from snn_export.hardware_sims.chips.chip_table import RESOURCES
from snn_export.hardware_sims.placement import placement as placing
from snn_export.hardware_sims.placement.placement import Placement
from snn_export.reporting.placement_records import MeshLink, PlacedCore, PlacedLayer, PlacedLimit, PlacedPart, PlacementReport


def placement_report(placement: Placement) -> PlacementReport:
    """The record of a placement."""
    rows, columns = placement.mesh.shape
    capacities = placement.chip.capacities
    return PlacementReport(
        chip=placement.chip.name,
        chip_title=placement.chip.title,
        chips=placement.chips,
        cores=len(placement.cores),
        rows=rows,
        columns=columns,
        cores_per_router=placement.mesh.cores_per_router,
        chip_rows=placement.mesh.rows,
        chip_columns=placement.mesh.columns,
        limits=tuple(_limit(placement, name) for name in capacities),
        layers=tuple(_layer(placement, layer) for layer in placement.layers),
        placed=tuple(
            PlacedCore(
                chip=core.chip, row=core.row, column=core.column, slot=core.slot,
                parts=tuple(PlacedPart(layer=piece.population, neurons=piece.neurons) for piece in core.pieces),
                **_fullest({name: core.used[name] / capacity for name, capacity in capacities.items()}),
            )
            for core in placement.cores
        ),
        links=tuple(
            MeshLink(
                row=link.row, column=link.column, to_row=link.to_row, to_column=link.to_column, packets=link.spikes,
                between_chips=link.between_chips,
            )
            for link in placement.links
        ),
        spike_hops=placement.spike_hops,
        naive_spike_hops=placement.naive_spike_hops,
        unchecked=tuple(f"{RESOURCES[name]}: {why}" for name, why in placement.unchecked.items()),
        assumptions=placement.assumptions,
    )  # fmt: skip


def _limit(placement: Placement, name: str) -> PlacedLimit:
    limit, shares = placement.chip.limits[name], placement.utilisation(name)
    return PlacedLimit(
        resource=RESOURCES[name], capacity=placement.chip.capacities[name], unit=limit.unit, source=limit.citation,
        mean=sum(shares) / len(shares), most=max(shares),
    )  # fmt: skip


def _fullest(shares: dict[str, float]) -> dict[str, str | float]:
    name = max(shares, key=lambda each: shares[each])
    return {"fullest": shares[name], "fullest_by": RESOURCES[name].partition(":")[0]}


def _layer(placement: Placement, layer: placing.PlacedLayer) -> PlacedLayer:
    stored = "; ".join(f"{', '.join(kinds)} ({layer.weight_bits[name]} bits)" for name, kinds in layer.encodings.items())
    pieces = [piece for core in placement.cores for piece in core.pieces if piece.population == layer.name]
    return PlacedLayer(
        layer=layer.name, cores=len(set(layer.cores)), neurons=sum(piece.neurons for piece in pieces), encodings=stored,
        binding=RESOURCES[layer.binding.resource], needed=layer.binding.needed, capacity=layer.binding.capacity,
        remedies=layer.remedies,
    )  # fmt: skip

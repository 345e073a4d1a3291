"""A placement as the record that a report keeps of it."""

from __future__ import annotations

from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.placement.placement import PlacedLayer, Placement
from snn_export.reporting.placement_records import MeshLink, PlacedLimit, PlacedPart, PlacementReport, ReportedCore, ReportedLayer


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
            ReportedCore(
                chip=core.chip, row=core.row, column=core.column, slot=core.slot,
                parts=tuple(PlacedPart(layer=piece.population, neurons=piece.neurons) for piece in core.pieces),
                **_fullest({name: core.used[name] / capacity for name, capacity in capacities.items()}),
            )
            for core in placement.cores
        ),
        links=tuple(
            MeshLink(
                row=link.row, column=link.column, to_row=link.to_row, to_column=link.to_column, packets=link.packets,
                between_chips=link.between_chips,
            )
            for link in placement.links
        ),
        spike_hops=placement.spike_hops,
        naive_spike_hops=placement.naive_spike_hops,
        unchecked=tuple(f"{RESOURCES[name].title}: {why}" for name, why in placement.unchecked.items()),
        assumptions=placement.assumptions,
    )  # fmt: skip


def _limit(placement: Placement, name: str) -> PlacedLimit:
    limit, shares, resource = placement.chip.limits[name], placement.utilisation(name), RESOURCES[name]
    return PlacedLimit(
        resource=resource.title, explained=resource.explained, capacity=placement.chip.capacities[name], unit=limit.unit,
        source=limit.citation, mean=sum(shares) / len(shares), most=max(shares),
    )  # fmt: skip


def _fullest(shares: dict[str, float]) -> dict[str, str | float]:
    name = max(shares, key=lambda each: shares[each])
    return {"fullest": shares[name], "fullest_by": RESOURCES[name].title}


def _layer(placement: Placement, layer: PlacedLayer) -> ReportedLayer:
    stored = "; ".join(f"{', '.join(kinds)} ({layer.weight_bits[name]} bits)" for name, kinds in layer.encodings.items())
    pieces = [piece for core in placement.cores for piece in core.pieces if piece.population == layer.name]
    return ReportedLayer(
        layer=layer.name, cores=len(set(layer.cores)), neurons=sum(piece.neurons for piece in pieces), encodings=stored,
        binding=RESOURCES[layer.binding.resource].title, needed=layer.binding.needed, capacity=layer.binding.capacity,
        remedies=layer.remedies,
    )  # fmt: skip

"""From a ladder's results to a Report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import bounds, grid
from snn_export.export.deployment import Deployment
from snn_export.export.graph import SYNAPSE_TYPES, weight_array
from snn_export.models.arithmetic import WEIGHT_MIN, weight_step
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.placement_records import PlacementReport
from snn_export.reporting.report import (
    AccuracyCurve,
    Activity,
    Attribution,
    Comparison,
    CoverageItem,
    Gate,
    LayerComparison,
    NetworkSize,
    QuantisedLayer,
    Raster,
    Report,
    Rung,
    TrainingSummary,
    Verdict,
)
from snn_export.verification import deviations
from snn_export.verification import gates as gating
from snn_export.verification.compare import ComparisonTally, Tolerance
from snn_export.verification.ladder import LadderResult, Link, RungResult
from snn_export.verification.lags import lag_gates
from snn_export.verification.statistics import mcnemar_p, wilson_interval

_WORST_FIRST: tuple[Verdict, ...] = ("ERROR", "UNAVAILABLE", "NOT_COMPARED", "DRIFT", "WITHIN", "TIE", "EXACT", "SKIPPED")
FLOAT_BITS = 32
"""Of a weight of a network that is not quantised."""
NOT_MODELLED = (
    CoverageItem(
        what="a physical Loihi chip",
        status="NOT_MODELLED",
        why="Loihi is simulated: by our integer simulator and by Lava's fixed-point models",
    ),
)


def comparisons_of(ladder: LadderResult, criteria: gating.Criteria) -> tuple[Comparison, ...]:
    """Every link's result; links to absent or broken rungs say so."""
    return tuple(_comparison(ladder, link, tally, criteria.tolerance_for(link.target)) for link, tally in ladder.links)


def _comparison(ladder: LadderResult, link: Link, tally: ComparisonTally, tolerance: Tolerance) -> Comparison:
    ends = [ladder.rung(link.reference), ladder.rung(link.target)]
    failed = next((end for end in ends if end.status is not None), None)
    forms = [end.rung.deployment for end in ends]
    shared = [name for name in forms[1].layers if name in forms[0].layers]
    layers = () if failed is not None else tally.finish(tolerance, shared)
    verdict = failed.status if failed is not None and failed.status else _worst([layer.verdict for layer in layers])
    suspects = [layer for layer in layers if layer.verdict in ("DRIFT", "NOT_COMPARED")]
    certain = [layer for layer in suspects if layer.verdict == "DRIFT" or tally.lacks(layer.layer)]
    faulty = next(iter([*certain, *suspects]), None)
    itself, side = tally.at_fault(tolerance) if verdict == "DRIFT" else (None, None)
    paired = tally.labelled and tally.labelled == tally.samples
    return Comparison(
        reference=link.reference,
        target=link.target,
        required=ends[1].rung.required,
        verdict=verdict,
        samples=tally.samples,
        layers=layers,
        first_faulty_layer=None if faulty is None else faulty.layer,
        decisions_equal=tally.decisions_equal,
        message=_with_cause(_message(failed, faulty, tally), link.because if verdict in ("DRIFT", "WITHIN") else ""),
        log=None if failed is None else failed.log,
        first_faulty_isolated=itself,
        faulty_side=side,
        agreement_interval=wilson_interval(tally.decisions_equal, tally.samples) if tally.samples else None,
        only_reference_right=tally.only_reference_right if paired else None,
        only_target_right=tally.only_target_right if paired else None,
        mcnemar_p=mcnemar_p(tally.only_reference_right, tally.only_target_right) if paired else None,
    )


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return min(verdicts, key=_WORST_FIRST.index, default="NOT_COMPARED")


def _message(failed: RungResult | None, faulty: LayerComparison | None, tally: ComparisonTally) -> str:
    if failed is not None:
        return "; ".join(f"{finding.code} {finding.what}: {finding.why}" for finding in failed.findings)
    if faulty is None:
        return ""
    if faulty.verdict == "NOT_COMPARED":
        return f"{faulty.layer}: {tally.missing.get(faulty.layer, 'membranes were not recorded')}"
    if faulty.first_divergence is None and faulty.layer in tally.denied:
        return f"{faulty.layer} agrees in every step; its overflow count, or the decisions read from it, do not"
    if faulty.first_divergence is None:
        return f"{faulty.layer} is the first layer that differs"
    return f"first in {faulty.layer}: {formatting.divergence(faulty.first_divergence)}"


def _with_cause(message: str, because: str) -> str:
    return "; ".join(part for part in (message, because) if part)


def ladder_rungs(ladder: LadderResult, comparisons: tuple[Comparison, ...]) -> tuple[Rung, ...]:
    """One record per rung: accuracy, and the verdict of the first link that ends there."""
    found = []
    for result in ladder.rungs:
        link = next((c for c in comparisons if c.target == result.rung.name), None)
        measured = ladder.labelled and result.samples > 0
        mismatched = None if link is None or not link.layers else sum(layer.mismatched_spikes for layer in link.layers)
        found.append(
            Rung(
                name=result.rung.name,
                backend=result.rung.backend,
                description=result.rung.description,
                samples=result.samples,
                correct=result.correct if measured else None,
                accuracy=100.0 * result.correct / result.samples if measured else None,
                interval=wilson_interval(result.correct, result.samples) if measured else None,
                ties_in_readout=result.ties,
                compared_with=None if link is None else link.reference,
                verdict=result.status or (None if link is None else link.verdict),
                mismatched_spikes=mismatched,
                note="; ".join(finding.what for finding in result.findings),
            )
        )
    return tuple(found)


def curves(ladder: LadderResult) -> tuple[AccuracyCurve, ...]:
    """Accuracy after each step, for the rungs that ran on labelled samples."""
    return tuple(
        AccuracyCurve(rung=r.rung.name, accuracy=tuple(100.0 * int(n) / r.samples for n in r.correct_at))
        for r in ladder.rungs
        if r.correct_at is not None and r.samples
    )


def quantised_layers(deployment: Deployment, float_deployment: Deployment | None) -> tuple[QuantisedLayer, ...]:
    """The grid of every population; weight errors need the float deployment it came from."""
    quantisation = deployment.contract.quantisation
    if quantisation is None:
        return ()
    worst, targets = bounds.all_bounds(deployment), grid.synapse_targets(deployment)
    step = weight_step(quantisation.weight_bits)
    possible = {item.where.partition("[")[0]: f"{item.what}: {item.fix}" for item in bounds.overflow_findings(deployment)}
    found = []
    for name in deployment.layers:
        population = deployment.populations[name]
        names = [synapse for synapse, (target, _) in targets.items() if target == name]
        weights = (
            np.concatenate([deployment.synapses[synapse].weight.ravel() for synapse in names]) if names else np.zeros(0, np.int16)
        )
        found.append(
            QuantisedLayer(
                layer=name,
                scale=population.scale,
                binding=quantisation.binding.get(name, ""),
                threshold=population.threshold,
                du=population.du,
                dv=population.dv,
                bias_exponent=population.bias_exponent,
                weight_min=int(weights.min(initial=0)),
                weight_max=int(weights.max(initial=0)),
                weight_histogram=tuple(int(n) for n in np.histogram(weights, bins=32, range=(WEIGHT_MIN, -WEIGHT_MIN))[0]),
                weight_error_rms=_weight_error(deployment, float_deployment, names, step),
                current_bound=worst[name].current,
                membrane_bound=worst[name].membrane,
                overflow=possible.get(name, "cannot overflow"),
            )
        )
    return tuple(found)


def _weight_error(deployment: Deployment, origin: Deployment | None, names: list[str], step: int) -> float:
    """Root mean square of (grid - float) weights, in grid steps; 0 where the float network is not at hand."""
    if origin is None:
        return 0.0
    errors = []
    for name in names:
        node = origin.graph.nodes.get(name)
        if isinstance(node, SYNAPSE_TYPES) and weight_array(node).shape == deployment.synapses[name].weight.shape:
            rounded, held = weight_array(deployment.graph.nodes[name]), deployment.synapses[name].weight
            largest = np.abs(rounded).argmax()
            unit = float(np.abs(rounded).flat[largest]) / max(1, abs(int(held.flat[largest])))
            errors.append((rounded - weight_array(node)).ravel() / (unit * step))
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if errors else 0.0


def network_size(deployment: Deployment) -> NetworkSize:
    """Neurons and weights of a network; a float network's weights count with the 32 bits they are trained in."""
    quantisation = deployment.contract.quantisation
    bits = FLOAT_BITS if quantisation is None else quantisation.weight_bits
    weights = [weight_array(node) for node in deployment.graph.nodes.values() if isinstance(node, SYNAPSE_TYPES)]
    synapses = sum(weight.size for weight in weights)
    return NetworkSize(
        neurons=sum(int(np.prod(deployment.shapes[name])) for name in deployment.layers),
        synapses=synapses,
        nonzero=sum(int(np.count_nonzero(weight)) for weight in weights),
        weight_bits=bits,
        memory_bits=synapses * bits,
    )


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a report says beside its comparisons.

    Attributes:
        network: its name.
        dataset: name of the data.
        reference: rung that the rasters and the whole-way comparison start from.
        inputs: what was run, to count values outside the declared range.
        coverage: what was not covered and is known before the run.
        float_deployment: the form before quantisation, for weight errors.
        before: rungs that have accuracy but no spikes (the teacher), shown in front of the ladder.
        more_gates: gates about them.
        activity, rasters, attribution, placement, energy, training, settings, reproduce: as in :class:`Report`.
        fingerprints: SHA-256 of what else went in; those of the rungs are added.
    """

    network: str
    dataset: str
    reference: str
    inputs: NDArray[Any]
    coverage: tuple[CoverageItem, ...] = ()
    float_deployment: Deployment | None = None
    before: tuple[Rung, ...] = ()
    more_gates: tuple[Gate, ...] = ()
    activity: tuple[Activity, ...] = ()
    rasters: tuple[Raster, ...] = ()
    attribution: Attribution | None = None
    placement: PlacementReport | None = None
    energy: EnergyReport | None = None
    training: tuple[TrainingSummary, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    reproduce: tuple[str, ...] = ()


def report(deployment: Deployment, ladder: LadderResult, criteria: gating.Criteria, around: Surroundings) -> Report:
    """Judge a ladder's results by the criteria and put everything into a Report.

    Args:
        deployment: the form that is deployed.
        ladder: what ran.
        criteria: what is demanded.
        around: everything else the report shows.
    """
    comparisons = comparisons_of(ladder, criteria)
    outside = _outside(deployment, around.inputs)
    limit, setting = criteria.clipped_inputs, criteria.setting("clipped_inputs")
    in_range = () if outside is None else (gating.clipped(outside, int(np.size(around.inputs)), limit, setting),)
    gates = (*gating.evaluate(criteria, ladder, comparisons), *lag_gates(comparisons), *in_range, *around.more_gates)
    code = gating.exit_code(gates)
    quantisation = deployment.contract.quantisation
    return Report(
        tool_version=version("snn-export"),
        network=around.network,
        dataset=around.dataset,
        target=quantisation.target if quantisation else "float",
        passed=code == 0,
        exit_code=code,
        causes=tuple(f"{g.name}: {g.measured}" + (f" ({g.detail})" if g.detail else "") for g in gates if not g.passed),
        steps=deployment.contract.steps,
        samples=ladder.samples,
        reference=around.reference,
        gates=gates,
        coverage=(*around.coverage, *_absent(ladder), *_partial(ladder), *_silent(comparisons, ladder), *NOT_MODELLED),
        ladder=(*around.before, *ladder_rungs(ladder, comparisons)),
        comparisons=comparisons,
        carried=deviations.carried(ladder),
        quantisation=quantised_layers(deployment, around.float_deployment),
        input_grid=_input_grid(deployment),
        activity=around.activity,
        rasters=around.rasters,
        accuracy_over_time=curves(ladder),
        attribution=around.attribution,
        size=network_size(deployment),
        placement=around.placement,
        energy=around.energy,
        training=around.training,
        fingerprints={**around.fingerprints, **_fingerprints(ladder)},
        versions=dict(sorted({key: value for r in ladder.rungs for key, value in r.provenance.items()}.items())),
        settings=around.settings,
        reproduce=around.reproduce,
    )


def _fingerprints(ladder: LadderResult) -> dict[str, str]:
    """SHA-256 of the deployment behind every rung; of the trained module, that of its file."""
    found = {result.rung.name: result.rung.deployment.fingerprint for result in ladder.rungs if result.rung.name != "student"}
    student = next((result.rung for result in ladder.rungs if result.rung.name == "student"), None)
    if student is not None and "student" in student.deployment.contract.lineage.files:
        found["student"] = student.deployment.contract.lineage.files["student"].sha256
    return found


def _outside(deployment: Deployment, inputs: NDArray[Any]) -> int | None:
    """Input values that the grid clips; None where there is no grid."""
    encoder = deployment.contract.encoder
    if encoder.gain is None:
        return None
    half = 0.5 / encoder.gain
    low, high = encoder.low / encoder.gain - half, encoder.high / encoder.gain + half
    if encoder.kind == "rate":  # its levels are spikes; a value is cut off where it is no probability any more
        low, high = 0.0, encoder.full_scale
    return int(np.count_nonzero(inputs < low) + np.count_nonzero(inputs > high))


def _input_grid(deployment: Deployment) -> str:
    encoder = deployment.contract.encoder
    if encoder.gain is None:
        return "inputs are not quantised"
    return f"levels {encoder.low} to {encoder.high} ({encoder.bits} bits), one level = {1 / encoder.gain:.6g}"


def _silent(comparisons: tuple[Comparison, ...], ladder: LadderResult) -> list[CoverageItem]:
    """Spiking layers in which nothing fired anywhere: their agreement shows nothing."""
    spikes, spiking = dict[str, int](), gating.spiking_layers(ladder)
    for layer in (layer for comparison in comparisons for layer in comparison.layers):
        if layer.layer in spiking and layer.verdict != "NOT_COMPARED":
            spikes[layer.layer] = spikes.get(layer.layer, 0) + layer.reference_spikes + layer.got_spikes
    return [
        CoverageItem(
            what=f"spikes of {name}",
            status="NOT_COMPARED",
            why=f"{name} never fired on these samples, so its agreement shows nothing",
            fix="check the training and the input's range, or remove the layer",
        )
        for name, fired in spikes.items()
        if not fired
    ]


def _absent(ladder: LadderResult) -> list[CoverageItem]:
    items = []
    for result in ladder.rungs:
        if result.status in ("SKIPPED", "UNAVAILABLE"):
            finding = result.findings[0]
            items.append(
                CoverageItem(
                    what=f"{result.rung.name} ({result.rung.backend})", status=result.status, why=finding.why, fix=finding.fix
                )
            )
    return items


def _partial(ladder: LadderResult) -> list[CoverageItem]:
    return [
        CoverageItem(
            what=f"samples {r.samples} to {ladder.samples - 1} on {r.rung.name}",
            status="SKIPPED",
            why=f"{r.rung.name} was asked to run {r.rung.samples} of {ladder.samples} samples",
            fix=f"set samples = 0 for {r.rung.backend} to run all of them",
        )
        for r in ladder.rungs
        if r.status is None and r.samples < ladder.samples
    ]

"""Report: everything a verification found, as one object. Renderers read it and add nothing.

The same inputs give the same bytes: no times, no absolute paths, no machine facts. Those stand in ``run.json`` beside it.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.placement_records import PlacementReport
from snn_export.reporting.record import Record

SCHEMA_VERSION: Final = 2

Verdict = Literal["EXACT", "TIE", "WITHIN", "DRIFT", "NOT_COMPARED", "SKIPPED", "UNAVAILABLE", "ERROR"]
"""EXACT    every spike equal, and every membrane (bit for bit where both sides are integers)
TIE        every first difference is a membrane within the floating-point error bound of its threshold
WITHIN     differences inside the tolerance the config declares
DRIFT      differences outside it
NOT_COMPARED  the layer or rung could not be matched with anything: a failure
SKIPPED    optional and absent; listed in the coverage
UNAVAILABLE   required and absent
ERROR      the backend was there and broke"""


class Divergence(Record):
    """First place where two traces of a layer differ: lowest sample, then earliest step, then lowest neuron.

    neuron is the flat index into the layer's features, position the index per axis. expected and got are spikes, or
    membranes where the spikes agree everywhere (kind says which).
    """

    sample: int
    step: int
    neuron: int
    position: tuple[int, ...]
    kind: Literal["spike", "membrane"]
    expected: float
    got: float


class IsolatedComparison(Record):
    """One layer by itself: what the reference's form of it answers to the very spikes that it received in the target's run.

    Nothing upstream can show here, so a layer that differs is at fault itself. Only samples in which the two runs part anywhere
    are driven; in all others every layer received and gave what the reference did.
    """

    samples: int = Field(description="samples driven: those in which the two runs differ")
    mismatched_spikes: int = Field(description="between floats: flips that rounding does not explain")
    mismatched_membranes: int | None = Field(description="None where membranes cannot be held to anything but their spikes")
    membrane_difference_max: float | None = Field(description="largest |difference|, real units")
    first_divergence: Divergence | None
    reference_mismatched_spikes: int | None = Field(
        default=None, description="the same for the reference's own run, where both runs are held to the same form of the network"
    )
    reference_mismatched_membranes: int | None = None


class LayerLag(Record):
    """By how many steps a layer is shifted against what its backend declares: the shift under which the spikes agree best."""

    declared: int = Field(description="steps of latency that the backend declares for the layer")
    best: int = Field(description="further shift that agrees best; 0: as declared, 1: the spikes come one step late")
    mismatched: int = Field(description="spikes that differ under the declared latency, over the steps that all shifts share")
    mismatched_at_best: int


class LayerComparison(Record):
    """One layer of one backend against the reference. Spikes are compared in local time, after the declared latency."""

    layer: str
    verdict: Verdict
    neurons: int
    positions: int = Field(description="spike positions compared: steps x samples x neurons")
    reference_spikes: int
    got_spikes: int
    mismatched_spikes: int
    count_error_sum: int = Field(description="sum over neurons and samples of |spike count difference|")
    count_error_max: int
    neurons_with_count_error: int = Field(description="neurons whose count over all samples differs")
    first_divergence: Divergence | None
    membranes_compared: int
    mismatched_membranes: int | None = Field(description="integers: membranes that differ; None between float backends")
    membrane_difference_max: float | None = Field(description="largest |difference|, real units")
    currents_compared: int = 0
    mismatched_currents: int | None = None
    overflows: int | None = Field(description="wraps of u plus saturations of v in the backend; None where it cannot tell")
    latency: int
    ties: int = Field(default=0, description="samples whose first difference lies within the float error bound")
    tolerance_that_would_pass: float = Field(description="spikes of both sides without a counterpart, as a fraction of all")
    count_error_histogram: tuple[int, ...] = Field(
        default=(), description="neurons and samples by |spike count difference|: 0, 1, 2, 3-4, 5-8, more"
    )
    rate_error_mean: float | None = Field(default=None, description="mean |difference| of firing rates, spikes per step")
    rate_error_max: float | None = None
    spike_distance_mean: float | None = Field(
        default=None, description="mean Victor-Purpura distance of the spike trains that differ; moving a spike costs 0.5 a step"
    )
    spike_distance_trains: int = Field(default=0, description="pairs of spike trains behind that mean")
    lag: LayerLag | None = Field(default=None, description="None where nothing differs, or too little fires to tell")
    isolated: IsolatedComparison | None = Field(default=None, description="None where the layer could not be judged by itself")
    tolerance_spikes: float | None = Field(default=None, description="percent of spikes that was allowed to differ")


class Comparison(Record):
    """A backend against a reference on the same samples."""

    reference: str
    target: str
    required: bool
    verdict: Verdict
    samples: int
    layers: tuple[LayerComparison, ...]
    first_faulty_layer: str | None
    decisions_equal: int = Field(description="samples with the same prediction")
    message: str = ""
    log: str | None = None
    first_faulty_isolated: str | None = Field(
        default=None, description="first layer, sources first, that answers otherwise than it should to what it received"
    )
    faulty_side: Literal["target", "reference", "both"] | None = Field(
        default=None, description="whose own run leaves the contract; None where neither does, or that was not judged"
    )
    agreement_interval: tuple[float, float] | None = Field(
        default=None, description="95 % Wilson interval of the share of equal decisions, percent"
    )
    only_reference_right: int | None = Field(default=None, description="samples that only the reference gets right")
    only_target_right: int | None = None
    mcnemar_p: float | None = Field(
        default=None, description="exact McNemar test: chance of an imbalance this large if both were equally accurate"
    )


class Rung(Record):
    """One step of the ladder: a form of the network on one backend."""

    name: str = Field(description="teacher, student, folded, quantised, integer, or a backend's name")
    backend: str
    description: str
    samples: int
    correct: int | None
    accuracy: float | None = Field(description="percent")
    interval: tuple[float, float] | None = Field(description="95 % Wilson interval, percent")
    ties_in_readout: int = 0
    compared_with: str | None = None
    verdict: Verdict | None = None
    mismatched_spikes: int | None = None
    note: str = ""


class CarriedNode(Record):
    """How a backend carries one node of the network."""

    node: str
    kind: Literal["native", "rewritten", "emulated", "unsupported"] = Field(
        description="native: its own import reads it right; rewritten: after an equal change; emulated: put together by us"
    )
    why: str


class CarriedNetwork(Record):
    """How a backend carries the network, and what its neurons do otherwise than the contract says."""

    rung: str
    backend: str
    nodes: tuple[CarriedNode, ...]
    deviations: tuple[str, ...] = Field(default=(), description="each with the populations it holds for")
    model: str | None = Field(default=None, description="rung of the reference with these deviations")


class Gate(Record):
    """A condition from the config, with what was measured."""

    name: str
    required: str
    measured: str
    passed: bool
    skipped: bool = Field(
        default=False, description="not asked, because an optional backend is absent; neither passed nor failed"
    )
    exit_code: int = Field(description="exit code this gate causes when it fails")
    detail: str = ""
    setting: str = Field(
        default="", description="what demands it, e.g. gates.layers.lif2.spike_mismatch; empty: a caller does, or it always is"
    )


class CoverageItem(Record):
    """Something that was not covered, and why."""

    what: str
    status: Literal["SKIPPED", "NOT_COMPARED", "UNAVAILABLE", "NOT_MODELLED"]
    why: str
    fix: str = ""


class QuantisedLayer(Record):
    """Integer grid of one population and how well it is used."""

    layer: str
    scale: float
    binding: str = Field(description="the limit that keeps the scale from growing")
    threshold: int
    du: int
    dv: int
    bias_exponent: int
    weight_min: int
    weight_max: int
    weight_histogram: tuple[int, ...] = Field(description="32 equal bins over -256..256")
    weight_error_rms: float = Field(description="rms of (grid - float) weight, in grid steps")
    current_bound: int = Field(description="largest |u| any input of the declared range can cause")
    membrane_bound: int = Field(description="largest |v| likewise")
    overflow: str = Field("", description="whether u or v can leave its bits for some input of the declared range")


class Activity(Record):
    """Firing of one layer in the integer rung (all samples)."""

    layer: str
    rate: float = Field(description="spikes per neuron and step")
    dead: int = Field(description="neurons that never fired")
    saturated: int = Field(description="neurons that fired in every step of every sample")
    neurons: int
    rate_histogram: tuple[int, ...] = Field(description="neurons by rate, 20 equal bins over 0..1")


class Raster(Record):
    """Spikes of one sample in one layer, reference against target: [step, neuron] pairs."""

    layer: str
    reference: str
    target: str
    sample: int
    steps: int
    neurons: tuple[int, ...] = Field(description="flat indices of the neurons shown")
    both: tuple[tuple[int, int], ...] = Field(description="(step, row into neurons)")
    only_reference: tuple[tuple[int, int], ...]
    only_target: tuple[tuple[int, int], ...]
    membrane_neuron: int | None = None
    membrane_reference: tuple[float, ...] = ()
    membrane_target: tuple[float, ...] = ()
    membrane_threshold: float | None = None


class AccuracyCurve(Record):
    """Accuracy if the readout stopped after 1..T steps, percent."""

    rung: str
    accuracy: tuple[float, ...]


class EffectOnLayer(Record):
    """What switching one effect off in one layer alone does, everything else staying integer."""

    layer: str
    changed: int = Field(description="changed spikes that are left in the whole network")
    told: str = Field(default="", description='the numbers behind it, e.g. "beta 0.9 is held as 3686/4096"')


class Effect(Record):
    """One numeric effect of the way onto the chip.

    forward, backward: changed spikes it adds when the effects are switched on one after the other, in one order and in the
    opposite one. They differ where effects work together; the difference is the interaction.
    """

    name: str
    told: str = Field(description="the effect in words")
    forward: int
    backward: int
    interaction: int = Field(description="forward - backward")
    without: int = Field(description="changed spikes that are left when this effect alone is switched off in the integer network")
    removed: float | None = Field(description="share of the changed spikes that are gone then; None where nothing changed")
    forward_by_layer: tuple[int, ...] = Field(default=(), description="changed spikes per layer after it was switched on")
    accuracy: float | None = Field(default=None, description="percent, with all effects up to this one switched on")
    explains_first: bool = Field(description="the first divergence is gone when this effect alone is switched off")
    layers: tuple[EffectOnLayer, ...] = Field(default=(), description="only of the effect that is named as the cause")


class EffectLeftOut(Record):
    """An effect that can change nothing between these two forms of the network, and why."""

    name: str
    why: str


class Attribution(Record):
    """Where the changes between the float network and the integer one come from."""

    reference: str
    target: str
    samples: int
    layers: tuple[str, ...]
    changed: int = Field(description="spikes that differ between the float network and the full integer one")
    changed_by_layer: tuple[int, ...]
    spikes: int = Field(description="spikes of both networks together")
    effects: tuple[Effect, ...]
    left_out: tuple[EffectLeftOut, ...] = Field(default=(), description="effects that cannot change anything here")
    remainder: int = Field(description="spikes that differ between all effects together and the backend; 0: none is missing")
    cause: str | None = Field(description="the effect that by itself explains at least half of the changes; None: no single one")
    layer: str | None = None
    sentence: str
    fix: str = ""


class NetworkSize(Record):
    """What the network takes, counted on the deployment."""

    neurons: int
    synapses: int = Field(description="weights that are stored; a convolution's kernel counts once")
    nonzero: int
    weight_bits: int
    memory_bits: int = Field(description="synapses times bits per weight, without a chip's tables")


class TrainingSummary(Record):
    """How a model was trained."""

    model: str
    recipe: str
    epochs: int
    best_epoch: int
    validation_accuracy: float
    seed: int
    parameters: int


class Report(Record):
    """The whole verdict. ``passed`` and ``exit_code`` follow from gates and coverage, see verification/gates.py."""

    schema_version: Literal[2] = 2
    tool_version: str
    network: str
    dataset: str
    target: str
    passed: bool
    exit_code: int
    causes: tuple[str, ...] = Field(description="one sentence for every reason not to pass")
    steps: int
    samples: int
    reference: str
    gates: tuple[Gate, ...]
    coverage: tuple[CoverageItem, ...]
    ladder: tuple[Rung, ...]
    comparisons: tuple[Comparison, ...]
    carried: tuple[CarriedNetwork, ...] = ()
    quantisation: tuple[QuantisedLayer, ...] = ()
    input_grid: str = ""
    activity: tuple[Activity, ...] = ()
    rasters: tuple[Raster, ...] = ()
    accuracy_over_time: tuple[AccuracyCurve, ...] = ()
    attribution: Attribution | None = None
    size: NetworkSize | None = None
    placement: PlacementReport | None = None
    energy: EnergyReport | None = None
    training: tuple[TrainingSummary, ...] = ()
    fingerprints: dict[str, str] = Field(default_factory=dict, description="SHA-256 of deployments, checkpoint, data")
    versions: dict[str, str] = Field(default_factory=dict)
    settings: str = Field(default="", max_length=1 << 18, description="effective settings as TOML, data files by name only")
    reproduce: tuple[str, ...] = Field(default=(), description="what to do, in order, to get this report again")

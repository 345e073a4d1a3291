"""Report: everything a verification found, as one object. Renderers read it and add nothing.

The same inputs give the same bytes: no times, no absolute paths, no machine facts. Those stand in ``run.json`` beside it.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1

Verdict = Literal["EXACT", "TIE", "WITHIN", "DRIFT", "NOT_COMPARED", "SKIPPED", "UNAVAILABLE", "ERROR"]
"""EXACT    every spike equal, and every membrane (bit for bit where both sides are integers)
TIE        every first difference is a membrane within the floating-point error bound of its threshold
WITHIN     differences inside the tolerance the config declares
DRIFT      differences outside it
NOT_COMPARED  the layer or rung could not be matched with anything: a failure
SKIPPED    optional and absent; listed in the coverage
UNAVAILABLE   required and absent
ERROR      the backend was there and broke"""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Divergence(_Record):
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


class LayerComparison(_Record):
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


class Comparison(_Record):
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


class Rung(_Record):
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


class CarriedNode(_Record):
    """How a backend carries one node of the network."""

    node: str
    kind: Literal["native", "rewritten", "emulated", "unsupported"] = Field(
        description="native: its own import reads it right; rewritten: after an equal change; emulated: put together by us"
    )
    why: str


class CarriedNetwork(_Record):
    """How a backend carries the network, and what its neurons do otherwise than the contract says."""

    rung: str
    backend: str
    nodes: tuple[CarriedNode, ...]
    deviations: tuple[str, ...] = Field(default=(), description="each with the populations it holds for")
    model: str | None = Field(default=None, description="rung of the reference with these deviations")


class Gate(_Record):
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


class CoverageItem(_Record):
    """Something that was not covered, and why."""

    what: str
    status: Literal["SKIPPED", "NOT_COMPARED", "UNAVAILABLE", "NOT_MODELLED"]
    why: str
    fix: str = ""


class QuantisedLayer(_Record):
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


class Activity(_Record):
    """Firing of one layer in the integer rung (all samples)."""

    layer: str
    rate: float = Field(description="spikes per neuron and step")
    dead: int = Field(description="neurons that never fired")
    saturated: int = Field(description="neurons that fired in every step of every sample")
    neurons: int
    rate_histogram: tuple[int, ...] = Field(description="neurons by rate, 20 equal bins over 0..1")


class Raster(_Record):
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


class AccuracyCurve(_Record):
    """Accuracy if the readout stopped after 1..T steps, percent."""

    rung: str
    accuracy: tuple[float, ...]


class EnergyFigure(_Record):
    """An amount in picojoule per inference with its range, and where the coefficient comes from."""

    component: str
    count: float = Field(description="operations per inference")
    value: float | None = Field(description="pJ per inference; None where no figure is published")
    low: float | None
    high: float | None
    coefficient: str
    source: str


class LayerEnergy(_Record):
    """Operations of one layer per inference, averaged over the samples that ran."""

    layer: str
    synops: float = Field(description="binary synaptic events, exact fan-out")
    graded_operations: float = Field(description="graded input times synapses: effective MACs, charged apart")
    active_updates: float
    inactive_updates: float
    value: float | None
    low: float | None
    high: float | None


class EnergyReport(_Record):
    """Estimate from the spikes of the run at hand."""

    label: str
    samples: int
    table: str
    layers: tuple[LayerEnergy, ...]
    figures: tuple[EnergyFigure, ...]
    total: float | None = Field(description="pJ per inference, without what has no figure")
    total_low: float | None
    total_high: float | None
    baselines: tuple[EnergyFigure, ...] = Field(description="the same network as an ANN, FP32 and INT8, 45 nm")
    spikes_per_synapse: float = Field(description="measured spikes per synapse and inference")
    break_even: tuple[str, ...] = Field(description="published break-even rates, as sentences with their source")
    limits: tuple[str, ...]


class TrainingSummary(_Record):
    """How a model was trained."""

    model: str
    recipe: str
    epochs: int
    best_epoch: int
    validation_accuracy: float
    seed: int
    parameters: int


class Report(_Record):
    """The whole verdict. ``passed`` and ``exit_code`` follow from gates and coverage, see verification/gates.py."""

    schema_version: Literal[1] = 1
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
    energy: EnergyReport | None = None
    training: tuple[TrainingSummary, ...] = ()
    fingerprints: dict[str, str] = Field(default_factory=dict, description="SHA-256 of deployments, checkpoint, data")
    versions: dict[str, str] = Field(default_factory=dict)
    settings: str = Field(default="", description="effective settings as TOML, data files by name only")
    reproduce: tuple[str, ...] = Field(default=(), description="what to do, in order, to get this report again")

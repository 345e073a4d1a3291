"""What a report says about energy and time; part of :class:`snn_export.reporting.report.Report`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from snn_export.reporting.record import Record

LARGEST: Final = 1e18
"""Above any count of a report; products with the largest coefficients of a cost table stay finite."""
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Mean = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
"""A count per inference or step."""
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""An energy, a time, a rate."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_ROUNDING: Final = 1e-9
"""Relative error of sums whose terms were added in another order."""


def _ordered(low: float | None, value: float | None, high: float | None, told: str = "") -> None:
    """Raise ValueError unless all three are there in this order, or none of them."""
    known = [number for number in (low, value, high) if number is not None]
    if len(known) not in (0, 3):
        raise ValueError(f"{told}value, low and high are given together or not at all")
    if known and not all(one <= other * (1 + _ROUNDING) for one, other in pairwise(known)):
        raise ValueError(f"{told}low <= value <= high does not hold: {low}, {value}, {high}")


def _at_most(part: float, whole: float, told: str) -> None:
    """Raise ValueError where a part is larger than its whole."""
    if part > whole * (1 + _ROUNDING):
        raise ValueError(f"{told}: {part} of {whole}")


def _sum(records: Iterable[Record], name: str) -> int:
    return sum(getattr(record, name) for record in records)


class Ranged(Record):
    """A record with ``value``, ``low`` and ``high``: in order, or None all three."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ordered(*(getattr(self, name) for name in ("low", "value", "high")))
        return self


class EnergyFigure(Ranged):
    """An amount in picojoule per inference with its range, and where the coefficient comes from."""

    component: str
    operation: str = Field(
        description="what the component is, for programs: the operation as a cost table names it, or a network's terms, or a chip"
    )
    count: Mean | None = Field(description="operations per inference; None where they could not be counted")
    value: Quantity | None = Field(description="pJ per inference; None where no figure is published")
    low: Quantity | None
    high: Quantity | None
    coefficient: str
    source: str


class LayerPart(Ranged):
    """One kind of operation in one layer per inference; the energy is None where no figure is published."""

    component: str
    operation: str = Field(description="as a cost table names it")
    count: Mean
    value: Quantity | None
    low: Quantity | None
    high: Quantity | None


class LayerEnergy(Ranged):
    """Operations of one layer per inference, averaged over the samples that ran.

    A layer's name in parentheses is no layer: a source of packets outside the cores, where the network is placed.
    """

    layer: str
    synops: Mean = Field(description="binary synaptic events, exact fan-out")
    graded_operations: Mean = Field(description="graded input times synapses: effective MACs, charged apart")
    active_updates: Mean
    inactive_updates: Mean
    value: Quantity | None
    low: Quantity | None
    high: Quantity | None
    parts: tuple[LayerPart, ...] = Field(default=(), description="what the energy is made of, in the order of the figures")


class MemoryAccesses(Record):
    """Accesses to memory per inference, counted under the model that is stated."""

    model: str
    weight_reads: Mean = Field(description="one for every synaptic and every graded operation")
    state_reads: Mean = Field(description="one for every state variable in every neuron update")
    state_writes: Mean
    sum_accesses: Mean = Field(description="reads and writes of the sum, if it does not stay in a register: two per operation")


class NeurobenchMetrics(Record):
    """The metrics of NeuroBench (Yik et al., Nature Communications 16, 2025) under its names; counts per inference."""

    footprint: Count = Field(description="bytes of weights and biases as they are deployed")
    connection_sparsity: Share = Field(description="share of the stored weights that are zero, 0..1")
    activation_sparsity: Share = Field(description="share of neuron outputs that are no spike, 0..1")
    effective_macs: Mean = Field(description="operations with a graded input, weights and inputs of zero left out")
    effective_acs: Mean = Field(description="operations with a binary input, weights and inputs of zero left out")
    dense: Mean = Field(description="operations if every input and weight took part in every step")
    membrane_updates: Mean | None = Field(
        description="updates that change the membrane, all of the first step; None: not recorded"
    )


class EnergyComparison(Ranged):
    """The spiking network against one ANN, and which of them takes less energy."""

    terms: str = Field(description="precision, and whether memory is counted")
    precision: Literal["FP32", "INT8"]
    memory: bool = Field(description="accesses to memory are counted")
    own: str
    subject: Literal["network", "early_exit", "chip"] = Field(
        description="what the own figure is: the network in the ANN's process, the same with early exit, the chip's estimate"
    )
    other: str
    opponent: Literal["twin", "teacher"]
    own_value: Quantity = Field(description="pJ per inference")
    own_low: Quantity
    own_high: Quantity
    value: Quantity = Field(description="of the other, pJ per inference")
    low: Quantity
    high: Quantity
    ratio: Quantity | None = Field(description="own over the other, at the stated values; None where the other is 0")
    winner: Literal["snn", "ann", "undecided"] = Field(description="undecided: the ranges overlap")
    at_every_end: Literal["snn", "ann", "undecided"] = Field(
        description="who takes less at the low end, the stated values and the high end alike; undecided: not the same one"
    )
    like_for_like: bool = Field(description="same process, precision and model of memory on both sides")
    sentence: str

    @model_validator(mode="after")
    def _own_in_order(self) -> Self:
        _ordered(self.own_low, self.own_value, self.own_high, "own ")
        return self


class EnergyPoint(Ranged):
    """An inference that stops after so many steps."""

    steps: AtLeastOne
    synops: Mean
    accuracy: float | None = Field(description="percent")
    value: Quantity | None = Field(description="pJ per inference")
    low: Quantity | None
    high: Quantity | None


class EarlyExit(Ranged):
    """An inference that stops as soon as its readout is sure enough. The threshold was chosen on other samples than these."""

    rule: str
    threshold: float = Field(description="least margin between the two largest readouts, in the readout's units")
    chosen_on: Count = Field(description="validation samples that the threshold was chosen on")
    validation_accuracy: float | None = Field(description="percent, with early exit; None where the user set the threshold")
    validation_accuracy_full: float | None = Field(description="percent, with all steps")
    mean_steps: Mean
    accuracy: float | None = Field(description="percent")
    accuracy_full: float | None = Field(description="percent, with all steps")
    exits: tuple[Count, ...] = Field(description="samples that stop after 1..T steps")
    value: Quantity | None = Field(description="pJ per inference")
    low: Quantity | None
    high: Quantity | None


class TimeFigure(Ranged):
    """A time in nanoseconds with its range."""

    value: Quantity
    low: Quantity
    high: Quantity


class LatencyEstimate(Record):
    """Time per step and per inference where a published model supports it; else why not."""

    reason: str = Field(description="the model, or why there is no estimate")
    terms: str = Field(default="", description="whose times they are, where the network was made for another chip than that")
    step: TimeFigure | None = None
    inference: TimeFigure | None = None
    throughput: Quantity | None = Field(default=None, description="inferences per second, one after the other")
    throughput_low: Quantity | None = None
    throughput_high: Quantity | None = None
    steps: Count = Field(default=0, description="steps of an inference on the chip, those included in which spikes travel")
    busiest_core: str = Field(default="", description="what the core holds that a step waits for")
    sources: tuple[str, ...] = ()


class Arrivals(Record):
    """What arrives at synapses, over all samples, by where it comes from; "effective" leaves out synapses of weight zero."""

    spike_operations: Count
    effective_spike_operations: Count
    axon_operations: Count = Field(
        description="synaptic events of sources that are always on and carry biases: no spike of a neuron"
    )
    input_operations: Count
    effective_input_operations: Count

    @model_validator(mode="after")
    def _parts_of_wholes(self) -> Self:
        for name in ("spike_operations", "input_operations"):
            _at_most(getattr(self, f"effective_{name}"), getattr(self, name), f"more effective {name} than there are")
        return self

    def synops(self, binary_input: bool, effective: bool = False) -> int:
        """Binary synaptic events, those of the input included where it is spikes, and those of biases that are always on."""
        return self.spiked(binary_input, effective) + self.axon_operations

    def spiked(self, binary_input: bool, effective: bool = False) -> int:
        """Binary synaptic events of spikes alone, those of the input included where it is spikes."""
        own, incoming = self._counted(effective)
        return own + incoming if binary_input else own

    def graded(self, binary_input: bool, effective: bool = False) -> int:
        """Graded inputs times synapses; 0 where the input is spikes."""
        return 0 if binary_input else self._counted(effective)[1]

    def _counted(self, effective: bool) -> tuple[int, int]:
        if effective:
            return self.effective_spike_operations, self.effective_input_operations
        return self.spike_operations, self.input_operations


class LayerOperations(Arrivals):
    """Exact counts of one layer over all samples and steps, and what is fixed before anything runs."""

    layer: str
    spiking: bool
    state_variables: Count
    neurons: AtLeastOne
    synapses: Count
    nonzero_synapses: Count
    input_synapses: Count
    weights: Count
    nonzero_weights: Count
    twin_macs: Count = Field(description="multiplications of an ANN of these layers on one input, merged ones in turn")
    twin_nonzero_macs: Count = Field(description="of those behind other layers: with a nonzero weight; all of merged layers")
    twin_weights: Count = Field(description="that it stores")
    biases: Count
    spikes: Count
    messages: Count
    updates: AtLeastOne
    twin_input_macs: Count
    membrane_changes: Count | None

    @model_validator(mode="after")
    def _within(self) -> Self:
        _at_most(self.spikes, self.updates, "more spikes than neuron updates")
        _at_most(self.nonzero_synapses, self.synapses, "more synapses that are not zero than synapses")
        _at_most(self.nonzero_weights, self.weights, "more weights that are not zero than weights")
        return self


class StepOperations(Arrivals):
    """Exact counts over all samples: what one more step of the readout adds, or what was carried out before an early exit."""

    spikes: Count
    messages: Count
    layer_messages: tuple[Count, ...] = Field(description="the messages, in the order of the layers")
    readout_spikes: Count = Field(description="spikes of the layer that is read out")
    input_messages: Count
    updates: Count = Field(description="in steps of an inference that a layer takes")
    idle_updates: Count = Field(description="on a chip, in steps in which an inference has not reached a layer or has left it")
    correct: Count | None = Field(default=None, description="samples that are right if the readout stops here")

    @model_validator(mode="after")
    def _within(self) -> Self:
        _at_most(self.spikes, self.updates, "more spikes than neuron updates")
        return self


class ExitOperations(Record):
    """An early exit with what was carried out before it.

    total: layer after layer, each as many steps as the readout, which is what a sequential machine has to do.
    on_chip: with all layers at work at once, in which those in front of the readout are ahead of it.
    """

    threshold: float
    chosen_on: Count
    validation_correct: Count
    validation_correct_full: Count
    exits: tuple[Count, ...]
    total: StepOperations
    on_chip: StepOperations


class AnnOperations(Record):
    """What an ANN multiplies, measured on its activations."""

    name: str
    samples: AtLeastOne
    dense_macs: Count = Field(description="per inference; positions of padding are not multiplied")
    effective_macs: Count = Field(description="over all samples, zero inputs and zero weights left out")
    weights: Count
    activations: Count = Field(description="values that its layers read and write per inference")
    layers: Count
    correct: Count | None = Field(default=None, description="samples that it gets right; None: not known")

    @model_validator(mode="after")
    def _within(self) -> Self:
        _at_most(self.effective_macs, self.dense_macs * self.samples, "more effective MACs than MACs")
        _at_most(self.correct or 0, self.samples, "more samples right than there are")
        return self


class PacketJourney(Record):
    """Packets of one source per inference on a placement, and the hops they take."""

    source: str
    packets: Mean
    within_router: Mean = Field(description="packets that stay at their router")
    east_west: Mean
    north_south: Mean
    between_chips: Mean

    @model_validator(mode="after")
    def _within(self) -> Self:
        _at_most(self.within_router, self.packets, "more packets stay at their router than there are")
        return self


class CoreLoad(Record):
    """What a core does in one step, on average."""

    core: str
    active_updates: Mean
    inactive_updates: Mean
    synops: Mean
    graded: Mean


class EnergyOperations(Record):
    """Everything that was counted, as integers over all samples: an estimate with another cost table needs nothing else."""

    fingerprint: str
    target: str | None
    weight_bits: AtLeastOne
    state_bits: AtLeastOne = Field(description="of a state variable, as the chip holds it; of a float network 32")
    bias_bits: Count = Field(description="of a bias, as the chip stores it; of a float network 32")
    steps: AtLeastOne
    travel: Count = Field(description="further steps of the chip, in which spikes travel through the layers")
    samples: AtLeastOne
    binary_input: bool
    input_events: Count = Field(description="messages into the chip: values in every step that sends them, or biases, once")
    input_frames: Count = Field(description="inputs that an inference is sent: T where they change from step to step")
    data_frames: Count = Field(description="frames of a sample: T where the data change over time, else 1")
    encoded_values: Count
    input_values: Count
    host_macs: Count
    host_weights: Count = Field(description="that the host stores for its multiplications")
    host_biases: Count = Field(description="values that it makes of them in an inference")
    readout: str
    readout_layer: str
    readout_values: Count
    layers: tuple[LayerOperations, ...] = Field(min_length=1)
    by_step: tuple[StepOperations, ...] = Field(
        default=(), description="on a chip with all layers at work at once, what each further step of the readout adds"
    )
    early_exit: ExitOperations | None = None
    validation_samples: Count = Field(default=0, description="samples that the number of steps is chosen on; 0: those of the run")
    validation_correct: tuple[Count, ...] = Field(default=(), description="of them, right after 1..T steps")
    teacher: AnnOperations | None = None
    placed_on: str = ""
    placed_cores: Count = Field(default=0, description="cores of the placement")
    placed_tiles: Count = Field(default=0, description="routers that these cores are at")
    placed_chips: Count = 0
    unplaced: str = Field(default="", description="why there is no placement, where one was tried")
    journeys: tuple[PacketJourney, ...] = ()
    cores: tuple[CoreLoad, ...] = Field(
        default=(), description="the cores of which one is the busiest, whatever the times that a cost table gives"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Raise ValueError where counts contradict each other; only what holds for every network is asked."""
        for names in ([layer.layer for layer in self.layers], [journey.source for journey in self.journeys]):
            if len(set(names)) < len(names):
                raise ValueError("one name stands for several layers or sources")
        if self.by_step:
            if not self.steps <= len(self.by_step) <= self.steps + self.travel:
                raise ValueError(f"{len(self.by_step)} steps are told of an inference of {self.steps}")
            for name in ("spikes", "messages"):
                if _sum(self.by_step, name) != _sum(self.layers, name):
                    raise ValueError(f"the {name} of all steps are not those of all layers")
            self._not_more(self.by_step, "all steps")
        early = self.early_exit
        if early is not None:
            if not self.steps <= len(early.exits) <= self.steps + self.travel or sum(early.exits) != self.samples:
                raise ValueError(f"the exits of {self.samples} samples in {self.steps} steps are {early.exits}")
            self._not_more((early.total,), "the steps before an early exit")
            _at_most(early.validation_correct, early.chosen_on, "more validation samples right than there are")
            _at_most(early.validation_correct_full, early.chosen_on, "more validation samples right than there are")
        return self

    def _not_more(self, steps: tuple[StepOperations, ...], told: str) -> None:
        for name in ("spike_operations", "input_operations", "spikes", "messages", "updates"):
            _at_most(_sum(steps, name), _sum(self.layers, name), f"{told} have more {name} than all layers")
        for step in steps:
            _at_most(step.correct or 0, self.samples, "more samples right than there are")

    def synops(self, effective: bool = False) -> int:
        """Binary synaptic events of all layers, those of biases that are always on included."""
        return sum(layer.synops(self.binary_input, effective) for layer in self.layers)

    def spiked(self, effective: bool = False) -> int:
        """Binary synaptic events of spikes alone (NeuroBench, where effective: effective ACs)."""
        return sum(layer.spiked(self.binary_input, effective) for layer in self.layers)

    def idle_updates(self, layer: LayerOperations) -> int:
        """Updates of a layer on a chip while spikes travel through the others: every neuron is updated in every step."""
        return layer.neurons * self.travel * self.samples

    def graded(self, effective: bool = False) -> int:
        """Graded inputs times synapses of all layers (NeuroBench, where effective: effective MACs)."""
        return sum(layer.graded(self.binary_input, effective) for layer in self.layers)


class FigureGroup(NamedTuple):
    """Figures that a report shows together.

    Attributes:
        name: the report's field that holds them.
        title: a heading.
        own: they are this network's, and not an ANN's.
        orientation: they are no estimate of this network on anything it could run on.
        figures: none is in two groups.
    """

    name: str
    title: str
    own: bool
    orientation: bool
    figures: tuple[EnergyFigure, ...]


FIGURE_GROUPS: Final = ("figures", "cmos", "baselines", "teacher", "other_chips")
"""Fields of :class:`EnergyReport` that hold figures, in the order in which they are shown."""


class UsedTable(Record):
    """A cost table that a figure of the report comes from."""

    name: str
    digest: str = Field(description="SHA-256 of its file")
    file: str = Field(default="", description="name of the file where it is not one that comes with the program")


class EnergyReport(Record):
    """Estimate from the spikes of the run at hand."""

    label: str
    samples: int
    table: str
    table_digest: str = Field(default="", description="SHA-256 of the cost table's file")
    table_file: str = Field(default="", description="name of that file where it is not one that comes with the program")
    tables: tuple[UsedTable, ...] = Field(default=(), description="every cost table that a figure comes from")
    layers: tuple[LayerEnergy, ...]
    figures: tuple[EnergyFigure, ...]
    total: Quantity | None = Field(description="pJ per inference, without what has no figure")
    total_low: Quantity | None
    total_high: Quantity | None
    process: str = Field(default="", description="process node that the ANNs are charged in, and this network on their terms")
    cmos: tuple[EnergyFigure, ...] = Field(default=(), description="this network in that process, on the terms of the baselines")
    baselines: tuple[EnergyFigure, ...] = Field(description="the same network as an ANN, FP32 and INT8")
    teacher: tuple[EnergyFigure, ...] = Field(default=(), description="the teacher, its own multiplications")
    comparisons: tuple[EnergyComparison, ...] = ()
    verdict: tuple[str, ...] = Field(default=(), description="which of them takes less energy, in sentences")
    spikes_per_synapse: Quantity = Field(description="measured spikes per synapse and inference")
    break_even: tuple[str, ...] = Field(description="published break-even rates, as sentences with their source")
    curve: tuple[EnergyPoint, ...] = Field(default=(), description="if every inference stopped after 1..T steps")
    knee: int | None = Field(default=None, description="steps after which more energy buys little accuracy")
    knee_chosen_on: int | None = Field(
        default=None, description="validation samples whose answers chose the knee; None: those that the report is about did"
    )
    early_exit: EarlyExit | None = None
    memory: MemoryAccesses | None = None
    neurobench: NeurobenchMetrics | None = None
    latency: LatencyEstimate | None = None
    other_chips: tuple[EnergyFigure, ...] = Field(default=(), description="synaptic operations at figures of other chips")
    limits: tuple[str, ...]
    operations: EnergyOperations | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ordered(self.total_low, self.total, self.total_high, "total: ")
        return self

    def groups(self) -> tuple[FigureGroup, ...]:
        """All figures, in the order in which they are shown; groups that hold any."""
        where = f" ({self.process})" if self.process else ""
        told = {
            "figures": ("This network, spiking", True),
            "cmos": (f"This network on the terms of an ordinary chip{where}", True),
            "baselines": (f"The same network as an ANN{where}", False),
            "teacher": (f"The teacher{where}", False),
            "other_chips": ("This network's synaptic operations at the figures of other chips, for orientation only", True),
        }
        found = (FigureGroup(name, *told[name], name == "other_chips", getattr(self, name)) for name in FIGURE_GROUPS)
        return tuple(group for group in found if group.figures)

    def table_told(self) -> str:
        """The table's name, and that of its file where it is the user's."""
        return f"{self.table} (file {self.table_file})" if self.table_file else self.table

    def sources(self) -> dict[str, int]:
        """What every figure and every time rests on, numbered from 1 in the order of the groups."""
        cited = [figure.source for group in self.groups() for figure in group.figures]
        cited += self.latency.sources if self.latency is not None else ()
        return {source: number for number, source in enumerate(dict.fromkeys(cited), 1)}

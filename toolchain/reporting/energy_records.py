"""What a report says about energy and time; part of :class:`snn_export.reporting.report.Report`."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from pydantic import Field

from snn_export.reporting.record import Record


class EnergyFigure(Record):
    """An amount in picojoule per inference with its range, and where the coefficient comes from."""

    component: str
    operation: str = Field(
        description="what the component is, for programs: the operation as a cost table names it, or a network's terms, or a chip"
    )
    count: float | None = Field(description="operations per inference; None where they could not be counted")
    value: float | None = Field(description="pJ per inference; None where no figure is published")
    low: float | None
    high: float | None
    coefficient: str
    source: str


class LayerPart(Record):
    """One kind of operation in one layer per inference; the energy is None where no figure is published."""

    component: str
    operation: str = Field(description="as a cost table names it")
    count: float
    value: float | None
    low: float | None
    high: float | None


class LayerEnergy(Record):
    """Operations of one layer per inference, averaged over the samples that ran.

    A layer's name in parentheses is no layer: a source of packets outside the cores, where the network is placed.
    """

    layer: str
    synops: float = Field(description="binary synaptic events, exact fan-out")
    graded_operations: float = Field(description="graded input times synapses: effective MACs, charged apart")
    active_updates: float
    inactive_updates: float
    value: float | None
    low: float | None
    high: float | None
    parts: tuple[LayerPart, ...] = Field(default=(), description="what the energy is made of, in the order of the figures")


class MemoryAccesses(Record):
    """Accesses to memory per inference, counted under the model that is stated."""

    model: str
    weight_reads: float = Field(description="one for every synaptic and every graded operation")
    state_reads: float = Field(description="one for every state variable in every neuron update")
    state_writes: float
    sum_accesses: float = Field(description="reads and writes of the sum, if it does not stay in a register: two per operation")


class NeurobenchMetrics(Record):
    """The metrics of NeuroBench (Yik et al., Nature Communications 16, 2025) under its names; counts per inference."""

    footprint: int = Field(description="bytes of weights and biases as they are deployed")
    connection_sparsity: float = Field(description="share of the stored weights that are zero, 0..1")
    activation_sparsity: float = Field(description="share of neuron outputs that are no spike, 0..1")
    effective_macs: float = Field(description="operations with a graded input, weights and inputs of zero left out")
    effective_acs: float = Field(description="operations with a binary input, weights and inputs of zero left out")
    dense: float = Field(description="operations if every input and weight took part in every step")
    membrane_updates: float | None = Field(
        description="updates that change the membrane, all of the first step; None: not recorded"
    )


class EnergyComparison(Record):
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
    own_value: float = Field(description="pJ per inference")
    own_low: float
    own_high: float
    value: float = Field(description="of the other, pJ per inference")
    low: float
    high: float
    ratio: float | None = Field(description="own over the other, at the stated values; None where the other is 0")
    winner: Literal["snn", "ann", "undecided"] = Field(description="undecided: the ranges overlap")
    at_every_end: Literal["snn", "ann", "undecided"] = Field(
        description="who takes less at the low end, the stated values and the high end alike; undecided: not the same one"
    )
    like_for_like: bool = Field(description="same process, precision and model of memory on both sides")
    sentence: str


class EnergyPoint(Record):
    """An inference that stops after so many steps."""

    steps: int
    synops: float
    accuracy: float | None = Field(description="percent")
    value: float | None = Field(description="pJ per inference")
    low: float | None
    high: float | None


class EarlyExit(Record):
    """An inference that stops as soon as its readout is sure enough. The threshold was chosen on other samples than these."""

    rule: str
    threshold: float = Field(description="least margin between the two largest readouts, in the readout's units")
    chosen_on: int = Field(description="validation samples that the threshold was chosen on")
    validation_accuracy: float | None = Field(description="percent, with early exit; None where the user set the threshold")
    validation_accuracy_full: float | None = Field(description="percent, with all steps")
    mean_steps: float
    accuracy: float | None = Field(description="percent")
    accuracy_full: float | None = Field(description="percent, with all steps")
    exits: tuple[int, ...] = Field(description="samples that stop after 1..T steps")
    value: float | None = Field(description="pJ per inference")
    low: float | None
    high: float | None


class TimeFigure(Record):
    """A time in nanoseconds with its range."""

    value: float
    low: float
    high: float


class LatencyEstimate(Record):
    """Time per step and per inference where a published model supports it; else why not."""

    reason: str = Field(description="the model, or why there is no estimate")
    step: TimeFigure | None = None
    inference: TimeFigure | None = None
    throughput: float | None = Field(default=None, description="inferences per second, one after the other")
    throughput_low: float | None = None
    throughput_high: float | None = None
    steps: int = Field(default=0, description="steps of an inference on the chip, those included in which spikes travel")
    busiest_core: str = Field(default="", description="what the core holds that a step waits for")
    sources: tuple[str, ...] = ()


class Arrivals(Record):
    """What arrives at synapses, over all samples, by where it comes from; "effective" leaves out synapses of weight zero."""

    spike_operations: int
    effective_spike_operations: int
    axon_operations: int = Field(
        description="synaptic events of sources that are always on and carry biases: no spike of a neuron"
    )
    input_operations: int
    effective_input_operations: int

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
    state_variables: int
    neurons: int
    synapses: int
    nonzero_synapses: int
    input_synapses: int
    weights: int
    nonzero_weights: int
    twin_macs: int = Field(description="multiplications of an ANN of these layers on one input: merged ones one after the other")
    twin_nonzero_macs: int = Field(description="of those behind other layers: with a nonzero weight; all of merged layers")
    twin_weights: int = Field(description="that it stores")
    biases: int
    spikes: int
    messages: int
    updates: int
    twin_input_macs: int
    membrane_changes: int | None


class StepOperations(Arrivals):
    """Exact counts over all samples: what one more step of the readout adds, or what was carried out before an early exit."""

    spikes: int
    messages: int
    layer_messages: tuple[int, ...] = Field(description="the messages, in the order of the layers")
    readout_spikes: int = Field(description="spikes of the layer that is read out")
    input_messages: int
    updates: int = Field(description="in steps of an inference that a layer takes")
    idle_updates: int = Field(description="on a chip, in steps in which an inference has not reached a layer yet, or has left it")
    correct: int | None = Field(default=None, description="samples that are right if the readout stops here")


class ExitOperations(Record):
    """An early exit with what was carried out before it.

    total: layer after layer, each as many steps as the readout, which is what a sequential machine has to do.
    on_chip: with all layers at work at once, in which those in front of the readout are ahead of it.
    """

    threshold: float
    chosen_on: int
    validation_correct: int
    validation_correct_full: int
    exits: tuple[int, ...]
    total: StepOperations
    on_chip: StepOperations


class AnnOperations(Record):
    """What an ANN multiplies, measured on its activations."""

    name: str
    samples: int
    dense_macs: int = Field(description="per inference; positions of padding are not multiplied")
    effective_macs: int = Field(description="over all samples, zero inputs and zero weights left out")
    weights: int
    activations: int = Field(description="values that its layers read and write per inference")
    layers: int


class PacketJourney(Record):
    """Packets of one source per inference on a placement, and the hops they take."""

    source: str
    packets: float
    within_router: float = Field(description="packets that stay at their router")
    east_west: float
    north_south: float
    between_chips: float


class CoreLoad(Record):
    """What a core does in one step, on average."""

    core: str
    active_updates: float
    inactive_updates: float
    synops: float
    graded: float


class EnergyOperations(Record):
    """Everything that was counted, as integers over all samples: an estimate with another cost table needs nothing else."""

    fingerprint: str
    target: str | None
    weight_bits: int
    state_bits: int = Field(description="of a state variable, as the chip holds it; of a float network 32")
    bias_bits: int = Field(description="of a bias, as the chip stores it; of a float network 32")
    steps: int
    travel: int = Field(description="further steps of the chip, in which spikes travel through the layers")
    samples: int
    binary_input: bool
    input_events: int = Field(description="messages into the chip: values in every step in which they are sent, or biases, once")
    input_frames: int = Field(description="different inputs that are sent in an inference: T where they change from step to step")
    data_frames: int = Field(description="frames of a sample: T where the data change over time, else 1")
    encoded_values: int
    input_values: int
    host_macs: int
    host_weights: int = Field(description="that the host stores for its multiplications")
    host_biases: int = Field(description="values that it makes of them in an inference")
    readout: str
    readout_layer: str
    readout_values: int
    layers: tuple[LayerOperations, ...]
    by_step: tuple[StepOperations, ...] = Field(
        default=(), description="on a chip with all layers at work at once, what each further step of the readout adds"
    )
    early_exit: ExitOperations | None = None
    validation_samples: int = Field(default=0, description="samples that the number of steps is chosen on; 0: those of the run")
    validation_correct: tuple[int, ...] = Field(default=(), description="of them, right after 1..T steps")
    teacher: AnnOperations | None = None
    placed_on: str = ""
    unplaced: str = Field(default="", description="why there is no placement, where one was tried")
    journeys: tuple[PacketJourney, ...] = ()
    cores: tuple[CoreLoad, ...] = Field(
        default=(), description="the cores of which one is the busiest, whatever the times that a cost table gives"
    )

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


class EnergyReport(Record):
    """Estimate from the spikes of the run at hand."""

    label: str
    samples: int
    table: str
    table_digest: str = Field(default="", description="SHA-256 of the cost table's file")
    layers: tuple[LayerEnergy, ...]
    figures: tuple[EnergyFigure, ...]
    total: float | None = Field(description="pJ per inference, without what has no figure")
    total_low: float | None
    total_high: float | None
    process: str = Field(default="", description="process node that the ANNs are charged in, and this network on their terms")
    cmos: tuple[EnergyFigure, ...] = Field(default=(), description="this network in that process, on the terms of the baselines")
    baselines: tuple[EnergyFigure, ...] = Field(description="the same network as an ANN, FP32 and INT8")
    teacher: tuple[EnergyFigure, ...] = Field(default=(), description="the teacher, its own multiplications")
    comparisons: tuple[EnergyComparison, ...] = ()
    verdict: tuple[str, ...] = Field(default=(), description="which of them takes less energy, in sentences")
    spikes_per_synapse: float = Field(description="measured spikes per synapse and inference")
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

    def sources(self) -> dict[str, int]:
        """What every figure and every time rests on, numbered from 1 in the order of the groups."""
        cited = [figure.source for group in self.groups() for figure in group.figures]
        cited += self.latency.sources if self.latency is not None else ()
        return {source: number for number, source in enumerate(dict.fromkeys(cited), 1)}

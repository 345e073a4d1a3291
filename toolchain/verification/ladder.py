"""Run the ladder: forms of one network, each on its backend, compared link by link on the same samples.

Chunks of samples go through all rungs together; traces live for one chunk. A backend that is absent or breaks becomes a
result (SKIPPED, UNAVAILABLE, ERROR), never an exception and never a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import BUILT_IN
from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.reporting.report import Verdict
from snn_export.verification.compare import ComparisonTally, Kind
from snn_export.verification.isolated import Form
from snn_export.verification.matching import matched

CHUNK_BYTES = 96 << 20
"""Memory that one chunk of samples may take, all rungs together; see :func:`samples_per_chunk`."""

CHUNK_SAMPLES = 512
"""Most samples of a chunk: beyond, small networks run no faster, and there would be little to share."""

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Rung:
    """A form of the network and the backend that runs it.

    samples: at most this many (0: all). required: its absence fails the verdict. model_of: the rung whose declared deviations
    it is run with; see :mod:`snn_export.verification.deviations`.
    """

    name: str
    backend: str
    deployment: Deployment
    simulator: Simulator
    description: str
    required: bool = True
    samples: int = 0
    model_of: str = ""


@dataclass(frozen=True)
class Link:
    """Two rungs to compare, by name, what counts as equal, and what is known to keep them apart (empty: nothing)."""

    reference: str
    target: str
    kind: Kind
    because: str = ""


@dataclass
class RungResult:
    """What a rung did. status None: it ran on everything it was given."""

    rung: Rung
    status: Verdict | None = None
    findings: tuple[Diagnostic, ...] = ()
    log: str | None = None
    samples: int = 0
    correct: int = 0
    ties: int = 0
    overflows: int | None = 0
    """Wraps of u and saturations of v in all layers; None where the backend cannot tell."""
    correct_at: NDArray[np.int64] | None = None
    """(T,) samples that would be right if the readout stopped after step t."""
    provenance: dict[str, str] = field(default_factory=dict)
    program: Any = None

    def stopped(self) -> RungResult:
        """The rung with its program and what stops it, without anything it ran."""
        return RungResult(self.rung, self.status, self.findings, self.log, program=self.program)

    def merge(self, other: RungResult) -> None:
        """Add what the rung did on samples that follow. What stopped it there stops it here, the worst first."""
        if _WORST.index(other.status) < _WORST.index(self.status):
            self.status, self.findings, self.log = other.status, other.findings, other.log
        self.samples += other.samples
        self.correct += other.correct
        self.ties += other.ties
        self.overflows = None if self.overflows is None or other.overflows is None else self.overflows + other.overflows
        if other.correct_at is not None:
            self.correct_at = other.correct_at if self.correct_at is None else self.correct_at + other.correct_at
        self.provenance.update(other.provenance)


_WORST: tuple[Verdict | None, ...] = ("ERROR", "UNAVAILABLE", "SKIPPED", None)
"""What a rung may end as."""


class Observer(Protocol):
    """Receives every chunk's traces and collects what the report shows beside the comparison."""

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int, labels: NDArray[np.int64] | None = None) -> None:
        """Called once per chunk with traces by rung name; ``offset`` is the index of its first sample, ``labels`` are its own."""
        ...

    def forget(self, rung: str) -> None:
        """The rung broke: what it showed until then does not count."""
        ...

    def take(self) -> Any:
        """What was collected since the last call, as plain data that can be sent to another process; starts anew."""
        ...

    def merge(self, taken: Any) -> None:
        """Add what another observer of the same things took from samples that follow."""
        ...


@dataclass(eq=False)
class LadderResult:
    """All rungs and all links, in the order they were given."""

    rungs: list[RungResult]
    links: list[tuple[Link, ComparisonTally]]
    samples: int
    labelled: bool

    def find(self, name: str) -> RungResult | None:
        """Result of the rung called ``name``, None where there is no such rung."""
        return next((result for result in self.rungs if result.rung.name == name), None)

    def rung(self, name: str) -> RungResult:
        """Result of the rung called ``name``. Raises KeyError where there is none."""
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found


def new_tally(link: Link, reference: Rung, target: Rung) -> ComparisonTally:
    """An empty tally of a link: what its layers are held to end to end, and one by one."""
    if link.kind == "exact":
        return ComparisonTally(link.kind, target.deployment, Form(target.deployment, "int64"))
    if link.kind == "float":
        return ComparisonTally(link.kind, _judged_by(reference, target))
    integer = reference.simulator.capabilities().arithmetic_on(reference.deployment) == "loihi_integer"
    return ComparisonTally(link.kind, target.deployment, Form(reference.deployment, "int64" if integer else "float64"))


def _judged_by(reference: Rung, target: Rung) -> Deployment:
    """The network whose sums bound the rounding between two rungs: the model's, where one of them is the model of the other."""
    return reference.deployment if reference.model_of == target.name else target.deployment


def run_ladder(
    rungs: Sequence[Rung],
    links: Sequence[Link],
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    *,
    observers: Sequence[Observer] = (),
    progress: Progress = lambda message: None,
    chunk_bytes: int = CHUNK_BYTES,
) -> LadderResult:
    """Run all rungs on inputs and compare them.

    Args:
        rungs: any order; names are unique.
        links: comparisons between them.
        inputs: (B, *shape) for direct encoding or (T, B, *shape).
        labels: (B,) or None; without labels there is no accuracy.
        observers: see each chunk's traces.
        progress: called with one line per rung and chunk.
        chunk_bytes: memory of a chunk; see :func:`samples_per_chunk`.
    """
    result = empty_ladder([prepare(rung) for rung in rungs], links, labels is not None)
    run_samples(result, inputs, labels, observers=observers, progress=progress, chunk=samples_per_chunk(rungs, chunk_bytes))
    settle(result, observers)
    return result


def empty_ladder(rungs: Sequence[RungResult], links: Sequence[Link], labelled: bool) -> LadderResult:
    """A ladder on which nothing ran yet. Raises ValueError where two rungs have one name."""
    by_name = {result.rung.name: result.rung for result in rungs}
    if len(by_name) != len(rungs):
        raise ValueError(f"two rungs have one name: {[result.rung.name for result in rungs]}")
    tallies = [(link, new_tally(link, by_name[link.reference], by_name[link.target])) for link in links]
    return LadderResult(list(rungs), tallies, 0, labelled)


def sample_axis(rung: Rung, inputs: NDArray[Any]) -> int:
    """Axis of the samples: 0, or 1 where the inputs of every step are given."""
    return np.ndim(inputs) - len(rung.deployment.input_shape) - 1


def run_samples(
    result: LadderResult,
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    *,
    chunk: int,
    first: int = 0,
    observers: Sequence[Observer] = (),
    progress: Progress = lambda message: None,
) -> None:
    """Run samples through the rungs of a ladder, and add what is found to it.

    A float backend may add in another order in another batch, or with more threads, and so flip a last bit. Therefore chunks are
    cut by the network alone, and NumPy sums on one thread: a result does not depend on who runs which samples, or where.

    Args:
        result: whose rungs are compiled.
        inputs: as for :func:`run_ladder`.
        labels: as for :func:`run_ladder`.
        chunk: samples at once.
        first: index of the first of these samples in the whole set, a multiple of ``chunk``.
        observers: see each chunk's traces.
        progress: called with one line per rung and chunk.
    """
    axis = sample_axis(result.rungs[0].rung, inputs)
    total = int(np.shape(inputs)[axis])
    result.samples += total
    with threadpool_limits(1, "blas"):
        for start in range(0, total, chunk):
            stop = min(total, start + chunk)
            part = np.take(inputs, range(start, stop), axis=axis)
            _run_chunk(result, part, None if labels is None else labels[start:stop], axis, first + start, observers, progress)


def _run_chunk(
    result: LadderResult,
    part: NDArray[Any],
    labels: NDArray[np.int64] | None,
    axis: int,
    start: int,
    observers: Sequence[Observer],
    progress: Progress,
) -> None:
    traces: dict[str, Trace] = {}
    for found in result.rungs:
        trace = _run_rung(found, part, axis, start, progress)
        if trace is not None:
            traces[found.rung.name] = trace
            _tally(found, trace, labels)
    for link, tally in result.links:
        if link.reference in traces and link.target in traces:
            ends = [(traces[name], result.rung(name).rung.deployment) for name in (link.reference, link.target)]
            first, second = _same_samples(*matched(*ends[0], *ends[1]))
            count = len(first.predictions)
            tally.add(np.take(part, range(count), axis=axis), first, second, None if labels is None else labels[:count])
    for observer in observers:
        observer.chunk(part, traces, start, labels)


def settle(result: LadderResult, observers: Sequence[Observer]) -> None:
    """Forget what rungs did before they broke: how far one came depends on how the samples were cut."""
    broken = {found.rung.name for found in result.rungs if found.status is not None}
    for number, found in enumerate(result.rungs):
        if found.status is not None:
            result.rungs[number] = found.stopped()
            for observer in observers:
                observer.forget(found.rung.name)
    for number, (link, _) in enumerate(result.links):
        if broken & {link.reference, link.target}:
            tally = new_tally(link, result.rung(link.reference).rung, result.rung(link.target).rung)
            result.links[number] = (link, tally)


def prepare(rung: Rung) -> RungResult:
    """Ask a rung's backend whether it is there and can run the deployment, and compile."""
    result = RungResult(rung)
    absent: Verdict = "UNAVAILABLE" if rung.required else "SKIPPED"
    availability = rung.simulator.availability()
    if not availability.ok:
        result.status = absent
        result.findings = (
            Diagnostic(
                "SNX404", f"{rung.backend} is not available", where=rung.name, why=availability.reason, fix=availability.fix
            ),
        )
        return result
    # An optional backend that cannot express the network is left out and listed; a required one fails the verdict.
    with _failures_of(result, inexpressible="ERROR" if rung.required else "SKIPPED"):
        result.program = rung.simulator.compile(rung.deployment)
    return result


@contextmanager
def _failures_of(result: RungResult, inexpressible: Verdict = "ERROR") -> Iterator[None]:
    """Turn what a backend raises into its result. A bug of our own backends stays a bug and goes on up."""
    try:
        yield
    except UserError as error:
        result.status, result.findings = inexpressible, error.diagnostics
    except BackendError as error:
        result.status, result.findings, result.log = "ERROR", (error.diagnostic,), error.log
    except Exception as error:
        if result.rung.backend in BUILT_IN:
            raise
        result.status, result.findings = "ERROR", (raised(result.rung.backend, result.rung.name, error),)


def raised(backend: str, where: str, error: Exception) -> Diagnostic:
    """SNX405: a plug-in raised what no backend may."""
    return Diagnostic(
        "SNX405",
        f"the backend {backend} raised {type(error).__name__}: {error}",
        where=where,
        why="a plug-in must answer with a trace, a UserError or a BackendError",
        fix="report it to the package that registers the backend",
    )


def samples_per_chunk(rungs: Sequence[Rung], budget: int = CHUNK_BYTES) -> int:
    """Samples whose run and comparison fit into ``budget`` bytes: by the networks alone, wherever they run.

    Per neuron and step: 9 bytes in the trace of each rung (a spike, and a float64 membrane or two int32 states), and 80 while one
    of them is run or compared. Per input and step: 16 bytes.
    """
    neuron_steps = [
        rung.deployment.contract.steps * sum(int(np.prod(rung.deployment.shapes[name])) for name in rung.deployment.layers)
        for rung in rungs
    ]
    given = max(rung.deployment.contract.steps * int(np.prod(rung.deployment.input_shape)) for rung in rungs)
    per_sample = 9 * sum(neuron_steps) + 80 * max(neuron_steps) + 16 * given
    return min(CHUNK_SAMPLES, max(1, budget // max(1, per_sample)))


def _run_rung(found: RungResult, part: NDArray[Any], axis: int, start: int, progress: Progress) -> Trace | None:
    """Run one chunk; None where the rung has nothing (left) to run."""
    rung = found.rung
    if found.status is not None:
        return None
    size = part.shape[axis]
    if rung.samples:
        size = min(size, rung.samples - start)
    if size <= 0:
        return None
    progress(f"{rung.name}: samples {start} to {start + size - 1} on {rung.backend}")
    record: tuple[Record, ...] = ("spikes", "membrane")
    if rung.simulator.capabilities().arithmetic_on(rung.deployment) == "loihi_integer":
        record = (*record, "current")
    trace: Trace | None = None
    with _failures_of(found):
        answer = rung.simulator.run(found.program, np.take(part, range(size), axis=axis), record)
        _check_trace(answer, rung, size)
        trace = answer
    return trace


def _wrong_numbers(name: str, layer: LayerTrace) -> str:
    """What no run can have recorded: a unit that is none, or several spikes that are not as many as one step holds."""
    if not (np.isfinite(layer.unit) and layer.unit > 0.0):
        return f"the unit of {name} is {layer.unit}"
    if layer.several is None or layer.spikes is None:
        return ""
    several = np.asarray(layer.several)
    if np.any(several < 0) or np.any(several != np.rint(several)):
        return f"several spikes of {name} are negative or no whole number"
    return f"several spikes of {name} contradict its spikes" if np.any((several > 0) != layer.spikes) else ""


def _check_trace(trace: Trace, rung: Rung, samples: int) -> None:
    """Shapes and numbers must be what the deployment says. Raises BackendError SNX406."""
    steps, wrong = rung.deployment.contract.steps, ""
    if trace.predictions.shape != (samples,):
        wrong = f"predictions have shape {trace.predictions.shape} for {samples} samples"
    for name, layer in trace.layers.items():
        shape = (steps, samples, *rung.deployment.shapes.get(name, ()))
        probes = (("spikes", layer.spikes), ("several", layer.several), ("membrane", layer.membrane), ("current", layer.current))
        for what, array in probes:
            if array is not None and array.shape != shape:
                wrong = wrong or f"{what} of {name} have shape {array.shape}, not {shape}"
            elif array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                wrong = wrong or f"{what} of {name} hold NaN or infinity"
        wrong = wrong or _wrong_numbers(name, layer)
        sent = layer.sent
        if not wrong and sent is not None and not np.array_equal(layer.counts, sent.sum(axis=0)):
            wrong = f"counts of {name} are not the sums of its spikes"
    if trace.backend != rung.backend:  # a plug-in that signs with another name would be judged as that other one
        wrong = f"it says that {trace.backend!r} made it"
    if wrong:
        raise BackendError(
            Diagnostic(
                "SNX406",
                f"the trace of {rung.backend} cannot be compared: {wrong}",
                where=rung.name,
                why="a trace has axes (time, batch, *features) and finite numbers",
                fix="report it to whoever makes the backend",
            )
        )


def _tally(found: RungResult, trace: Trace, labels: NDArray[np.int64] | None) -> None:
    count = len(trace.predictions)
    found.samples += count
    found.ties += trace.ties
    found.provenance.update(trace.provenance)
    events = [layer.overflows for layer in trace.layers.values()]
    found.overflows = None if found.overflows is None or None in events else found.overflows + sum(n or 0 for n in events)
    contract = found.rung.deployment.contract
    readout = trace.layers.get(contract.readout.node)
    membrane = None if readout is None else readout.membrane
    if labels is None:
        return
    found.correct += int(np.count_nonzero(trace.predictions == labels[:count]))
    if contract.readout.rule == "membrane_last" and membrane is not None:
        right = (membrane.reshape(*membrane.shape[:2], -1).argmax(axis=2) == labels[:count]).sum(axis=1)
        found.correct_at = right if found.correct_at is None else found.correct_at + right


def _same_samples(first: Trace, second: Trace) -> tuple[Trace, Trace]:
    """Both traces cut to the samples they share (the first of each chunk)."""
    count = min(len(first.predictions), len(second.predictions))
    return _head(first, count), _head(second, count)


def _head(trace: Trace, count: int) -> Trace:
    if len(trace.predictions) == count:
        return trace
    layers = {
        name: LayerTrace(
            counts=layer.counts[:count],
            spikes=None if layer.spikes is None else layer.spikes[:, :count],
            membrane=None if layer.membrane is None else layer.membrane[:, :count],
            current=None if layer.current is None else layer.current[:, :count],
            several=None if layer.several is None else layer.several[:, :count],
            unit=layer.unit,
            overflows=None,  # counted over all samples of the chunk, not over these
            latency=layer.latency,
        )
        for name, layer in trace.layers.items()
    }
    return Trace(trace.backend, layers, trace.readout[:count], trace.predictions[:count], trace.ties, trace.provenance)

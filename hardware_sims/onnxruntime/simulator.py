"""onnxruntime: runs the very file that ``snn-export export --to onnx`` writes, with every layer shown.

On one thread and one processor, so that a run repeats itself bit for bit. A quantised deployment is computed in integers and
must equal ``loihi`` in every spike, membrane and current; a float one is computed in float32, where a spike may flip whose
membrane lies within rounding of its threshold. Deviations from the canonical neuron: none, the file is written with its
equations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import bounds, encoding, onnx_rules
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.onnxruntime.conformance import ON_INTEGERS
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability, BackendError, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record, layer_trace
from snn_export.models.diagnostics import Diagnostic, UserError

CHUNK_BYTES = 256 << 20
"""Memory that what one chunk of samples returns may take."""
BATCH_AT_ONCE = 256
"""Samples of a chunk: more of them fall out of the processor's cache and take longer."""
PACKAGES = ("onnx", "onnxruntime")
RANKED = ("readout", "predictions")
BYTES: dict[Record, int] = {"spikes": 1, "membrane": 4, "current": 8}
"""Of one number that is returned."""


@dataclass(eq=False)
class Program:
    """A deployment and its sessions, by what they show; a session is made when a run first asks for it."""

    deployment: Deployment
    sessions: dict[frozenset[Record], Any] = field(default_factory=dict)


@final
class OnnxRuntimeSimulator:
    """A deployment as ONNX in onnxruntime, on one CPU thread.

    Membranes and currents of a quantised deployment are integers in the chip's units. Overflows are not counted: 0 where none
    is possible for any input of the declared range, else None.

    Args:
        chunk_bytes: memory that a chunk of samples may return; results do not depend on it.
    """

    name = "onnxruntime"
    expected_failures_on_integers: ClassVar[Mapping[str, str]] = ON_INTEGERS
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "float32", needs_integers=False, description="one ONNX file in onnxruntime", on_integers="loihi_integer"
        )

    def availability(self) -> Availability:
        """There where onnx and onnxruntime are installed."""
        try:
            return Availability(True, versions=_versions())
        except PackageNotFoundError as error:
            return Availability(False, reason=f"{error.name} is not installed", fix="pip install onnx onnxruntime")

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        from snn_export.hardware_sims.onnxruntime.probe import findings

        return list(findings(self))

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """What keeps it from being written as ONNX; see :mod:`snn_export.export.onnx_rules`."""
        return onnx_rules.findings(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """A program that makes its sessions as runs ask for them. Raises UserError with the findings of :meth:`check`."""
        findings = self.check(deployment)
        if findings:
            raise UserError.from_diagnostics(tuple(findings))
        return Program(deployment)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape), chunk by chunk; see :class:`Simulator`.

        Raises:
            UserError: those of :func:`snn_export.export.encoding.signal`; SNX005; SNX439 for numbers beyond float32.
            BackendError: SNX438 where onnxruntime does not run the file.
        """
        deployment, wanted = program.deployment, check_record(record)
        shown: frozenset[Record] = wanted | {"spikes"}  # counts are always kept
        source = _Inputs(deployment, inputs)
        if shown not in program.sessions:
            program.sessions[shown] = _session(deployment, shown)
        kept = _Answers(source.samples)
        for samples in _chunks(deployment, shown, source.samples, self._chunk_bytes):
            kept.store(_asked(program.sessions[shown], deployment, shown, source.part(samples)), samples)
        return self._trace(deployment, kept.arrays, wanted)

    def _trace(self, deployment: Deployment, kept: dict[str, NDArray[Any]], wanted: frozenset[Record]) -> Trace:
        layers = {
            name: layer_trace(
                kept[f"spikes/{name}"], kept.get(f"membrane/{name}"), kept.get(f"current/{name}"), wanted,
                unit=deployment.populations[name].unit if deployment.quantised else 1.0,
                overflows=_overflows(deployment, name), latency=deployment.contract.latency[name],
            )
            for name in deployment.layers
        }  # fmt: skip
        readout = kept["readout"]
        shared = (readout == readout.max(axis=1, keepdims=True)).sum(axis=1) > 1
        return Trace(self.name, layers, readout, kept["predictions"], int(shared.sum()), _versions())


class _Inputs:
    """What the file takes, (S, B, *shape) by the name of its input, a chunk of samples at a time."""

    def __init__(self, deployment: Deployment, inputs: NDArray[Any]) -> None:
        self._deployment = deployment
        self._values = encoding.shaped(deployment, inputs)
        self.samples = int(self._values.shape[1])
        self._made: dict[str, NDArray[Any]] = {}
        if onnx_rules.is_host_biased(deployment):
            host = encoding.host_bias(deployment, inputs)
            self._made = {f"bias/{name}": bias[None] for name, bias in host.items()}
        elif deployment.contract.encoder.kind == "rate":  # a sample's spikes depend on its place in the whole batch
            self._made = {"input": encoding.signal(deployment, inputs)}

    def part(self, samples: slice) -> dict[str, NDArray[Any]]:
        """Some samples, in the types that the file wants."""
        given = {name: values[:, samples] for name, values in self._made.items()}
        given = given or {"input": encoding.signal(self._deployment, self._values[:, samples])}
        if self._deployment.quantised:
            return {name: np.ascontiguousarray(values) for name, values in given.items()}
        with np.errstate(over="ignore"):
            narrow = {name: np.ascontiguousarray(values, np.float32) for name, values in given.items()}
        if not all(np.isfinite(values).all() for values in narrow.values()):
            raise UserError(
                "SNX439", "some inputs are larger than float32 can say", where="inputs",
                why="a float network is run in float32 here, and an infinite input silences or saturates whole layers",
                fix="scale the inputs",
            )  # fmt: skip
        return narrow


class _Answers:
    """What sessions returned, by name, joined along the axis of samples."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self.arrays: dict[str, NDArray[Any]] = {}

    def store(self, found: dict[str, NDArray[Any]], samples: slice) -> None:
        """Keep a chunk."""
        for name, values in found.items():
            axis = 0 if name in RANKED else 1
            if name not in self.arrays:
                self.arrays[name] = np.empty((*values.shape[:axis], self._samples, *values.shape[axis + 1 :]), values.dtype)
            target = self.arrays[name]
            (target if axis == 0 else np.swapaxes(target, 0, 1))[samples] = values if axis == 0 else np.swapaxes(values, 0, 1)


def _session(deployment: Deployment, shown: Collection[Record]) -> Any:
    """The file in onnxruntime: one thread, no choice left to timing."""
    import onnxruntime

    from snn_export.export import onnx_io

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    data = onnx_io.model(deployment, probes=shown).SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of its own
        raise _broken("cannot load", error) from error


def _asked(
    session: Any, deployment: Deployment, shown: Collection[Record], feeds: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    names = [*RANKED, *(f"{what}/{name}" for name in deployment.layers for what in sorted(shown))]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # as above
        raise _broken("cannot run", error) from error


def _broken(what: str, error: Exception) -> BackendError:
    return BackendError(
        Diagnostic(
            "SNX438", f"onnxruntime {what} the network: {type(error).__name__}: {str(error)[:300]}", where="onnxruntime",
            why="the file passed onnx's own checks, so this version of onnxruntime lacks something or ran out of memory",
            fix="install onnxruntime 1.20 or later, or run fewer samples at once",
        )
    )  # fmt: skip


def _chunks(deployment: Deployment, shown: Collection[Record], samples: int, budget: int) -> Iterator[slice]:
    """Samples that run together, so that what they return fits the budget twice: onnxruntime's copy and ours."""
    neurons = sum(int(np.prod(deployment.shapes[name])) for name in deployment.layers)
    size = 2 * neurons * sum(BYTES[what] for what in shown) + 8 * int(np.prod(deployment.input_shape))
    at_once = max(1, min(BATCH_AT_ONCE, budget // max(1, size * deployment.contract.steps)))
    return (slice(at, min(samples, at + at_once)) for at in range(0, samples, at_once))


def _overflows(deployment: Deployment, name: str) -> int | None:
    """0 where no input of the declared range can wrap or saturate anything; otherwise nobody counted."""
    return 0 if not deployment.quantised or bounds.population_bounds(deployment, name).safe else None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}

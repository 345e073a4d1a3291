"""The library's functions, as ``import snn_export`` offers them. Each one is a short composition of the layers below."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from snn_export.export import netx_io, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.targets import MOST_CHIPS
from snn_export.hardware_sims.trace import SPIKES_ONLY
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

if TYPE_CHECKING:
    import nir
    from torch import nn

    from snn_export.export.onnx_rules import Precision
    from snn_export.export.targets import CheckTarget, ChipName
    from snn_export.hardware_sims.trace import Record, Trace
    from snn_export.models.diagnostics import Diagnostic
    from snn_export.models.spec import EncoderSpec, ReadoutRule, Reset
    from snn_export.reporting.report import Report
    from snn_export.training.loop import ProgressCallback
    from snn_export.verification.bit_sweep import BitSweep

Format = Literal["nir", "net", "onnx"]
"""Formats a deployment can be written in."""
NETX_SUFFIX = ".net"
"""Ending of lava-dl's files."""
SUFFIXES: Mapping[str, Format] = {".nir": "nir", NETX_SUFFIX: "net", ".onnx": "onnx"}


def load(
    path: str | os.PathLike[str],
    *,
    steps: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    ignore: Collection[str] = (),
) -> Deployment:
    """Read a deployment (graph, contract, integers) from a ``.nir`` file this project wrote, or a network of lava-dl (``.net``).

    Args:
        path: of the file; its ending decides.
        steps: T, for a ``.net`` file; by default what the file says (``simulation/tSample``), else 100.
        input_shape: (channels, rows, columns) of a sample, for a ``.net`` file that does not say.
        ignore: fields of a ``.net`` file that mean nothing.

    Raises:
        UserError: SNX101 to SNX109, see :func:`snn_export.export.nir_io.read`; SNX124 to SNX128, see
            :func:`snn_export.export.netx_io.read`.
    """
    if Path(path).suffix == NETX_SUFFIX:
        return netx_io.read(path, steps=steps, input_shape=input_shape, ignore=ignore)
    if steps is not None or input_shape is not None or ignore:
        raise UserError(
            "SNX127", "steps, input_shape and ignore are for .net files", where="load(...)",
            why="a .nir file states its contract itself", fix="leave them out",
        )  # fmt: skip
    return nir_io.read(path)


def save(
    deployment: Deployment,
    path: str | os.PathLike[str],
    format: Format | None = None,
    *,
    precision: Precision = "float32",
    probes: Collection[str] = (),
    streaming: bool = False,
) -> Path:
    """Write a deployment; it appears complete or not at all, and replaces a file that was there.

    Args:
        deployment: float or quantised; ``net`` takes quantised ones.
        path: of the file.
        format: "nir", with its contract beside it; "net", for lava-dl's netx; "onnx", the network with its time loop for any ONNX
            runtime (:mod:`snn_export.export.onnx_io` names its inputs and outputs). None: by the ending of ``path``, else "nir".
        precision: of the numbers in an ``.onnx`` file of a float deployment, "float32" or "float64".
        probes: any of "spikes", "membrane", "current", to be outputs of an ``.onnx`` file for every layer.
        streaming: an ``.onnx`` file takes and returns states, so that a sample can be run in parts.

    Raises:
        UserError: SNX006 for a format that is not known, SNX123 where it cannot be written; SNX250 to SNX257 for what a
            ``.net`` file cannot hold, SNX203, SNX285 to SNX287 for what an ``.onnx`` file cannot, all at once; SNX160, SNX161.
    """
    chosen = format or SUFFIXES.get(Path(path).suffix, "nir")
    if chosen not in get_args(Format):
        known = ", ".join(get_args(Format))
        raise UserError(
            "SNX006", f"unknown format {format!r}", where="save(format=...)", why=f"known: {known}", fix="use format='nir'"
        )
    if chosen == "onnx":
        from snn_export.export import onnx_io

        return onnx_io.write(deployment, path, precision=precision, probes=probes, streaming=streaming)
    if precision != "float32" or probes or streaming:
        raise UserError(
            "SNX161", f"precision, probes and streaming are for .onnx files, and this is .{chosen}", where="save(...)",
            why=f"a .{chosen} file describes the network; what is shown of a run is chosen when it is run",
            fix='leave them out, or save(deployment, "net.onnx")',
        )  # fmt: skip
    return netx_io.write(deployment, path) if chosen == "net" else nir_io.write(deployment, path)


def from_nir(
    source: nir.NIRGraph | str | os.PathLike[str],
    *,
    steps: int,
    dt: float | None = None,
    reset: Reset | None = None,
    rule: ReadoutRule | None = None,
    encoder: EncoderSpec | None = None,
    round_decays: bool = False,
) -> Deployment:
    """Read a NIR graph of any program, stating what NIR cannot say, into a float deployment.

    ``snn-export lint FILE`` tells what a file says about its time step and its reset.

    Args:
        source: a ``.nir`` file, or the graph itself.
        steps: T.
        dt: time per step in the unit of the file's time constants. None takes the step that the constants were certainly
            written with (r = tau / dt and the like, :mod:`snn_export.export.provenance`).
        reset: "zero", "subtract" or "none", in the step of the spike. None takes the one that the writer certainly has, or
            "zero" as NIR defines it; snnTorch and sinabs drop theirs, which must be stated.
        rule: how the last population is read out; default: its last membrane, or its spike counts where it spikes.
        encoder: default direct encoding.
        round_decays: accept time constants between two integer decays and take the nearest.

    Raises:
        UserError: SNX167, SNX168 for a dt or a reset that must be stated; all findings at once, see
            :func:`snn_export.export.nir_reader.deployment_from_nir`.
    """
    import nir

    from snn_export.export.inspection import settled
    from snn_export.export.nir_reader import deployment_from_nir

    if dt is None or reset is None:
        graph = source if isinstance(source, nir.NIRGraph) else nir_io.read_graph(Path(source))
        version = "" if isinstance(source, nir.NIRGraph) else nir_io.file_version(Path(source))
        where = "graph" if isinstance(source, nir.NIRGraph) else Path(source).name
        dt, reset = settled(graph, version, dt, reset, where)
    return deployment_from_nir(source, steps=steps, dt=dt, reset=reset, rule=rule, encoder=encoder, round_decays=round_decays)


def from_snntorch(
    layers: nn.Sequential,
    input_shape: tuple[int, ...],
    steps: int,
    calibration_inputs: NDArray[Any],
    *,
    rule: ReadoutRule | None = None,
    encoder: EncoderSpec | None = None,
    round_decays: bool = False,
) -> Deployment:
    """Read a trained snnTorch ``nn.Sequential`` into a float deployment in portable form.

    Batch-norm is folded, then :func:`prepared` runs: each exact pass is checked on the calibration inputs right after it ran.

    Args:
        layers: Conv1d, Conv2d, Linear, BatchNorm, AvgPool2d, Flatten, ``snntorch.Leaky``, ``Synaptic``, ``RLeaky``,
            ``RSynaptic``, the layers of ``snn_export.models`` (Recurrent, Delay, ResidualSum), nested ``nn.Sequential``, and a
            final :class:`snn_export.models.neurons.integrator.Integrator`.
        input_shape: one sample, (channels, rows, columns) or (features,).
        steps: T.
        calibration_inputs: (B, *input_shape), or (T, B, *input_shape) for events; a few dozen samples.
        rule: how the last population is read out; default: its last membrane, or its spike counts where it spikes.
        encoder: how an input becomes T steps: ``EncoderSpec("direct")`` by default, ``"events"``, or
            ``EncoderSpec("rate", full_scale=1.0, seed=0)`` (:class:`snn_export.models.spec.EncoderSpec`).
        round_decays: accept a beta that is not a multiple of 1/4096 and take the nearest.

    Raises:
        UserError: SNX206 to SNX215, SNX240 to SNX242, SNX260 to SNX264, all findings about the layers at once; see
            :mod:`snn_export.export.snntorch_reader`.
    """
    from snn_export.export.snntorch_reader import deployment_from_snntorch

    read = deployment_from_snntorch(layers, input_shape, steps, rule=rule, encoder=encoder, round_decays=round_decays)
    return prepared(read, calibration_inputs)


def prepared(deployment: Deployment, calibration_inputs: NDArray[Any]) -> Deployment:
    """Run the exact passes a chip needs, each checked on the calibration inputs right after it ran.

    Pooling absorbed, one weight layer per connection, one decay and threshold per population, r = 1, paths of unequal depth
    balanced. A pass with nothing to do is left out; a network that is ready comes back as it is.

    Raises:
        UserError: SNX242, SNX260, SNX261, SNX264; SNX303 where a pass was not exact. :func:`check` tells all of them at once.
    """
    from snn_export.export.passes.absorb_average_pooling import AbsorbAveragePooling
    from snn_export.export.passes.balance_latency import BalanceLatency
    from snn_export.export.passes.compose_linear import ComposeLinear
    from snn_export.export.passes.insert_weights import InsertWeights
    from snn_export.export.passes.pass_ import run_passes
    from snn_export.export.passes.portable_form import PortableForm
    from snn_export.export.passes.split_populations import SplitPopulations

    passes = (
        AbsorbAveragePooling(), InsertWeights(), ComposeLinear(), SplitPopulations(), PortableForm(), BalanceLatency(),
    )  # fmt: skip
    return run_passes(deployment, passes, calibration_inputs)


def check(deployment: Deployment, target: CheckTarget = "loihi2", chips: int = MOST_CHIPS) -> list[Diagnostic]:
    """Every design rule of a target that a deployment breaks, all at once; no error among them where it can be run there.

    Args:
        deployment: float (can it be quantised for that target?) or quantised (can the target run it?).
        target: a chip ("loihi1", "loihi2") or a backend ("loihi", "lava", "netx").
        chips: how many chips it may take.

    Returns:
        Findings: errors keep it from the target; of chips there are warnings and notes too, which do not.

    Raises:
        UserError: SNX216 for a target that is not known.
    """
    from snn_export.hardware_sims.rules import registry

    if target not in registry.EVERY:
        raise UserError(
            "SNX216", f"there is no target called {target!r}", where="check(target=...)",
            why="a check is made for a chip or a backend", fix=suggestion(target, registry.EVERY),
        )  # fmt: skip
    return registry.check(deployment, target, chips)


def quantize(
    deployment: Deployment,
    calibration_inputs: NDArray[Any],
    target: ChipName = "loihi2",
    *,
    weight_bits: int = 8,
    input_range: tuple[float, float] | None = None,
    bias_exponent: int | None = None,
    input_as_bias: bool = False,
) -> Deployment:
    """Put a float deployment on a chip's integer grid.

    Scales and input levels are chosen by the spikes they change on the calibration inputs; the result cannot overflow for any
    input of the declared range.

    Args:
        deployment: float deployment.
        calibration_inputs: (B, *shape) or (T, B, *shape), real units; training data, not test data.
        target: "loihi1" or "loihi2".
        weight_bits: 1 to 8, sign included where a layer has weights of both signs.
        input_range: declared (low, high) of inputs; default: what the calibration inputs span. Values beyond are clipped;
            with ``input_as_bias`` one that needs a larger bias than the chip holds is refused when it is run (SNX308).
        bias_exponent: 0 to 7, one for all biases; 6 where lava-dl's netx is to run the network (no weight exponents
            then). None: each population its own.
        input_as_bias: the host computes the weight layers behind the input, and the chip gets their result as a bias per neuron
            and sample: for chips without graded input spikes.

    Raises:
        UserError: SNX201, SNX203, SNX242 to SNX247, SNX306, SNX307, SNX314; see
            :class:`snn_export.export.passes.quantize.Quantize`.
    """
    from snn_export.calibration import spike_score
    from snn_export.export.passes.pass_ import run_passes
    from snn_export.export.passes.quantize import Quantize
    from snn_export.export.passes.rounding import InputRange

    ready = deployment if deployment.quantised else prepared(deployment, calibration_inputs)
    if input_as_bias:
        ready = with_input_as_bias(ready)
    low, high = input_range or (float(np.min(calibration_inputs)), float(np.max(calibration_inputs)))
    step = Quantize(target, spike_score(ready, calibration_inputs), InputRange(low, high), weight_bits, bias_exponent)
    return run_passes(ready, (step,), calibration_inputs)


def reset_periodically(deployment: Deployment, interval: int, offsets: Mapping[str, int] | None = None) -> Deployment:
    """Clear u and v of every population each ``interval`` steps, as Lava's LIFReset does; this changes the network.

    Args:
        deployment: float or quantised.
        interval: steps between two resets.
        offsets: by population, the first step that starts from zero again; default 0.

    Raises:
        UserError: SNX109 for numbers that do not fit, or a population that does not exist.
    """
    from snn_export.export.passes.reset_periodically import ResetPeriodically

    return ResetPeriodically(interval, offsets or {})(deployment)


def with_input_as_bias(deployment: Deployment) -> Deployment:
    """A float deployment under direct encoding whose first weight layers a host computes; the same network in real numbers.

    Raises:
        UserError: SNX247 for an input that changes from step to step.
    """
    encoder = deployment.contract.encoder
    if encoder.kind not in ("direct", "bias"):
        raise UserError(
            "SNX247", f"{encoder.kind} input cannot become a bias", where="contract.encoder",
            why="a bias is the same in every step, and this input is not", fix="leave input_as_bias out",
        )  # fmt: skip
    changed = replace(encoder, kind="bias")
    return deployment.replace(contract=deployment.contract.model_copy(update={"encoder": changed}))


def fine_tune(
    deployment: Deployment,
    inputs: NDArray[Any],
    labels: NDArray[Any],
    *,
    epochs: int = 5,
    learning_rate: float = 2e-3,
    validation: tuple[NDArray[Any], NDArray[Any]] | None = None,
    teacher: nn.Module | None = None,
    batch_size: int = 64,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Deployment:
    """Train a quantised deployment further, on the integers it runs on.

    The forward pass of this training is the integer arithmetic itself, so the result does on every integer backend exactly
    what it did in training. Scales, thresholds and decays stay; weights and biases learn, within the limits in which the
    network is proven safe from overflow. Where no epoch beats the start on the validation samples, the start is returned.

    Args:
        deployment: quantised.
        inputs: training inputs, (B, *shape), or (T, B, *shape) for event input, real units.
        labels: (B,) class indices.
        epochs: passes over the inputs.
        learning_rate: peak of a one-cycle schedule, in real weight units.
        validation: (inputs, labels) that choose the best epoch; default: an eighth of the training samples is held out.
        teacher: maps inputs to logits; its softened outputs are then part of the loss (plain distillation).
        batch_size: samples per step.
        seed: of the order of samples.
        checkpoint_dir: folder of a checkpoint from which an interrupted call continues.
        progress: called with :class:`snn_export.training.loop.Progress`.

    Raises:
        UserError: SNX302, SNX310 to SNX313, SNX315, SNX317; see :mod:`snn_export.training.fine_tuning`.
    """
    from snn_export.data.dataset import DEFAULT_VALIDATION, Samples, stratified_split
    from snn_export.training.fine_tuning import fine_tune_deployment
    from snn_export.training.recipes.registry import load_recipe
    from snn_export.training.settings import TrainingSettings

    def samples(x: NDArray[Any], y: NDArray[Any]) -> Samples:
        ordered = np.swapaxes(x, 0, 1) if deployment.contract.encoder.kind == "events" else x
        return Samples(np.ascontiguousarray(ordered, np.float32), np.asarray(y, np.int64))

    train = samples(inputs, labels)
    if len(train.x) != len(train.y):
        raise UserError(
            "SNX007", f"{len(train.y)} labels for {len(train.x)} inputs", where="fine_tune(labels)",
            why="every input needs its class", fix="pass one label per input",
        )  # fmt: skip
    if validation is None:
        count = max(1, round(DEFAULT_VALIDATION * len(train)))
        kept, held = stratified_split(train.y, count, np.random.default_rng(seed))
        train, held_out = Samples(train.x[kept], train.y[kept]), Samples(train.x[held], train.y[held])
    else:
        held_out = samples(*validation)
    recipe = load_recipe("plain_kd" if teacher is not None else "no_teacher")
    settings = TrainingSettings(epochs, batch_size, learning_rate, max_shift=0, seed=seed)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    return fine_tune_deployment(
        deployment, train, held_out, recipe, settings, teacher=teacher, checkpoint_dir=folder, progress=progress
    ).deployment


def sweep_bits(
    deployment: Deployment,
    calibration_inputs: NDArray[Any],
    inputs: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *,
    bits: Sequence[int] | None = None,
    target: ChipName = "loihi2",
    fine_tune: Callable[[Deployment], Deployment] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> BitSweep:
    """Quantise a float deployment with different numbers of bits per weight and measure what each costs.

    Args:
        deployment: float deployment.
        calibration_inputs: what the scales are chosen on.
        inputs: what is measured on, (B, *shape) or (T, B, *shape), real units.
        labels: (B,) class indices, or None: then there is no accuracy.
        bits: numbers of bits, 1 to 8, in the order of the rows; default 8 down to 3.
        target: chip.
        fine_tune: makes a fine-tuned deployment of a quantised one, e.g. a partial :func:`fine_tune`.
        progress: called as ``progress(number, total, text)`` when a row starts something.
        options: of :func:`quantize`, e.g. ``input_range``.

    Returns:
        BitSweep: ``.rows``, one per number of bits, with spike error, samples classified right and binding limits.

    Raises:
        UserError: SNX307 for a number of bits out of range, SNX007 for labels that do not fit; what :func:`quantize` raises,
            but for SNX306 (no scale fits), which becomes the row's ``refusal``.
    """
    from snn_export.verification.bit_sweep import DEFAULT_BITS, silent, sweep

    ready = deployment if deployment.quantised else prepared(deployment, calibration_inputs)

    def quantised(count: int) -> Deployment:
        return quantize(ready, calibration_inputs, target, weight_bits=count, **options)

    chosen = DEFAULT_BITS if bits is None else tuple(bits)
    return sweep(ready, quantised, inputs, labels, chosen, fine_tune=fine_tune, progress=progress or silent)


def simulate(
    deployment: Deployment,
    inputs: NDArray[Any],
    backend: str = "loihi",
    record: Collection[Record] = SPIKES_ONLY,
    **options: Any,
) -> Trace:
    """Run a deployment on a backend.

    Args:
        deployment: float or quantised, as the backend needs.
        inputs: (T, B, *shape), or (B, *shape) for direct encoding, in real units.
        backend: ``snn-export backends list`` shows the names.
        record: any of "spikes", "membrane", "current".
        options: for the backend, e.g. ``layers=`` (the trained module) for "student", ``time_limit=`` for "lava".

    Returns:
        Trace: ``.layers[name].spikes`` and ``.membrane`` (T, B, *features), ``.predictions`` (B,).

    Raises:
        UserError: SNX401 no such backend, and whatever keeps the network from running there, all at once.
        BackendError: the backend is missing or broke.
    """
    from snn_export.hardware_sims.registry import simulator
    from snn_export.hardware_sims.simulator import BackendError
    from snn_export.models.diagnostics import Diagnostic

    chosen = simulator(backend, **options)
    available = chosen.availability()
    if not available.ok:
        raise BackendError(
            Diagnostic("SNX404", f"{backend} is not available", where=backend, why=available.reason, fix=available.fix)
        )
    return chosen.run(chosen.compile(deployment), inputs, record)


def verify(
    deployment: Deployment,
    inputs: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *,
    reference: str = "loihi",
    targets: Sequence[str] = ("lava",),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    accuracy_drop: float = 1.0,
    spike_mismatch: float = 20.0,
    decision_mismatch: float = 5.0,
) -> Report:
    """Compare backends on the same inputs, spike by spike and layer by layer.

    Two integer backends must agree in every spike, membrane and current. Otherwise differences are measured and gated.

    Args:
        deployment: what all backends run.
        inputs: (B, *shape) or (T, B, *shape), real units.
        labels: (B,) class indices; None: no accuracy.
        reference: backend the others are held against.
        targets: backends to compare; each is required.
        options: per backend, as in :func:`simulate`.
        accuracy_drop: points a target may lose against the reference.
        spike_mismatch: percent of a layer's spikes that may lack a counterpart where the two sides compute differently.
        decision_mismatch: percent of samples that may then be classified differently.

    Returns:
        Report: ``.passed``, ``.exit_code``, ``.comparisons``, ``.gates``, ``.coverage``.
    """
    from snn_export.verification.compare import Tolerance
    from snn_export.verification.direct import verify_backends

    tolerance = Tolerance(spike_mismatch, decision_mismatch)
    return verify_backends(
        deployment, inputs, labels, reference, targets, options or {}, accuracy_drop=accuracy_drop, tolerance=tolerance
    )

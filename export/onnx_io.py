"""Deployments as ONNX: the whole spiking network with its time loop in one file, which any ONNX runtime runs.

:func:`how_to_run` tells how to run it in three lines.

=======================  =====================================================================================================
``input``                (time, batch, *shape), real units; float64 for a quantised network, which puts it on the encoder's
                         grid inside the graph, level = clip(round_half_even(x gain), low, high); float32 or float64 otherwise.
                         Under direct encoding one row holds for all T steps of the contract; every other number of rows is T.
                         Under rate encoding the caller draws the spikes (``export/encoding.py``: numbers drawn from a seed).
``bias/<population>``    (time, batch, *features) int64, in place of ``input`` where the host computes the first weights of a
                         quantised network (``export/encoding.py::host_bias``); rows as above.
``output``               (steps, batch, *features): membranes of the readout population, or its spikes where those are counted.
``readout``              (batch, classes): what the readout rule ranks. ``predictions`` (batch,): the lowest index of the largest.
``spikes/<population>``  and ``membrane/...``, ``current/...``, (steps, batch, *features), where probes were asked for: bool;
                         v after the step's reset and u, int32 and int64 in the chip's units for a quantised network.
``state/<name>``         streaming files: what an earlier part of the same samples left in ``next/<name>``; each may be left out,
                         and is then the start of a sample. In such a file every row of ``input`` is one step.
=======================  =====================================================================================================

A quantised network is computed in integers, bit for bit as ``hardware_sims/loihi`` does; see :mod:`snn_export.export.onnx_rules`.
The metadata hold the contract, the fingerprint and the version of the deployment, and who applies the encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import checker, helper, shape_inference

from snn_export.export.deployment import Deployment
from snn_export.export.onnx_graph import Graph, Value
from snn_export.export.onnx_rules import (
    Numbers,
    Precision,
    check_options,
    findings,
    host_biased,
    is_host_biased,
    numbers_of,
)
from snn_export.export.onnx_scan import Given, TimeLoop
from snn_export.models.diagnostics import UserError

OPSET, IR_VERSION = 18, 8
"""onnxruntime 1.14 and later."""
LARGEST_BYTES = (1 << 31) - (1 << 20)
"""Protobuf ends at 2 GiB; a little is left for what is not weights."""
HOLDING = ("direct", "bias")
"""Encoders under which one row of input serves all steps."""


def write(
    deployment: Deployment,
    path: str | os.PathLike[str],
    *,
    precision: Precision = "float32",
    probes: Collection[str] = (),
    streaming: bool = False,
) -> Path:
    """Write a deployment as one ``.onnx`` file; it appears complete or not at all, and replaces one that was there.

    Equal deployments and options give equal bytes.

    Args:
        deployment: float or quantised.
        path: of the file.
        precision: of a float deployment.
        probes: any of "spikes", "membrane", "current", to be shown of every population.
        streaming: with state inputs and outputs, so that a sample can be run in parts.

    Raises:
        UserError: as :func:`model`; SNX123 where it cannot be written there.
    """
    target = Path(path)
    data = model(deployment, precision=precision, probes=probes, streaming=streaming).SerializeToString(deterministic=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            "SNX123", f"cannot write {target.name}", where=str(target), why=str(error), fix="choose a folder you may write to"
        ) from error
    return target


def model(
    deployment: Deployment, *, precision: Precision = "float32", probes: Collection[str] = (), streaming: bool = False
) -> onnx.ModelProto:
    """What :func:`write` writes, checked by onnx and with all shapes inferred strictly.

    Raises:
        UserError: SNX160 for more than 2 GiB of weights, SNX161 for an option that does not exist, and all findings of
            :func:`snn_export.export.onnx_rules.findings`.
    """
    shown = check_options(precision, probes)
    found = findings(deployment, precision)
    if found:
        raise UserError.from_diagnostics(tuple(found))
    numbers = numbers_of(deployment, precision)
    graph = Graph("snn")
    first, source, biases = _inputs(graph, deployment, numbers)
    clock = _clock(graph, deployment, first, streaming)
    batch = graph.node("Gather", clock.shape, graph.constant([1], np.int64), attributes={"axis": 0})
    loop = TimeLoop(graph, deployment, numbers, Given(source, biases, batch, clock.row, clock.step), streaming)
    loop.run(shown)
    _readout(graph, deployment, loop, clock)
    for name in deployment.layers:
        for probe in shown:
            graph.output(f"{probe}/{name}", loop.made[probe, name], ("steps", "batch", *deployment.shapes[name]))
    for state in loop.states if streaming else ():
        graph.output(f"next/{state.name}", loop.ends[state.name], ("batch", *state.shape))
    if clock.counted:
        graph.output("next/step", clock.total, ())
    if graph.constant_bytes > LARGEST_BYTES:
        raise UserError(
            "SNX160", f"the network has {graph.constant_bytes / (1 << 30):.1f} GiB of weights", where="save(format='onnx')",
            why="one ONNX file holds at most 2 GiB", fix="write it as NIR, or make it smaller",
        )  # fmt: skip
    made = helper.make_model(
        graph.proto(),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="snn-export",
        producer_version=version("snn-export"),
        doc_string=how_to_run(deployment, "net.onnx"),
    )
    helper.set_model_props(made, _metadata(deployment, precision, streaming))
    checker.check_model(made, full_check=True)
    return shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)


def how_to_run(deployment: Deployment, name: str) -> str:
    """Lines of Python that run a file called ``name``, made of this deployment, in onnxruntime."""
    encoder, number = deployment.contract.encoder.kind, "float64" if deployment.quantised else "float32"
    sizes = ", ".join(map(str, deployment.input_shape))
    if is_host_biased(deployment):
        given = '{f"bias/{name}": b[None] for name, b in snn_export.export.encoding.host_bias(deployment, inputs).items()}'
    elif encoder == "rate":
        given = f'{{"input": spikes.astype("{number}")}}  # (time, batch, {sizes}), 0 or 1'
    elif encoder == "events":
        given = f'{{"input": events.astype("{number}")}}  # (time, batch, {sizes})'
    else:
        given = f'{{"input": inputs[None].astype("{number}")}}  # inputs (batch, {sizes})'
    return (
        f"    session = onnxruntime.InferenceSession({json.dumps(name)})\n"
        f"    given = {given}\n"
        f'    predictions, readout = session.run(["predictions", "readout"], given)\n'
    )


def _metadata(deployment: Deployment, precision: Precision, streaming: bool) -> dict[str, str]:
    encoder = deployment.contract.encoder
    if is_host_biased(deployment):
        who = "caller: bias/<population>"
    elif encoder.kind == "rate":
        who = "caller: input is spikes"
    else:
        who = "graph: input is in real units"
    units = {name: grid.unit for name, grid in deployment.populations.items()}
    return {
        "snn_export.format": "onnx/1",
        "snn_export.version": version("snn-export"),
        "snn_export.contract": deployment.contract.model_dump_json(),
        "snn_export.fingerprint": deployment.fingerprint,
        "snn_export.arithmetic": "loihi_integer" if deployment.quantised else precision,
        "snn_export.encoder": who,
        "snn_export.layers": json.dumps(deployment.layers),
        "snn_export.units": json.dumps(units, sort_keys=True),
        "snn_export.streaming": json.dumps(streaming),
    }


# --- in front of the loop ------------------------------------------------------------------------------------------------


def _inputs(graph: Graph, deployment: Deployment, numbers: Numbers) -> tuple[Value, Value | None, dict[str, Value]]:
    """Inputs of the file: the first of them, and the input's or the host's values as populations take them."""
    if is_host_biased(deployment):
        biases = {
            name: graph.input(f"bias/{name}", np.int64, ("time", "batch", *deployment.shapes[name]))
            for name in host_biased(deployment)
        }
        return next(iter(biases.values())), None, biases
    real = np.dtype(np.float64) if deployment.quantised else numbers.signal
    first = graph.input("input", real, ("time", "batch", *deployment.input_shape))
    return first, _encoded(graph, deployment, first, numbers), {}


@dataclass(frozen=True, eq=False)
class _Clock:
    """Time of a run. All are values of the main graph.

    shape: of the first input. row: (T,) which of its rows each step reads. step: (T,) number of each step since the start of the
    sample, or None where nothing asks. total: steps since the start, this run included. counted: earlier parts count.
    """

    shape: Value
    row: Value
    step: Value | None
    total: Value
    counted: bool


def _clock(graph: Graph, deployment: Deployment, first: Value, streaming: bool) -> _Clock:
    contract, zero, one = deployment.contract, graph.constant(0, np.int64), graph.constant(1, np.int64)
    shape = graph.node("Shape", first, dtype=np.int64)
    steps = rows = graph.node("Gather", shape, zero, attributes={"axis": 0})
    if contract.encoder.kind in HOLDING and not streaming:
        held = graph.node("Equal", rows, one, dtype=bool)
        steps = graph.node("Where", held, graph.constant(contract.steps, np.int64), rows, dtype=np.int64)
    index = graph.node("Range", zero, steps, one)
    row = index if steps is rows else graph.node("Min", index, rows - one)
    resets = any(spec.reset_interval for spec in contract.neurons.values())
    counted = streaming and (resets or contract.readout.rule == "membrane_mean")
    if not counted:
        return _Clock(shape, row, index if resets else None, steps, counted)
    start = graph.input("state/step", np.int64, (), np.zeros((), np.int64))
    return _Clock(shape, row, index + start if resets else None, steps + start, counted)


def _encoded(graph: Graph, deployment: Deployment, real: Value, numbers: Numbers) -> Value:
    """Inputs as weights take them: levels of the encoder's grid for integers, else the values themselves."""
    encoder = deployment.contract.encoder
    if not deployment.quantised or encoder.gain is None:
        return graph.cast(real, numbers.signal)
    level = graph.node("Round", real * encoder.gain)
    low, high = graph.constant(encoder.low, np.float64), graph.constant(encoder.high, np.float64)
    return graph.cast(graph.node("Clip", level, low, high), numbers.signal)


# --- behind the loop -----------------------------------------------------------------------------------------------------


def _readout(graph: Graph, deployment: Deployment, loop: TimeLoop, clock: _Clock) -> None:
    """``output``, ``readout`` and ``predictions``."""
    rule, node = deployment.contract.readout.rule, deployment.contract.readout.node
    shape = deployment.shapes[node]
    shown = loop.made["spikes" if rule == "spike_count" else "membrane", node]
    graph.output("output", shown, ("steps", "batch", *shape))
    if rule == "membrane_last":
        ranked = graph.node("Gather", shown, graph.constant(-1, np.int64), attributes={"axis": 0})
    elif rule == "membrane_mean":
        total = loop.ends["readout/sum"]
        number = np.dtype(np.float64) if deployment.quantised else total.dtype
        ranked = graph.cast(total, number) / graph.cast(clock.total, number)
    elif rule == "membrane_max":
        ranked = graph.cast(loop.ends["readout/largest"], shown.dtype)
    else:
        ranked = loop.ends["readout/count"]
    flat = graph.reshaped(ranked, (int(np.prod(shape)),))
    graph.output("readout", flat, ("batch", int(np.prod(shape))))
    best = graph.node("ArgMax", flat, dtype=np.int64, attributes={"axis": 1, "keepdims": 0, "select_last_index": 0})
    graph.output("predictions", best, ("batch",))

"""Deployments from and to lava-dl's HDF5 networks (``.net``), as ``lava.lib.dl.netx.hdf5.Network`` of lava-dl 0.6.0 runs them.

=================  =====================================================================================================
``.net``           deployment
=================  =====================================================================================================
dense, conv        Affine or Conv2d and a population; du = iDecay - 1, dv = vDecay, threshold = vThMant, bias exponent 6
dense_rec          the same with a Linear from the population to itself, which arrives one step later
flatten            Flatten
delay              a Delay node behind the weights, in seconds of dt = 1 ms (per synapse: one in front of them, one behind)
input with neuron  encoder ``bias``: the host adds weight x + bias to the membrane in every step
input without      the input's shape
tSample            ``reset_interval`` of every population, and T
(one more input)   a bias of the current, where this project wrote the file: a source that fires in every step
=================  =====================================================================================================

The last layer is a non-spiking readout where its threshold is out of reach, 131071 or more, or where it has no neuron at all:
netx then makes one that never fires, whose membrane is the sum of all it received, and so does the integrator made here (its u
is the sum of one step, netx's the whole). Everywhere else netx's numbers are the deployment's, bit for bit.

Biases of the current (of a layer with a synaptic filter) are carried by sources that fire in every step: more inputs, which
whoever runs the file must feed with ones, or neurons in the dense layer before with the largest bias. How many there are stands
in the layer's attribute ``always_on``.

Inputs of such a file are spikes, (T, B, *shape). What the format cannot say - names, scales, T, the levels of graded input and
the readout's rule - is written into HDF5 attributes, which netx does not read.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.graph import Shape, conv_padding, per_axis
from snn_export.export.netx_layers import BIAS_EXPONENT, NetFile, NetLayer, NetNeuron, read_file, write_file
from snn_export.export.netx_reader import Builder, option_error
from snn_export.export.netx_rules import Link, axon_columns, chain, file_delay, findings, host_integers, matrices, relays
from snn_export.models.arithmetic import BIAS_MANTISSA_MAX
from snn_export.models.diagnostics import UserError


def read(
    path: str | os.PathLike[str],
    *,
    steps: int | None = None,
    input_shape: Shape | None = None,
    ignore: Collection[str] = (),
) -> Deployment:
    """Read a ``.net`` file into a quantised deployment.

    Args:
        path: of the file.
        steps: T; by default what the file says (``simulation/tSample``), else 100.
        input_shape: of one sample, (channels, rows, columns), for a file that begins with a convolution and has no input layer.
        ignore: names of fields that netx ignores and that mean nothing here either.

    Raises:
        UserError: SNX101 to SNX103 for a file that is missing, damaged or unsafe; SNX124 no lava-dl network; SNX125 a layer, a
            neuron or a field that netx does not run; SNX126 a number that the chip cannot hold or netx would change; SNX127 for
            options that are missing or impossible; SNX128 fields that netx ignores. All at once.
    """
    source = Path(path)
    if steps is not None and steps < 1:
        raise option_error("steps", f"steps is {steps}", "pass 1 or more")
    net = read_file(source, ignore)
    try:
        return Builder(source, net, steps, input_shape).deployment()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # pydantic and NumPy, on a file whose parts do not fit
        raise UserError(
            "SNX124", f"{source.name} is no lava-dl network that fits together", where=str(source),
            why=str(error).splitlines()[0], fix="export it again",
        ) from error  # fmt: skip


def write(deployment: Deployment, path: str | os.PathLike[str]) -> Path:
    """Write a quantised deployment as a ``.net`` file; it appears complete or not at all.

    Raises:
        UserError: SNX203 and SNX250 to SNX257 for what netx cannot run, all at once; SNX123 where it cannot be written there.
    """
    target = Path(path)
    write_file(net_file(deployment), target)
    return target


def net_file(deployment: Deployment) -> NetFile:
    """What :func:`write` writes. Raises as it does, without SNX123."""
    found = findings(deployment)
    if found:
        raise UserError.from_diagnostics(tuple(found))
    contract, links = deployment.contract, chain(deployment)
    layers: list[NetLayer] = []
    shape = deployment.input_shape
    if links[0].wire is not None and len(shape) > 1:
        layers.append(NetLayer("input", shape))
    for index in range(len(links)):
        layer = _layer_from_link(deployment, links, index)
        if layer.kind.startswith("dense") and len(shape) > 1:
            layers.append(NetLayer("flatten"))
        layers.append(layer)
        shape = layer.shape
    encoder, interval = contract.encoder, contract.neurons[links[0].population].reset_interval
    notes: dict[str, float | str] = {
        "steps": float(contract.steps), "reset_interval": float(interval), "readout": contract.readout.rule,
        "encoder": encoder.kind, "gain": float(encoder.gain or 1.0), "low": float(encoder.low), "high": float(encoder.high),
        "seed": float(encoder.seed), "full_scale": encoder.full_scale,
    }  # fmt: skip
    return NetFile(tuple(layers), interval or contract.steps, notes)


def _layer_from_link(deployment: Deployment, links: tuple[Link, ...], index: int) -> NetLayer:
    """One layer of a deployment that has no findings."""
    link, more = links[index], relays(deployment, links, index)
    integers, shape = deployment.populations[link.population], deployment.shapes[link.population]
    neuron = NetNeuron(integers.du + 1, integers.dv, integers.threshold)
    named = NetLayer("dense", (int(np.prod(shape)),), neuron=neuron, name=link.population, scale=integers.scale)
    mantissa = (deployment.bias(link.population) >> BIAS_EXPONENT).reshape(shape[0], -1)
    if link.wire is None:
        factor, offset = host_integers(deployment, link.population) or (0, 0)
        return replace(named, kind="input", shape=shape, weight=np.array([factor]), bias=np.array([offset]))
    node, parts = deployment.graph.nodes[link.wire.weight], matrices(deployment, links, index)
    bias = np.append(np.ravel(mantissa), np.full(more, BIAS_MANTISSA_MAX))
    named = replace(named, shape=(len(parts[0]),), weight=parts[0], bias=bias if bias.any() else None)
    if isinstance(node, nir.Conv2d):
        (top, _), (left, _) = conv_padding(node)
        stride, dilation = per_axis(node.stride, 2), per_axis(node.dilation, 2)
        return replace(
            named, kind="conv", shape=shape, bias=mantissa[:, 0] if mantissa.any() else None, padding=(top, left),
            stride=(stride[0], stride[1]), dilation=(dilation[0], dilation[1]), groups=int(node.groups),
        )  # fmt: skip
    named = replace(named, delay=file_delay(deployment, link.wire), always_on=axon_columns(deployment, link).shape[1])
    return named if link.loop is None else replace(named, kind="dense_rec", recurrent=parts[1])

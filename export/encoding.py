"""From a user's inputs to the signal the first layer receives."""

from __future__ import annotations

import hashlib
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, not_quantised
from snn_export.export.gains import input_gains
from snn_export.export.linear import apply
from snn_export.models.arithmetic import BIAS_MANTISSA_MAX, BIAS_MANTISSA_MIN, shift_mantissa, state_units
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import EncoderSpec

CONSTANT_KINDS = ("direct", "rate", "bias")
"""Encoders that take one value per feature and sample, and make the time axis themselves."""


def graded_input_finding(what: str) -> Diagnostic:
    """SNX247: an input that needs graded spikes, on a chip without them. what: the input, "direct input" for instance."""
    return Diagnostic(
        "SNX247",
        f"{what} needs graded input spikes",
        where="contract.encoder",
        why="Loihi 1 has binary spikes only",
        fix="choose target loihi2, encode the input as spikes, or let the host compute the first layer (input_as_bias)",
    )


def filtered_host_findings(deployment: Deployment) -> list[Diagnostic]:
    """SNX278: populations whose input would become a bias although they filter it; a bias enters behind the filter."""
    if not deployment.host_synapses:
        return []
    hosts = [name for name, incoming in deployment.connections.items()
             if any(set(connection.path) & deployment.host_synapses for connection in incoming)]  # fmt: skip
    return [
        Diagnostic(
            "SNX278", f"{name} filters the input that would become its bias", where=name,
            why="a bias is added to the membrane, behind the synaptic filter: the network would be another one",
            fix="leave input_as_bias out and choose loihi2, encode the input as spikes, or put a LIF without a filter first",
        )
        for name in hosts
        if isinstance(deployment.graph.nodes[name], nir.CubaLIF | nir.CubaLI)
    ]  # fmt: skip


def signal(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Inputs as the first layer sees them, (S, B, *shape), S = T steps, or S = 1 where every step is the same.

    Real units; spikes of 0 and 1 under rate encoding.

    Args:
        deployment: says which shape and how many steps are expected.
        inputs: (B, *shape) for direct, rate and bias encoding; (T, B, *shape) for events, and where a direct input changes.

    Raises:
        UserError: SNX003 for a shape that does not fit, SNX004 for values that are not finite numbers, SNX501 for no
            samples.
    """
    array = shaped(deployment, inputs)
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(
            "SNX004",
            f"{int((~np.isfinite(values)).sum())} input values are NaN or infinite",
            where="inputs",
            why="they would silence or saturate whole layers without a trace",
            fix="clean the data, for example with np.nan_to_num, and check where the values come from",
        )
    encoder = deployment.contract.encoder
    return rate_spikes(encoder, values[0], deployment.contract.steps) if encoder.kind == "rate" else values


def shaped(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[Any]:
    """Inputs as they are, with a time axis: (S, B, *shape), S = 1 where one value serves all steps. Nothing is copied.

    Raises:
        UserError: SNX003, SNX004 for values that are no real numbers, SNX501; see :func:`signal`.
    """
    shape, steps, kind = deployment.input_shape, deployment.contract.steps, deployment.contract.encoder.kind
    array = np.asarray(inputs)
    if array.dtype.kind not in "fiub":
        raise UserError(
            "SNX004",
            f"inputs have dtype {array.dtype}",
            where="inputs",
            why="a network takes real numbers",
            fix="convert them: np.asarray(inputs, dtype=np.float32)",
        )
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape and kind in CONSTANT_KINDS:
        array = array[None]
    allowed = {"direct": (1, steps), "events": (steps,), "rate": (1,), "bias": (1,)}[kind]
    sizes = ", ".join(map(str, shape))
    if array.ndim != len(shape) + 2 or array.shape[2:] != shape or array.shape[0] not in allowed:
        over_time = f"({steps}, batch, {sizes})"
        raise UserError(
            "SNX003",
            f"inputs have shape {np.shape(inputs)}",
            where="inputs",
            why=f"the network takes samples of shape {shape} over {steps} steps",
            fix=f"pass (batch, {sizes}) for {kind} encoding" + (f", or {over_time}" if kind == "direct" else "")
            if kind in CONSTANT_KINDS
            else f"pass {over_time}",
        )
    if array.shape[1] == 0:
        raise UserError(
            "SNX501",
            "there are no samples",
            where="inputs",
            why="a run over nothing shows nothing",
            fix="pass at least one sample",
        )
    return array


def rate_spikes(encoder: EncoderSpec, values: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Bernoulli spikes (T, B, *shape) of values (B, *shape): P(spike) = clip(x / full_scale, 0, 1) in every step.

    Each sample has a generator of its own, Philox keyed by the seed and a digest of its probabilities: the spikes of a sample
    depend on the sample alone, not on those beside it, nor on how a data set is cut into batches, chunks or shards.
    """
    probability = np.clip(values / encoder.full_scale, 0.0, 1.0)
    spikes = np.empty((steps, *values.shape))
    for index, chance in enumerate(probability):
        spikes[:, index] = rate_generator(encoder, chance).random((steps, *chance.shape)) < chance
    return spikes


def rate_generator(encoder: EncoderSpec, chance: NDArray[np.float64]) -> np.random.Generator:
    """Random numbers of one sample, from its probabilities (*shape); drawn in pieces along time they are as drawn at once."""
    plain = np.ascontiguousarray(chance + 0.0, "<f8")  # minus zero is zero
    digest = int.from_bytes(hashlib.blake2b(plain.tobytes(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(key=np.array([encoder.seed, digest], np.uint64)))


def levels(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[np.int64]:
    """Integer levels of inputs on the encoder's grid, (S, B, *shape).

    Where the encoder turns the input into biases there is no input signal: zeros, and :func:`host_bias` has the rest.
    Raises as :func:`signal`, and SNX302 without a grid.
    """
    encoder, values = deployment.contract.encoder, signal(deployment, inputs)
    return np.zeros(values.shape, np.int64) if encoder.kind == "bias" else encoder.levels(values)


def host_drive(deployment: Deployment, inputs: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What the host computes for the populations behind the input, by name, (B, *features): membrane per step, real units.

    Empty unless the encoder turns inputs into biases. The float network adds this in every step too.
    """
    if not deployment.host_synapses:
        return {}
    values = signal(deployment, inputs)[0]
    found: dict[str, NDArray[np.float64]] = {}
    for population, incoming in deployment.connections.items():
        counted: set[str] = set()
        for connection in incoming:
            if connection.source in deployment.connections:
                continue
            x = values
            for name in connection.path:
                bias = getattr(deployment.graph.nodes[name], "bias", None)
                x = apply(name, deployment.graph.nodes[name], x, None, np.zeros_like(bias) if name in counted else bias)
                counted.add(name)
            current, membrane = input_gains(deployment, population)
            drive = x.reshape(len(x), *deployment.shapes[population]) * current * membrane
            found[population] = found[population] + drive if population in found else drive
    return found


def host_bias(deployment: Deployment, inputs: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """Biases that carry the input of a chip without graded spikes, by population, (B, *features), membrane units.

    bias = round(64 S drive / 2^e) << e, with the population's scale S and bias exponent e. Together with the population's own
    bias the mantissa must fit 13 bits.

    Raises:
        UserError: SNX302 without a grid, SNX308 where an input needs a larger bias than the register holds.
    """
    found: dict[str, NDArray[np.int64]] = {}
    for population, drive in host_drive(deployment, inputs).items():
        if population not in deployment.populations:
            raise not_quantised(population)
        grid = deployment.populations[population]
        mantissa = np.rint(drive * state_units(grid.scale) / (1 << grid.bias_exponent)).astype(np.int64)
        total = mantissa + (deployment.bias(population) >> grid.bias_exponent)
        if total.size and (total.min() < BIAS_MANTISSA_MIN or total.max() > BIAS_MANTISSA_MAX):
            worst = int(np.argmax(np.abs(total.reshape(len(total), -1)).max(axis=1)))
            raise UserError(
                "SNX308",
                f"input {worst} needs a bias of {int(np.abs(total).max())} in {population}",
                where=population,
                why=f"the input is added as a bias, whose mantissa holds {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX}",
                fix="scale the input into the range the network was quantised for, or quantise again with that range",
            )
        found[population] = shift_mantissa(mantissa, grid.bias_exponent)
    return found

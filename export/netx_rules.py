"""What a lava-dl ``.net`` file can hold, and what netx would run differently: every reason with its code, all at once.

netx runs one chain of layers. It checks nothing: it clips, shifts and ignores without a word, so its limits are enforced here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nir
import numpy as np

from snn_export.export.deployment import Deployment, not_quantised
from snn_export.export.gains import input_gains
from snn_export.export.graph import conv_padding, per_axis, weight_array
from snn_export.export.netx_layers import BIAS_EXPONENT, GEOMETRY_MAX, MAX_DELAY, Integers, fits_synapse, loaded_weights
from snn_export.export.wiring import Wire
from snn_export.models.arithmetic import (
    BIAS_MANTISSA_MAX,
    BIAS_MANTISSA_MIN,
    DECAY_MAX,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    shift_mantissa,
)
from snn_export.models.diagnostics import Diagnostic, UserError

HOST_AGREEMENT = 1e-9


@dataclass(frozen=True, eq=False)
class Link:
    """One population of the chain: the wire that feeds it (None where the host does) and the one from itself, if any."""

    population: str
    wire: Wire | None
    loop: Wire | None

    @property
    def weights(self) -> tuple[Wire, ...]:
        """Both, as far as they are there."""
        return tuple(wire for wire in (self.wire, self.loop) if wire is not None)


def chain(deployment: Deployment) -> tuple[Link, ...]:
    """The populations one behind the other, from the input to the readout.

    Raises:
        UserError: SNX250 where they do not form one chain, and those of :attr:`Deployment.wires`.
    """
    found: list[Link] = []
    previous = next(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input))
    for name in deployment.layers:
        wires = deployment.wires[name]
        loops = [wire for wire in wires if wire.source == name]
        forward = [wire for wire in wires if wire.source == previous]
        hosted = not found and deployment.contract.encoder.kind == "bias"
        if len(loops) > 1 or len(wires) != len(loops) + len(forward) or len(forward) != (0 if hosted else 1):
            sources = ", ".join(wire.source for wire in wires) or "nothing"
            raise _off_chain(name, f"{name} is fed by {sources}; netx runs layers one behind the other, here behind {previous}")
        found.append(Link(name, forward[0] if forward else None, loops[0] if loops else None))
        previous = name
    if deployment.contract.readout.node != previous:
        raise _off_chain(previous, f"the readout is {deployment.contract.readout.node}, and the last layer is {previous}")
    return tuple(found)


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from being a ``.net`` file; empty where it can be one."""
    encoder = deployment.contract.encoder
    if not deployment.quantised or (encoder.gain is None and encoder.kind != "bias"):  # a host computes with real numbers
        return list(not_quantised("deployment").diagnostics)
    try:
        links = chain(deployment)
    except UserError as error:
        return list(error.diagnostics)
    found = [*_resets(deployment)]
    missing = [wire.weight for link in links for wire in link.weights if wire.weight not in deployment.synapses]
    if missing or deployment.populations.keys() != set(deployment.layers):
        return [_without_integers(missing[0] if missing else "a population")]
    wrong = {link.population: [*_kind(deployment, link)] for link in links}
    for index, link in enumerate(links):
        found += [*_neuron(deployment, link.population), *wrong[link.population]]
        if not wrong[link.population]:
            found += [*_bias(deployment, link), *_delays(deployment, link)]
            axons = [*_axons(deployment, links, index)]
            found += axons or _weights(deployment, links, index)
    if links[0].wire is None:
        found += [*_host(deployment, links[0].population)]
    return list({(item.code, item.where): item for item in found}.values())


def file_weight(deployment: Deployment, name: str) -> Integers:
    """Weights of a node as a file holds them: without an exponent, which the format does not have."""
    synapse = deployment.synapses[name]
    weight: Integers = shift_mantissa(synapse.weight.astype(np.int64), synapse.weight_exponent)
    return weight


def axon_columns(deployment: Deployment, link: Link) -> Integers:
    """Weights (out, k) of the sources that fire in every step and carry a population's bias of the current; k is mostly 0."""
    rest = np.ravel(deployment.current_bias(link.population))
    columns = np.zeros((rest.size, -(-int(np.abs(rest).max(initial=0)) // WEIGHT_MAX)), np.int64)
    for index in range(columns.shape[1]):
        columns[:, index] = np.clip(rest, -WEIGHT_MAX, WEIGHT_MAX)
        rest = rest - columns[:, index]
    return columns


def relays(deployment: Deployment, links: tuple[Link, ...], index: int) -> int:
    """Neurons added to a layer that fire in every step, for the next layer's bias of the current."""
    return axon_columns(deployment, links[index + 1]).shape[1] if index + 1 < len(links) else 0


def matrices(deployment: Deployment, links: tuple[Link, ...], index: int) -> tuple[Integers, ...]:
    """Weights of a layer as the file holds them, (weight,) or (weight, weight_rec).

    A dense layer with a bias of its current has more inputs: ones from outside, or neurons of the layer before that hear nothing
    and whose own bias lets them fire in every step.
    """
    link, more = links[index], relays(deployment, links, index)
    parts = [file_weight(deployment, wire.weight) for wire in link.weights]
    columns = axon_columns(deployment, link)
    if columns.shape[1]:
        parts[0] = np.hstack((parts[0], columns))
    if more:
        parts = [np.pad(part, ((0, more), (0, more if place else 0))) for place, part in enumerate(parts)]
    return tuple(parts)


def file_delay(deployment: Deployment, wire: Wire) -> Integers | None:
    """Delays of a dense wire as a file holds them: None without any, (out,) where one input is like the other, else (out, in)."""
    outputs, inputs = weight_array(deployment.graph.nodes[wire.weight]).shape
    before, after = np.ravel(wire.before), np.ravel(wire.after) + deployment.latency_gap(wire)
    if before.size == 1 or np.all(before == before[0]):
        delay = np.broadcast_to(after + before[0], (outputs,)).astype(np.int64)
        return delay if delay.any() else None
    return np.broadcast_to(after[:, None] + before[None], (outputs, inputs)).astype(np.int64)


def host_integers(deployment: Deployment, population: str) -> tuple[int, int] | None:
    """Weight and bias of an input layer, where the host only scales each feature: bias register = weight x + bias.

    None where it computes anything else.
    """
    names = [name for name in deployment.host_synapses if not isinstance(deployment.graph.nodes[name], nir.Flatten)]
    if len(names) != 1:
        return None
    node, shape = deployment.graph.nodes[names[0]], deployment.input_shape
    weight = np.asarray(weight_array(node), np.float64)
    if isinstance(node, nir.Conv2d) and weight.shape[1:] == (1, 1, 1) and int(node.groups) == len(weight):
        plain = per_axis(node.stride, 2) == (1, 1) and not any(sum(conv_padding(node), ()))
        factors = weight if plain else np.array([np.nan])
    elif isinstance(node, nir.Scale):
        factors = weight
    elif isinstance(node, nir.Affine | nir.Linear) and weight.shape[0] == weight.shape[1] == np.prod(shape):
        factors = np.diag(weight) if np.count_nonzero(weight - np.diag(np.diag(weight))) == 0 else np.array([np.nan])
    else:
        return None
    node_bias = np.asarray(getattr(node, "bias", None) if getattr(node, "bias", None) is not None else 0.0)
    current, membrane = input_gains(deployment, population)
    gain = np.unique(np.asarray(current) * np.asarray(membrane))
    values = []
    for part in (factors, node_bias):
        exact = np.unique(part) * gain[0] * deployment.populations[population].scale
        if gain.size != 1 or exact.size != 1 or not abs(exact[0] - np.rint(exact[0])) <= HOST_AGREEMENT * max(1.0, abs(exact[0])):
            return None
        values.append(int(np.rint(exact[0])))
    return values[0], values[1]


def _resets(deployment: Deployment) -> Iterator[Diagnostic]:
    periods = {(spec.reset_interval, spec.reset_offset) for spec in deployment.contract.neurons.values()}
    if len(periods) > 1 or any(offset for _, offset in periods):
        yield Diagnostic(
            "SNX256", f"the periodic resets (interval, offset) differ: {sorted(periods)}", "contract.neurons",
            "netx clears all layers at one interval, each at its own first step",
            "use one reset_interval for all populations and reset_offset 0",
        )  # fmt: skip


def _neuron(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    spec, integers = deployment.contract.neurons[name], deployment.populations[name]
    finding = spec.reset_finding(name)
    if finding is not None:
        yield finding
    limits = {"du": (integers.du, DECAY_MAX), "dv": (integers.dv, DECAY_MAX), "threshold": (integers.threshold, THRESHOLD_MAX)}
    for what, (value, high) in limits.items():
        if not 0 <= value <= high:
            yield Diagnostic(
                "SNX256", f"{what} of {name} is {value}", f"{name}.{what}",
                f"the chip holds it in 0..{high}; netx would run on regardless",
                "quantise again with a smaller scale, or another decay",
            )  # fmt: skip


def _kind(deployment: Deployment, link: Link) -> Iterator[Diagnostic]:
    """The layer is a dense or convolutional one, in a place where netx can have it."""
    for wire in link.weights:
        node, given = deployment.graph.nodes[wire.weight], deployment.shapes[wire.source]
        if isinstance(node, nir.Affine | nir.Linear):
            continue
        if not isinstance(node, nir.Conv2d) or wire.recurrent:
            what = f"a {type(node).__name__}{' from a population to itself' if wire.recurrent else ''}"
            yield _not_a_layer(wire, what, "netx has dense layers, with or without dense recurrence, and 2-d convolutions")
        elif given != deployment.shapes[_before(deployment, wire)] or len(given) != 3:
            yield _not_a_layer(
                wire, f"a convolution behind {wire.source} of shape {given}", "netx cannot reshape in front of a Conv"
            )
        elif len(deployment.shapes[link.population]) != 3 or (
            (padding := conv_padding(node)) and any(a != b for a, b in padding)
        ):
            yield _not_a_layer(
                wire, "padded unevenly, or its population is flat", "Lava's Conv pads both sides alike and gives maps"
            )
        else:
            sizes = (
                *node.weight.shape[2:],
                *per_axis(node.stride, 2),
                *per_axis(node.dilation, 2),
                *sum(padding, ()),
                int(node.groups),
            )
            if max(sizes) > GEOMETRY_MAX:
                yield _not_a_layer(
                    wire, f"a size of {max(sizes)}", f"Lava's Conv holds its sizes in 8 bits, up to {GEOMETRY_MAX}"
                )


def _before(deployment: Deployment, wire: Wire) -> str:
    path = wire.connection.path
    place = path.index(wire.weight)
    return path[place - 1] if place else wire.source


def _weights(deployment: Deployment, links: tuple[Link, ...], index: int) -> list[Diagnostic]:
    link = links[index]
    for wire in link.weights:
        synapse, part = deployment.synapses[wire.weight], file_weight(deployment, wire.weight)
        exponent = synapse.weight_exponent
        if not fits_synapse(part) or (exponent < 0 and np.any(part << -exponent != synapse.weight)):
            return [_changed(wire.weight, f"the weights of {wire.weight} do not fit eight bits without their exponent {exponent}",
                             "a .net file has no weight exponent, and mixed signs hold even integers -256..254")]  # fmt: skip
    if link.wire is None or isinstance(deployment.graph.nodes[link.wire.weight], nir.Conv2d):
        return []
    delayed = link.loop is not None and any(file_delay(deployment, wire) is not None for wire in link.weights)
    parts = matrices(deployment, links, index)
    loaded = loaded_weights(parts, shifted_back=not delayed)
    if loaded is not None and all(np.array_equal(a, b) for a, b in zip(loaded, parts, strict=True)):
        return []
    why = (
        "netx shifts weights up to fill eight bits and forgets to shift the sums of a recurrent layer with delays back"
        if delayed
        else "netx cannot load a layer of zeros only, and changes one of a single sign whose lowest weight is a power of two"
    )
    return [_changed(link.wire.weight, f"netx would not run the weights of {link.wire.weight} as they are", why)]


def _axons(deployment: Deployment, links: tuple[Link, ...], index: int) -> Iterator[Diagnostic]:
    """A bias of the current needs sources that fire in every step: inputs, or neurons in the dense layer before."""
    link = links[index]
    if not np.any(deployment.current_bias(link.population)):
        return
    dense = link.wire is not None and not isinstance(deployment.graph.nodes[link.wire.weight], nir.Conv2d)
    layers = links[max(index - 1, 0) : index + 1]
    delayed = any(wire.most + deployment.latency_gap(wire) for one in layers for wire in one.weights)
    before = links[index - 1]
    problem = ""
    if not dense or delayed:
        problem = f"{link.population} is a convolution, or it or the layer before has delays"
    elif index == 0 and len(deployment.input_shape) != 1:
        problem = f"the input is a map of shape {deployment.input_shape}"
    elif index and (before.wire is None or isinstance(deployment.graph.nodes[before.wire.weight], nir.Conv2d)):
        problem = f"{before.population} in front of it is no dense layer"
    elif index and deployment.populations[before.population].threshold >= BIAS_MANTISSA_MAX:
        problem = f"the threshold of {before.population} is too high for a neuron to fire in every step by its bias alone"
    if problem:
        yield Diagnostic(
            "SNX257", f"{link.population} has a bias that enters its current", link.population,
            f"netx adds biases to the membrane only; this one needs sources that always fire, and {problem}",
            "train the layer without a bias, or run it on loihi or lava",
        )  # fmt: skip


def _bias(deployment: Deployment, link: Link) -> Iterator[Diagnostic]:
    bias = deployment.bias(link.population)
    mantissa = bias >> BIAS_EXPONENT
    if np.any(mantissa << BIAS_EXPONENT != bias) or np.any((mantissa < BIAS_MANTISSA_MIN) | (mantissa > BIAS_MANTISSA_MAX)):
        yield Diagnostic(
            "SNX252", f"biases of {link.population} reach {bias.min()} to {bias.max()} in steps of "
            f"{1 << deployment.populations[link.population].bias_exponent}", link.population,
            f"netx holds a bias as mantissa << {BIAS_EXPONENT} with a mantissa in {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX}",
            "quantise with bias_exponent=6 (quantize.bias_exponent), which rounds biases to that grid",
        )  # fmt: skip


def _delays(deployment: Deployment, link: Link) -> Iterator[Diagnostic]:
    if link.wire is None or any(isinstance(deployment.graph.nodes[wire.weight], nir.Conv2d) for wire in link.weights):
        if any(wire.most + deployment.latency_gap(wire) for wire in link.weights):
            yield _delayed(link, "a convolution has no delays in netx", "delay the dense layer behind it, or run it on loihi")
        return
    delays = [file_delay(deployment, wire) for wire in link.weights]
    longest = max((int(delay.max()) for delay in delays if delay is not None), default=0)
    if longest > MAX_DELAY:
        yield _delayed(link, f"netx clips a delay of {longest} to {MAX_DELAY}", f"use delays of up to {MAX_DELAY} steps")
    if len(delays) == 2 and any(delay is not None for delay in delays):
        square = np.shape(weight_array(deployment.graph.nodes[link.weights[0].weight]))
        same = all(delay is not None for delay in delays) and np.array_equal(*delays)  # type: ignore[arg-type]
        if not same or square[0] != square[1]:
            yield _delayed(
                link, "it gives input and recurrence of a layer the same delays, and both need as many inputs as outputs",
                "delay neither, or both alike",
            )  # fmt: skip


def _host(deployment: Deployment, population: str) -> Iterator[Diagnostic]:
    exponent = deployment.populations[population].bias_exponent
    if host_integers(deployment, population) is None or exponent != BIAS_EXPONENT:
        yield Diagnostic(
            "SNX255", f"what the host computes for {population} is more than one factor and one offset", population,
            f"netx's input layer sets every bias to weight x + bias: integers with exponent {BIAS_EXPONENT} (here {exponent})",
            "quantise with graded or event input instead of input_as_bias",
        )  # fmt: skip


def _off_chain(where: str, what: str) -> UserError:
    return UserError(
        "SNX250", what, where=where, why="a .net file is a list of layers; it has no branches, sums or loops over several layers",
        fix="run it on loihi or lava",
    )  # fmt: skip


def _not_a_layer(wire: Wire, what: str, why: str) -> Diagnostic:
    return Diagnostic(
        "SNX251",
        f"{wire.weight} is no layer of netx: {what}",
        wire.weight,
        why,
        "use dense and Conv2d layers, or run it on loihi or lava",
    )


def _without_integers(name: str) -> Diagnostic:
    return Diagnostic(
        "SNX227", f"there are no integers for {name}", name, "a quantised deployment states integers for every weight node",
        "quantise the deployment again; do not edit its graph afterwards",
    )  # fmt: skip


def _changed(name: str, what: str, why: str) -> Diagnostic:
    return Diagnostic(
        "SNX253", what, name, why, "quantise with bias_exponent=6 (quantize.bias_exponent): no weight exponents then"
    )


def _delayed(link: Link, what: str, fix: str) -> Diagnostic:
    return Diagnostic("SNX254", f"the delays into {link.population} are not netx's: {what}", link.population,
                      "another delay is another network", fix)  # fmt: skip

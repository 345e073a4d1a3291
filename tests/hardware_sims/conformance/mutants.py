"""Simulators that are wrong in one way each: what the kit has to notice, and by which check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from unittest.mock import patch

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding, interpreter, linear
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, LayerTrace, Record, Trace, check_record, layer_trace, read_out
from snn_export.models import arithmetic
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Mutant:
    """The interpreter as a simulator, in floats or in Loihi's integers, changed in one place.

    deployment: what it makes of a network; patched: what it computes with; trace: what it makes of what came out.
    """

    deployment: Callable[[Deployment], Deployment] = lambda d: d
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext
    trace: Callable[[Trace], Trace] = lambda t: t
    integers: bool = False
    name: str = "mutant"
    expected_failures: Mapping[str, str] | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities("loihi_integer" if self.integers else "float64", self.integers, "one mistake")

    def availability(self) -> Availability:
        return Availability(True, versions={"numpy": np.__version__})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return diagnostics_of(lambda: (deployment.shapes, deployment.connections))

    def compile(self, deployment: Deployment) -> Deployment:
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        return self.deployment(deployment)

    def run(self, program: Deployment, inputs: Array, record: Collection[Record] = SPIKES_ONLY) -> Trace:
        wanted, contract = check_record(record), program.contract
        with self.patched():
            found = interpreter.run(program, inputs, "int64" if self.integers else "float64")
        last = found[contract.readout.node]
        layers = {
            name: layer_trace(
                item.spikes, item.membrane, item.current, wanted, overflows=item.overflows, latency=contract.latency[name],
                unit=program.populations[name].unit if self.integers else 1.0,
            )
            for name, item in found.items()
        }  # fmt: skip
        return self.trace(Trace(self.name, layers, *read_out(contract.readout, last.spikes, last.membrane), {}))


def neurons(**changes: Any) -> Callable[[Deployment], Deployment]:
    """Every neuron of the contract changed."""

    def change(deployment: Deployment) -> Deployment:
        changed = {name: replace(spec, **changes) for name, spec in deployment.contract.neurons.items()}
        return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": changed}))

    return change


def reads_out(rule: str) -> Callable[[Deployment], Deployment]:
    """The same readout rule whatever the contract says."""

    def change(deployment: Deployment) -> Deployment:
        stated = replace(deployment.contract.readout, rule=rule)
        return deployment.replace(contract=deployment.contract.model_copy(update={"readout": stated}))

    return change


def every_other(change: Callable[[Deployment], Deployment]) -> Callable[[Deployment], Deployment]:
    """A change that only every second program sees, as from memory that nobody cleared."""
    made = count(1)
    return lambda deployment: deployment if next(made) % 2 else change(deployment)


def nodes(change: Callable[[nir.NIRNode], nir.NIRNode]) -> Callable[[Deployment], Deployment]:
    """Every node changed."""
    return lambda d: d.replace(graph=replace_nodes(d.graph, {name: change(node) for name, node in d.graph.nodes.items()}))


def constant(**values: Any) -> Callable[[nir.NIRNode], nir.NIRNode]:
    """Constants of the neurons that have them: ``value(old)``."""

    def change(node: nir.NIRNode) -> nir.NIRNode:
        if not isinstance(node, nir.CubaLIF | nir.LIF | nir.IF):
            return node
        return with_constants(node, **{key: f(node) for key, f in values.items() if hasattr(node, key)})

    return change


def convolution(change: Callable[[Any], dict[str, Any]]) -> Callable[[nir.NIRNode], nir.NIRNode]:
    """Fields of Conv2d nodes."""
    fields = ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias")

    def changed(node: nir.NIRNode) -> nir.NIRNode:
        if not isinstance(node, nir.Conv2d):
            return node
        return nir.Conv2d(**({key: getattr(node, key) for key in fields} | change(node)))

    return changed


def each(change: Callable[[str, LayerTrace], dict[str, Any]]) -> Callable[[Trace], Trace]:
    """Fields of every layer of a trace."""
    return lambda t: replace(t, layers={name: replace(layer, **change(name, layer)) for name, layer in t.layers.items()})


def rolled(_: str, layer: LayerTrace) -> dict[str, Any]:
    """A step late."""

    def later(x: Any) -> Any:
        return None if x is None else np.concatenate([np.zeros_like(x[:1]), x[:-1]])

    spikes = later(layer.spikes)
    counts = layer.counts if spikes is None else spikes.sum(axis=0)
    return {"spikes": spikes, "membrane": later(layer.membrane), "current": later(layer.current), "counts": counts}


def drifting(_: str, layer: LayerTrace) -> dict[str, Any]:
    """A membrane that is a little higher than it should be."""
    return {"membrane": None if layer.membrane is None else layer.membrane + 1e-9}


def swapped(name: str) -> Callable[[], AbstractContextManager[Any]]:
    """Another function in the place of one of the arithmetic."""
    others: dict[str, Callable[..., Any]] = {
        "fires": lambda v, theta: v >= theta,
        "integrate": lambda state, decay, drive: state + drive,
        "decay_toward_zero": lambda state, keep: (state * keep) >> 12,
        "wrap_current": lambda u: u,
        "saturate_membrane": lambda v: v,
    }
    return lambda: patch.object(arithmetic, name, others[name])


def remembering() -> Callable[[], AbstractContextManager[Any]]:
    """Populations that start a run with what the last one of their shape left behind."""
    memory: dict[tuple[int, ...], Array] = {}
    whole = interpreter._Recorder.advance

    def advance(self: Any, t: int, drive: Array, step: Any) -> Array:
        if t == 0:
            self.v = memory.get(self.v.shape, self.v)
        fired = whole(self, t, drive, step)
        memory[self.v.shape] = self.v
        return fired

    return lambda: patch.object(interpreter._Recorder, "advance", advance)


def one_after_the_other(self_run: Callable[..., Any]) -> Callable[..., Any]:
    """A run in which every sample starts with what the one before left behind."""

    def run(deployment: Deployment, inputs: Array, numbers: Any) -> Any:
        batch, steps = inputs.shape[1], deployment.contract.steps
        long = deployment.replace(contract=deployment.contract.model_copy(update={"steps": steps * batch}))
        found = self_run(long, np.swapaxes(inputs, 0, 1).reshape(steps * batch, 1, *inputs.shape[2:]), numbers)

        def cut(x: Array) -> Array:
            return np.swapaxes(x.reshape(batch, steps, *x.shape[2:]), 0, 1)

        return {
            name: interpreter.Activity(cut(item.spikes), cut(item.current), cut(item.membrane), item.overflows)
            for name, item in found.items()
        }

    return run


def flat_by_columns(node: nir.Flatten, x: Array) -> Array:
    return np.swapaxes(x, -1, -2).reshape(len(x), -1)


def square(weight: Array) -> Array:
    """Rows and columns of a kernel swapped, where it has as many of either."""
    return np.swapaxes(weight, 2, 3) if weight.shape[2] == weight.shape[3] else weight


def counting_once(name: str, node: nir.NIRNode, x: Array, *parameters: Any) -> Array:
    """As Lava's bool ports: whatever arrives is 0 or 1."""
    return linear.apply(name, node, np.sign(x), *parameters)


def without_last_edge(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Into "n" leads one edge less."""
    into = [edge for edge in graph.edges if edge[1].startswith("n") and edge[0] not in ("input", "n.weight")]
    lost = into[-1:] if into else []
    rest = [edge for edge in graph.edges if edge not in lost]
    dead = {source for source, _ in lost if source.startswith("n.weight")}
    kept = {name: node for name, node in graph.nodes.items() if name not in dead}
    return nir.NIRGraph(kept, [e for e in rest if not dead & set(e)], type_check=False)


_LARGEST, _COUNTS = "contract.readout_of_the_largest_membrane", "contract.readout_of_spike_counts"

MUTANTS: dict[str, tuple[Mutant, tuple[str, ...]]] = {
    "fires at the threshold": (
        Mutant(patched=swapped("fires")), ("fire.exactly_at_threshold", "fire.negative_weights", "fire.bias_alone")),
    "fires at the threshold, in integers": (Mutant(patched=swapped("fires"), integers=True), ("fire.exactly_at_threshold",)),
    "threshold a little too high": (
        Mutant(nodes(constant(v_threshold=lambda n: n.v_threshold * (1 + 2.0**-50)))), ("fire.one_step_above_threshold",)),
    "subtracts instead of resetting to zero": (Mutant(neurons(reset="subtract")), ("reset.to_zero",)),
    "resets to zero instead of subtracting": (
        Mutant(neurons(reset="zero")),
        ("reset.by_subtraction", "reset.by_subtraction_takes_one_threshold", "reset.by_subtraction_with_leak", "reset.none")),
    "never resets": (Mutant(neurons(reset="none")), ("reset.to_zero", "reset.by_subtraction")),
    "resets at once": (
        Mutant(neurons(reset_delay=0, clears_input=False)), ("reset.delayed_subtraction", "reset.delayed_to_zero")),
    "forgets the periodic reset": (Mutant(neurons(reset_interval=0)), ("reset.periodic",)),
    "does not clear the input": (Mutant(neurons(clears_input=False)), ("reset.delayed_to_zero_clears_the_input",)),
    "subtracts once": (Mutant(neurons(double_to_refire=False)), ("reset.subtraction_that_doubles_the_threshold",)),
    "does not leak": (
        Mutant(patched=swapped("integrate")), ("leak.long_silence", "leak.long_silence_below_zero", "leak.two_time_constants")),
    "rounds decays down": (
        Mutant(patched=swapped("decay_toward_zero"), integers=True),
        ("leak.truncation_toward_zero", "leak.long_silence_below_zero")),
    "does not wrap": (Mutant(patched=swapped("wrap_current"), integers=True), ("leak.currents_wrap",)),
    "does not saturate": (Mutant(patched=swapped("saturate_membrane"), integers=True), ("leak.membranes_saturate",)),
    "ignores r": (
        Mutant(nodes(constant(r=lambda n: np.ones_like(n.r) * (n.r if isinstance(n, nir.IF) else 1.0)))),
        ("leak.membrane_resistance", "leak.filtered_spikes")),
    "ignores w_in": (
        Mutant(nodes(constant(w_in=lambda n: np.full_like(n.w_in, 2.0)))), ("leak.input_weight_of_a_cubalif",)),
    "ignores v_leak": (
        Mutant(nodes(constant(v_leak=lambda n: np.zeros_like(n.v_leak)))),
        ("leak.resting_potential_of_a_lif", "leak.resting_potential_of_a_cubalif")),
    "one threshold for all": (
        Mutant(nodes(constant(v_threshold=lambda n: np.full_like(n.v_threshold, n.v_threshold.flat[0])))),
        ("graph.a_threshold_per_neuron",)),
    "a step late": (
        Mutant(trace=each(rolled)),
        ("latency.layers_in_local_time", "fire.a_single_step", "latency.a_loop_takes_one_step", "latency.a_delay_of_steps")),
    "says nothing about latency": (Mutant(trace=each(lambda *_: {"latency": 0})), ("latency.removed_steps_are_stated",)),
    "hears itself two steps late": (
        Mutant(patched=lambda: patch.object(interpreter, "loop_step", lambda d, c: 2 * c.recurrent)),
        ("latency.a_loop_takes_one_step", "latency.a_loop_between_neurons")),
    "ignores delays": (
        Mutant(nodes(lambda n: nir.Delay(n.delay * 0) if isinstance(n, nir.Delay) and n.delay.size > 1 else n)),
        ("latency.a_delay_per_neuron",)),
    "flips kernels": (
        Mutant(nodes(convolution(lambda n: {"weight": n.weight[:, :, ::-1, ::-1]}))),
        ("shapes.conv_kernel_orientation", "shapes.conv_not_square", "shapes.conv_padding")),
    "swaps rows and columns of a kernel": (
        Mutant(nodes(convolution(lambda n: {"weight": square(n.weight)}))),
        ("shapes.conv_stride", "shapes.conv_dilation", "shapes.conv_groups", "shapes.conv_bias")),
    "sums instead of averaging": (
        Mutant(nodes(lambda n: nir.SumPool2d(n.kernel_size, n.stride, n.padding) if isinstance(n, nir.AvgPool2d) else n)),
        ("shapes.average_pooling", "shapes.overlapping_average_pooling")),
    "averages instead of summing": (
        Mutant(nodes(lambda n: nir.AvgPool2d(n.kernel_size, n.stride, n.padding) if isinstance(n, nir.SumPool2d) else n)),
        ("shapes.sum_pooling",)),
    "counts spikes that arrive together once": (
        Mutant(patched=lambda: patch.object(interpreter, "apply", counting_once)), ("fire.graded_input",)),
    "hears one population only": (
        Mutant(lambda d: d.replace(graph=without_last_edge(d.graph))),
        ("graph.two_populations_into_one", "graph.two_edges_into_one_weight", "graph.parallel_ways_between_two_populations")),
    "swaps rows and columns of a flatten": (
        Mutant(patched=lambda: patch.object(linear, "_flatten", flat_by_columns)),
        ("shapes.flatten_order", "shapes.flatten_behind_maps")),
    "drops the biases of convolutions": (Mutant(nodes(convolution(lambda n: {"bias": n.bias * 0}))), ("shapes.conv_bias",)),
    "state not cleared between samples": (
        Mutant(patched=lambda: patch.object(interpreter, "run", one_after_the_other(interpreter.run))),
        ("contract.state_is_cleared_between_samples", "contract.samples_do_not_hear_each_other", "contract.order_of_a_batch")),
    "state not cleared between runs": (Mutant(patched=remembering()), ("contract.state_is_cleared_between_runs",)),
    "drifts upward": (Mutant(trace=each(drifting)), ("fire.silence_stays_silent", "fire.only_negative_weights")),
    "ties to the highest class": (
        Mutant(trace=lambda t: replace(t, predictions=t.readout.shape[1] - 1 - t.readout[:, ::-1].argmax(axis=1))),
        ("contract.ties_go_to_the_lowest_class",)),
    "reads out the last membrane": (
        Mutant(reads_out("membrane_last")),
        ("contract.readout_of_the_mean_membrane", _LARGEST, _COUNTS)),
    "reads out the mean membrane": (
        Mutant(reads_out("membrane_mean")),
        ("contract.readout_of_the_last_membrane", _LARGEST, _COUNTS)),
    "compiles every second network otherwise": (
        Mutant(every_other(nodes(constant(v_threshold=lambda n: n.v_threshold * 0.5)))),
        ("contract.same_again", "graph.from_a_file", "graph.filters_from_a_file")),
    "another seed": (
        Mutant(patched=lambda: patch.object(encoding, "rate_spikes", lambda e, v, n: np.ones((n, *v.shape)))),
        ("contract.rate_encoding",)),
    "keeps currents to itself": (Mutant(trace=each(lambda *_: {"current": None})), ("contract.probes_are_complete",)),
    "states another unit": (
        Mutant(trace=each(lambda _, layer: {"unit": layer.unit * 2}), integers=True),
        ("fire.exactly_at_threshold", "leak.truncation_toward_zero")),
    "shows integers as floats": (
        Mutant(trace=each(lambda _, layer: {"membrane": layer.membrane * 1.0}), integers=True), ("fire.exactly_at_threshold",)),
    "counts something else": (
        Mutant(trace=each(lambda _, layer: {"counts": layer.counts + 1})),
        ("contract.probes_are_complete", "fire.exactly_at_threshold")),
}  # fmt: skip
"""By what is wrong: the simulator, and checks that must notice."""

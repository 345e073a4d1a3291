"""What the contract promises around the neurons: batches, state, probes, inputs, encoders, readouts."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_export.export.encoding import rate_spikes
from snn_export.hardware_sims.conformance.expected import Array, lif
from snn_export.hardware_sims.conformance.networks import HALF, HALF_CURRENT, Layer, Network, Synapse, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import EVERYTHING, Trial, events
from snn_export.hardware_sims.trace import LayerTrace, Record
from snn_export.models.spec import EncoderSpec, ReadoutRule

TOPIC = Topic("contract")

STEPS = 6


def _with_memory() -> Network:
    """Everything that could remember: a membrane, a current, spikes in flight in a loop, a readout."""
    loop = Layer("loop", (Synapse([[1.0, 0.5], [0.25, 1.5]]), Synapse([[0.0, 1.25], [1.25, 0.0]], "loop")), dv=HALF)
    filtered = dense("filtered", [[0.75, 0.5], [-0.5, 1.0]], "loop", du=HALF_CURRENT, dv=HALF)
    return network(STEPS, loop, filtered, dense("out", [[1.0, -0.5]], "filtered", spiking=False), input_shape=(2,))


def _samples(count: int) -> Array:
    return np.random.default_rng(5).integers(0, 2, (STEPS, count, 2)).astype(np.float64)


@TOPIC.check()
def samples_do_not_hear_each_other(trial: Trial) -> None:
    """A sample alone gives what it gives in a batch, bit for bit."""
    deployment, inputs = trial.deployment(_with_memory()), _samples(5)
    program = trial.compile(deployment)
    whole = trial.go(program, deployment, inputs)
    trial.same_trace(whole, trial.go(program, deployment, inputs[:, 3:4]), "a batch and a sample alone", np.array([3]))


@TOPIC.check()
def order_of_a_batch(trial: Trial) -> None:
    """A batch in another order gives the same results in that order."""
    deployment, inputs, order = trial.deployment(_with_memory()), _samples(5), np.array([4, 0, 3, 1, 2])
    program = trial.compile(deployment)
    whole = trial.go(program, deployment, inputs)
    trial.same_trace(whole, trial.go(program, deployment, inputs[:, order]), "a batch in two orders", order)


@TOPIC.check()
def state_is_cleared_between_samples(trial: Trial) -> None:
    """Each sample starts from zero: charge of the one before, and spikes still on their way in a loop, are gone."""
    loop = Layer("n", (Synapse([[0.75]]), Synapse([[0.5]], "n")))
    trains = ("1101", "1000", "0000", "1101")
    inputs = np.concatenate([events(train) for train in trains], axis=1)
    expected = np.concatenate([events(train) for train in ("0101", "0000", "0000", "0101")], axis=1)
    membranes = [[0.75, 0.0, 0.5, 0.0], [0.75] * 4, [0.0] * 4, [0.75, 0.0, 0.5, 0.0]]
    trial.expect(network(4, loop), inputs, {"n": expected[..., None]}, {"n": np.array(membranes).T})


@TOPIC.check()
def state_is_cleared_between_runs(trial: Trial) -> None:
    """A program that ran before starts from zero again."""
    deployment = trial.deployment(network(3, dense("n", 0.75, dv=HALF)))
    program = trial.compile(deployment)
    for _ in range(2):
        trace = trial.go(program, deployment, events("101"))
        trial.compare(trace, {"n": "000"}, {"n": [0.75, 0.375, 0.9375]})


@TOPIC.check()
def same_again(trial: Trial) -> None:
    """Compiled and run twice, a network gives the same bits, and the inputs it was given are left as they were."""
    inputs = _samples(3)
    one, other = (trial.run(trial.deployment(_with_memory()), inputs) for _ in range(2))
    trial.same_trace(one, other, "two runs")
    trial.demand(np.array_equal(inputs, _samples(3)), "the caller's inputs were changed")


@TOPIC.check()
def no_samples(trial: Trial) -> None:
    """A batch of no samples is refused with SNX501: a run over nothing shows nothing."""
    deployment = trial.deployment(network(2, dense("n", 1.5)))
    error = trial.user_error_of_run(trial.compile(deployment), np.zeros((2, 0, 1)))
    trial.demand(error.code == "SNX501", f"it is refused with {error.code}, not SNX501")


@TOPIC.check()
def inputs_of_another_shape(trial: Trial) -> None:
    """Inputs with too few steps, or other features, are refused with SNX003 and not stretched, cut or broadcast."""
    deployment = trial.deployment(network(3, dense("n", [[1.5, 0.5]]), input_shape=(2,)))
    program = trial.compile(deployment)
    for shape in ((2, 1, 2), (3, 1, 1), (3, 1, 2, 1)):
        error = trial.user_error_of_run(program, np.ones(shape))
        trial.demand(error.code == "SNX003", f"inputs of shape {shape} are refused with {error.code}, not SNX003")


@TOPIC.check()
def inputs_of_another_type(trial: Trial) -> None:
    """Events given as bool or float32 are the events given as float64."""
    deployment = trial.deployment(network(4, dense("n", 0.75)))
    program = trial.compile(deployment)
    for kind in (np.bool_, np.float32):
        trace = trial.go(program, deployment, events("1101").astype(kind))
        trial.compare(trace, {"n": "0100"}, {"n": [0.75, 0.0, 0.0, 0.75]})


@TOPIC.check()
def inputs_that_are_no_numbers(trial: Trial) -> None:
    """NaN and infinity are refused with SNX004; they would silence or saturate layers without a trace."""
    program = trial.compile(trial.deployment(network(2, dense("n", 1.5))))
    for value in (np.nan, np.inf):
        error = trial.user_error_of_run(program, np.full((2, 1, 1), value))
        trial.demand(error.code == "SNX004", f"an input of {value} is refused with {error.code}, not SNX004")


@TOPIC.check()
def probes_are_complete(trial: Trial) -> None:
    """Asked for everything, the trace holds spikes, membranes and currents of every layer, every step and sample, and counts."""
    deployment = trial.deployment(_with_memory())
    trace = trial.run(deployment, _samples(2))
    order = list(trace.layers)
    trial.demand(order == list(deployment.layers), f"the layers stand in the order {', '.join(order)}, not sources first")
    for name in deployment.layers:
        layer = trace.layers[name]
        missing = [what for what in EVERYTHING if getattr(layer, what) is None]
        trial.demand(not missing, f"{' and '.join(missing)} of {name!r} are not recorded")
        trial.demand(np.asarray(layer.spikes).dtype == bool, f"spikes of {name!r} are {np.asarray(layer.spikes).dtype}, not bool")
        trial.demand(layer.counts.dtype == np.int64, f"counts of {name!r} are {layer.counts.dtype}, not int64")
        sent = np.asarray(layer.spikes if layer.several is None else layer.several)
        trial.demand(np.array_equal(layer.counts, sent.sum(axis=0)), f"counts of {name!r} are not its spikes")
    trial.demand(np.shape(trace.readout) == (2, 1), f"the readout has the shape {np.shape(trace.readout)}, not (2, 1)")
    trial.exercised = True


@TOPIC.check()
def probes_hold_what_was_asked_for(trial: Trial) -> None:
    """Asked for membranes alone, the trace holds membranes and counts alone; asked for nonsense, it is refused with SNX005."""
    deployment = trial.deployment(network(3, dense("n", 0.75)))
    program = trial.compile(deployment)
    membranes: tuple[Record, ...] = ("membrane",)
    layer = trial.go(program, deployment, events("111"), membranes).layers["n"]
    trial.demand(layer.spikes is None and layer.current is None, "spikes or currents are there that nobody asked for")
    trial.demand(int(layer.counts.sum()) == 1, f"{int(layer.counts.sum())} spikes are counted, not 1", of_values=True)
    asked: Any = ("voltage",)
    error = trial.user_error_of_run(program, events("111"), asked)
    trial.demand(error.code == "SNX005", f"an unknown probe is refused with {error.code}, not SNX005")


def _check_values(trial: Trial, layer: LayerTrace, rule: ReadoutRule, values: Array) -> None:
    """What was ranked is what the rule makes of the recorded layer, in the backend's own units."""
    if rule == "spike_count":
        expected = np.asarray(layer.counts, np.float64)
    elif layer.membrane is None:
        return
    else:
        v = np.asarray(layer.membrane, np.float64)
        expected = v[-1] if rule == "membrane_last" else v.mean(axis=0) if rule == "membrane_mean" else v.max(axis=0)
    trial.demand(np.allclose(values, expected, rtol=1e-6, atol=1e-6), f"{rule}: the readout is not made of the recorded layer")


def _readout(trial: Trial, rule: ReadoutRule, rows: list[str], expected: list[int], ties: int, **layer: Any) -> None:
    """Three classes see one input each with weight 1; predictions of two samples."""
    net = network(4, dense("n", np.eye(3), **layer), input_shape=(3,), rule=rule)
    inputs = np.concatenate([events(*rows[:3]), events(*rows[3:])], axis=1)
    trace = trial.run(trial.deployment(net), inputs)
    _check_values(trial, trace.layers["n"], rule, np.asarray(trace.readout, np.float64))
    found = [int(value) for value in np.asarray(trace.predictions)]
    trial.demand(found == expected, f"{rule}: the predictions are {found}, not {expected}", of_values=True)
    trial.demand(trace.ties == ties, f"{rule}: {trace.ties} ties are counted, not {ties}", of_values=True)
    trial.exercised = True


@TOPIC.check()
def readout_of_the_last_membrane(trial: Trial) -> None:
    """membrane_last predicts the class whose membrane is largest after the last step, and not on average."""
    rows = ["1000", "0011", "1110", "0001", "0010", "1000"]
    _readout(trial, "membrane_last", rows, [1, 0], 0, dv=HALF, spiking=False)


@TOPIC.check()
def readout_of_the_mean_membrane(trial: Trial) -> None:
    """membrane_mean predicts the class whose membrane is largest over all steps together."""
    rows = ["1100", "0001", "0010", "0000", "0001", "1000"]
    _readout(trial, "membrane_mean", rows, [0, 2], 0, spiking=False)


@TOPIC.check()
def readout_of_the_largest_membrane(trial: Trial) -> None:
    """membrane_max predicts the class whose membrane was largest in any step."""
    rows = ["0101", "0110", "1001", "1000", "0011", "1001"]
    _readout(trial, "membrane_max", rows, [1, 1], 0, dv=HALF, spiking=False)


@TOPIC.check()
def readout_of_spike_counts(trial: Trial) -> None:
    """spike_count predicts the class that fired most."""
    rows = ["1100", "0111", "0010", "1000", "0000", "1001"]
    _readout(trial, "spike_count", rows, [1, 2], 0, threshold=0.5)


@TOPIC.check()
def ties_go_to_the_lowest_class(trial: Trial) -> None:
    """Where classes share the largest readout the lowest index is predicted, and the tie is counted."""
    rows = ["1000", "0110", "0101", "0000", "0000", "0000"]
    _readout(trial, "spike_count", rows, [1, 0], 2, threshold=0.5)


@TOPIC.check()
def direct_encoding(trial: Trial) -> None:
    """(B, *shape) is the same value in every step, and gives what (T, B, *shape) with T equal steps gives."""
    net = network(4, dense("n", [[1.0, 0.5]]), input_shape=(2,), encoder=EncoderSpec("direct"))
    deployment = trial.deployment(net, high=8, gain=8.0)
    program, sample = trial.compile(deployment), np.array([[0.25, 0.375], [0.5, 0.25]])
    spikes, membrane = lif(np.broadcast_to(np.array([[0.4375], [0.625]]), (4, 2, 1)))
    constant = trial.go(program, deployment, sample)
    trial.compare(constant, {"n": spikes}, {"n": membrane})
    trial.same_trace(constant, trial.go(program, deployment, np.broadcast_to(sample, (4, 2, 2))), "a value and its steps")


@TOPIC.check()
def rate_encoding(trial: Trial) -> None:
    """Spikes are drawn with the contract's seed, sample by sample: everybody sees the same ones."""
    encoder = EncoderSpec("rate", seed=7, full_scale=2.0)
    values = np.array([[0.5, 1.0, 2.0], [1.5, 0.0, 1.0]])
    net = network(8, dense("n", [[0.75, 0.5, 0.25]]), input_shape=(3,), encoder=encoder)
    drawn = rate_spikes(encoder, values, 8)
    spikes, membrane = lif(drawn @ np.array([[0.75], [0.5], [0.25]]))
    trial.expect(net, values, {"n": spikes}, {"n": membrane})


@TOPIC.check()
def input_as_bias(trial: Trial) -> None:
    """With encoder "bias" a host multiplies the input with the first weights, and neurons get the result in every step."""
    encoder, values = EncoderSpec("bias"), np.array([[0.25, 0.5], [0.75, 1.5]])
    net = network(4, dense("n", 0.5 * np.eye(2), bias=[0.25, 0.25]), input_shape=(2,), encoder=encoder)
    spikes, membrane = lif(np.broadcast_to(0.5 * values + 0.25, (4, 2, 2)))
    trial.expect(net, values, {"n": spikes}, {"n": membrane})

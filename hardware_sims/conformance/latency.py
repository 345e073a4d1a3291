"""Steps between layers: none in local time, one in a loop, and as many as a Delay says."""

from __future__ import annotations

import nir
import numpy as np

from snn_export.hardware_sims.conformance.networks import DT, Layer, Synapse, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial, events

TOPIC = Topic("latency")


def _delay(*steps: int) -> nir.Delay:
    return nir.Delay(np.array(steps) * DT)


@TOPIC.check()
def layers_in_local_time(trial: Trial) -> None:
    """Three layers that pass every spike on show it in the same local step, the last step too."""
    net = network(5, dense("a", 1.5), dense("b", 1.5, "a"), dense("c", 1.5, "b"))
    same = "10011"
    trial.expect(net, events(same), {"a": same, "b": same, "c": same}, {"c": [0.0] * 5})


@TOPIC.check()
def removed_steps_are_stated(trial: Trial) -> None:
    """The steps that were removed to reach local time stand in the trace, as the contract has them: 1, 2, 3."""
    net = network(2, dense("a", 1.5), dense("b", 1.5, "a"), dense("c", 1.5, "b"))
    trace = trial.expect(net, events("10"), {"c": "10"})
    stated = [trace.layers[name].latency for name in "abc"]
    trial.demand(stated == [1, 2, 3], f"the latencies are {stated}, not [1, 2, 3]")


@TOPIC.check()
def a_loop_takes_one_step(trial: Trial) -> None:
    """A neuron hears its own spike in the next step: not in the same one, and not two steps later."""
    loop = Layer("n", (Synapse([[1.5]]), Synapse([[-1.0]], "n")))
    trial.expect(network(5, loop), events("11111"), {"n": "10101"}, {"n": [0.0, 0.5, 0.0, 0.5, 0.0]})


@TOPIC.check()
def a_loop_between_neurons(trial: Trial) -> None:
    """Recurrent weights go from source (column) to target (row): neuron 0 drives 1, 1 drives 2, nothing comes back."""
    ring = np.zeros((3, 3))
    ring[1, 0] = ring[2, 1] = 1.5
    loop = Layer("n", (Synapse([[1.5], [0.0], [0.0]]), Synapse(ring, "n")))
    trial.expect(network(5, loop), events("10100"), {"n": ["10100", "01010", "00101"]}, {"n": np.zeros((5, 3))})


@TOPIC.check()
def a_loop_over_two_layers(trial: Trial) -> None:
    """A loop of two connections with a Delay of two steps: what comes back comes two steps later."""
    back = Synapse([[1.5]], "b", front=(_delay(2),))
    net = network(6, Layer("a", (Synapse([[1.5]]), back)), dense("b", 1.5, "a"), readout="b")
    trial.expect(net, events("100000"), {"a": "101010", "b": "101010"}, {"a": [0.0] * 6})


@TOPIC.check()
def a_delay_of_steps(trial: Trial) -> None:
    """A Delay holds spikes back by its whole number of steps; those beyond the last step are lost."""
    late = Layer("late", (Synapse([[1.5]], "n", front=(_delay(2),)),))
    trial.expect(network(5, dense("n", 1.5), late), events("11010"), {"n": "11010", "late": "00110"}, {"late": [0.0] * 5})


@TOPIC.check()
def a_delay_per_neuron(trial: Trial) -> None:
    """A Delay with one value per neuron holds each back by its own."""
    late = Layer("late", (Synapse(1.5 * np.eye(3), "n", front=(_delay(0, 3, 1),)),))
    net = network(5, dense("n", [[1.5], [1.5], [1.5]]), late)
    trial.expect(net, events("10100"), {"n": ["10100"] * 3, "late": ["10100", "00010", "01010"]}, {"late": np.zeros((5, 3))})


@TOPIC.check()
def paths_of_unequal_depth(trial: Trial) -> None:
    """A path past a layer arrives in the same local step as the one through it."""
    both = Layer("c", (Synapse([[0.75]], "b"), Synapse([[0.5]], "a")))
    net = network(4, dense("a", 1.5), dense("b", 1.5, "a"), both)
    trial.expect(net, events("1010"), {"a": "1010", "b": "1010", "c": "1010"}, {"c": [0.0] * 4})

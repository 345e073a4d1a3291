"""When a neuron fires: strictly above its threshold, and for nothing else."""

from __future__ import annotations

import numpy as np

from snn_export.hardware_sims.conformance.networks import HALF, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial, events
from snn_export.models.arithmetic import DECAY_ONE

TOPIC = Topic("fire")


@TOPIC.check()
def silence_stays_silent(trial: Trial) -> None:
    """Without input and bias no layer fires, and every membrane stays at zero."""
    net = network(6, dense("a", [[1.5, -1.0], [0.5, 2.0]], dv=HALF), dense("b", [[1.0, -1.0]], "a"), input_shape=(2,))
    still = np.zeros((6, 3, 2))
    trial.expect(net, still, {"a": still, "b": still[..., :1]}, {"a": still, "b": still[..., :1]})


@TOPIC.check()
def exactly_at_threshold(trial: Trial) -> None:
    """A membrane that equals the threshold does not fire: the comparison is strict."""
    net = network(4, dense("n", 1.0))
    trial.expect(net, events("1010"), {"n": "0010"}, {"n": [1.0, 1.0, 0.0, 0.0]})


@TOPIC.check()
def one_step_above_threshold(trial: Trial) -> None:
    """The smallest representable membrane above the threshold fires: one unit of an integer, one ulp of a float."""
    above = 2.0**-12 if trial.integers else 2.0**-52 if trial.capabilities.arithmetic == "float64" else 2.0**-23
    net = network(1, dense("n", [[1.0], [1.0]], bias=[0.0, above]))
    trial.expect(net, events("1"), {"n": ["0", "1"]}, {"n": [[1.0, 0.0]]}, bias_exponent=0)


@TOPIC.check()
def negative_weights(trial: Trial) -> None:
    """Inhibition and excitation in one layer add up, below zero too, and cancel to exactly the threshold."""
    net = network(7, dense("n", [[1.5, -2.0]]), input_shape=(2,))
    trial.expect(net, events("0101011", "1000100"), {"n": "0000001"}, {"n": [-2.0, -0.5, -0.5, 1.0, -1.0, 0.5, 0.0]})


@TOPIC.check()
def only_negative_weights(trial: Trial) -> None:
    """A layer of inhibition alone never fires, and holds what a layer of one sign holds: odd multiples of the grid."""
    net = network(4, dense("n", [[-3 / 64, -1 / 64]]), input_shape=(2,))
    trial.expect(net, events("1101", "0110"), {"n": "0000"}, {"n": np.array([-3, -7, -8, -11]) / 64})


@TOPIC.check()
def bias_alone(trial: Trial) -> None:
    """A bias is integrated from the first step on, in every step, without any input."""
    net = network(10, dense("n", [[1.0], [1.0]], bias=[0.25, -0.5]))
    down = [-0.5 * (t + 1) for t in range(10)]
    up = [0.25, 0.5, 0.75, 1.0, 0.0] * 2
    trial.expect(net, events("0" * 10), {"n": ["0000100001", "0" * 10]}, {"n": np.stack([up, down], axis=1)})


@TOPIC.check()
def bias_behind_a_layer(trial: Trial) -> None:
    """A bias of the second layer acts from that layer's first step on, not while the first spike is on its way to it."""
    net = network(5, dense("a", 2.0), dense("b", 0.5, "a", bias=[0.5]))
    trial.expect(net, events("01000"), {"a": "01000", "b": "01001"}, {"b": [0.5, 0.0, 0.5, 1.0, 0.0]})


@TOPIC.check()
def a_single_step(trial: Trial) -> None:
    """With T = 1 every layer sees the one step there is."""
    net = network(1, dense("a", 2.0), dense("b", 1.5, "a"), dense("c", [[1.0], [1.25]], "b"))
    trial.expect(net, events("1"), {"a": "1", "b": "1", "c": ["0", "1"]}, {"c": [[1.0, 0.0]]})


@TOPIC.check()
def graded_input(trial: Trial) -> None:
    """An input of 3 counts three times, and 0 not at all."""
    net = network(4, dense("n", 0.5, threshold=2.0))
    trial.expect(net, events("1302"), {"n": "0001"}, {"n": [0.5, 2.0, 2.0, 0.0]}, high=3)


@TOPIC.check()
def negative_input(trial: Trial) -> None:
    """An input below zero pulls the membrane down through a positive weight, and up through a negative one."""
    net = network(3, dense("n", [[0.5], [-0.75]]))
    membrane = np.array([[-1.0, 0.0], [0.5, -2.25], [0.0, -4.5]])
    trial.expect(net, np.array([-2.0, 3.0, 3.0]).reshape(3, 1, 1), {"n": ["001", "100"]}, {"n": membrane}, low=-2, high=3)


@TOPIC.check()
def a_neuron_without_memory(trial: Trial) -> None:
    """NIR's Threshold compares the input of this step alone."""
    net = network(4, dense("n", [[0.5, 0.25]], threshold=0.5, dv=DECAY_ONE), input_shape=(2,))
    trial.expect(net, events("1010", "0011"), {"n": "0010"}, {"n": [0.5, 0.0, 0.0, 0.25]})


@TOPIC.check()
def an_integrator_never_fires(trial: Trial) -> None:
    """NIR's I and LI accumulate and never fire or reset, however much they hold."""
    for dv, membrane in ((0, [3.0, 6.0, 9.0, 9.0, 12.0]), (HALF, [3.0, 4.5, 5.25, 2.625, 4.3125])):
        net = network(5, dense("n", 1.5), dense("out", 3.0, "n", dv=dv, spiking=False))
        trial.expect(net, events("11101"), {"n": "11101", "out": "00000"}, {"out": membrane})


@TOPIC.check()
def at_most_one_spike_per_step(trial: Trial) -> None:
    """A membrane of several thresholds fires once in a step: a spike is 0 or 1."""
    net = network(4, dense("n", [[3.5]]), dense("after", 0.75, "n"))
    trial.expect(net, events("1011"), {"n": "1011", "after": "0010"}, {"n": [0.0] * 4, "after": [0.75, 0.75, 0.0, 0.75]})

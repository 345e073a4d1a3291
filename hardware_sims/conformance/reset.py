"""What a spike does to the membrane, and when."""

from __future__ import annotations

from snn_export.hardware_sims.conformance.networks import HALF, HALF_CURRENT, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial, events

TOPIC = Topic("reset")


@TOPIC.check()
def to_zero(trial: Trial) -> None:
    """Reset "zero" leaves nothing of what the membrane had above the threshold, in the step of the spike."""
    net = network(6, dense("n", 0.75))
    trial.expect(net, events("111111"), {"n": "010101"}, {"n": [0.75, 0.0, 0.75, 0.0, 0.75, 0.0]})


@TOPIC.check()
def by_subtraction(trial: Trial) -> None:
    """Reset "subtract" takes the threshold away and keeps the rest, in the step of the spike."""
    net = network(6, dense("n", 0.75, reset="subtract"))
    trial.expect(net, events("111111"), {"n": "011011"}, {"n": [0.75, 0.5, 0.25, 1.0, 0.75, 0.5]})


@TOPIC.check()
def by_subtraction_takes_one_threshold(trial: Trial) -> None:
    """Reset "subtract" takes one threshold per step, however many the membrane holds."""
    net = network(4, dense("n", 3.5, reset="subtract"))
    trial.expect(net, events("1000"), {"n": "1110"}, {"n": [2.5, 1.5, 0.5, 0.5]})


@TOPIC.check()
def by_subtraction_with_leak(trial: Trial) -> None:
    """Subtraction comes after the comparison of its step, so that the next step's decay acts on what is left."""
    net = network(4, dense("n", 1.0, dv=HALF, reset="subtract"))
    trial.expect(net, events("1111"), {"n": "0111"}, {"n": [1.0, 0.5, 0.25, 0.125]})


@TOPIC.check()
def none(trial: Trial) -> None:
    """Reset "none" leaves the membrane alone: it fires in every step above the threshold."""
    net = network(5, dense("n", 0.75, reset="none"))
    trial.expect(net, events("11100"), {"n": "01111"}, {"n": [0.75, 1.5, 2.25, 2.25, 2.25]})


@TOPIC.check()
def delayed_subtraction(trial: Trial) -> None:
    """With reset_delay 1 the threshold is taken away in the step after the spike, behind that step's decay."""
    net = network(6, dense("n", 1.0, dv=HALF, reset="subtract", reset_delay=1))
    trial.expect(net, events("111111"), {"n": "010101"}, {"n": [1.0, 1.5, 0.75, 1.375, 0.6875, 1.34375]})


@TOPIC.check()
def delayed_to_zero(trial: Trial) -> None:
    """With reset_delay 1 the membrane is zeroed before the step after the spike; that step's input counts."""
    net = network(4, dense("n", 1.0, dv=HALF, reset_delay=1))
    trial.expect(net, events("1111"), {"n": "0101"}, {"n": [1.0, 1.5, 1.0, 1.5]})


@TOPIC.check()
def delayed_to_zero_clears_the_input(trial: Trial) -> None:
    """With clears_input the delayed reset zeroes the whole membrane of its step, input included; the current flows on."""
    net = network(4, dense("n", 1.0, du=HALF_CURRENT, dv=HALF, reset_delay=1, clears_input=True))
    trial.expect(net, events("1111"), {"n": "0101"}, {"n": [1.0, 2.0, 0.0, 1.875]})


@TOPIC.check()
def subtraction_that_doubles_the_threshold(trial: Trial) -> None:
    """With double_to_refire (snnTorch's subtraction without delay) a membrane above the threshold needs twice that to refire."""
    net = network(4, dense("n", 3.5, reset="subtract", double_to_refire=True))
    trial.expect(net, events("1000"), {"n": "1100"}, {"n": [2.5, 1.5, 1.5, 1.5]})


@TOPIC.check()
def leaves_the_current_alone(trial: Trial) -> None:
    """A spike resets the membrane; the current behind a synaptic filter flows on and can make the next spike."""
    net = network(4, dense("n", 3.0, du=HALF_CURRENT, dv=HALF))
    trial.expect(net, events("1000"), {"n": "1100"}, {"n": [0.0, 0.0, 0.75, 0.75]})


@TOPIC.check()
def periodic(trial: Trial) -> None:
    """A contract's reset_interval zeroes the membrane before every such step, or the deployment is refused."""
    net = network(8, dense("n", 0.75, threshold=2.0, reset_interval=4))
    trial.expect(net, events("1" * 8), {"n": "00100010"}, {"n": [0.75, 1.5, 0.0, 0.75, 0.75, 1.5, 0.0, 0.75]})

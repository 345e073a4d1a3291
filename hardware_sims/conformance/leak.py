"""Decay of membranes and currents, the constants NIR multiplies them with, and what integers do at their limits."""

from __future__ import annotations

import numpy as np

from snn_export.hardware_sims.conformance.networks import HALF, HALF_CURRENT, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial, events

TOPIC = Topic("leak")

QUARTER = HALF // 2
"""dv of a membrane that loses a quarter in every step."""


def _long_silence(trial: Trial, weight: float) -> None:
    steps = 24
    units = round(abs(weight) * 4096)
    kept = np.array([units >> t for t in range(steps)]) / 4096 if trial.integers else abs(weight) * 0.5 ** np.arange(steps)
    net = network(steps, dense("n", weight, dv=HALF))
    trial.expect(net, events("1" + "0" * (steps - 1)), {"n": "0" * steps}, {"n": np.sign(weight) * kept})


@TOPIC.check()
def long_silence(trial: Trial) -> None:
    """A membrane halves through a long silence: a float never ends, an integer ends at zero."""
    _long_silence(trial, 1.0)


@TOPIC.check()
def long_silence_below_zero(trial: Trial) -> None:
    """A negative membrane decays toward zero like a positive one; rounding down would leave it at -1 forever."""
    _long_silence(trial, -0.75)


@TOPIC.check("loihi")
def truncation_toward_zero(trial: Trial) -> None:
    """An integer membrane keeps trunc(v (4096 - dv) / 4096), toward zero on both sides, for a decay that divides nothing."""
    dv, steps = 1000, 30
    values = {weight: [round(weight * 4096)] for weight in (1.0, -1.0)}
    for kept in values.values():
        for _ in range(steps - 1):
            kept.append(int(np.sign(kept[-1])) * (abs(kept[-1]) * (4096 - dv) // 4096))
    net = network(steps, dense("n", [[1.0], [-1.0]], dv=dv))
    silent = "0" * steps
    trial.expect(net, events("1" + silent[1:]), {"n": [silent, silent]}, {"n": np.array(list(values.values())).T / 4096})


@TOPIC.check()
def two_time_constants(trial: Trial) -> None:
    """A CubaLIF filters its input with tau_syn and its current with tau_mem, not the other way round."""
    net = network(4, dense("n", 1.0, threshold=2.0, du=HALF_CURRENT, dv=QUARTER))
    trial.expect(net, events("1000"), {"n": "0000"}, {"n": [1.0, 1.25, 1.1875, 1.015625]})


@TOPIC.check()
def filtered_spikes(trial: Trial) -> None:
    """A CubaLIF sums the currents of spikes that follow each other, fires, and shows its current u as it stands."""
    net = network(6, dense("n", 1.0, threshold=1.75, du=HALF_CURRENT, dv=HALF, r=2.0))
    deployment = trial.deployment(net)
    trace = trial.run(deployment, events("110010"))
    trial.compare(trace, {"n": "010000"}, {"n": [1.0, 0.0, 0.75, 0.75, 1.5625, 1.375]})
    trial.compare_state(trace, "n", "current", [1.0, 1.5, 0.75, 0.375, 1.1875, 0.59375])


@TOPIC.check()
def a_bias_is_filtered_too(trial: Trial) -> None:
    """A bias in front of a CubaLIF enters the current and is filtered with it; on the membrane it would be another network."""
    net = network(4, dense("n", 1.0, bias=[0.5], du=HALF_CURRENT, dv=HALF))
    trial.expect(net, events("0000"), {"n": "0010"}, {"n": [0.5, 1.0, 0.0, 0.9375]})


@TOPIC.check()
def resting_potential_of_a_cubalif(trial: Trial) -> None:
    """v_leak of a CubaLIF adds (1 - beta) v_leak to the membrane in every step, which starts from zero all the same."""
    net = network(5, dense("n", 1.0, du=HALF_CURRENT, dv=HALF, v_leak=0.5))
    trial.expect(net, events("00010"), {"n": "00010"}, {"n": [0.25, 0.375, 0.4375, 0.0, 0.75]})


@TOPIC.check("floats")
def resting_potential_of_a_lif(trial: Trial) -> None:
    """v_leak of a LIF adds (1 - beta) v_leak to the membrane in every step, which starts from zero all the same."""
    net = network(5, dense("n", 1.0, dv=HALF, v_leak=0.5))
    trial.expect(net, events("00010"), {"n": "00010"}, {"n": [0.25, 0.375, 0.4375, 0.0, 0.25]})


@TOPIC.check()
def membrane_resistance(trial: Trial) -> None:
    """NIR's r multiplies the input of LIF, IF and CubaLIF: weights divided by it give the same network."""
    layers = (
        dense("lif", 0.75, dv=HALF, r=4.0),
        dense("if", 1.25, "lif", r=0.5),
        dense("cubalif", 1.5, "if", du=HALF_CURRENT, dv=HALF, r=2.0),
    )
    trial.expect(
        network(6, *layers), events("110111"), {"lif": "010010", "if": "010010", "cubalif": "010010"},
        {"lif": [0.75, 0.0, 0.0, 0.75, 0.0, 0.75], "cubalif": [0.0, 0.0, 0.75, 0.75, 0.0, 0.84375]},
    )  # fmt: skip


@TOPIC.check()
def input_weight_of_a_cubalif(trial: Trial) -> None:
    """NIR's w_in multiplies what enters a CubaLIF's filter: weights divided by it give the same network."""
    net = network(4, dense("n", 1.0, threshold=2.0, du=HALF_CURRENT, dv=QUARTER, w_in=0.25))
    trial.expect(net, events("1000"), {"n": "0000"}, {"n": [1.0, 1.25, 1.1875, 1.015625]})


@TOPIC.check()
def time_in_other_units(trial: Trial) -> None:
    """Time constants count in the contract's dt: steps, milliseconds or snnTorch's 1e-4 s, the network is the same."""
    for dt in (1.0, 1e-3, 1e-4):
        net = network(7, dense("lif", 0.875, dv=HALF), dense("cubalif", 1.25, "lif", du=HALF_CURRENT, dv=QUARTER), dt=dt)
        trial.expect(net, events("1101110"), {"lif": "0100100", "cubalif": "0100100"})


@TOPIC.check("loihi")
def currents_wrap(trial: Trial) -> None:
    """A current beyond 2^23 wraps around once at 24 bits, as the chip's register does."""
    net = network(2, dense("n", 254 / 64, threshold=2000.0))
    wrapped = 254 * 517 * 64 - (1 << 24)
    trace = trial.expect(net, np.array([517.0, 0.0]).reshape(2, 1, 1), {"n": "00"}, {"n": [wrapped / 4096] * 2}, high=517)
    trial.demand(trace.layers["n"].overflows in (None, 1), f"{trace.layers['n'].overflows} overflows are counted, not 1")


@TOPIC.check("loihi")
def membranes_saturate(trial: Trial) -> None:
    """A membrane stops at 2^23 - 1 on either side, and above the largest threshold that is a spike."""
    net = network(3, dense("n", [[254 / 64], [-254 / 64]], threshold=131071 / 64))
    step, most = 254 * 500 * 64, (1 << 23) - 1
    deployment = trial.deployment(net, high=500)
    trace = trial.run(deployment, np.full((3, 1, 1), 500.0))
    trial.compare(trace, {"n": ["010", "000"]}, {"n": np.array([[step, -step], [0, -most], [step, -most]]) / 4096})
    trial.demand(trace.layers["n"].overflows in (None, 3), f"{trace.layers['n'].overflows} overflows are counted, not 3")

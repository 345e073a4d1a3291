"""The time step and the reset of a graph are inferred where its constants leave no doubt, and never guessed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from numpy.typing import NDArray

from snn_export.export.inspection import settled
from snn_export.export.provenance import deviations, provenance
from snn_export.models.diagnostics import UserError

Array = NDArray[np.float64]
BETA = np.array([0.875, 0.875, 0.75])


def lif(tau: Any, r: Any, kind: type = np.float64) -> nir.LIF:
    tau, r = (np.broadcast_to(np.asarray(value, kind), 3).copy() for value in (tau, r))
    return nir.LIF(tau, r, tau * 0, np.ones(3, kind), tau * 0)


def graph(*neurons: nir.NIRNode, source: str = "input") -> nir.NIRGraph:
    nodes = {source: nir.Input(np.array([3])), "fc": nir.Linear(np.eye(3, dtype=np.float32))}
    nodes |= {f"n{i}": node for i, node in enumerate(neurons)} | {"output": nir.Output(np.array([3]))}
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata={}, type_check=False)


def as_snntorch(beta: Array) -> nir.LIF:
    tau = np.asarray(1e-4 / (1 - beta), np.float32)
    return lif(tau, tau / np.float32(1e-4), np.float32)


def as_spyx(beta: Array, dt: float = 1.0) -> nir.LIF:
    return lif(np.float32(dt / (1 - beta)), np.float32(beta), np.float32)


def as_rockpool(tau: Array, dt: float = 1e-3) -> nir.LIF:
    return lif(np.float32(tau), np.float32(tau * np.exp(-dt / tau) / dt), np.float32)


@pytest.mark.parametrize(
    ("node", "source", "writer", "dt", "reset"),
    [
        (as_snntorch(BETA), "input", "snnTorch", 1e-4, None),
        (as_snntorch(np.full(3, 0.9)), "input", "snnTorch", 1e-4, None),
        (lif([4e-4, 4e-4, 2e-4], [4.0, 4.0, 2.0]), "x", "SpikingJelly", 1e-4, "zero"),
        (as_spyx(BETA), "input", "Spyx", 1.0, "subtract"),
        (as_spyx(np.full(3, 0.9)), "input", "Spyx", 1.0, "subtract"),
        (as_rockpool(np.array([0.02, 0.02, 0.01])), "input", "Rockpool", 1e-3, "subtract"),
        (as_rockpool(np.full(3, 0.02)), "input", "Rockpool", 1e-3, "subtract"),
        (as_rockpool(np.array([0.02, 0.01, 0.01]), 5e-3), "input", "Rockpool", 5e-3, "subtract"),
        (lif([0.02, 0.01, 0.01], [40.0, 20.0, 20.0]), "input", "unknown", 5e-4, "zero"),
    ],
)
def test_a_step_that_every_neuron_states_is_certain(node: Any, source: str, writer: str, dt: float, reset: str | None) -> None:
    found = provenance(graph(node, source=source))
    assert (found.writer, found.reset) == (writer, reset)
    assert found.dt == pytest.approx(dt, rel=1e-5)
    assert [step.dt for step in found.candidates] == [found.dt]


@pytest.mark.parametrize(
    "node",
    [
        lif(0.02, 1.0), lif([0.02, 0.01, 0.01], 1.0), lif(0.02, 40.0), lif(0.02, 0.5), lif(np.nan, 8.0), lif(-8e-4, -8.0),
        lif([0.02, 0.01, 0.01], [40.0, 20.0, 21.0]), nir.IF(np.ones(3), np.ones(3)), nir.IF(np.full(3, 1e3), np.ones(3)),
        lif(8e-4, np.inf),
    ],
)  # fmt: skip
def test_what_leaves_a_doubt_is_not_certain(node: nir.NIRNode) -> None:
    found = provenance(graph(node))
    assert found.dt is None
    assert not found.reset_certain


def test_two_layers_that_disagree_leave_a_doubt() -> None:
    assert provenance(graph(as_snntorch(BETA), lif(0.02, 20.0))).dt is None
    assert provenance(graph(as_snntorch(BETA), lif(4e-4, 4.0))).dt == 1e-4


def test_a_filter_and_an_if_state_the_step_too() -> None:
    one, zero = np.ones(3), np.zeros(3)
    cuba = nir.CubaLIF(one * 2e-3, one * 4e-3, one * 8, zero, one, zero, one * 4)
    assert provenance(graph(cuba)).dt == pytest.approx(5e-4)
    cuba = nir.CubaLIF(one * 2e-3, one * 4e-3, one * 8, zero, one, zero, one * 5)
    assert provenance(graph(cuba)).dt is None
    assert provenance(graph(nir.IF(one * 1e4, one))).dt == 1e-4


def test_nested_neurons_count() -> None:
    inner = graph(as_spyx(BETA))
    outer = nir.NIRGraph({"g": inner}, [], metadata={}, type_check=False)
    assert provenance(outer).writer == "Spyx"


@pytest.mark.parametrize(
    ("tau", "allowed"),
    [(4e-6, [1e-6]), (8.0, [1.0]), (0.02, [1e-3, 1e-4]), (5e-4, [1e-4, 1e-6]), (1e9, [])],
)
def test_candidates_are_steps_that_every_time_constant_can_follow(tau: float, allowed: list[float]) -> None:
    assert [step.dt for step in provenance(graph(lif(tau, 1.0))).candidates] == allowed


def test_a_stated_setting_is_taken_and_a_missing_one_refused() -> None:
    theirs = graph(as_snntorch(BETA))
    assert settled(theirs, "", None, "zero", "x") == (1e-4, "zero")
    assert settled(theirs, "", 1e-3, "none", "x") == (1e-3, "none")
    with pytest.raises(UserError) as caught:
        settled(theirs, "", None, None, "x")
    assert [item.code for item in caught.value.diagnostics] == ["SNX168"]
    with pytest.raises(UserError) as caught:
        settled(graph(lif(0.02, 1.0)), "", None, None, "x")
    assert [item.code for item in caught.value.diagnostics] == ["SNX167"]
    assert "0.001" in str(caught.value)
    assert settled(graph(lif(0.02, 1.0)), "", 1e-3, None, "x") == (1e-3, "zero")


def test_an_if_that_would_lose_its_input_is_told() -> None:
    theirs = graph(lif(0.02, 1.0), nir.IF(np.ones(3), np.ones(3)))
    told = list(deviations(theirs, provenance(theirs), 1e-3))
    assert [(item.code, item.where, item.severity) for item in told] == [("SNX170", "n1", "warning")]
    assert not list(deviations(theirs, provenance(theirs), 1.0))


@pytest.mark.parametrize(("entered", "told"), [("w", 1), ("n", 0)])
def test_an_input_behind_recurrent_weights_is_told(entered: str, told: int) -> None:
    nodes = {"i": nir.Input(np.array([3])), "w": nir.Linear(np.eye(3)), "n": as_spyx(BETA), "o": nir.Output(np.array([3]))}
    edges = [("i", entered), ("w", "n"), ("n", "w"), ("n", "o")]
    outer = nir.NIRGraph({"g": nir.NIRGraph(nodes, edges, metadata={}, type_check=False)}, [], metadata={}, type_check=False)
    found = [item for item in deviations(outer, provenance(outer), 1.0) if item.where == "g"]
    assert len(found) == told

"""Who wrote a NIR graph, and with it the time step and the reset: what can be inferred, from what, and how surely.

NIR holds no time step and no reset, but most programs write constants that carry their step: a neuron that adds its input
unscaled has r = tau / dt, whatever tau is. Three such relations are known, each seen in the exporter's source:

    snnTorch, SpikingJelly   r = tau / dt                      (w_in = tau_syn / dt)
    Spyx                     r = beta = 1 - dt / tau
    Rockpool                 r = (tau / dt) exp(-dt / tau)

A step is *certain* where every neuron with r != 1 gives the same one, and that is the step the program is known for or two
different time constants agree in it. Nothing is guessed from the size of a time constant: 4e-6 may be a fast neuron, or Norse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import is_population, predecessors, successors, weight_array
from snn_export.export.populations import constants
from snn_export.models.arithmetic import DECAY_ONE
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import Reset

AGREEMENT = 1e-5
"""Relative difference up to which two steps are one: constants are often float32, and a step is a quotient of two."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A time step the constants may have been written with, in their unit, and why."""

    dt: float
    because: str


@dataclass(frozen=True)
class Provenance:
    """What a graph tells about where it comes from.

    Attributes:
        nir_version: of the package that wrote the file; empty where the file does not say.
        writer: the program, "unknown" where nothing tells.
        evidence: what the writer was inferred from.
        dt: the step that is certain, None where none is.
        candidates: steps that the constants allow, most likely first; the certain one where there is one.
        reset: the reset that is certain or that NIR defines; None where the writer is known to drop it.
        reset_certain: the writer has this reset alone.
        reset_because: why.
    """

    nir_version: str
    writer: str
    evidence: tuple[str, ...]
    dt: float | None
    candidates: tuple[Step, ...]
    reset: Reset | None
    reset_certain: bool
    reset_because: str


@dataclass(frozen=True)
class _Relation:
    """How a program writes r. step: dt of (tau, r), NaN where there is none. known: the step it uses unless told otherwise."""

    writer: str
    formula: str
    step: Callable[[_Array, _Array], _Array]
    known: float


def provenance(graph: nir.NIRGraph, nir_version: str = "") -> Provenance:
    """What a graph, nested ones included, tells about where it comes from. Pure: reads constants and names, runs nothing."""
    nodes = dict(_all_nodes(graph))
    certain = [(relation, step) for relation in _RELATIONS if (step := _agreed(relation, nodes)) is not None]
    if len(certain) == 1:
        relation, step = certain[0]
        writer, evidence = _named(relation, step, graph, nodes)
        return _with_reset(nir_version, writer, evidence, step.dt, (step,))
    writer, evidence = _by_form(graph, nodes, nir_version)
    return _with_reset(nir_version, writer, evidence, None, tuple(_possible(nodes)))


def dt_unknown(found: Provenance, where: str) -> Diagnostic:
    """The finding for a graph whose step is not certain (SNX167)."""
    listed = "; ".join(f"{step.dt:g} ({step.because})" for step in found.candidates)
    return Diagnostic(
        "SNX167", "the time step cannot be inferred", where=where,
        why=f"NIR has no field for it, and another step is another network; its constants allow {listed or 'any'}",
        fix=f"state it: --dt {found.candidates[0].dt if found.candidates else 1e-3:g} (dt= in snn_export.from_nir), in the unit "
        "of the file's time constants",
    )  # fmt: skip


def reset_unknown(found: Provenance, where: str) -> Diagnostic:
    """The finding for a graph whose writer drops the reset (SNX168)."""
    return Diagnostic(
        "SNX168", "the reset cannot be inferred", where=where, why=found.reset_because,
        fix="state the one it was trained with: --reset zero, --reset subtract or --reset none (reset= in snn_export.from_nir)",
    )  # fmt: skip


def deviations(graph: nir.NIRGraph, found: Provenance, dt: float | None) -> Iterator[Diagnostic]:
    """Where the writer itself computes something else than what its file says (SNX170, warnings)."""
    for what, why, fix in _DEVIATIONS.get(found.writer, ()):
        yield Diagnostic("SNX170", what, where="graph", why=why, fix=fix, severity="warning")
    for name, inner in graph.nodes.items():
        for door, weights in _through_the_loop(inner) if isinstance(inner, nir.NIRGraph) else ():
            yield Diagnostic(
                "SNX170", f"what enters {name} passes the recurrent weights {weights}", where=name,
                why="Spyx writes its recurrent layers like this and computes them with the input at the neurons",
                fix=f"where the input was meant for the neurons, lead {door} to them instead", severity="warning",
            )  # fmt: skip
    for name, node in _all_nodes(graph):
        if isinstance(node, nir.IF) and dt is not None and dt != 1 and np.all(np.asarray(node.r) == 1):
            yield Diagnostic(
                "SNX170", f"{name} takes {dt:g} of its input in a step", where=name,
                why="it is an IF with r = 1, which adds r dt i; Norse, sinabs and Spyx write r = 1 and mean the whole input",
                fix=f"where the input was meant whole, write r = {1 / dt:g}, or state --dt 1 where nothing else needs dt",
                severity="warning",
            )  # fmt: skip


def _all_nodes(graph: nir.NIRGraph, prefix: str = "") -> Iterator[tuple[str, nir.NIRNode]]:
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            yield from _all_nodes(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node


def _through_the_loop(graph: nir.NIRGraph) -> Iterator[tuple[str, str]]:
    """(input, weights) where an input leads into weights that neurons of the same graph lead into and hear."""
    for door, weights in graph.edges:
        if isinstance(graph.nodes.get(door), nir.Input) and isinstance(graph.nodes.get(weights), nir.Affine | nir.Linear):
            heard = [name for name in successors(graph, weights) if name in graph.nodes and is_population(graph.nodes[name])]
            if set(heard) & set(predecessors(graph, weights)):
                yield door, weights


def _pairs(nodes: dict[str, nir.NIRNode]) -> Iterator[tuple[_Array, _Array]]:
    """(tau, r) of every leaky membrane whose r is not one, one value per neuron."""
    for node in nodes.values():
        given = constants(node) if is_population(node) else {}
        tau = given.get("tau", given.get("tau_mem"))
        if tau is not None and "r" in given and np.any(given["r"] != 1):
            yield _columns(tau, given["r"])


def _columns(first: NDArray[Any], second: NDArray[Any]) -> tuple[_Array, _Array]:
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    size = max(a.size, b.size)
    return (np.resize(a, size), np.resize(b, size)) if 1 in (a.size, b.size) or a.size == b.size else (a[:0], b[:0])


def _agreed(relation: _Relation, nodes: dict[str, nir.NIRNode]) -> Step | None:
    """The step that all neurons with r != 1 give by this relation, where it is certain."""
    pairs = list(_pairs(nodes))
    if relation.writer == _UNSCALED:
        pairs += [_columns(node.tau_syn, node.w_in) for node in nodes.values() if _filtered(node)]
        pairs += [(np.ones(1), np.asarray(node.r, np.float64).ravel()) for node in nodes.values() if _counted(node)]
    if not pairs:
        return None
    tau, r = (np.concatenate(column) for column in zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        steps = relation.step(tau, r)
    if not steps.size or not np.all(np.isfinite(steps)) or np.any(steps <= 0):
        return None
    dt = float(np.median(steps))
    if np.any(np.abs(steps - dt) > AGREEMENT * dt):
        return None
    known = abs(dt - relation.known) <= AGREEMENT * relation.known
    if known:
        dt = relation.known
    several = np.ptp(tau) > 100 * AGREEMENT * np.max(tau)
    if not (known or several):
        return None
    return Step(dt, f"{relation.formula} holds with dt = {dt:g} for all {tau.size} constants with r or w_in other than 1")


def _filtered(node: nir.NIRNode) -> bool:
    return isinstance(node, nir.CubaLIF | nir.CubaLI) and bool(np.any(np.asarray(node.w_in) != 1))


def _counted(node: nir.NIRNode) -> bool:
    return isinstance(node, nir.IF) and bool(np.any(np.asarray(node.r) != 1))


def _unscaled(tau: _Array, r: _Array) -> _Array:
    return np.where(r >= 1, tau / r, np.nan)


def _kept(tau: _Array, r: _Array) -> _Array:
    return np.where(r < 1, tau * (1 - r), np.nan)


def _rockpool(tau: _Array, r: _Array) -> _Array:
    """Dt of r = exp(-x) / x with x = dt / tau, by Newton's method on x + log(x) + log(r); it has one root for every r > 0."""
    x = np.where(r > 1, 1 / np.maximum(r, 1), 0.5)
    for _ in range(50):
        x = np.maximum(x - (x + np.log(x) + np.log(r)) / (1 + 1 / x), x / 8)
    return tau * x


_UNSCALED = "snnTorch"
_RELATIONS = (
    _Relation(_UNSCALED, "r = tau / dt", _unscaled, 1e-4),
    _Relation("Spyx", "r = 1 - dt / tau", _kept, 1.0),
    _Relation("Rockpool", "r = (tau / dt) exp(-dt / tau)", _rockpool, 1e-3),
)


def _named(relation: _Relation, step: Step, graph: nir.NIRGraph, nodes: dict[str, nir.NIRNode]) -> tuple[str, tuple[str, ...]]:
    """The program among those that share a relation."""
    if relation.writer != _UNSCALED:
        return relation.writer, (step.because,)
    if _traced(graph) and _doubles(nodes):
        return "SpikingJelly", (step.because, *_SPIKINGJELLY)
    if step.dt == relation.known:
        return "snnTorch", (step.because, "snnTorch writes dt = 1e-4, whatever the network ran with")
    return "unknown", (step.because,)


_SPIKINGJELLY = ("the input is not named 'input', as torch.fx names it", "constants are float64 beside float32 weights")


def _traced(graph: nir.NIRGraph) -> bool:
    return all(name != "input" for name, node in graph.nodes.items() if isinstance(node, nir.Input))


def _doubles(nodes: dict[str, nir.NIRNode]) -> bool:
    """Neuron constants in float64 beside weights in float32."""
    wide = [value.dtype == np.float64 for node in nodes.values() if is_population(node) for value in constants(node).values()]
    narrow = [np.asarray(weight_array(node)).dtype == np.float32 for node in nodes.values() if hasattr(node, "weight")]
    return bool(wide) and bool(narrow) and all(wide) and all(narrow)


def _by_form(graph: nir.NIRGraph, nodes: dict[str, nir.NIRNode], nir_version: str) -> tuple[str, tuple[str, ...]]:
    """A program told by the form of its constants, where r tells nothing."""
    leaky = [node for node in nodes.values() if is_population(node) and _taus(node)]
    if not leaky:
        return "unknown", ("no neuron has a time constant",)
    taus = [value for node in leaky for value in _taus(node)]
    ones = all(np.all(np.asarray(node.r) == 1) for node in leaky)
    if not ones:
        return "unknown", ("r follows no rule of a known exporter",)
    if _traced(graph) and _doubles(nodes):
        return "SpikingJelly", ("r is 1 everywhere", *_SPIKINGJELLY)
    if max(float(np.max(value)) for value in taus) < _NORSE_LONGEST:
        return "Norse", ("r is 1 everywhere", f"time constants are below {_NORSE_LONGEST:g}: Norse 1.1 writes dt tau for tau")
    scalar = all(np.ndim(value) == 0 for value in taus)
    if scalar and min(float(np.min(value)) for value in taus) >= 1:
        old = (f"written by nir {nir_version}",) if nir_version else ()
        return "sinabs", ("r is 1 everywhere", "one number per constant and population", "time constants count steps", *old)
    return "unknown", ("r is 1 everywhere, as many programs write it",)


_NORSE_LONGEST = 1e-4


def _taus(node: nir.NIRNode) -> list[NDArray[Any]]:
    return [value for key, value in constants(node).items() if key.startswith("tau")]


def _possible(nodes: dict[str, nir.NIRNode]) -> Iterator[Step]:
    """Conventional steps that every time constant can follow."""
    taus = [np.asarray(value, np.float64) for node in nodes.values() if is_population(node) for value in _taus(node)]
    for dt, because in _CONVENTIONS:
        if all(np.all(value > dt * (1 - AGREEMENT)) and np.all(value <= dt * DECAY_ONE) for value in taus):
            yield Step(dt, because)


_CONVENTIONS = (
    (1.0, "time constants in steps, as sinabs and Spyx write them, or in ms with steps of 1 ms"),
    (1e-3, "seconds with steps of 1 ms, Norse's and Rockpool's default"),
    (1e-4, "seconds with steps of 0.1 ms, snnTorch's and SpikingJelly's"),
    (1e-6, "Norse 1.1's export with its default dt = 1e-3: it multiplies tau by dt"),
)


def _with_reset(
    version: str, writer: str, evidence: tuple[str, ...], dt: float | None, candidates: tuple[Step, ...]
) -> Provenance:
    reset, certain, because = _RESETS.get(writer, ("zero", False, "NIR defines v = v_reset at a spike; the writer is not known"))
    return Provenance(version, writer, evidence, dt, candidates, reset, certain and dt is not None, because)


_RESETS: dict[str, tuple[Reset | None, bool, str]] = {
    "snnTorch": (
        None, False, "snnTorch writes v_reset = 0 whatever reset_mechanism is, and its default is 'subtract', one step late",
    ),
    "SpikingJelly": ("zero", True, "SpikingJelly refuses to write a soft reset"),
    "Spyx": ("subtract", True, "every neuron of Spyx subtracts its threshold; the v_reset = 0 of its files is nir's default"),
    "Rockpool": ("subtract", True, "Rockpool's LIF subtracts its threshold; the v_reset = 0 of its files is nir's default"),
    "Norse": ("zero", False, "NIR defines v = v_reset at a spike, and Norse's default is the same"),
    "sinabs": (None, False, "sinabs subtracts by default and writes no v_reset; its file would be read as a reset to zero"),
}  # fmt: skip

_DEVIATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "snnTorch": ((
        "an RSynaptic of snnTorch 1.0 resets one step late, whatever it is told, and by default every neuron does",
        "NIR has no field for a delayed reset",
        "read the module itself with snn_export.from_snntorch, which keeps it, or train with reset_delay=False",
    ),),
    "SpikingJelly": ((
        "SpikingJelly fires at v >= v_threshold, NIR above it", "the two differ where a membrane meets its threshold exactly",
        "where weights and inputs lie on a coarse grid, lower the thresholds by half a step of it",
    ),),
    "Norse": ((
        "Norse 1.1 writes a time constant of tau as dt tau, and an LIFCell without w_in = tau_syn / dt",
        "seen by running it: with the file's w_in = 1 the currents of an LIFCell are smaller by tau_syn / dt",
        "state --dt 1e-6 for Norse's default dt = 1e-3; for an LIFCell set w_in = tau_syn / 1e-6 in the graph",
    ),),
    "Spyx": ((
        "Spyx emits a spike one step after the crossing, its LIF and IF subtract a step later still, and inputs are taken whole",
        "its importer ignores r and w_in, and NIR has no field for a late reset",
        "set r = tau / dt and w_in = tau_syn / dt in the graph, reset_delay = 1 for LIF and IF in the contract, and allow one "
        "step of latency per layer",
    ),),
    "Rockpool": ((
        "Rockpool keeps exp(-dt / tau) per step where a step of this file keeps 1 - dt / tau, and fires several times in a step",
        "NIR's time constant is continuous, the two meet only for small dt / tau, and its file leaves out w_in",
        "set tau = dt / (1 - exp(-dt / tau)) for both constants, r = tau_mem / dt and w_in = tau_syn / dt - 1 with these",
    ),),
    "sinabs": ((
        "sinabs keeps exp(-1 / tau) per step, and fires several times in a step where it passes several thresholds",
        "a step of this file keeps 1 - 1 / tau; with norm_input=False sinabs also takes its input whole, and r = 1 hides it",
        "set tau = 1 / (1 - exp(-1 / tau)) in the graph, and r to that tau for norm_input=False",
    ),),
}  # fmt: skip
"""By writer: what it does, why that is not in its file, and what to do. Seen by running them (``docs/foreign-graphs.md``)."""

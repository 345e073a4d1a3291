"""What a NIR file is, without running it: where it comes from, its layers, its loops, and every finding about it.

``snn-export lint`` prints what :func:`inspect` returns. What would silently change spikes is an error until it is stated;
what is assumed is a note that says why.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import nir_io, nir_reader
from snn_export.export.graph import CONV_TYPES, POOL_TYPES, Shape, connections, is_population, shapes, weight_array
from snn_export.export.nested import flattened
from snn_export.export.populations import constants
from snn_export.export.provenance import AGREEMENT, Provenance, deviations, dt_unknown, provenance, reset_unknown
from snn_export.export.well_formed import malformed
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of
from snn_export.models.spec import Reset

_NEEDS_DT = frozenset(("SNX109", "SNX207", "SNX241", "SNX248", "SNX249", "SNX261", "SNX266"))
"""Findings that mean nothing while the time step is not known."""


@dataclass(frozen=True)
class Layer:
    """One node. shape: what leaves it, computed here; None where the graph has no shapes. kept: of a membrane, per step."""

    name: str
    kind: str
    shape: Shape | None
    weights: Shape | None
    constants: dict[str, tuple[float, float]]
    kept: tuple[float, float] | None


@dataclass(frozen=True)
class Loop:
    """A recurrent connection. within: the nested graph it stands in, empty in a flat one."""

    source: str
    path: tuple[str, ...]
    target: str
    within: str


@dataclass(frozen=True)
class Inspection:
    """What a file is.

    Attributes:
        path: of the file.
        provenance: what it tells about its writer.
        contract: it carries a contract of this project.
        dt, reset: what it would be read with; None where that must be stated first.
        dt_from, reset_from: "stated", "contract", "inferred", "assumed" or "unknown".
        steps: T, where stated.
        layers: in order of flow where there is one.
        loops: recurrent connections.
        findings: errors, warnings and notes.
    """

    path: str
    provenance: Provenance
    contract: bool
    dt: float | None
    dt_from: str
    reset: str | None
    reset_from: str
    steps: int | None
    layers: tuple[Layer, ...]
    loops: tuple[Loop, ...]
    findings: tuple[Diagnostic, ...]

    @property
    def readable(self) -> bool:
        """No finding is an error."""
        return all(item.severity != "error" for item in self.findings)


def inspect(
    path: Path,
    *,
    steps: int | None = None,
    dt: float | None = None,
    reset: Reset | None = None,
    round_decays: bool = False,
) -> Inspection:
    """Look at a NIR file of any program.

    Args:
        path: the file.
        steps: T, where it is to be judged too.
        dt: time per step in the unit of the file's time constants; None takes what is certain.
        reset: None takes what is certain, or what NIR defines where the writer is not known to drop it.
        round_decays: accept the nearest integer decays.

    Raises:
        UserError: SNX101 to SNX103 where nothing can be read, SNX109 for a dt that is none.
    """
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise UserError(
            "SNX109", f"dt = {dt}", where="dt", why="every step has a duration",
            fix="state one above 0, in the unit of the file's time constants",
        )  # fmt: skip
    graph, version = nir_io.read_graph(path), nir_io.file_version(path)
    if wrong := malformed(graph):  # nothing can be concluded from numbers that are none
        told = provenance(nir.NIRGraph({}, [], metadata={}, type_check=False), version)
        return Inspection(str(path), told, False, dt, "unknown", reset, "unknown", steps, (), (), tuple(wrong))
    told = provenance(graph, version)
    if nir_io.METADATA in graph.metadata:
        return _ours(path, graph, told, steps, dt, reset)
    found: list[Diagnostic] = []
    used_dt, dt_from = (dt, "stated") if dt is not None else (told.dt, "inferred" if told.dt is not None else "unknown")
    used_reset, reset_from = (reset, "stated") if reset is not None else (told.reset, _how(told))
    found += _settings(told, path, dt, reset)
    probe = used_dt if used_dt is not None else (told.candidates[0].dt if told.candidates else 1.0)
    read = nir_reader.findings(graph, steps=1 if steps is None else steps, dt=probe, round_decays=round_decays)
    found += [item for item in read if used_dt is not None or item.code not in _NEEDS_DT]
    found += [*_repaired(path), *deviations(graph, told, used_dt)]
    flat, made = _flat(graph)
    if made is not None:
        found += _shape_findings(flat, made)
    elif (batched := _batched(flat, path)) is not None:
        found = [batched, *(item for item in found if item.code != "SNX206")]
    return Inspection(
        str(path), told, False, used_dt, dt_from, used_reset, reset_from, steps, _layers(flat, made, used_dt),
        _loops(graph, flat), tuple(dict.fromkeys(found)),
    )  # fmt: skip


def settled(graph: nir.NIRGraph, nir_version: str, dt: float | None, reset: Reset | None, where: str) -> tuple[float, Reset]:
    """The time step and the reset to read a graph with: what is stated, else what is certain or what NIR defines.

    Raises:
        UserError: SNX129 for numbers that cannot be; SNX167, SNX168 where one of them must be stated, both at once.
    """
    if wrong := malformed(graph):
        raise UserError.from_diagnostics(tuple(wrong))
    told = provenance(graph, nir_version)
    used_dt, used_reset = told.dt if dt is None else dt, told.reset if reset is None else reset
    missing = (
        *((dt_unknown(told, where),) if used_dt is None else ()),
        *((reset_unknown(told, where),) if used_reset is None else ()),
    )
    if used_dt is None or used_reset is None:
        raise UserError.from_diagnostics(missing)
    return used_dt, used_reset


def _how(told: Provenance) -> str:
    if told.reset is None:
        return "unknown"
    return "inferred" if told.reset_certain else "assumed"


def _settings(told: Provenance, path: Path, dt: float | None, reset: Reset | None) -> Iterator[Diagnostic]:
    """What must be stated, what is assumed, and what contradicts the file."""
    where = path.name
    if dt is None and told.dt is None:
        yield dt_unknown(told, where)
    if dt is not None and told.dt is not None and abs(dt - told.dt) > AGREEMENT * told.dt:
        yield _contradiction(f"--dt {dt:g} is not the step of this file, {told.dt:g}", where, told.evidence[0], "leave --dt out")
    if reset is None and told.reset is None:
        yield reset_unknown(told, where)
    elif reset is None and not told.reset_certain:
        yield _assumed(f"reset {told.reset}", where, told.reset_because, "override with --reset")
    elif reset is not None and told.reset_certain and reset != told.reset:
        yield _contradiction(f"--reset {reset} is not the reset of {told.writer}", where, told.reset_because, "leave --reset out")


def _contradiction(what: str, where: str, why: str, fix: str) -> Diagnostic:
    return Diagnostic("SNX172", what, where, why, f"{fix}, unless you know better than the file", "warning")


def _assumed(what: str, where: str, why: str, fix: str) -> Diagnostic:
    return Diagnostic("SNX171", f"assumed: {what}", where, why, fix, "note")


def _repaired(path: Path) -> Iterator[Diagnostic]:
    """What older versions of nir did not write (SNX171)."""
    absent: dict[str, list[str]] = {}
    for name, field in nir_io.filled_fields(path):
        absent.setdefault(field, []).append(name)
    for field, names in absent.items():
        value, why = _FILLED[field]
        yield _assumed(f"{field} {value}", ", ".join(names), why, "write the file again with a newer nir to state it")


_FILLED = {
    "v_reset": ("is 0", "the file has none: older versions of nir reset to zero"),
    "w_in": ("is 1", "the file has none, and 1 is nir's default"),
    "input_shape": ("is open", "the file has none; the shapes of convolutions are computed here"),
    nir_io.ONE_NUMBER: ("where the file holds one", "some constants of the population are arrays and some single numbers"),
}


def _ours(
    path: Path, graph: nir.NIRGraph, told: Provenance, steps: int | None, dt: float | None, reset: Reset | None
) -> Inspection:
    """A file with a contract: it states everything itself."""
    told = replace(told, writer="snn-export", evidence=(f"it holds {nir_io.METADATA} metadata",))
    found: list[Diagnostic] = []
    try:
        contract = nir_io.read(path).contract
    except UserError as error:
        flat, made = _flat(graph)
        layers = _layers(flat, made, None)
        return Inspection(
            str(path), told, True, None, "unknown", None, "unknown", None, layers, _loops(graph, flat), error.diagnostics
        )
    resets = sorted({spec.reset for spec in contract.neurons.values() if spec.spiking})
    wrong = [
        f"{name} {value} contradicts {own}"
        for name, value, own in (
            ("--dt", dt, contract.dt),
            ("--steps", steps, contract.steps),
            ("--reset", reset, "/".join(resets)),
        )
        if value is not None and value != own
    ]
    if wrong:
        found.append(Diagnostic(
            "SNX172", "; ".join(wrong), path.name, "the file states its own contract, and is run as that says",
            "leave the options out, or change the contract and save the file again",
        ))  # fmt: skip
    flat, made = _flat(graph)
    return Inspection(
        str(path), told, True, contract.dt, "contract", "/".join(resets) or "none", "contract", contract.steps,
        _layers(flat, made, contract.dt), _loops(graph, flat), tuple(found),
    )  # fmt: skip


def _flat(graph: nir.NIRGraph) -> tuple[nir.NIRGraph, dict[str, Shape] | None]:
    """The graph written out and its shapes, as far as there are any."""
    try:
        flat = flattened(graph)
    except UserError:
        return graph, None
    try:
        return flat, shapes(flat)
    except (UserError, ArithmeticError, LookupError, TypeError, ValueError):  # numbers that are none: a finding tells which
        return flat, None


def _batched(graph: nir.NIRGraph, path: Path) -> Diagnostic | None:
    """The finding for an input whose shape begins with axes of batch or time (SNX289), where all shapes fit without them."""
    entered = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    shape = tuple(int(size) for size in np.ravel(graph.nodes[entered[0]].input_type["input"])) if len(entered) == 1 else ()
    for axes in range(1, len(shape)):
        if shape[:axes] != (1,) * axes:
            break
        nodes = {**graph.nodes, entered[0]: nir.Input(np.array(shape[axes:]))}
        if _flat(nir.NIRGraph(nodes, list(graph.edges), metadata={}, type_check=False))[1] is not None:
            return Diagnostic(
                "SNX289", f"the shape of the input, {shape}, begins with {axes} axes of batch or time", entered[0],
                "Rockpool and Norse write the shape of the sample they were shown; NIR's shapes have neither, and the weights "
                f"fit {shape[axes:]}",
                f'graph = nir.read("{path.name}", type_check=False); graph.nodes["{entered[0]}"] = '
                f"nir.Input(numpy.array({list(shape[axes:])})), or write the file again with a sample of that shape",
            )  # fmt: skip
    return None


def _layers(graph: nir.NIRGraph, made: dict[str, Shape] | None, dt: float | None) -> tuple[Layer, ...]:
    order = list(made) if made is not None else list(graph.nodes)
    return tuple(_layer(name, graph.nodes[name], None if made is None else made[name], dt) for name in order)


def _layer(name: str, node: nir.NIRNode, shape: Shape | None, dt: float | None) -> Layer:
    held = is_population(node)
    weights = weight_array(node).shape if hasattr(node, "weight") or isinstance(node, nir.Scale) else None
    ranges = {key: _range(value) for key, value in constants(node).items() if np.isfinite(value).any()} if held else {}
    low, high = ranges.get("tau", ranges.get("tau_mem", (0.0, 0.0)))
    kept = None if dt is None or not low > 0 or not math.isfinite(dt / low) else (1 - dt / low, 1 - dt / high)
    return Layer(name, type(node).__name__, shape, weights, ranges, kept)


def _range(value: NDArray[Any]) -> tuple[float, float]:
    """Least and largest finite value."""
    finite = value[np.isfinite(value)]
    return float(finite.min()), float(finite.max())


def _loops(graph: nir.NIRGraph, flat: nir.NIRGraph) -> tuple[Loop, ...]:
    nested = [name for name, node in graph.nodes.items() if isinstance(node, nir.NIRGraph)]
    found = []
    if not diagnostics_of(lambda: connections(flat)):
        for incoming in connections(flat).values():
            for c in incoming:
                if c.recurrent:
                    within = next(
                        (name for name in nested if c.target.startswith(f"{name}.") and c.source.startswith(f"{name}.")), ""
                    )
                    found.append(Loop(c.source, c.path, c.target, within))
    return tuple(found)


def _shape_findings(graph: nir.NIRGraph, made: dict[str, Shape]) -> Iterator[Diagnostic]:
    """Where nir's own inference goes wrong (SNX169): it refuses the graph, or gives a node another shape."""
    nodes = {name: copy.copy(node) for name, node in graph.nodes.items()}  # nir writes into the nodes
    theirs = nir.NIRGraph(nodes, list(graph.edges), metadata={}, type_check=False)
    refused = ""
    try:
        theirs.infer_types()
        theirs.check_types()
    except Exception as error:  # nir raises anything from AssertionError to IndexError here
        refused = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
    odd = [name for name, node in nodes.items() if isinstance(node, (*CONV_TYPES, *POOL_TYPES)) and _differs(node, made[name])]
    for name in odd:
        given = tuple(int(n) for n in nodes[name].output_type["output"])
        yield Diagnostic(
            "SNX169", f"nir gives {name} the shape {given}, it is {made[name]}", name,
            "nir takes every kernel for square and 'same' for stride 1",
            "nothing here: shapes are computed by snn-export; other readers need nir.read(path, type_check=False)", "note",
        )  # fmt: skip
    if refused and not odd:
        yield Diagnostic(
            "SNX169", f"nir's own type check refuses the graph: {refused}", "graph",
            "its shapes fit when they are computed node by node, as they were here",
            "nothing here; other readers need nir.read(path, type_check=False)", "note",
        )  # fmt: skip


def _differs(node: nir.NIRNode, shape: Shape) -> bool:
    given = node.output_type.get("output") if isinstance(getattr(node, "output_type", None), dict) else None
    return given is not None and tuple(int(n) for n in np.ravel(given)) != shape

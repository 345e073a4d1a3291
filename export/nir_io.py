"""Deployments as files: a ``.nir`` and, beside it, its contract as JSON.

``net.nir`` holds everything: the NIR graph in real units for any reader, and in its metadata under ``snn_export`` the contract
and the integers. ``net.contract.json`` repeats the contract for people and other programs, with the SHA-256 of every array.
A missing sidecar is no error; one that disagrees is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import h5py
import nir
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from snn_export.export import grid, hdf5_guard
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse, MergedLayers, array_digest
from snn_export.export.graph import SYNAPSE_TYPES, latencies, weight_array
from snn_export.export.populations import PARAMETERS
from snn_export.export.well_formed import malformed
from snn_export.models.diagnostics import UserError
from snn_export.models.weight_grid import WEIGHT_EXPONENT_MAX, WEIGHT_EXPONENT_MIN

_Number = TypeVar("_Number", int, float)
_Integer = TypeVar("_Integer", np.int16, np.int32)

METADATA = "snn_export"
NODE_TYPES = frozenset(
    (
        *("Input", "Output", "Affine", "Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten", "Scale", "Delay"),
        *("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold", "NIRGraph"),
    )
)


ONE_NUMBER = "one number for all neurons"
"""Stands for the constants of a population that are single numbers beside arrays."""
_RESETTING = frozenset(("IF", "LIF", "CubaLIF"))
_NEURONS = frozenset(("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold"))
POSITIVE = frozenset(("r", "tau", "tau_mem", "tau_syn", "w_in"))
MAX_SIDECAR_BYTES = 64 << 20


def sidecar(path: Path) -> Path:
    """``net.contract.json`` for ``net.nir``."""
    return path.with_name(f"{path.stem}.contract.json")


def write(deployment: Deployment, path: str | os.PathLike[str]) -> Path:
    """Write a deployment and its sidecar; both appear complete or not at all.

    The old sidecar goes first and the new one comes last, so that a stop in between leaves a graph without a sidecar, never
    with a wrong one. Equal deployments give files that read back equal (HDF5 itself does not promise equal bytes).

    Returns:
        The path of the ``.nir`` file.

    Raises:
        UserError: SNX123 where it cannot be written there.
    """
    target = Path(path)
    if deployment.firing:
        raise ValueError("a network with the deviations of a backend is for the interpreter; write the one it was made from")
    for name in deployment.graph.nodes:
        if "/" in name or name in ("", "."):
            raise _unwritable(target, f"the node name {name!r} would be a path inside the file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, str(error)) from error
    contract = deployment.contract.model_dump_json()
    metadata: dict[str, Any] = {"contract": contract}
    integer: dict[str, dict[str, Any]] = {}
    for key, value in deployment.integer_arrays().items():
        node, _, field = key.rpartition("/")
        integer.setdefault(node, {})[field] = value
    if integer:
        metadata["integer"] = integer
    if deployment.fold_magnitude:
        metadata["fold_magnitude"] = dict(deployment.fold_magnitude)
    if deployment.merged:
        metadata["merged"] = {
            name: np.array([layers.macs, layers.weights, layers.sparse], np.int64) for name, layers in deployment.merged.items()
        }
    graph = deployment.graph
    stored = nir.NIRGraph(graph.nodes, list(graph.edges), metadata={METADATA: metadata}, type_check=False)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary_sidecar = sidecar(target).with_name(f".{sidecar(target).name}.{os.getpid()}.tmp")
    try:
        nir.write(temporary, stored)
        document = {
            "contract": json.loads(contract),
            "arrays": {name: array_digest(value) for name, value in deployment.arrays()},
            "fingerprint": deployment.fingerprint,
            "format": "snn_export/contract/1",
        }
        temporary_sidecar.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        sidecar(target).unlink(missing_ok=True)
        temporary.replace(target)
        temporary_sidecar.replace(sidecar(target))
    except OSError as error:
        raise _unwritable(target, str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary_sidecar.unlink(missing_ok=True)
    return target


def read(path: str | os.PathLike[str]) -> Deployment:
    """Read a deployment that this project wrote.

    Raises:
        UserError: SNX101 no such file, not HDF5, damaged or not a NIR graph; SNX102, SNX103 unsafe; SNX105 the sidecar
            disagrees; SNX106, SNX107 integers, NIR parameters and contract disagree; SNX108 a NIR file without a contract.
    """
    source = Path(path)
    graph = read_graph(source)
    metadata = graph.metadata.get(METADATA)
    if not isinstance(metadata, Mapping) or "contract" not in metadata:
        raise UserError(
            "SNX108",
            f"{source.name} is a NIR graph without an execution contract",
            where=str(source),
            why="NIR has no field for the time step, the reset or the encoder, and a guess would change spikes",
            fix="state them: snn_export.from_nir(path, steps=..., dt=...); or write it with snn_export.save(deployment, path)",
        )
    contract = _contract(source, metadata["contract"])
    synapses, populations = _integers(source, metadata.get("integer", {}))
    folded = metadata.get("fold_magnitude", {})
    if not isinstance(folded, Mapping):
        raise _unreadable(source, "its fold_magnitude is not a table of arrays")
    merged = _merged(source, metadata.get("merged", {}), graph)
    graph.metadata = {}
    deployment = Deployment(
        graph,
        contract,
        MappingProxyType(synapses),
        MappingProxyType(populations),
        MappingProxyType(dict(folded)),
        merged=MappingProxyType(merged),
    )
    try:
        _check_structure(source, deployment)
        grid.check_agreement(deployment)
        _check_sidecar(source, deployment)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # a field of another type or shape
        raise _unreadable(source, f"a parameter is damaged ({type(error).__name__}: {error})") from error
    return deployment


def _merged(source: Path, found: object, graph: nir.NIRGraph) -> dict[str, MergedLayers]:
    """The merged layers of a file, by weight node."""
    if not isinstance(found, Mapping):
        raise _unreadable(source, "its merged layers are no table of arrays")
    layers: dict[str, MergedLayers] = {}
    for name, values in found.items():
        numbers = np.asarray(values)
        if name not in graph.nodes or numbers.shape != (3,) or numbers.dtype.kind != "i" or numbers.min() < 0:
            raise _unreadable(source, f"the merged layers of {name} are damaged")
        layers[name] = MergedLayers(int(numbers[0]), int(numbers[1]), bool(numbers[2]))
    return layers


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_graph(path: Path) -> nir.NIRGraph:
    """The graph of any NIR file, whoever wrote it. Raises UserError SNX101 to SNX103 where it cannot be read safely."""
    if not path.is_file():
        raise _unreadable(path, "it is a folder" if path.is_dir() else "there is no such file")
    if not h5py.is_hdf5(path):
        raise _unreadable(path, "it is not an HDF5 file, or its beginning is damaged")
    hdf5_guard.probe(path)
    try:
        with h5py.File(path, "r") as stream:
            _check_node_types(path, stream.get("node"))
            graph = nir.dict2NIRNode(_unchecked(nir.serialization.hdf2dict(stream["node"])))
    except UserError:
        raise
    except Exception as error:  # h5py and nir raise anything from KeyError to RuntimeError on a damaged file
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(graph, nir.NIRGraph):
        raise _unreadable(path, "its root is not a graph")
    return graph


def file_version(path: Path) -> str:
    """Version of the nir package that wrote a file which :func:`read_graph` has read; empty where it does not say."""
    with h5py.File(path, "r") as stream:
        stored = stream.get("version")
        value = stored[()] if isinstance(stored, h5py.Dataset) and stored.shape == () else b""
    return value.decode("utf-8", "replace")[:40] if isinstance(value, bytes) else ""


def filled_fields(path: Path) -> tuple[tuple[str, str], ...]:
    """(node, field) for what a file leaves out and :func:`read_graph` fills in; see :data:`ONE_NUMBER` for mixed constants."""

    def walk(graph: h5py.Group, prefix: str) -> Iterator[tuple[str, str]]:
        for name, node in graph["nodes"].items():
            kind = _text(node["type"][()])
            if kind == "NIRGraph":
                yield from walk(node, f"{prefix}{name}.")
            else:
                given = {key: item.shape for key, item in node.items() if isinstance(item, h5py.Dataset)}
                yield from ((f"{prefix}{name}", field) for field in _absent(kind, given))

    with h5py.File(path, "r") as stream:
        return tuple(walk(stream["node"], ""))


def _absent(kind: str, given: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Fields of a node that older versions of nir did not write, and constants of mixed shapes."""
    if kind in ("Conv1d", "Conv2d") and "input_shape" not in given:
        yield "input_shape"
    if kind in _RESETTING and "v_reset" not in given:
        yield "v_reset"
    if kind in ("CubaLIF", "CubaLI") and "w_in" not in given:
        yield "w_in"
    if kind in _NEURONS and len({given[key] for key in PARAMETERS if key in given and key != "w_in"}) > 1:
        yield ONE_NUMBER


def _completed(node: dict[str, Any]) -> None:
    """Fill in what older versions of nir did not write; nir itself refuses constants of different shapes."""
    missing = list(_absent(node["type"], {key: np.shape(value) for key, value in node.items()}))
    if "input_shape" in missing:
        node["input_shape"] = None
    if "v_reset" in missing:
        node["v_reset"] = np.zeros_like(node["v_threshold"])
    if ONE_NUMBER in missing:
        given = [key for key in PARAMETERS if key in node]
        shape = max((np.shape(node[key]) for key in given), key=lambda size: (int(np.prod(size)), len(size)))
        for key in given:
            if np.size(node[key]) == 1:
                node[key] = np.full(shape, np.ravel(node[key])[0])


def _unchecked(graph: dict[str, Any]) -> dict[str, Any]:
    """A graph as nir's dictionary, its own wrong shape check switched off; ``nir.read`` does so for the outermost graph only."""
    for node in graph["nodes"].values():
        if node["type"] == "NIRGraph":
            _unchecked(node)
        else:
            _completed(node)
    graph["type_check"] = False
    return graph


def _check_node_types(path: Path, graph: Any) -> None:
    """Nir looks a node's class up by the name in the file; only known names get that far, in nested graphs too."""
    if not isinstance(graph, h5py.Group) or "nodes" not in graph or "edges" not in graph:
        raise _unreadable(path, "it holds no NIR graph (no node/nodes and node/edges)")
    for name, node in graph["nodes"].items():
        text = _text(node["type"][()])
        if text not in NODE_TYPES:
            raise _unreadable(path, f"node {name} has the unknown type {text!r}")
        if text == "NIRGraph":
            _check_node_types(path, node)


def _text(kind: Any) -> str:
    return kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind)


def _contract(path: Path, text: Any) -> ExecutionContract:
    try:
        return ExecutionContract.model_validate_json(text)
    except (ValidationError, UserError) as error:
        first = str(error).splitlines()
        raise UserError(
            "SNX109",
            f"the contract in {path.name} is not valid: {' '.join(first[:3])}",
            where=str(path),
            why="a graph is run exactly as its contract says, or not at all",
            fix="write the file again; if it comes from a newer snn-export, update this one",
        ) from error


def _integers(path: Path, stored: Any) -> tuple[dict[str, IntegerSynapse], dict[str, IntegerPopulation]]:
    synapses: dict[str, IntegerSynapse] = {}
    populations: dict[str, IntegerPopulation] = {}
    try:
        for name, fields in stored.items():
            if "weight" in fields:
                mantissa, current = fields.get("bias_mantissa"), fields.get("current_bias")
                synapses[name] = IntegerSynapse(
                    _int16(fields["weight"]),
                    _scalar(fields["weight_exponent"], int),
                    None if mantissa is None else _int16(mantissa),
                    None if current is None else _integers_of(np.int32, current),
                )
            else:
                populations[name] = IntegerPopulation(
                    _scalar(fields["threshold"], int),
                    _scalar(fields["du"], int),
                    _scalar(fields["dv"], int),
                    _scalar(fields["scale"], float),
                    _scalar(fields["bias_exponent"], int),
                )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"its integers are damaged ({type(error).__name__}: {error})") from error
    return synapses, populations


def _int16(value: Any) -> NDArray[np.int16]:
    return _integers_of(np.int16, value)


def _integers_of(kind: type[_Integer], value: Any) -> NDArray[_Integer]:
    """Stored integers as they are; raises ValueError for numbers that a cast would change."""
    array, limits = np.asarray(value), np.iinfo(kind)
    if array.dtype.kind not in "iu" or (array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max):
        raise ValueError(f"not {limits.bits}-bit integers: {array.dtype}")
    return array.astype(kind)


def _scalar(value: Any, kind: type[_Number]) -> _Number:
    """HDF5 compresses arrays only, so single numbers are stored as arrays of one."""
    return kind(np.asarray(value).reshape(-1)[0])


def _check_structure(path: Path, deployment: Deployment) -> None:
    """The graph can be walked, its numbers are numbers, and contract and integers name its nodes."""
    for item in malformed(deployment.graph):
        raise _unreadable(path, item.what)
    layers = set(deployment.layers)
    _ = deployment.shapes, deployment.connections
    for name, node in deployment.graph.nodes.items():
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray) and value.dtype.kind not in "fiu":
                raise _unreadable(path, f"{key} of {name} holds {value.dtype}, not real numbers")
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                raise _unreadable(path, f"{key} of {name} holds NaN or infinity")
            if key in POSITIVE and np.any(np.asarray(value) < 0):
                raise _unreadable(path, f"{key} of {name} is negative")
            if key in ("v_threshold", "threshold") and not np.all(np.asarray(value) > 0):
                raise _unreadable(path, f"{key} of {name} is not positive: a silent neuron would fire")
    contract = deployment.contract
    named = {"neurons": set(contract.neurons), "latency": set(contract.latency), "integers": set(deployment.populations)}
    for what, names in named.items():
        if names != layers and not (what == "integers" and not deployment.quantised and not names):
            odd = sorted(names ^ layers)
            raise _unreadable(path, f"the contract's {what} and the graph's populations differ: {', '.join(odd)}")
    if contract.latency != latencies(deployment.graph, deployment.contract.dt):
        raise _unreadable(path, "the contract's latencies are not those of its graph")
    _check_integers(path, deployment)


def _check_integers(path: Path, deployment: Deployment) -> None:
    """Integers exist for every weight node of a quantised graph and for none of a float one, and fit their nodes."""
    weights = {name for name, node in deployment.graph.nodes.items() if isinstance(node, SYNAPSE_TYPES)}
    weights -= deployment.host_synapses
    quantisation = deployment.contract.quantisation
    if set(deployment.synapses) != (weights if quantisation else set()) or (deployment.populations and not quantisation):
        raise _unreadable(path, "its integers do not belong to the weight nodes of its graph")
    for name, synapse in deployment.synapses.items():
        node = deployment.graph.nodes[name]
        if weight_array(node).shape != synapse.weight.shape:
            raise _unreadable(path, f"the integer weights of {name} do not fit its node")
        for bias in (synapse.bias_mantissa, synapse.current_bias):
            if bias is not None and (bias.shape != synapse.weight.shape[:1] or isinstance(node, nir.Linear | nir.Scale)):
                raise _unreadable(path, f"the integer bias of {name} does not fit its node")
        if not WEIGHT_EXPONENT_MIN <= synapse.weight_exponent <= WEIGHT_EXPONENT_MAX:
            limits = f"{WEIGHT_EXPONENT_MIN}..{WEIGHT_EXPONENT_MAX}"
            raise _unreadable(path, f"the weight exponent of {name} is {synapse.weight_exponent}, the chip holds {limits}")
    scales = {name: population.scale for name, population in deployment.populations.items()}
    if not all(0 < scale < float("inf") for scale in scales.values()):
        raise _unreadable(path, "a scale is not a positive number")
    if quantisation and quantisation.scale != scales:
        raise _unreadable(path, "the scales in the contract and beside the integers differ")


def _check_sidecar(path: Path, deployment: Deployment) -> None:
    beside = sidecar(path)
    if not beside.is_file():
        return
    try:
        if beside.stat().st_size > MAX_SIDECAR_BYTES:
            raise ValueError("it is larger than any contract")
        document = json.loads(beside.read_text(encoding="utf-8"))
        stated = ExecutionContract.model_validate(document["contract"])
        arrays = dict(document["arrays"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        raise _sidecar_disagrees(beside, f"it cannot be read ({type(error).__name__})") from error
    if stated != deployment.contract:
        differing = [key for key in type(stated).model_fields if getattr(stated, key) != getattr(deployment.contract, key)]
        raise _sidecar_disagrees(beside, f"{', '.join(differing)} differ")
    found = {name: array_digest(value) for name, value in deployment.arrays()}
    if arrays != found:
        odd = sorted(name for name in arrays.keys() | found.keys() if arrays.get(name) != found.get(name))
        raise _sidecar_disagrees(beside, f"it was written for other arrays ({', '.join(odd[:3])})")


def _sidecar_disagrees(path: Path, what: str) -> UserError:
    return UserError(
        "SNX105",
        f"{path.name} and its .nir file disagree: {what}",
        where=str(path),
        why="the contract is stated twice, and two different statements are two different networks",
        fix="delete the .contract.json to trust the .nir file, or copy both files together again",
    )


def _unwritable(path: Path, why: str) -> UserError:
    return UserError(
        "SNX123",
        f"cannot write {path.name}",
        where=str(path),
        why=why,
        fix="choose a folder you may write to, and names without '/'",
    )


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        "SNX101",
        f"cannot read {path.name}",
        where=str(path),
        why=why,
        fix="check the path, or write the file again from its source",
    )

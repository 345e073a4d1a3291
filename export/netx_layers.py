"""lava-dl's HDF5 networks (``.net``) as plain records, and what netx makes of the weights in them.

A file is a list of layers, ``layer/0`` to ``layer/<n-1>``, each one weight layer and the neurons behind it, read by
``lava.lib.dl.netx.hdf5.Network`` of lava-dl 0.6.0. Everything stated here was read in its source (netx/hdf5.py, netx/utils.py,
netx/blocks/process.py) and seen by running it (``tests/hardware_sims/test_netx_parity.py``)::

    du = iDecay - 1     dv = vDecay     vth = vThMant     bias = bias << 6     weight = real weight x 64

Shapes are (channels, rows, columns) and kernels torch's (out, in/groups, rows, columns); sizes are (rows, columns).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from snn_export.export import hdf5_guard
from snn_export.models.arithmetic import WEIGHT_MAX, WEIGHT_MIN
from snn_export.models.diagnostics import Diagnostic, UserError

Integers = NDArray[np.int64]

RUNS = ("input", "dense", "dense_rec", "conv", "flatten")
"""Layer types that netx 0.6.0 runs and this project reads."""
NEURONS = ("CUBA", "LOIHI")
BIAS_EXPONENT = 6
"""The bias exponent netx gives every population."""
MAX_DELAY = 62
"""Longer delays are clipped by netx."""
SCALE = 64.0
"""Integers per real 1.0 in a file that does not say otherwise: lava-dl's own scale."""
MAX_LAYERS = 10_000
GEOMETRY_MAX = 127
"""Lava's Conv holds kernel size, stride, padding, dilation and groups in 8 bits."""

_LAYER_FIELDS: Mapping[str, frozenset[str]] = {
    "input": frozenset(("type", "shape", "neuron", "weight", "bias")),
    "flatten": frozenset(("type", "shape")),
    "dense": frozenset(("type", "shape", "inFeatures", "outFeatures", "weight", "bias", "delay", "neuron")),
    "dense_rec": frozenset(("type", "shape", "inFeatures", "outFeatures", "weight", "weight_rec", "bias", "delay", "neuron")),
    "conv": frozenset((
        *("type", "shape", "inChannels", "outChannels", "kernelSize", "stride", "padding", "dilation", "groups"),
        *("weight", "bias", "delay", "neuron"),
    )),
}  # fmt: skip
_NEURON_FIELDS = frozenset(("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "weight_exp", "wgtExp"))


@dataclass(frozen=True)
class NetNeuron:
    """A population's registers as the file states them: iDecay = du + 1, vDecay = dv, vThMant = vth."""

    i_decay: int
    v_decay: int
    threshold: int


@dataclass(frozen=True, eq=False)
class NetLayer:
    """One layer of a file.

    Attributes:
        kind: one of :data:`RUNS`.
        shape: of its output, (features,) or (channels, rows, columns); empty for flatten.
        weight: dense (out, in), conv (out, in/groups, rows, columns), input one number; None where there is none.
        recurrent: (out, out), dense_rec only.
        bias: mantissas with exponent 6: (out,), one per neuron or channel; input one number.
        delay: steps, (out,) or (out, in).
        neuron: None where the file states none.
        stride, padding, dilation, groups: conv only, (rows, columns).
        name, scale, always_on: what this project adds as attributes, which netx does not read: the population's name, its
            scale, and how many of its last inputs fire in every step (they carry a bias of the current).
    """

    kind: str
    shape: tuple[int, ...] = ()
    weight: Integers | None = None
    recurrent: Integers | None = None
    bias: Integers | None = None
    delay: Integers | None = None
    neuron: NetNeuron | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    name: str = ""
    scale: float = SCALE
    always_on: int = 0


@dataclass(frozen=True, eq=False)
class NetFile:
    """A whole file.

    Attributes:
        layers: in order.
        sample_steps: ``simulation/tSample``, steps after which state is cleared; 0 where the file does not say.
        notes: what this project adds as attributes of ``simulation``, which netx does not read: steps and input levels.
    """

    layers: tuple[NetLayer, ...]
    sample_steps: int = 0
    notes: Mapping[str, float | str] = field(default_factory=dict)


def read_file(path: Path, ignore: Collection[str] = ()) -> NetFile:
    """Read a ``.net`` file.

    Args:
        path: of the file.
        ignore: names of fields to pass over although netx would ignore them.

    Raises:
        UserError: SNX101 to SNX103 as :mod:`snn_export.export.hdf5_guard`; SNX124 to SNX126 and SNX128, all at once.
    """
    if not path.is_file() or not h5py.is_hdf5(path):
        why = "it is not an HDF5 file, or its beginning is damaged" if path.is_file() else "there is no such file"
        raise UserError("SNX101", f"cannot read {path.name}", where=str(path), why=why, fix="check the path, or export it again")
    hdf5_guard.probe(path)
    reader = _Reader(path, frozenset(ignore))
    try:
        with h5py.File(path, "r") as stream:
            found = reader.file(stream)
    except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # h5py, damaged
        raise _not_a_network(path, f"{type(error).__name__}: {error}") from error
    if reader.findings:
        raise UserError.from_diagnostics(tuple(reader.findings))
    return found


class _Reader:
    """Reads layers and collects what is wrong with them."""

    def __init__(self, path: Path, ignore: frozenset[str]) -> None:
        self.path, self.ignore, self.findings = path, ignore, list[Diagnostic]()

    def file(self, stream: h5py.File) -> NetFile:
        """All layers, and what ``simulation`` says; what is wrong with single fields is kept in ``findings``."""
        groups = stream.get("layer")
        count = len(groups) if isinstance(groups, h5py.Group) else 0
        if not count or set(groups) != {str(index) for index in range(count)} or count > MAX_LAYERS:
            raise _not_a_network(self.path, "it holds no layers, or their groups are not numbered layer/0, layer/1, ...")
        layers = tuple(self.layer(index, groups[str(index)]) for index in range(count))
        simulation = stream.get("simulation")
        steps, notes = 0, dict[str, float | str]()
        if isinstance(simulation, h5py.Group):
            notes = {str(key): _note(value) for key, value in simulation.attrs.items()}
            if "tSample" in simulation:
                steps = self.number("simulation", simulation, "tSample", 0)
        return NetFile(layers, steps, notes)

    def layer(self, index: int, group: Any) -> NetLayer:
        """The group ``layer/<index>``; an empty flatten stands for a type that is refused."""
        where = f"layer/{index}"
        kind = self.text(where, group, "type")
        if kind not in RUNS:
            self.refuse(
                "SNX125", f"{where} is of type {kind!r}", where, f"netx 0.6.0 and this project run {', '.join(RUNS)}",
                "fold pooling and averages into the convolution or dense layer behind them, and export again",
            )  # fmt: skip
            return NetLayer("flatten")
        self.unknown(where, group, _LAYER_FIELDS[kind])
        defaults = {"name": "", "scale": SCALE, "always_on": 0}
        name, scale, always_on = (_note(group.attrs.get(key, value)) for key, value in defaults.items())
        found = NetLayer("flatten") if kind == "flatten" else self.weights(where, kind, group)
        if isinstance(name, float) or isinstance(scale, str) or isinstance(always_on, str) or not 0 < scale < np.inf:
            raise ValueError(f"{where} has attributes of another type")
        return replace(found, name=name, scale=scale, always_on=int(always_on))

    def weights(self, where: str, kind: str, group: h5py.Group) -> NetLayer:
        """A layer with neurons."""
        shape = tuple(int(size) for size in np.ravel(self.integers(f"{where}/shape", group["shape"])))
        neuron = self.neuron(f"{where}/neuron", group["neuron"]) if "neuron" in group else None
        if kind == "input":
            return NetLayer(
                kind, shape, self.optional(where, group, "weight"), bias=self.optional(where, group, "bias"), neuron=neuron
            )
        weight = self.integers(f"{where}/weight", group["weight"])
        recurrent = self.integers(f"{where}/weight_rec", group["weight_rec"]) if kind == "dense_rec" else None
        bias, delay = self.optional(where, group, "bias"), self.optional(where, group, "delay")
        if kind == "conv":
            stride, padding, dilation = (self.sizes(where, group, key) for key in ("stride", "padding", "dilation"))
            weight = weight.reshape(weight.shape[:4])  # slayer's kernels may carry a fifth axis of one
            groups = self.number(where, group, "groups", 1)
            return NetLayer(kind, shape, weight, None, bias, delay, neuron, stride, padding, dilation, groups)
        rows = prod(shape)
        if weight.ndim == 1:
            weight = weight.reshape(rows, -1)
            recurrent = None if recurrent is None else recurrent.reshape(rows, -1)
        return NetLayer(kind, (rows,), weight, recurrent, bias, delay, neuron)

    def neuron(self, where: str, group: h5py.Group) -> NetNeuron:
        """The group ``neuron`` of a layer; fields that netx does not read must say what netx does anyway."""
        kind = self.text(where, group, "type")
        if kind not in NEURONS:
            self.refuse(
                "SNX125", f"{where} is of type {kind!r}", where, f"this project runs {' and '.join(NEURONS)} neurons",
                "train with slayer's cuba blocks",
            )  # fmt: skip
            return NetNeuron(1, 0, 0)
        self.unknown(where, group, _NEURON_FIELDS)
        for key, harmless, meaning in (
            ("refDelay", 1, "a refractory time"),
            ("gradedSpike", 0, "graded spikes"),
            ("weight_exp", 0, "a weight exponent of the normalisation"),
            ("wgtExp", 0, "a weight exponent"),
        ):
            value = self.number(where, group, key, harmless)
            if value > harmless or (value != harmless and key != "refDelay"):
                self.refuse(
                    "SNX125", f"{where}/{key} is {value}: {meaning}", where,
                    "netx does not read this field: it would run another network", f"train and export with {key} = {harmless}",
                )  # fmt: skip
        values = {key: self.number(where, group, key, None) for key in ("iDecay", "vDecay", "vThMant")}
        return NetNeuron(values["iDecay"], values["vDecay"], values["vThMant"])

    def unknown(self, where: str, group: Any, known: Collection[str]) -> None:
        names = sorted(set(group) - set(known) - self.ignore)
        if names:
            self.refuse(
                "SNX128", f"{where} has fields that netx ignores: {', '.join(names)}", where,
                "what they mean would be missing from the network that runs",
                f"if they mean nothing, pass ignore={tuple(names)!r}; else export without them",
            )  # fmt: skip

    def integers(self, where: str, item: Any) -> Integers:
        """A dataset of whole numbers, of any number type."""
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iufb":
            raise ValueError(f"{where} holds no numbers")
        values = np.asarray(item[()])
        whole = np.isfinite(values).all() and np.all(np.abs(values.astype(np.float64)) < 1 << 31)
        if not whole or np.any(values != np.rint(values.astype(np.float64))):
            self.refuse(
                "SNX126", f"{where} holds numbers that are not 32-bit integers", where,
                "a .net file holds the chip's integers (weight = real weight x 64); netx would cut off the rest",
                "quantise before the export, e.g. with slayer's pre_hook_fx = slayer.utils.quantize_hook_fx",
            )  # fmt: skip
            return np.zeros(values.shape, np.int64)
        return values.astype(np.int64)

    def optional(self, where: str, group: Any, key: str) -> Integers | None:
        return self.integers(f"{where}/{key}", group[key]) if key in group else None

    def number(self, where: str, group: Any, key: str, default: int | None) -> int:
        if key not in group and default is not None:
            return default
        values = self.integers(f"{where}/{key}", group[key])
        if values.size != 1:
            self.refuse(
                "SNX125", f"{where}/{key} holds {values.size} values", where, "netx and the chip hold one per population",
                "use one value for the whole layer (shared_param=True in slayer)",
            )  # fmt: skip
            return default or 0
        return int(values.reshape(-1)[0])

    def sizes(self, where: str, group: Any, key: str) -> tuple[int, int]:
        values = np.ravel(self.integers(f"{where}/{key}", group[key]))
        if values.size not in (1, 2) or (values.size == 1 and group[key].shape != ()) or values.min() < 0:
            raise ValueError(f"{where}/{key} is not one size, or one per axis")
        if values.max() > GEOMETRY_MAX:
            self.refuse(
                "SNX126", f"{where}/{key} is {values.max()}", where,
                f"Lava's Conv holds its sizes in 8 bits, up to {GEOMETRY_MAX}", "split the layer",
            )  # fmt: skip
        return int(values[0]), int(values[-1])

    def text(self, where: str, group: Any, key: str) -> str:
        value = np.ravel(np.asarray(group[key][()], object))[0]
        if not isinstance(value, bytes | str):
            raise ValueError(f"{where}/{key} is not text")
        return value.decode("ascii", "replace") if isinstance(value, bytes) else value

    def refuse(self, code: str, what: str, where: str, why: str, fix: str) -> None:
        self.findings.append(Diagnostic(code, what, f"{self.path.name}: {where}", why, fix))


def write_file(net: NetFile, path: Path) -> None:
    """Write a file; it appears complete or not at all. Raises SNX123 where it cannot be written there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with h5py.File(temporary, "w") as stream:
            for index, layer in enumerate(net.layers):
                _write_layer(stream.create_group(f"layer/{index}"), layer)
            simulation = stream.create_group("simulation")
            simulation["Ts"], simulation["tSample"] = 1, net.sample_steps
            for key, value in net.notes.items():
                simulation.attrs[key] = value
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_layer(group: h5py.Group, layer: NetLayer) -> None:
    group.create_dataset("type", (1,), "S10", [layer.kind.encode()])
    if layer.kind == "flatten":
        return
    if layer.name:
        group.attrs["name"], group.attrs["scale"] = layer.name, layer.scale
    if layer.always_on:
        group.attrs["always_on"] = layer.always_on
    group["shape"] = np.array(layer.shape, np.int64)
    if layer.weight is not None:
        if layer.kind.startswith("dense"):
            group["outFeatures"], group["inFeatures"] = layer.weight.shape
        if layer.kind == "conv":
            group["outChannels"], group["inChannels"] = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
            group["kernelSize"], group["groups"] = layer.weight.shape[2:], layer.groups
            group["stride"], group["padding"], group["dilation"] = layer.stride, layer.padding, layer.dilation
        group["weight"] = layer.weight.astype(np.float32)
    for key, values in (("weight_rec", layer.recurrent), ("bias", layer.bias), ("delay", layer.delay)):
        if values is not None:
            group[key] = values.astype(np.float32)
    if layer.neuron is not None:
        neuron = group.create_group("neuron")
        neuron["type"], neuron["refDelay"], neuron["gradedSpike"] = b"CUBA", 1, False
        neuron["iDecay"], neuron["vDecay"], neuron["vThMant"] = layer.neuron.i_decay, layer.neuron.v_decay, layer.neuron.threshold


def fits_synapse(weight: Integers) -> bool:
    """An eight-bit synapse holds these weights: of one sign up to 255, of mixed signs the even ones in -256..254.

    Odd ones of mixed signs fit up to 127: doubled, with an exponent of -1.
    """
    low, high = int(weight.min()), int(weight.max())
    if low >= 0 or (high <= 0 and low > WEIGHT_MIN):
        return max(high, -low) <= WEIGHT_MAX + 1
    reach = 1 + int(np.any(weight % 2))
    return reach * low >= WEIGHT_MIN and reach * high <= WEIGHT_MAX


def loaded_weights(parts: Sequence[Integers], *, shifted_back: bool = True) -> list[Integers] | None:
    """Weights that Lava computes with once netx has loaded a dense layer; None where netx cannot load it, or loads zeros.

    netx shifts a layer's weights up to fill eight bits and lets Lava shift the sums back; Lava then clips and truncates each
    matrix by signs it finds itself. The two do not always agree: a layer of one sign whose largest weight is a power of two is
    changed, one of zeros only cannot be loaded, 255 beside a negative weight becomes 254.

    Args:
        parts: matrices (out, in) that netx scales together: (weight,) or (weight, weight_rec).
        shifted_back: False for a recurrent layer with delays, where netx forgets the shift back.
    """
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if (high > WEIGHT_MAX and low < 0) or (low < WEIGHT_MIN and high > 0):
        parts = [np.clip(part, WEIGHT_MIN, WEIGHT_MAX) for part in parts]
        low, high = max(low, WEIGHT_MIN), min(high, WEIGHT_MAX)
    if low == high == 0:
        return None
    signed = not (high < 0 or low >= 0)
    one_sign = -256 / low if high < 0 else 255 / max(high, 1)
    scale = min(127 / high if high else np.inf, -128 / low) if signed else one_sign
    shift = int(np.floor(np.log2(scale))) + signed
    if shift < 0:
        return None
    together = np.concatenate([np.ravel(part) for part in parts])
    zeros = next(n for n in range(8, -1, -1) if not np.any(together % (1 << n)))
    return [_clipped_by_lava(part << shift, 8 - shift - (zeros - signed)) >> (shift * shifted_back) for part in parts]


def _clipped_by_lava(weight: Integers, bits: int) -> Integers:
    """Lava's clip_weights and truncate_weights with the sign mode that determine_sign_mode finds."""
    inhibitory, mixed = weight.max() <= 0 and weight.min() < 0, weight.min() < 0 < weight.max()
    cut = 8 - bits + mixed
    magnitude = np.clip(-weight if inhibitory else weight, -256 if mixed else 0, 255)
    cleared: Integers = (magnitude >> cut) << cut
    return -cleared if inhibitory else cleared


def _note(value: Any) -> float | str:
    return value if isinstance(value, str) else float(np.ravel(value)[0])


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        "SNX123", f"cannot write {path.name}", where=str(path), why=str(error), fix="choose a folder you may write to"
    )


def _not_a_network(path: Path, why: str) -> UserError:
    return UserError(
        "SNX124", f"{path.name} is no lava-dl network", where=str(path), why=why,
        fix="export it again: lava-dl writes layer/0, layer/1, ... with type, shape, weight and neuron in each",
    )  # fmt: skip

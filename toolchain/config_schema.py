"""Every setting of ``snn-export.toml`` with its default, its range and what it means. ``config.py`` reads the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from snn_export.export.targets import MOST_CHIPS, ChipName

Key = tuple[str, ...]
"""A key as its names, e.g. ``("model", "steps")``."""


Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ProjectConfig(_Section):
    """What the run is called and where its results go."""

    name: str = Field("digits", min_length=1, description="stands in the report's title")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of weights, the split of the data and the order of samples")
    output: str = Field("snn-export-out", min_length=1, description="folder for everything a run writes")


class DataConfig(_Section):
    """What is learnt."""

    source: str = Field(
        "digits", min_length=1, description='"digits", "npz:FILE", "cifar10:FOLDER", ...: snn-export explain SNX011'
    )
    validation: float = Field(0.12, gt=0, lt=1, description="part of the training samples that chooses the best epoch")


class ModelConfig(_Section):
    """The two networks."""

    teacher: str = Field(
        "convnet", min_length=1, description="network that is trained first, or read: FILE.onnx, FILE.py:build, NAME@WEIGHTS"
    )
    student: str = Field("convnet", min_length=1, description="spiking network")
    steps: int = Field(8, ge=1, description="time steps T per sample")
    dv: int = Field(1024, ge=0, le=4095, description="membrane decay as the chip holds it: beta = 1 - dv/4096")
    teacher_width: int | None = Field(None, ge=1, description="channels of the teacher's first layer; its own default if not set")
    student_width: int = Field(16, ge=1, description="channels of the student's first layer")
    threshold: float = Field(1.0, gt=0, description="membrane at which a neuron fires, before quantisation")
    reset: Literal["zero", "subtract"] = Field("zero", description="of a neuron that fires; only zero runs on Loihi 1 and Lava")
    surrogate: str | None = Field(None, min_length=1, description="gradient of a spike; the recipe's own if not set")
    slope: float | None = Field(None, gt=0, description="of the surrogate; the recipe's own if not set")
    detach_reset: bool = Field(False, description="whether gradients leave out the reset")
    residual: Literal["currents", "spikes"] = Field("currents", description="what a shortcut adds; spikes are dear on Loihi")


class TrainingConfig(_Section):
    """How the networks learn. What is not set is the recipe's own default; snn-export recipes lists the recipes."""

    recipe: str = Field("plain_kd", min_length=1, description="how the student learns; composed: from the terms below")
    forward_mode: Literal["bptt", "rate"] | None = Field(None, description="through time, or on firing rates (cheaper)")
    teacher_epochs: int | None = Field(None, ge=1, description="passes over the training samples")
    student_epochs: int | None = Field(None, ge=1, description="passes over the training samples")
    batch_size: int | None = Field(None, ge=1, description="samples per step")
    learning_rate: float | None = Field(None, gt=0, description="peak of the schedule")
    optimizer: Literal["adamw", "sgd"] | None = Field(None, description="how weights follow gradients")
    schedule: Literal["one_cycle", "cosine", "constant"] | None = Field(None, description="of the learning rate")
    weight_decay: float | None = Field(None, ge=0, description="on weights, never on biases and batch-norm")
    augmentation: Names | None = Field(
        None, description="of images, in order: shift, crop, flip, autoaugment, cutout", examples=[["crop", "flip"]]
    )
    student_taps: Names = Field(
        (), description="layers to compare in place of the student's own stages", examples=[["lif1", "lif2"]]
    )
    teacher_taps: Names = Field((), description="their counterparts in the teacher", examples=[["relu1", "relu2"]])
    terms: Names = Field(
        (),
        description='of a composed recipe, e.g. "cross_entropy", "attention_transfer weight=0.5"; snn-export recipes composed',
        examples=[["cross_entropy", "attention_transfer weight=0.5"]],
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field("32-true", description="of the arithmetic")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("cpu", description="what computes")
    devices: int = Field(1, ge=1, description="how many of them, on each machine")
    nodes: int = Field(1, ge=1, description="machines; start the command on each with torchrun")
    threads: int = Field(0, ge=0, description="processor threads; 0: all cores")


class QuantizeConfig(_Section):
    """The integer grid."""

    target: ChipName = Field("loihi2", description="chip")
    weight_bits: int = Field(8, ge=1, le=8, description="bits per weight, sign included")
    bias_exponent: int | None = Field(None, ge=0, le=7, description="one for all biases; 6 is for lava-dl's netx")
    input_as_bias: bool = Field(False, description="the host computes the first layer, for chips without graded spikes")
    calibration_samples: int = Field(128, ge=1, description="training samples that choose the scales")
    fine_tune_epochs: int = Field(0, ge=0, description="passes over the training samples on the chip's integers; 0: none")
    fine_tune_learning_rate: float = Field(2e-3, gt=0, description="peak of the one-cycle schedule of these passes")


class BackendConfig(_Section):
    """One backend to verify on."""

    required: bool = Field(True, description="whether its absence is a failure; otherwise it is skipped and the report says so")
    samples: int = Field(0, ge=0, description="test samples to run; 0: as many as verify.samples")
    time_limit: float = Field(300.0, gt=0, description="seconds after which it counts as hung")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="of the backend, e.g. { several_spikes = true } for sinabs"
    )

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        ours = sorted({"time_limit", "progress"} & options.keys())
        if ours:
            raise ValueError(f"{ours[0]} is no option of the backend: time_limit is a setting beside options")
        return options


class VerifyConfig(_Section):
    """What is compared with what."""

    samples: int = Field(0, ge=0, description="test samples; 0: all")
    reference: str = Field("student", min_length=1, description="backend the others are compared with")
    attribution_samples: int = Field(64, ge=0, description="test samples on which numeric effects are told apart; 0: none")
    workers: int = Field(0, ge=0, description="processes that share the samples; 0: as many as help, 1: this one alone")
    scheduler: str | None = Field(None, min_length=1, description='running Dask scheduler to use, e.g. "tcp://host:8786"')
    backends: dict[str, BackendConfig] = Field(
        default_factory=lambda: {"loihi": BackendConfig(), "lava": BackendConfig(samples=128)}, description="backends to run"
    )


Pair = Annotated[tuple[str, str], Field(strict=False)]

Agreement = Literal["exact", "rounding", "within"]
"""How far two runs of a network agree, strictest first: every spike and membrane; flips that rounding explains; the tolerance."""


class LayerGates(_Section):
    """What must hold for one layer."""

    spike_mismatch: float | None = Field(None, ge=0, le=100, description="most spikes without a counterpart, percent")
    membrane_difference: float | None = Field(None, ge=0, description="largest difference of a membrane, real units")
    dead: float | None = Field(None, ge=0, le=100, description="most neurons that never fire, percent")
    saturated: float | None = Field(None, ge=0, le=100, description="most neurons that fire in every step, percent")
    rate_min: float | None = Field(None, ge=0, description="least spikes per neuron and step")
    rate_max: float | None = Field(None, ge=0, description="most spikes per neuron and step")


class TargetGates(_Section):
    """What must hold for one rung of the ladder, or for every rung of a backend."""

    accuracy: float | None = Field(None, ge=0, le=100, description="least accuracy, percent")
    accuracy_drop: float | None = Field(None, ge=0, le=100, description="most points it may lose against the first rung")
    accuracy_significance: float | None = Field(None, gt=0, lt=1, description="a loss counts only if McNemar's p is below this")
    spike_mismatch: float | None = Field(None, ge=0, le=100, description="most spikes of a layer without a counterpart, percent")
    decision_mismatch: float | None = Field(None, ge=0, le=100, description="most samples classified differently, percent")
    overflows: int | None = Field(None, ge=0, description="most overflows")
    agree: Agreement | None = Field(None, description="least agreement with the rung it is held against")
    layers: dict[str, LayerGates] = Field(default_factory=dict, description="its layers")


class GatesConfig(_Section):
    """What must hold for the run to pass; for one backend or layer: [gates.targets.NAME], [gates.layers.NAME]."""

    accuracy_drop: float = Field(1.0, ge=0, le=100, description="most points the integer network may lose against the student")
    accuracy_significance: float | None = Field(None, gt=0, lt=1, description="a loss counts only if McNemar's p is below this")
    overflows: int = Field(0, ge=0, description="most overflows in the integer network")
    exact: Annotated[tuple[Pair, ...], Field(strict=False)] = Field(
        (("loihi", "lava"),), description="pairs of backends that must agree in every spike and membrane"
    )
    spike_mismatch: float = Field(
        20.0, ge=0, le=100, description="most spikes of a layer that quantisation may leave without a counterpart, percent"
    )
    decision_mismatch: float = Field(5.0, ge=0, le=100, description="most samples it may classify differently, percent")
    clipped_inputs: float = Field(1.0, ge=0, le=100, description="most input values outside the declared range, percent")
    teacher_accuracy: float | None = Field(None, ge=0, le=100, description="least accuracy of the teacher, percent")
    student_accuracy: float | None = Field(None, ge=0, le=100, description="least accuracy of the student, percent")
    targets: dict[str, TargetGates] = Field(default_factory=dict, description="rungs and backends with gates of their own")
    layers: dict[str, LayerGates] = Field(default_factory=dict, description="layers with gates of their own")


class EnergyConfig(_Section):
    """The estimate of energy."""

    table: str = Field("loihi1", min_length=1, description='published coefficients, or a file of your own: "my.toml"')
    exit_margin: float | None = Field(
        None, ge=0, description="lead of the readout at which an inference stops early; chosen on validation samples if not set"
    )


class PlacementConfig(_Section):
    """Where the network lies on the cores of its chip: what limits, traffic and time are worked out from."""

    chips: int = Field(MOST_CHIPS, ge=1, description="most chips that may be used; snn-export check takes it too")
    interchip: int = Field(4, ge=1, description="hops that a hop between two chips counts; nobody publishes a figure")
    kicks: int = Field(50, ge=0, description="disturbances of the best arrangement; more take longer and save a few hops")


class Config(_Section):
    """All of ``snn-export.toml``."""

    project: ProjectConfig = ProjectConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    verify: VerifyConfig = Field(default_factory=VerifyConfig)
    gates: GatesConfig = GatesConfig()
    energy: EnergyConfig = EnergyConfig()
    placement: PlacementConfig = PlacementConfig()


def section_at(path: Key) -> type[BaseModel] | None:
    """The model behind the table at ``path``; the empty path is the whole file. None where there is no such table.

    A table of named tables, ``[gates.layers.NAME]``, is one only with a name.
    """
    current: type[BaseModel] = Config
    names = iter(path)
    for name in names:
        info = current.model_fields.get(name)
        many = None if info is None else named_tables(info)
        if many is not None and next(names, None) is None:
            return None
        below = many or (None if info is None else info.annotation)
        if not isinstance(below, type) or not issubclass(below, BaseModel):
            return None
        current = below
    return current


def named_tables(info: FieldInfo) -> type[BaseModel] | None:
    """The model of tables with names of the user's choice, as ``[verify.backends.NAME]`` is one; None for any other setting."""
    inner = get_args(info.annotation)[-1] if get_origin(info.annotation) is dict else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def field_at(path: Key) -> FieldInfo | None:
    """The setting at ``path``; None where there is none, or where a table stands."""
    section = section_at(path[:-1]) if path else None
    info = section.model_fields.get(path[-1]) if section is not None else None
    return None if info is None or named_tables(info) is not None or section_at(path) is not None else info


def allowed_values(info: FieldInfo) -> str:
    """What a setting may be, in words, e.g. ``a whole number, 1 to 4095``."""
    kinds = set(_kinds(info))
    lists = {get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple}
    if lists:
        return "a list of names" if str in lists else "a list of pairs of names"
    words = next((text for kind, text in _KINDS.items() if kind in kinds), "one of")
    if any(isinstance(rule, annotated_types.MinLen) for rule in info.metadata):
        return f"{words}, not empty"
    allowed = allowed_range(info)
    return f"{words}{',' if kinds & {int, float} else ''} {allowed}" if allowed else words


def allowed_range(info: FieldInfo) -> str:
    """The bounds or the choices alone, e.g. ``1 to 4095``; empty where any value of the type will do."""
    if choices := _choices(info):
        return " or ".join(map(toml_value, choices))
    bounds = {name: getattr(rule, name) for rule in info.metadata for name in _BOUNDS if hasattr(rule, name)}
    if bounds.keys() == {"ge", "le"}:
        return f"{bounds['ge']} to {bounds['le']}"
    return ", ".join(_BOUNDS[name].format(bound) for name, bound in bounds.items())


def _choices(info: FieldInfo) -> list[str]:
    return [choice for kind in _kinds(info) if get_origin(kind) is Literal for choice in get_args(kind)]


def _kinds(info: FieldInfo) -> list[Any]:
    """The types a setting may have, without None and without what Annotated adds."""
    found = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    return [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in found if kind is not NoneType]


_KINDS: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def settings(config: Config) -> Iterator[tuple[Key, Any]]:
    """Every setting with its value, in the order of the file."""
    return leaves((), config.model_dump(mode="json"))


def leaves(prefix: Key, table: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Key and value of everything in a nested table that is no table itself."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves((*prefix, name), value)
        else:
            yield (*prefix, name), value


def toml_value(value: object) -> str:
    """A setting's value as TOML: text, boolean, number or (nested) list of these. Raises TypeError for anything else."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    raise TypeError(f"{type(value).__name__} is not a setting's value")


def toml_key(name: str) -> str:
    """A key's name as TOML: bare where its characters allow it, quoted otherwise."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else toml_value(name)


def to_toml(config: Config) -> str:
    """``config`` as a commented file that reads back equal. What is not set stands there as a comment."""
    lines = [
        "# Settings of snn-export. A line left out takes its default; an unknown key is an error.",
        "# A flag overrides SNN_EXPORT_SECTION__KEY in the environment, which overrides this file.",
    ]
    table: Key = ()
    for path, value in settings(config):
        if path[:-1] != table:
            table = path[:-1]
            section = section_at(table)
            lines += ["", f"# {section.__doc__ if section else ''}", f"[{'.'.join(map(toml_key, table))}]"]
        info = field_at(path)
        allowed = allowed_range(info) if info is not None else ""
        comment = f"{info.description}{f' ({allowed})' if allowed else ''}" if info is not None else ""
        lines.append(f"# {path[-1]} =  # {comment}" if value is None else f"{path[-1]} = {toml_value(value)}  # {comment}")
    return "\n".join(lines) + "\n"

"""A teacher from any torch module: its forward is traced once, and its operations become the steps of a graph.

Tracing (torch.fx) records what forward() does with a stand-in for the data. A forward that branches on values cannot be recorded;
such a module still gives logits, as one single step. What was recorded is run beside the module before it is trusted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.graph_teacher import BATCH, INPUT, GraphTeacher, Step
from snn_export.models.teachers.stages import with_found_stages
from snn_export.models.teachers.torch_operations import operation_of

_BATCHES = (2, 3)
"""Two sizes of a batch: a number that forward() computes alike for both is a constant, one that equals both is the batch's."""
_TOLERANCE = 1e-5
_ROOT = "network"
_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
}


def teacher_from_module(network: nn.Module, *, input_shape: tuple[int, ...], classes: int) -> GraphTeacher:
    """``network`` in evaluation mode as a graph of steps.

    Modules of it that work in place are told not to, so that what was tapped keeps its value.

    Args:
        network: maps inputs (B, *input_shape) to logits (B, classes).
        input_shape: of one sample.
        classes: number of logits.

    Raises:
        UserError: SNX153 where it gives no logits of that number. What forward() itself raises is passed on.
    """
    network.eval()
    samples = [_samples(network, batch, input_shape) for batch in _BATCHES]
    with torch.no_grad():
        expected = [network(sample) for sample in samples]
    for batch, logits in zip(_BATCHES, expected, strict=True):
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (batch, classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                "SNX153", f"the teacher gives {found} for {batch} samples, not {(batch, classes)}", where="forward()",
                why="a teacher maps a batch of samples to one row of logits for each", fix="return the logits, one per class",
            )  # fmt: skip
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    try:
        steps = _steps(network, samples)
    except Exception as error:  # forward() may do anything with the stand-in that tracing hands it
        return _whole(network, input_shape, classes, f"its forward() cannot be traced: {_first_line(error)}")
    if not steps:
        return _whole(network, input_shape, classes, "its forward() applies no operation to the input")
    teacher = GraphTeacher(network, steps, input_shape=input_shape, classes=classes)
    with torch.no_grad():
        got = [teacher(sample) for sample in samples]
    for one, other in zip(got, expected, strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE):
            why = "its forward() computes something else when it is traced: it draws numbers, keeps a state, or works in place"
            return _whole(network, input_shape, classes, why)
    return with_found_stages(teacher)


def _samples(network: nn.Module, batch: int, shape: tuple[int, ...]) -> Tensor:
    """Inputs that are the same at each call and lie where the network lies."""
    first = next(network.parameters(), torch.empty(0))
    return torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch)).to(first.device)


def _whole(network: nn.Module, input_shape: tuple[int, ...], classes: int, why: str) -> GraphTeacher:
    """A teacher of one step, which gives logits and has nothing to tap."""
    step = Step(_ROOT, type(network).__name__, (INPUT,), network, (classes,))
    return GraphTeacher(network, [step], input_shape=input_shape, classes=classes, untraceable=why)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


# --- from the trace to steps -------------------------------------------------------------------------------------------------


class _OneInput(nn.Module):
    """Calls a network with its input alone, so that further arguments of its forward() have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Any:
        return self.network(inputs)


class _Recorder(fx.Interpreter):  # type: ignore[misc, unused-ignore]
    """Runs a trace and keeps the shape of every tensor and the value of every whole number."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.seen: dict[str, int | tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Value of the node."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.seen[n.name] = tuple(value.shape)
        elif isinstance(value, int):
            self.seen[n.name] = value
        return value


def _steps(network: nn.Module, samples: list[Tensor]) -> list[Step]:
    """The steps that the logits depend on, in order."""
    root = _OneInput(network)
    graph = fx.Tracer().trace(root)
    for node in graph.nodes:
        _out_of_place(node)
    recorded = []
    for sample in samples:
        recorder = _Recorder(fx.GraphModule(root, graph))
        with torch.no_grad():
            recorder.run(sample)
        recorded.append(recorder.seen)
    names = _Names()
    steps: dict[str, Step] = {}
    result = INPUT
    for node in graph.nodes:
        seen = tuple(found.get(node.name) for found in recorded)
        if node.op == "placeholder":
            names.known[node] = INPUT
        elif node.op == "output":
            result = names.known.get(node.args[0], INPUT)
        elif seen == _BATCHES:
            names.known[node] = BATCH
        elif isinstance(seen[0], int) and seen[0] == seen[1]:
            names.constants[node] = seen[0]
        else:
            step = _step(root, node, names, seen)
            steps[step.name] = step
    return _ancestors(steps, result)


def _ancestors(steps: Mapping[str, Step], result: str) -> list[Step]:
    wanted, found = {result}, []
    for step in reversed(list(steps.values())):
        if step.name in wanted:
            wanted.update(step.sources)
            found.append(step)
    return found[::-1]


class _Names:
    """What the nodes of a trace are called as steps, and which of them are constants."""

    def __init__(self) -> None:
        self.known: dict[Any, str] = {}
        self.constants: dict[Any, int] = {}

    def new(self, node: fx.Node) -> str:
        """A name of its own for ``node``: that of its module, with a number where the module is called again."""
        name = str(node.target).removeprefix(f"{_ROOT}.") if node.op in ("call_module", "get_attr") else node.name
        taken = set(self.known.values())
        candidates = (name, *(f"{name}:{count}" for count in range(2, len(taken) + 3)))
        self.known[node] = next(candidate for candidate in candidates if candidate not in taken)
        return self.known[node]


def _step(root: _OneInput, node: fx.Node, names: _Names, seen: tuple[int | tuple[int, ...] | None, ...]) -> Step:
    sources: list[str] = []

    def slot(used: fx.Node) -> Any:
        if used in names.constants:
            return names.constants[used]
        name = names.known[used]
        if name not in sources:
            sources.append(name)
        return _Slot(sources.index(name))

    args: Any = fx.map_arg(node.args, slot)
    kwargs: Any = fx.map_arg(node.kwargs, slot)
    target, operation = _target(root, node)
    plain = isinstance(target, nn.Module) and args == (_Slot(0),) and not kwargs
    compute = target if plain else _Call(target, tuple(args), dict(kwargs))
    return Step(names.new(node), operation, tuple(sources), compute, _per_sample(seen))


def _per_sample(seen: tuple[int | tuple[int, ...] | None, ...]) -> tuple[int, ...] | None:
    """Shape without the batch of an output that has one row per sample."""
    one, other = seen
    if not isinstance(one, tuple) or not isinstance(other, tuple) or (one[:1], other[:1]) != tuple((size,) for size in _BATCHES):
        return None
    return one[1:] if one[1:] == other[1:] else None


def _target(root: _OneInput, node: fx.Node) -> tuple[Callable[..., Any], str]:
    """What a node calls, and the name of that operation."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return module, operation_of(module)
    if node.op == "get_attr":
        return _Attribute(root, str(node.target)), "Constant"
    if node.op == "call_method":
        return _Method(str(node.target)), operation_of(str(node.target))
    if not callable(node.target):
        raise TypeError(f"{node.target} cannot be called")
    name = node.name.rstrip("0123456789").rstrip("_") if node.target.__name__ == "fn" else node.target.__name__
    return node.target, operation_of(name)


def _out_of_place(node: fx.Node) -> None:
    """Let an operation that overwrites its input make a new value; where that matters, the check against the module tells."""
    if node.op == "call_function":
        node.target = _IN_PLACE.get(node.target, node.target)
        if node.kwargs.get("inplace") is True:
            node.kwargs = {**node.kwargs, "inplace": False}
    elif node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__") and hasattr(Tensor, name[:-1]):
            node.target = name[:-1]


@dataclass(frozen=True)
class _Slot:
    """Place of a source among the arguments of a call."""

    index: int


@dataclass(frozen=True)
class _Call:
    """Calls ``function`` with fixed arguments, and sources where there is a slot."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self, *values: Any) -> Any:
        return self.function(*_filled(self.args, values), **_filled(self.kwargs, values))


def _filled(item: Any, values: tuple[Any, ...]) -> Any:
    if isinstance(item, _Slot):
        return values[item.index]
    if isinstance(item, Mapping):
        return {key: _filled(part, values) for key, part in item.items()}
    if isinstance(item, slice):
        return slice(*(_filled(part, values) for part in (item.start, item.stop, item.step)))
    if isinstance(item, tuple | list):
        parts = [_filled(part, values) for part in item]
        return tuple(parts) if isinstance(item, tuple) else parts
    return item


@dataclass(frozen=True)
class _Method:
    """Calls the method ``name`` of its first argument."""

    name: str

    def __call__(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, self.name)(*args, **kwargs)


@dataclass(frozen=True)
class _Attribute:
    """A tensor that forward() uses by itself, looked up at each call so that a loaded state dict counts."""

    root: nn.Module
    path: str

    def __call__(self) -> Any:
        return reduce(getattr, self.path.split("."), self.root)

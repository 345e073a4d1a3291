"""A teacher as a graph of named steps: what an ONNX file or a traced torch module becomes.

A plain ``nn.Module`` computes its logits and nothing else. Distillation also asks for the output of a layer, and for the logits
that the rest of the network makes of it. A graph of steps answers both without a hook: the steps before a tap, the steps after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

INPUT = "<input>"
"""Stands for the inputs of the network among the sources of a step."""
BATCH = "<batch>"
"""Stands for the number of samples, which is known before and after every tap."""

MAXIMA = ("MaxPool", "GlobalMaxPool")

NAMES_LISTED = 40
"""A misspelt layer of a network with more steps than this is answered with its stages only."""


@dataclass(frozen=True)
class Step:
    """One operation of a teacher.

    Attributes:
        name: what a user calls the layer; unique.
        operation: what it computes, in the words of ONNX where they have one ("Conv", "Relu", "MaxPool").
        sources: names of the steps whose outputs it takes, in order; or INPUT, BATCH.
        compute: the outputs of the sources -> its output. A module of the network, or a function.
        shape: of its output without the batch; None where the output is no tensor with one row per sample.
    """

    name: str
    operation: str
    sources: tuple[str, ...]
    compute: Callable[..., Any]
    shape: tuple[int, ...] | None = None


class GraphTeacher(nn.Module):
    """A classifier without time whose steps are applied in order; in evaluation mode, as it came from its file.

    Attributes:
        network: holds the parameters and buffers that the steps use, so that the state dict is complete.
        steps: in an order in which every source comes before its use; the output of the last one is the logits.
        aliases: further names of steps: of the file's nodes and values that became one step together.
        stages: layers whose output ends a stage, in order of flow (see :func:`snn_export.models.teachers.stages.found_stages`).
        input_shape: of one sample.
        classes: number of logits.
        nonlinear_operations: names of the steps that take a maximum over a window; a network of spike rates has no such layer.
        untraceable: why the network has no steps that could be tapped; None where it has.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: Sequence[Step],
        *,
        input_shape: tuple[int, ...],
        classes: int,
        aliases: Mapping[str, str] | None = None,
        untraceable: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.steps = tuple(steps)
        self.input_shape = tuple(input_shape)
        self.classes = classes
        self.aliases = dict(aliases or {})
        self.stages: tuple[str, ...] = ()
        self.nonlinear_operations = tuple(step.name for step in self.steps if step.operation in MAXIMA)
        self.untraceable = untraceable
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, *input_shape)."""
        return self.features(inputs, ())[0]

    def features(self, inputs: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K), and the output (B, *shape) of each layer in ``taps``, by the name that was asked for.

        Raises:
            UserError: SNX016 for a layer that does not exist, SNX274 where the network could not be taken apart.
        """
        wanted = {tap: self.step(tap).name for tap in taps}
        last = self.steps[-1].name
        outputs = _run(self.steps, {INPUT: inputs, BATCH: inputs.shape[0]}, {*wanted.values(), last})
        return outputs[last], {tap: outputs[name] for tap, name in wanted.items()}

    def onward(self, tap: str, features: Tensor) -> Tensor:
        """Logits (B, K) that the rest of the network makes of ``features`` (B, *shape) in place of the output of ``tap``.

        Gradients flow through to ``features``.

        Raises:
            UserError: SNX016 for a layer that does not exist, SNX275 where the rest needs something computed before the tap,
                SNX274 where the network could not be taken apart.
        """
        step, rest = self.cut(tap)
        last = self.steps[-1].name
        logits: Tensor = _run(rest, {step.name: features, BATCH: features.shape[0]}, {last})[last]
        return logits

    def cut(self, tap: str) -> tuple[Step, tuple[Step, ...]]:
        """The step a user calls ``tap``, and the steps from it to the logits. Raises as :meth:`onward` does."""
        step = self.step(tap)
        rest, crossing = self.rest(step.name)
        if crossing is not None:
            raise UserError(
                "SNX275", f"the teacher cannot be continued from '{tap}': {crossing} is used past it", where=tap,
                why="a connection leads around this layer, so its output alone does not decide the logits",
                fix=f"cut where the paths have met: {', '.join(self.stages) or 'this network has no such layer'}",
            )  # fmt: skip
        return step, rest

    def cuts(self) -> tuple[Step, ...]:
        """The steps whose output alone decides the logits, in order; the last step is one of them."""
        last = {source: index for index, step in enumerate(self.steps) for source in step.sources}
        furthest, from_input, found = last[INPUT], {INPUT}, []
        for index, step in enumerate(self.steps):
            if furthest <= index:  # nothing that comes before this step is used behind it
                found.append(step)
            if from_input.intersection(step.sources):
                from_input.add(step.name)
                furthest = max(furthest, last.get(step.name, index))
        return tuple(found)

    def rest(self, name: str) -> tuple[tuple[Step, ...], str | None]:
        """Steps that lead from the step ``name`` to the logits, and what they need of the part before it besides its output.

        The second is None where the network can be cut here. Steps that use constants alone belong to either side.
        """
        behind, from_input = {name}, {INPUT}
        for step in self.steps:
            if behind.intersection(step.sources):
                behind.add(step.name)
            if from_input.intersection(step.sources):
                from_input.add(step.name)
        needed, rest, crossing = {self.steps[-1].name}, [], None
        for step in reversed(self.steps):
            if step.name not in needed or step.name == name:
                continue
            if step.name not in behind and step.name in from_input:
                crossing = f"'{step.name}'"
                continue
            rest.append(step)
            needed.update(step.sources)
        if INPUT in needed:
            crossing = crossing or "the input"
        return tuple(reversed(rest)), crossing

    def step(self, name: str) -> Step:
        """The step a user calls ``name``.

        Raises:
            UserError: SNX016 with the closest name where there is none, SNX274 where the network could not be taken apart.
        """
        found = self.aliases.get(name, name)
        for step in self.steps:
            if step.name == found and step.shape is not None and self.untraceable is None:
                return step
        if self.untraceable is not None:
            raise UserError(
                "SNX274", f"no layer of this teacher can be tapped, nor '{name}'", where=name, why=self.untraceable,
                fix="write forward() without branches on values, or use a recipe that needs logits only",
            )  # fmt: skip
        tappable = [step.name for step in self.steps if step.shape is not None]
        known = {*self.stages, *get_close_matches(name, tappable, n=1)} if len(tappable) > NAMES_LISTED else tappable
        raise UserError(
            "SNX016", f"the teacher has no layer '{name}'", where=name,
            why="a tap is named as the file or the module names the layer", fix=suggestion(name, known),
        )  # fmt: skip


def _run(steps: Sequence[Step], known: dict[str, Any], keep: set[str]) -> dict[str, Any]:
    """Apply ``steps`` to ``known`` values; returns those in ``keep``. A value is let go after its last use."""
    values = dict(known)
    last = {source: index for index, step in enumerate(steps) for source in step.sources}
    for index, step in enumerate(steps):
        values[step.name] = step.compute(*(values[source] for source in step.sources))
        for source in step.sources:
            if last[source] == index and source not in keep:
                values.pop(source, None)
    return {name: values[name] for name in keep}

"""How a model learns: a forward mode, weighted loss terms, and the numbers of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial, reduce

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.rate_based.slopes import SlopeRule
from snn_export.training.pairing import Pairing
from snn_export.training.settings import TrainingSettings
from snn_export.training.task import CLASSIFICATION, Task
from snn_export.training.term import LossTerm, Needs


class ForwardMode(StrEnum):
    """How gradients reach the weights.

    BPTT is ordinary backpropagation through everything ``forward`` computed: all T steps of a student, the one pass of a
    teacher. RATE is rate-based backpropagation: T steps without gradients, then one pass over rates with them.
    """

    BPTT = "bptt"
    RATE = "rate"


@dataclass(frozen=True)
class WeightedTerm:
    """``weight * term``."""

    term: LossTerm
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """One published way to train: ``loss = sum of weight * term`` under a forward mode.

    Attributes:
        name: by which it is chosen.
        forward_mode: the mode it is published with. :meth:`in_mode` gives the same recipe in the other one, where it can be.
        terms: of the loss.
        citation: who published it.
        settings: the published run, as exactly as it is known; used where nothing else is asked for.
        summary: one line for a list.
        inferred: what the sources do not say and was filled in here.
        published: the network and results of the source, in words.
        student: fields of :class:`~snn_export.models.students.student.StudentConfig` as published (neuron, reset, steps), the
            defaults for a student to be trained with it. They say nothing about the loss and are part of no fingerprint.
        slopes: how rates answer to inputs, in the rate mode; through all steps where nothing is said.
        scale_gradient: divide the gradient by T in the rate mode (the logged loss is not).
        prepare: changes the student before the first step, e.g. takes its weights from the teacher.
        prepare_needs_teacher: False where ``prepare`` asks nothing of a teacher.
        before_epoch: called before every epoch with its number (from 1) and the student; may freeze layers by
            ``requires_grad_``. It must depend on nothing else, so that a resumed run does the same.
        task: what is measured on validation data: classification, unless something else is learnt.
    """

    name: str
    forward_mode: ForwardMode
    terms: tuple[WeightedTerm, ...]
    citation: str
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    summary: str = ""
    inferred: tuple[str, ...] = ()
    published: str = ""
    student: Mapping[str, object] = field(default_factory=dict, compare=False)
    slopes: SlopeRule | None = None
    scale_gradient: bool = True
    prepare: Callable[[Pairing], None] | None = None
    prepare_needs_teacher: bool = True
    before_epoch: Callable[[int, nn.Module], None] | None = None
    task: Task = CLASSIFICATION

    @property
    def needs(self) -> Needs:
        """What its terms ask for, together."""
        return reduce(Needs.__or__, (weighted.term.needs for weighted in self.terms), Needs())

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher, or the weights begin with a teacher's."""
        needs = self.needs
        return needs.teacher or needs.teacher_taps or (self.prepare is not None and self.prepare_needs_teacher)

    def allows(self, mode: ForwardMode) -> bool:
        """Whether :meth:`in_mode` gives it: whether it means something there, whatever the network."""
        return not self.needs.steps if mode is ForwardMode.RATE else self.slopes is None

    def in_mode(self, mode: ForwardMode) -> Recipe:
        """This recipe in another forward mode; UserError SNX340, SNX357 where it means nothing there."""
        found = replace(self, forward_mode=mode)
        found.check_mode()
        return found

    def check_mode(self) -> None:
        """SNX340 where a term compares single steps and the mode is rate-based, SNX357 for slopes of rates through time."""
        if self.allows(self.forward_mode):
            return
        if self.forward_mode is ForwardMode.RATE:
            stepping = [weighted.term.name for weighted in self.terms if weighted.term.needs.steps]
            raise UserError(
                "SNX340", f"recipe '{self.name}' cannot be trained on rates", where=f"recipe, term {stepping[0]}",
                why="the term compares the logits of single steps; rate-based training has one pass over mean rates and no steps",
                fix="train it with forward_mode = bptt",
            )  # fmt: skip
        raise UserError(
            "SNX357", f"recipe '{self.name}' cannot be trained through time", where="recipe",
            why="it is a way to differentiate firing rates, and backpropagation through time differentiates single spikes: "
            "nothing of the recipe would be left",
            fix="train it with forward_mode = rate, or choose no_teacher for training through time without a teacher",
        )  # fmt: skip

    def describe(self) -> str:
        """Everything that decides the loss, in one line, e.g. ``no_teacher: bptt, 1.0 CrossEntropy()``."""
        text = f"{self.name}: {self.forward_mode}, " + " + ".join(
            f"{item.weight!r} {item.term.describe()}" for item in self.terms
        )
        if self.forward_mode is ForwardMode.RATE:
            text += f", slopes {self.slopes!r}, gradient {'/ T' if self.scale_gradient else 'unscaled'}"
        text += "" if self.task == CLASSIFICATION else f", judged by {self.task.name}"
        return ", ".join([text, *(_name(hook) for hook in (self.prepare, self.before_epoch) if hook is not None)])


def _name(hook: Callable[..., None]) -> str:
    """A hook by its module and name, the same in every process; with the arguments that are bound to it, and a lambda's line."""
    if isinstance(hook, partial):
        bound = [*map(repr, hook.args), *(f"{name}={value!r}" for name, value in sorted(hook.keywords.items()))]
        return f"{_name(hook.func)}({', '.join(bound)})"
    name = getattr(hook, "__qualname__", None)
    if name is None:
        return repr(hook)
    line = f":{hook.__code__.co_firstlineno}" if "<lambda>" in name else ""
    return f"{hook.__module__}.{name}{line}"

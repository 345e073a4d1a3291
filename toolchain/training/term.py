"""One term of a loss: a small frozen dataclass that says what it needs and computes a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from snn_export.training.outputs import BatchOutputs
    from snn_export.training.pairing import Pairing


@dataclass(frozen=True)
class Needs:
    """What a term asks of the training loop beside logits and labels.

    teacher: its logits. steps: logits of every step, which only backpropagation through time has. taps, teacher_taps: firing
    rates of the student's stages, outputs of the teacher's. inputs: the batch itself, e.g. for a second network trained jointly.
    onward: runs the student's rates through the teacher's remaining layers.
    """

    teacher: bool = False
    steps: bool = False
    taps: bool = False
    teacher_taps: bool = False
    inputs: bool = False
    onward: bool = False

    def __or__(self, other: Needs) -> Needs:
        return Needs(*(getattr(self, name) or getattr(other, name) for name in self.__dataclass_fields__))


class LossTerm(ABC):
    """A term of a loss. A subclass is a frozen dataclass: its fields are its parameters, and part of a run's fingerprint."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()

    def companion(self, pairing: Pairing) -> nn.Module | None:
        """Layers that learn beside the student and are dropped at inference; None where the term has none.

        Built once, with torch's random state seeded by the run. A second network that is trained jointly is one too.

        Raises:
            UserError: SNX342 where the two networks do not fit the term, e.g. no feature maps where it compares maps.
        """
        del pairing
        return None

    def describe(self) -> str:
        """The class and every parameter, whatever its ``repr`` shows; two terms that differ say something else here."""
        term: Any = self
        if not is_dataclass(term):
            return repr(self)
        values = (f"{item.name}={getattr(self, item.name)!r}" for item in fields(term))
        return f"{type(self).__qualname__}({', '.join(values)})"

    @abstractmethod
    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar with gradient."""

"""Losses of every single step, so that a student answers early and may be stopped after any of them.

With z_t the logits of step t, z_bar their mean over steps, D(q, z) = tau^2 KL(softmax(q / tau) || softmax(z / tau)), H the
entropy of softmax(z), and means over t:

    entropy-regularised   (1 - alpha) mean CE(z_t) + alpha mean D(teacher, z_t) - gamma mean H(z_t)
    decoupled             mean CE(z_t) + alpha mean D(teacher, z_t) + beta mean D(z_bar, z_t)

Both need the logits of steps, which backpropagation through time has and rate-based training has not.

Sources: Yu et al., Temporal separation with entropy regularization for knowledge distillation in spiking neural networks, CVPR
2025, arXiv 2503.03144; Yu et al., Efficient logit-based knowledge distillation of deep spiking neural networks for full-range
timestep deployment, ICML 2025, arXiv 2501.15925, with its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from snn_export.training.outputs import BatchOutputs
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import divergence
from snn_export.training.terms.parameters import check_choice, check_range
from snn_export.training.terms.reliable_teacher import reliable_divergence

ENSEMBLES = ("all", "correct")


def step_cross_entropy(step_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over steps and batch of CE(z_t, label): (T, B, K), (B,) to a scalar, in nats."""
    return functional.cross_entropy(step_logits.flatten(0, 1), labels.repeat(len(step_logits)))


def step_divergence(step_logits: Tensor, target_logits: Tensor, tau: float) -> Tensor:
    """``tau^2 KL(p_tau(target) || p_tau(z_t))``, mean over steps and batch: (T, B, K), (B, K) to a scalar, in nats."""
    return divergence(step_logits, target_logits.unsqueeze(0), tau).mean()


def step_entropy(step_logits: Tensor) -> Tensor:
    """Entropy of softmax(z_t), mean over steps and batch, in nats: from 0 to ln K."""
    logarithms = functional.log_softmax(step_logits, dim=-1)
    return -(logarithms.exp() * logarithms).sum(dim=-1).mean()


@dataclass(frozen=True)
class EntropyRegularisedSteps(LossTerm):
    """TSER: ``alpha`` shifts from labels to teacher, ``gamma`` rewards steps that are not too sure of themselves."""

    alpha: float = 0.5
    gamma: float = 0.1
    tau: float = 4.0
    name: ClassVar[str] = "entropy_regularised_steps"
    needs: ClassVar[Needs] = Needs(teacher=True, steps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0.0, 1.0)
        check_range(self.name, "gamma", self.gamma, 0.0)
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar; it may be negative. UserError SNX311, SNX340 without teacher or steps."""
        steps = outputs.of_steps()
        hard, soft = step_cross_entropy(steps, outputs.labels), step_divergence(steps, outputs.of_teacher(), self.tau)
        return (1 - self.alpha) * hard + self.alpha * soft - self.gamma * step_entropy(steps)


@dataclass(frozen=True)
class DecoupledSteps(LossTerm):
    """Temporal decoupling: ``alpha`` weighs the teacher, ``beta`` the ensemble of the student's own steps.

    ensemble: the mean of the logits of "all" steps, or of those that are "correct" for a sample, as the released code has it; a
    sample that no step classifies correctly then has no ensemble.
    """

    alpha: float = 0.2
    beta: float = 0.5
    tau: float = 3.0
    ensemble: str = "all"
    name: ClassVar[str] = "decoupled_steps"
    needs: ClassVar[Needs] = Needs(teacher=True, steps=True)

    def __post_init__(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0.0)
        check_range(self.name, "beta", self.beta, 0.0)
        check_range(self.name, "tau", self.tau, 0.0, open_end=True)
        check_choice(self.name, "ensemble", self.ensemble, ENSEMBLES)

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        """The loss of one batch, a scalar. UserError SNX311, SNX340 without teacher or steps."""
        steps, labels = outputs.of_steps(), outputs.labels
        if self.ensemble == "correct":
            own = reliable_divergence(steps, labels, self.tau) / len(steps)
        else:
            own = step_divergence(steps, steps.mean(dim=0), self.tau)
        taught = step_divergence(steps, outputs.of_teacher(), self.tau)
        return step_cross_entropy(steps, labels) + self.alpha * taught + self.beta * own

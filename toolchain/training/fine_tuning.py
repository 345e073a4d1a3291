"""Quantisation-aware fine-tuning: go on training a network while it runs on the chip's integers.

The student that learns is the deployment itself (``hardware_sims/student/quantised.py``): real parameters, rounded whenever
they are used, integer state, straight-through gradients. The loop, the recipes and the checkpoints are those of every other
training. Training may make a network worse; then the integers it started from are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from snn_export.data.dataset import Samples
from snn_export.export import bounds
from snn_export.export.contract import Lineage
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.student.quantised import deployment_from_student, student_from_deployment
from snn_export.models.diagnostics import UserError
from snn_export.models.quantised.student import QuantisedStudent
from snn_export.training.checkpoint import read_tensors, write_tensors
from snn_export.training.evaluate import logits
from snn_export.training.loop import ProgressCallback, TrainingResult, fit
from snn_export.training.recipe import Recipe
from snn_export.training.settings import TrainingSettings
from snn_export.training.task import Task

STEP = "fine_tune"
EARLIER_ROLES = ("searched", "quantised_student")
"""Files in a lineage that belong to an earlier fine-tuning: they say nothing about a network that was tuned again."""
FORMAT = 1


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What fine-tuning came to.

    Attributes:
        deployment: with the learnt integers.
        student: the module behind it; what it computes is what the integer simulator computes from ``deployment``.
        training: the loop's own result.
        before, after: validation score (accuracy, 0..1, where classes are told apart) of the start and of what was kept.
        improved: False where no epoch was better than the start, which was then kept.
    """

    deployment: Deployment
    student: QuantisedStudent
    training: TrainingResult
    before: float
    after: float
    improved: bool


def fine_tune_deployment(
    deployment: Deployment,
    train: Samples,
    validation: Samples,
    recipe: Recipe,
    settings: TrainingSettings,
    *,
    teacher: nn.Module | None = None,
    checkpoint_dir: Path | None = None,
    progress: ProgressCallback | None = None,
) -> FineTuned:
    """Fine-tune a quantised deployment; scales, thresholds, decays and the input's grid stay as they are.

    Args:
        deployment: quantised and proven safe from overflow.
        train: samples (N, *shape), or (N, T, *shape) for event input, real units.
        validation: what the best epoch is chosen on, the start among them.
        recipe: loss terms.
        settings: epochs, learning rate in real weight units, seed.
        teacher: where the recipe needs one.
        checkpoint_dir: folder of the resumable checkpoint; None keeps nothing.
        progress: as for :func:`snn_export.training.loop.fit`.

    Raises:
        UserError: SNX302, SNX313, SNX317 for a deployment that cannot be trained; SNX310 to SNX312 from the loop; SNX315 where
            the result could overflow.
    """
    student = student_from_deployment(deployment)
    model: nn.Module = student
    if deployment.contract.encoder.kind == "events":
        model, settings = _BatchFirst(student), replace(settings, augmentation=())  # (T, K, L) is no image
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = _validated(model, validation, recipe.task)
    result = fit(
        model, train, validation, recipe, settings, teacher=teacher, checkpoint_dir=checkpoint_dir,
        origin=deployment.fingerprint, progress=progress,
    )  # fmt: skip
    after = _validated(model, validation, recipe.task)
    improved = after > before
    if not improved:
        model.load_state_dict(start)
        after = before
    return FineTuned(_exported(student, deployment), student, result, before[0], after[0], improved)


def save_quantised_student(path: Path, student: QuantisedStudent, start: Deployment) -> None:
    """Write the real parameters behind a fine-tuned network; ``start`` is the deployment it was made from."""
    record = {"format": FORMAT, "kind": "quantised_student", "start": start.fingerprint}
    write_tensors(path, student.state_dict(), record)


def load_quantised_student(path: Path, start: Deployment) -> QuantisedStudent:
    """The student of :func:`save_quantised_student`.

    Raises:
        UserError: SNX121 for a file that is no such checkpoint, SNX316 where it belongs to another deployment.
    """
    content = read_tensors(path)
    if content.record.get("kind") != "quantised_student" or content.record.get("format") != FORMAT:
        raise UserError(
            "SNX121", f"'{path.name}' is not a quantised student", where=str(path),
            why=f"its header is not that of a quantised student of format {FORMAT}", fix="fine-tune the network again",
        )  # fmt: skip
    student = student_from_deployment(start)
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in student.state_dict().items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in content.tensors.items()}
    finite = all(bool(tensor.isfinite().all()) for tensor in content.tensors.values())
    if content.record.get("start") != start.fingerprint or found != expected or not finite:
        raise UserError(
            "SNX316", f"'{path.name}' was not trained from this deployment", where=str(path),
            why="its parameters mean something only on the scales and grids they were trained on",
            fix="keep the quantised network that fine-tuning started from beside it, or fine-tune again",
        )  # fmt: skip
    student.load_state_dict(content.tensors)
    return student.eval()


class _BatchFirst(nn.Module):
    """The training loop cuts batches along the first axis; event input has time there."""

    def __init__(self, student: QuantisedStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of (B, T, *shape)."""
        found: Tensor = self.student(inputs.transpose(0, 1))
        return found


def _validated(model: nn.Module, validation: Samples, task: Task) -> tuple[float, float]:
    """Score, and minus the loss: larger is better."""
    outputs, targets = torch.from_numpy(logits(model, validation.x)), torch.tensor(validation.y)
    return task.score(outputs, targets), -task.loss(outputs, targets)


def _exported(student: QuantisedStudent, deployment: Deployment) -> Deployment:
    """The deployment with the student's integers, checked once more against the bounds that training kept to."""
    result = deployment_from_student(student, deployment)
    findings = bounds.overflow_findings(result)
    if findings:
        raise UserError(
            "SNX315", f"after fine-tuning {findings[0].what}", where=findings[0].where,
            why="training must keep a network within the limits of its registers, and did not",
            fix="report this network; until then quantise it without fine-tuning",
        )  # fmt: skip
    lineage = result.contract.lineage
    files = {role: file for role, file in lineage.files.items() if role not in EARLIER_ROLES}
    extended = Lineage(passes=(*lineage.passes, STEP), parents=(*lineage.parents, deployment.fingerprint), files=files)
    return result.replace(contract=result.contract.model_copy(update={"lineage": extended}))

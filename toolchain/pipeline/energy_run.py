"""Energy in a verification: what has to be known before the ladder runs, and what is made of its counts afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.energy.cost_table import CostTable, find_table
from snn_export.energy.curve import Chosen, chosen_threshold
from snn_export.energy.estimate import estimate
from snn_export.energy.latency import core_loads, may_be_busiest
from snn_export.energy.observer import Counted
from snn_export.energy.operations import Beside
from snn_export.energy.step_counts import Answers, answers_of
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.placement.placement import Placement
from snn_export.hardware_sims.registry import simulator
from snn_export.pipeline.placing import Placements
from snn_export.reporting.energy_records import AnnOperations, EnergyReport, ExitOperations
from snn_export.verification.ladder import Progress, Rung, samples_per_chunk

VALIDATION_SAMPLES = 512
"""Most validation samples that the threshold of an early exit is chosen on."""


def with_threshold(
    config: Config, deployment: Deployment, data: Dataset, backend: str, progress: Progress
) -> tuple[Config, Chosen | None]:
    """The settings with a threshold for early exit: the user's, or one chosen on validation samples, never on test samples.

    Args:
        config: the settings.
        deployment: what is deployed.
        data: whose validation part is used.
        backend: simulator that is run on it.
        progress: told that it runs.

    Returns:
        the settings, and what the threshold does to the validation samples; None where the user set it, or there are none.
    """
    samples = min(VALIDATION_SAMPLES, len(data.y_val))
    if config.energy.exit_margin is not None or backend not in config.verify.backends or not samples:
        return config, None
    progress(f"{backend}: {samples} validation samples, to choose when an inference may stop early")
    answers = _answers(deployment, backend, data.signal(data.x_val[:samples]), config)
    if answers is None:
        return config, None
    chosen = chosen_threshold(answers, data.y_val[:samples])
    energy = config.energy.model_copy(update={"exit_margin": chosen.threshold})
    return config.model_copy(update={"energy": energy}), chosen


def _answers(deployment: Deployment, backend: str, inputs: NDArray[Any], config: Config) -> Answers | None:
    options = dict(config.verify.backends[backend].options)
    runner = simulator(backend, **options)
    program, readout = runner.compile(deployment), deployment.contract.readout
    axis = np.ndim(inputs) - len(deployment.input_shape) - 1
    total = int(np.shape(inputs)[axis])
    chunk = samples_per_chunk([Rung(backend, backend, deployment, runner, "")])
    found = []
    for start in range(0, total, chunk):
        part = np.take(inputs, range(start, min(total, start + chunk)), axis=axis)
        answers = answers_of(readout.rule, runner.run(program, part, ("spikes", "membrane")).layers[readout.node])
        if answers is None:
            return None
        found.append(answers)
    return Answers(
        np.concatenate([each.classes for each in found], axis=1), np.concatenate([each.margins for each in found], axis=1)
    )


def energy_report(
    deployment: Deployment,
    counted: Counted | None,
    config: Config,
    base: Path,
    chosen: Chosen | None,
    teacher: AnnOperations | None,
    placements: Placements | None = None,
) -> EnergyReport | None:
    """The report's energy; None where nothing was counted.

    Args:
        deployment: what was counted.
        counted: of it.
        config: with the threshold of :func:`with_threshold`.
        base: folder that a table's path is relative to.
        chosen: what the threshold does to the validation samples.
        teacher: what the teacher multiplies.
        placements: of this deployment with this activity, where there are some already.

    Raises:
        UserError: SNX322, SNX323, SNX470 for a table that cannot be used.
    """
    if counted is None:
        return None
    table = find_table(config.energy.table, base)
    placement, why = placed(placements or Placements(deployment, counted.fired, config.placement, counted.counts.samples), table)
    beside = Beside(
        by_step=() if counted.steps is None else counted.steps.records(),
        early_exit=_exit(counted, config, chosen),
        teacher=teacher,
        validation_samples=0 if chosen is None else chosen.samples,
        validation_correct=() if chosen is None else chosen.by_step,
        placement=placement,
        unplaced=why,
        cores=()
        if placement is None
        else may_be_busiest(core_loads(deployment, placement, counted.activity, counted.counts.binary_input)),
    )
    return estimate(deployment, counted.counts, table, beside)


def placed(placements: Placements, table: CostTable) -> tuple[Placement | None, str]:
    """The network on the chip that a table prices, or why it is not placed there."""
    if not table.chip:
        return None, f"the table {table.name} names no chip"
    found = placements.on(table.chip)
    return (found, "") if isinstance(found, Placement) else (None, f"{found.code} {found.what}")


def _exit(counted: Counted, config: Config, chosen: Chosen | None) -> ExitOperations | None:
    limit = config.energy.exit_margin
    records = None if counted.steps is None else counted.steps.exit_records()
    if limit is None or records is None or counted.steps is None:
        return None
    total, on_chip = records
    return ExitOperations(
        threshold=limit,
        chosen_on=0 if chosen is None else chosen.samples,
        validation_correct=0 if chosen is None else chosen.correct,
        validation_correct_full=0 if chosen is None else chosen.correct_full,
        exits=tuple(int(number) for number in counted.steps.exits),
        total=total,
        on_chip=on_chip,
    )

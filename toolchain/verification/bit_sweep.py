"""How much a network suffers from fewer bits per weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import SPIKES_ONLY, Trace
from snn_export.models.diagnostics import UserError
from snn_export.verification.compare import ComparisonTally
from snn_export.verification.layer_tally import unmatched

DEFAULT_BITS = (8, 7, 6, 5, 4, 3)
FineTune = Callable[[Deployment], Deployment]
Progress = Callable[[int, int, str], None]
"""Called as ``progress(number, total, text)`` when the row ``number`` of ``total`` starts something."""


def silent(number: int, total: int, text: str) -> None:
    """No display."""
    del number, total, text


@dataclass(frozen=True)
class Measured:
    """What a quantised network does on the samples of a sweep.

    spike_error: by spiking layer, the share of spikes, both sides together, without a counterpart in the float network: the
        report's own measure. correct: samples classified right, None without labels.
    """

    spike_error: dict[str, float]
    correct: int | None

    @property
    def worst_spike_error(self) -> float:
        """Of the layer that differs most; 0 where no layer fires."""
        return max(self.spike_error.values(), default=0.0)


@dataclass(frozen=True)
class SweepRow:
    """One number of bits.

    Attributes:
        bits: per weight.
        searched: after the scale search; None where no scale fits, and ``refusal`` says why.
        fine_tuned: after fine-tuning; None where none was asked for.
        binding: the limit that keeps each population's scale from growing.
        input_bits: bits of the input levels that were chosen.
    """

    bits: int
    searched: Measured | None
    fine_tuned: Measured | None = None
    binding: dict[str, str] = field(default_factory=dict)
    input_bits: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class BitSweep:
    """All rows, with the float network's own figures beside them. samples: how many were run."""

    rows: tuple[SweepRow, ...]
    samples: int
    float_correct: int | None


def sweep(
    deployment: Deployment,
    quantised: Callable[[int], Deployment],
    inputs: NDArray[Any],
    labels: NDArray[Any] | None,
    bits: Sequence[int],
    *,
    fine_tune: FineTune | None = None,
    progress: Progress = silent,
) -> BitSweep:
    """Measure quantised forms of a float deployment on the same samples; see :func:`snn_export.sweep_bits`.

    Args:
        deployment: float deployment.
        quantised: makes its form of so many bits; a UserError SNX306 (no scale fits) becomes the row's ``refusal``.
        inputs: (B, *shape) or (T, B, *shape), real units.
        labels: (B,) class indices, or None: then there is no accuracy.
        bits: in the order of the rows.
        fine_tune: makes a fine-tuned deployment of a quantised one.
        progress: told what runs.
    """
    reference, backend = simulator("reference"), simulator("loihi")
    expected = reference.run(reference.compile(deployment), inputs, SPIKES_ONLY)
    samples = len(expected.predictions)
    if labels is not None and np.shape(labels) != (samples,):
        raise UserError(
            "SNX007", f"labels of shape {np.shape(labels)} for {samples} samples", where="sweep_bits(labels)",
            why="every sample needs its class", fix="pass one label per sample, or None",
        )  # fmt: skip

    def measure(form: Deployment) -> Measured:
        got = backend.run(backend.compile(form), inputs, SPIKES_ONLY)
        return _measured(deployment, inputs, expected, got, labels)

    rows = []
    for number, count in enumerate(bits, 1):
        progress(number, len(bits), f"{count} bits: searching scales")
        try:
            form = quantised(count)
        except UserError as error:
            if error.code != "SNX306":
                raise
            rows.append(SweepRow(count, None, refusal=error.diagnostics[0].what))
            continue
        tuned = None
        if fine_tune is not None:
            progress(number, len(bits), f"{count} bits: fine-tuning")
            tuned = measure(fine_tune(form))
        held = form.contract.quantisation
        binding = dict(held.binding) if held is not None else {}
        rows.append(SweepRow(count, measure(form), tuned, binding, form.contract.encoder.bits))
    return BitSweep(tuple(rows), samples, _correct(expected, labels))


def _measured(deployment: Deployment, inputs: NDArray[Any], expected: Trace, got: Trace, labels: NDArray[Any] | None) -> Measured:
    tally = ComparisonTally("approximate", deployment)
    tally.add(inputs, expected, got)
    spiking = {name: unmatched(found) for name, found in tally.layers.items() if deployment.contract.neurons[name].spiking}
    return Measured(spiking, _correct(got, labels))


def _correct(trace: Trace, labels: NDArray[Any] | None) -> int | None:
    return None if labels is None else int(np.count_nonzero(trace.predictions == np.asarray(labels)))

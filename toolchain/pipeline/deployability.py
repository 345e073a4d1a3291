"""Whether a student can be put on a chip, by asking those who would do it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snn_export import library
from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent

_SAMPLES = 16


def deployability(student: SpikingStudent, calibration_inputs: NDArray[np.float32] | None = None) -> str:
    """Where a student runs bit for bit: "loihi", "loihi2 microcode", or "refused: CODE" (all codes, if there are several).

    "loihi" is the neuron every Loihi has; "loihi2 microcode" a neuron program of Loihi 2, which a reset by subtraction needs.
    The student is read, quantised for ``loihi2`` and checked by the integer simulator: seconds for a small network, minutes for a
    large one. What is refused is refused: no other network is deployed in its place.

    Args:
        student: trained; it is not changed.
        calibration_inputs: (B, *shape), or (B, T, *shape) for events: training samples that scales are chosen on. Without any,
            noise: uniform in 0..1, or events with a probability of 1/8.
    """
    inputs = _noise(student) if calibration_inputs is None else calibration_inputs
    if student.encoder.kind == "events":
        inputs = np.ascontiguousarray(np.swapaxes(inputs, 0, 1))
    config = student.config
    try:
        ready = library.from_snntorch(student.layers, config.input_shape, config.steps, inputs, encoder=student.encoder)
        quantised = library.quantize(ready, inputs, "loihi2")
        findings = library.check(quantised, "loihi")
    except UserError as error:
        findings = list(error.diagnostics)
    if findings:
        return "refused: " + ", ".join(sorted({finding.code for finding in findings}))
    programmed = any(neuron.microcode for neuron in quantised.contract.neurons.values())
    return "loihi2 microcode" if programmed else "loihi"


def _noise(student: SpikingStudent) -> NDArray[np.float32]:
    time = (student.config.steps,) if student.encoder.kind == "events" else ()
    shape = (_SAMPLES, *time, *student.config.input_shape)
    noise = np.random.default_rng(0).uniform(0, 1, shape)
    return (noise < 1 / 8 if time else noise).astype(np.float32)

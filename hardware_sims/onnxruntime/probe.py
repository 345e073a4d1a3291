"""Whether the installed onnxruntime runs what ``snn-export export --to onnx`` writes: a Scan over time."""

from __future__ import annotations

from collections.abc import Iterator

from snn_export.hardware_sims.conformance.kit import CHECKS, run_check
from snn_export.hardware_sims.conformance.on_integers import forms
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Simulator

FLOATS = ("fire.exactly_at_threshold", "fire.one_step_above_threshold")
INTEGERS = (*FLOATS, "leak.truncation_toward_zero", "leak.currents_wrap")
"""Checks of the conformance kit: each compares every spike and state of a small network with values known beforehand."""


def findings(simulator: Simulator) -> Iterator[Probe]:
    """One finding for floats, one for integers."""
    floats, integers = forms(simulator)
    yield _finding(
        "floats", floats, FLOATS, "a Scan over time in float32; > is strict", "a float network runs as the .onnx file says"
    )
    yield _finding(
        "integers", integers, INTEGERS, "a Scan over time in integers; > is strict, decays truncate, currents wrap",
        "a quantised network in an .onnx file computes what the chip computes, bit for bit",
    )  # fmt: skip


def _finding(topic: str, form: Simulator, names: tuple[str, ...], seen: str, meaning: str) -> Probe:
    outcomes = [run_check(form, CHECKS[name]) for name in names]
    wrong = [f"{item.check}: {item.stage}: {item.told}" for item in outcomes if item.status != "passed"]
    if wrong:
        fix = "install a tested version: pip install onnxruntime==1.31.1"
        return Probe(topic, False, "; ".join(wrong), "an exported .onnx file would not compute the network here", fix)
    return Probe(topic, True, seen, meaning)

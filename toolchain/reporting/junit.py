"""The report as JUnit XML, the form that CI services show as test results: one suite per comparison, its layers as cases.

The form is the one Ant's JUnit task began and Jenkins made common; GitLab, GitHub actions and Azure read it. No case has a
time: the same report gives the same bytes. Control characters are not allowed in XML; they stand as visible escapes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Final, Literal
from xml.etree import ElementTree as ET

from snn_export.models.diagnostics import EXIT_BACKEND
from snn_export.reporting import wording
from snn_export.reporting.formatting import count, divergence, text_of
from snn_export.reporting.report import Comparison, Gate, LayerComparison, Report, Verdict
from snn_export.text_safety import printable

Outcome = Literal["passed", "failure", "error", "skipped"]

GATES: Final = "gates"
"""Name of the suite that holds the gates."""

WHOLE: Final = "the whole network"
"""Name of the only case of a comparison in which no layer could be compared."""

_OUTCOMES: Final[dict[Verdict, Outcome]] = {
    "DRIFT": "failure", "NOT_COMPARED": "failure", "SKIPPED": "skipped", "UNAVAILABLE": "error", "ERROR": "error"
}  # fmt: skip
_TAGS: Final[dict[Outcome, str]] = {"failure": "failures", "error": "errors", "skipped": "skipped"}
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LAYER_FIELDS: Final = {
    "reference_spikes": "spikes of the reference",
    "got_spikes": "spikes",
    "mismatched_spikes": "differ",
    "count_error_sum": "count error",
    "mismatched_membranes": "membranes that differ",
    "membrane_difference_max": "largest difference",
    "overflows": "overflows",
    "tolerance_that_would_pass": "tolerance that would pass",
    "first_divergence": "first",
}


def render(report: Report) -> str:
    """The report as JUnit XML with a declaration, indented, ending with a newline."""
    root = ET.Element("testsuites", {"name": _clean(report.network)})
    for index, comparison in enumerate(report.comparisons):
        root.append(_comparison(report, index, comparison))
    if report.gates:
        root.append(_gates(report))
    for suite in root:
        _count(suite, suite.iter("testcase"))
    _count(root, root.iter("testcase"))
    del root.attrib["skipped"]  # Jenkins knows it of suites only
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _comparison(report: Report, index: int, comparison: Comparison) -> ET.Element:
    name = f"{comparison.reference} -> {comparison.target}"
    suite = ET.Element("testsuite", {"name": _clean(name)})
    _properties(suite, {
        "network": report.network,
        "dataset": report.dataset,
        "samples": str(comparison.samples),
        "steps": str(report.steps),
        "verdict": comparison.verdict,
        "required": "yes" if comparison.required else "no",
        "same decision": str(comparison.decisions_equal),
        "first layer that differs": comparison.first_faulty_layer,
        "first layer at fault by itself": comparison.first_faulty_isolated,
        "run that leaves the contract": comparison.faulty_side,
        "McNemar p": None if comparison.mcnemar_p is None else text_of(report, f"comparisons.{index}.mcnemar_p"),
    })  # fmt: skip
    for number, layer in enumerate(comparison.layers):
        case = _case(suite, name, layer.layer, layer.verdict, _layer_message(comparison, layer))
        ET.SubElement(case, "system-out").text = _clean(_layer_told(report, f"comparisons.{index}.layers.{number}", layer))
    if not comparison.layers:
        told = comparison.message + (f"\nlog: {comparison.log}" if comparison.log else "")
        _case(suite, name, WHOLE, comparison.verdict, told or wording.VERDICT_MEANING[comparison.verdict])
    return suite


def _gates(report: Report) -> ET.Element:
    suite = ET.Element("testsuite", {"name": GATES})
    _properties(suite, {
        "exit code": str(report.exit_code),
        "target": report.target,
        "attribution": report.attribution.sentence if report.attribution is not None else None,
        "size": wording.size_sentence(report.size) if report.size is not None else None,
        "energy": text_of(report, "energy.total") if report.energy is not None else None,
        **{f"version of {name}": number for name, number in sorted(report.versions.items())},
        **{f"SHA-256 of {name}": digest for name, digest in sorted(report.fingerprints.items())},
    })  # fmt: skip
    for gate in report.gates:
        verdict: Verdict = "SKIPPED" if gate.skipped else "EXACT" if gate.passed else _failed(gate)
        detail = (f"\n{gate.detail}" if gate.detail else "") + (f"\ndemanded by: {gate.setting}" if gate.setting else "")
        case = _case(suite, GATES, gate.name, verdict, f"required: {gate.required}; measured: {gate.measured}{detail}")
        ET.SubElement(case, "system-out").text = _clean(f"required: {gate.required}\nmeasured: {gate.measured}{detail}")
    return suite


def _failed(gate: Gate) -> Verdict:
    """A gate that fails because something is absent or broke is an error, any other a failure."""
    return "ERROR" if gate.exit_code == EXIT_BACKEND else "DRIFT"


def _case(suite: ET.Element, name: str, case: str, verdict: Verdict, message: str) -> ET.Element:
    """A case with its outcome: the first line of ``message`` in the attribute, all of it in the text.

    Readers tell cases apart by their names, so a name that is taken gets a number.
    """
    taken = {found.get("name") for found in suite.iter("testcase")}
    free = (f"{_clean(case)}{f' ({number})' if number > 1 else ''}" for number in itertools.count(1))
    element = ET.SubElement(suite, "testcase", {"classname": _clean(name), "name": next(n for n in free if n not in taken)})
    outcome = _OUTCOMES.get(verdict)
    if outcome is None:
        return element
    brief = _clean(message).partition("\n")[0]
    found = ET.SubElement(element, outcome, {"message": brief})
    if outcome != "skipped":
        found.set("type", verdict)
        found.text = _clean(message)
    return element


def _layer_message(comparison: Comparison, layer: LayerComparison) -> str:
    """What went wrong in a layer; the isolated verdict stands with the layer it names."""
    told = f"{layer.layer}: {wording.VERDICT_MEANING[layer.verdict]}"
    if layer.verdict == "DRIFT" and layer.mismatched_spikes:
        told = f"{count(layer.mismatched_spikes)} of {count(layer.positions)} spike positions of {layer.layer} differ"
    first = f"first: {divergence(layer.first_divergence)}" if layer.first_divergence is not None else ""
    own = [wording.isolated_sentence(comparison)] if layer.layer == comparison.first_faulty_isolated else []
    return "\n".join([told, *(line for line in (first, *own, wording.lag_sentence(layer)) if line)])


def _layer_told(report: Report, at: str, layer: LayerComparison) -> str:
    """The layer's numbers, one a line."""
    lines = [f"verdict: {layer.verdict}"]
    for field, name in _LAYER_FIELDS.items():
        if getattr(layer, field) is not None:
            lines.append(f"{name}: {text_of(report, f'{at}.{field}')}")
    if layer.isolated is not None:
        own = text_of(report, f"{at}.isolated.mismatched_spikes")
        membranes = text_of(report, f"{at}.isolated.mismatched_membranes")
        samples = text_of(report, f"{at}.isolated.samples")
        lines.append(f"by itself: {own} spikes and {membranes} membranes differ in {samples} samples")
    if late := wording.lag_sentence(layer):
        lines.append(f"lag: {late}")
    return "\n".join(lines)


def _properties(suite: ET.Element, values: dict[str, str | None]) -> None:
    properties = ET.SubElement(suite, "properties")
    for name, value in values.items():
        if value is not None:
            ET.SubElement(properties, "property", {"name": _clean(name), "value": _clean(value)})


def _count(element: ET.Element, cases: Iterable[ET.Element]) -> None:
    """Set the sums that readers show without opening a suite."""
    found = list(cases)
    element.set("tests", str(len(found)))
    for tag, name in _TAGS.items():
        element.set(name, str(sum(case.find(tag) is not None for case in found)))


def _clean(text: str) -> str:
    """Text that XML can hold: what it cannot stands as its escape."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), printable(text))

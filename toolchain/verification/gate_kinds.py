"""Gates on rungs: how far they agree, how accurate they are, how often they overflow."""

from __future__ import annotations

from collections.abc import Sequence

from snn_export.config_schema import Agreement
from snn_export.exit_codes import worst_exit_code
from snn_export.export import bounds
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_GATE, EXIT_NOTHING_COMPARED
from snn_export.reporting import formatting
from snn_export.reporting.report import Comparison, Gate, LayerComparison, Verdict
from snn_export.verification.criteria import Criteria, Demand
from snn_export.verification.ladder import LadderResult, RungResult

Comparisons = Sequence[Comparison]

_ALLOWED: dict[Agreement, tuple[Verdict, ...]] = {
    "exact": ("EXACT",), "rounding": ("EXACT", "TIE"), "within": ("EXACT", "TIE", "WITHIN")
}  # fmt: skip
_REQUIRED: dict[Agreement, str] = {
    "exact": "0 mismatched spikes, membranes and currents",
    "rounding": "every spike equal, or its flip a tie",
    "within": "no difference beyond the tolerance",
}
_NAMES: dict[Agreement, str] = {"exact": " bit for bit", "rounding": " up to rounding", "within": " within the tolerance"}


def find(reference: str, target: str, comparisons: Comparisons) -> Comparison | None:
    """The comparison of two rungs; None where they were not compared."""
    return next((c for c in comparisons if (c.reference, c.target) == (reference, target)), None)


def unmeasured(name: str, required: str, setting: str, why: str, results: Sequence[RungResult | None]) -> Gate:
    """A gate that nothing was measured for: it fails, unless all that was left out is optional and absent.

    ``why`` is told where the rungs themselves, ``results``, do not say it; None stands for a rung that there is not.
    """
    stopped = [result for result in results if result is not None and result.status is not None]
    failed = next((result for result in stopped if result.status != "SKIPPED"), None)
    if stopped and failed is None:
        told = "; ".join(finding.why for result in stopped for finding in result.findings)
        return Gate(
            name=name, required=required, measured="SKIPPED", passed=True, skipped=True, exit_code=0, detail=told, setting=setting
        )
    return Gate(
        name=name, required=required, measured="not measured" if failed is None else str(failed.status), passed=False,
        exit_code=worst_exit_code([EXIT_NOTHING_COMPARED if r.status == "SKIPPED" else _cause(r) for r in stopped])
        or EXIT_NOTHING_COMPARED,
        detail=why if failed is None else f"{failed.rung.name}: {'; '.join(f.what for f in failed.findings)}", setting=setting,
    )  # fmt: skip


def _cause(result: RungResult) -> int:
    """Exit code of what stopped a rung, e.g. 3 where a backend cannot express the network."""
    if result.status != "ERROR":
        return EXIT_BACKEND
    return worst_exit_code([finding.exit_code for finding in result.findings]) or EXIT_BACKEND


def agreement(
    reference: str, target: str, comparisons: Comparisons, ladder: LadderResult, level: Agreement, setting: str = ""
) -> Gate:
    """How far two rungs agree at least. What could not be shown, of a pair that was compared, does not pass either."""
    found, allowed, required = find(reference, target, comparisons), _ALLOWED[level], _REQUIRED[level]
    name = f"{target} equals {reference}{_NAMES[level]}"
    if found is None:
        return Gate(
            name=name, required=required, measured="NOT_COMPARED", passed=False, exit_code=EXIT_NOTHING_COMPARED,
            detail="the pair was demanded but not run", setting=setting,
        )  # fmt: skip
    if found.verdict == "SKIPPED":
        return Gate(
            name=name, required=required, measured="SKIPPED", passed=True, skipped=True, exit_code=0, detail=found.message,
            setting=setting,
        )  # fmt: skip
    spikes = sum(layer.mismatched_spikes for layer in found.layers)
    measured = f"{formatting.count(spikes)} spikes"
    if level != "within":
        measured += f", {formatting.count(sum(layer.mismatched_membranes or 0 for layer in found.layers))} membranes"
    if level == "exact":
        currents = [layer.mismatched_currents for layer in found.layers if layer.mismatched_currents is not None]
        measured += f", {formatting.count(sum(currents))} currents" if currents else ""
    passed = found.verdict in allowed
    detail, code = "" if passed else found.message, EXIT_GATE
    if found.verdict == "ERROR":
        ends = [result for end in (reference, target) if (result := ladder.find(end)) is not None and result.status == "ERROR"]
        code = worst_exit_code([_cause(result) for result in ends]) or EXIT_BACKEND
    elif found.verdict == "UNAVAILABLE":
        code = EXIT_BACKEND
    elif found.verdict == "NOT_COMPARED":
        code = EXIT_NOTHING_COMPARED
    elif found.verdict == "WITHIN" and not passed and not spikes:
        code = EXIT_NOTHING_COMPARED
        detail = "no spike differs, but the two compute with different numbers: their membranes cannot show that they agree so"
    return Gate(
        name=name, required=required, measured=f"{found.verdict}: {measured} differ" if found.layers else found.verdict,
        passed=passed, exit_code=code, detail=detail, setting=setting,
    )  # fmt: skip


def drift(comparison: Comparison, criteria: Criteria, ladder: LadderResult, *, judged: bool) -> Gate:
    """How far a rung is from another one: spikes of the layers that have no limit of their own, and decisions.

    judged: the numbers were changed on purpose, so the layers' verdicts say whether that went too far.
    """
    spikes, decisions = criteria.spikes(comparison.target), criteria.decisions(comparison.target)
    own = criteria.named_layers(comparison.target)
    layers = [layer for layer in comparison.layers if layer.layer not in own and layer.verdict != "NOT_COMPARED"]
    name = f"{comparison.target} stays near {comparison.reference}"
    required = f"at most {spikes.limit:g} % of a layer's spikes and {decisions.limit:g} % of decisions change"
    setting = ", ".join(filter(None, (spikes.setting, decisions.setting)))
    if not comparison.layers or not comparison.samples:
        ends = [ladder.find(comparison.reference), ladder.find(comparison.target)]
        return unmeasured(name, required, setting, "no layer was compared", ends)
    changed = comparison.samples - comparison.decisions_equal
    worst = max(layers, key=share, default=None)
    passed = worst is None or share(worst) <= spikes.limit
    passed &= 100.0 * changed <= decisions.limit * comparison.samples
    passed &= not (judged and any(layer.verdict == "DRIFT" for layer in layers))
    told = "" if worst is None else f"{formatting.tolerance(worst.tolerance_that_would_pass)} of the spikes of {worst.layer}, "
    return Gate(
        name=name, required=required, measured=f"{told}{changed} of {comparison.samples} decisions", passed=passed,
        exit_code=EXIT_GATE, detail="" if passed else comparison.message, setting=setting,
    )  # fmt: skip


def share(layer: LayerComparison) -> float:
    """Percent of a layer's spikes, both sides together, without a counterpart."""
    return 100.0 * layer.tolerance_that_would_pass


def overflows(name: str, demand: Demand, ladder: LadderResult) -> Gate:
    """What wrapped and saturated in the run; beside it, what could for any other input of the declared range."""
    found = ladder.rung(name)
    title, required = f"overflows in {name}", f"at most {demand.limit:g} wraps of u and saturations of v"
    if found.status is not None or not found.samples or found.overflows is None:
        return unmeasured(title, required, demand.setting, f"{found.rung.backend} does not count them", [found])
    deployment = found.rung.deployment
    possible = bounds.overflow_findings(deployment) if deployment.quantised else []
    proof = "; ".join(f"{item.where}: {item.what}; {item.fix}" for item in possible)
    return Gate(
        name=title,
        required=required,
        measured=formatting.count(found.overflows),
        passed=found.overflows <= demand.limit,
        exit_code=EXIT_GATE,
        detail=proof or ("proven: no layer can overflow for any input of the declared range" if deployment.quantised else ""),
        setting=demand.setting,
    )


def accuracy_drop(
    baseline: str, name: str, demand: Demand, alpha: Demand | None, ladder: LadderResult, comparisons: Comparisons
) -> Gate:
    """How many samples fewer a rung gets right than the baseline, in points; over the samples that both ran.

    alpha: a loss beyond the limit fails only where McNemar's p is below it. Samples too few for any loss to get there are not
    enough to ask.
    """
    first, second = ladder.find(baseline), ladder.find(name)
    title, required = f"accuracy of {name}", f"at most {demand.limit:g} points below {baseline}"
    setting = demand.setting
    if alpha is not None:
        required += f", or a loss of p >= {alpha.limit:g}"
        setting = ", ".join(filter(None, (setting, alpha.setting)))
    why = "it is the baseline itself" if baseline == name else "both rungs need labels and the same samples"
    paired = find(baseline, name, comparisons)
    if not ladder.labelled or first is None or second is None or first is second or not first.samples or not second.samples:
        return unmeasured(title, required, setting, why, [first, second])
    if paired is None or paired.only_reference_right is None or paired.only_target_right is None:
        if alpha is not None or first.samples != second.samples:
            return unmeasured(title, required, setting, "the two were not compared sample by sample", [first, second])
        samples, lost = first.samples, first.correct - second.correct
        told, p = f"{first.correct} and {second.correct} of {samples} right", None
    else:
        samples, lost = paired.samples, paired.only_reference_right - paired.only_target_right
        told, p = f"{first.correct} and {second.correct} of {samples} right", paired.mcnemar_p
        if first.samples != second.samples:  # the totals are of other samples than the pairs
            alone = paired.only_reference_right, paired.only_target_right
            told = f"of {samples} samples {alone[0]} right in {baseline} alone and {alone[1]} in {name} alone"
    drop = 100.0 * lost / samples
    change = f"{abs(drop):.2f} points {'lost' if drop >= 0 else 'gained'}"
    if alpha is not None:
        if p is None or 2.0 ** (1 - samples) >= alpha.limit:
            return unmeasured(title, required, setting, f"{samples} samples cannot show a loss at p < {alpha.limit:g}", [])
        told += f", McNemar's p = {p:.2g}"
    passed = drop <= demand.limit or (alpha is not None and p is not None and p >= alpha.limit)
    return Gate(name=title, required=required, measured=f"{change} ({told})", passed=passed, exit_code=EXIT_GATE, setting=setting)


def minimum_accuracy(
    name: str, percent: float, correct: int, samples: int, setting: str = "", result: RungResult | None = None
) -> Gate:
    """Gate on an accuracy itself; not measured counts as not passed, but for an optional rung that is absent (``result``)."""
    title, required = f"accuracy of {name} itself", f"at least {percent:g} %"
    if not samples:
        return unmeasured(title, required, setting, "it needs labels and at least one sample", [result])
    measured = 100.0 * correct / samples
    return Gate(
        name=title, required=required, measured=f"{measured:.2f} % ({correct} of {samples} right)", passed=measured >= percent,
        exit_code=EXIT_GATE, setting=setting,
    )  # fmt: skip

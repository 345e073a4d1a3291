"""What the rows of the recipes benchmark answer. The words follow the figures: nothing is said that no row shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.recipes_measures import (
    Difference,
    Group,
    Result,
    baseline_mode,
    baseline_of,
    compare,
    difference,
    group_of,
    right,
    seeds_above,
)
from benchmarks.recipes_plan import EXPERIMENTS, TOLERATED, TRIALS, Row
from snn_export.training.conversion.baseline import first_to_reach

ALLOWED = 0.5
"""Points that rate-based training may lie below backpropagation through time, and a deployed network off its float one."""
STEPS = 4
COMPARED = ("hybrid_blockwise", "ckdsnn", "ckdsnn_code", "lasnn", "esd", "plain_kd", "idsnn")
"""The four published methods of the comparison, CKDSNN as its paper writes it and as its authors' code computes it, and the
other two with three seeds."""
UNTAUGHT = ("no_teacher", "dsr", "relu_ann")
"""Rows without anything that teaches. esd has no teacher network, but heads of its own that teach: it counts as distilled."""

Lines = Mapping[str, Sequence[Group]]
"""The groups of every data set, by its name."""


def answers(lines: Lines, trials: Mapping[Row, Result] | None = None) -> list[str]:
    """The Markdown sections, in order. trials: what was tried with other weights, and what it gave."""
    return [
        *_section("Does rate-based training cost accuracy?", [_rates(data, found) for data, found in lines.items()]),
        *_section(
            f"Is distillation worth more than conversion at T = {STEPS}?",
            [text for data, found in lines.items() for text in _conversion(data, found)],
        ),
        *_section("Which methods help, and which claims did not reproduce?", [*_methods(lines), *_tried(lines, trials or {})]),
        *_section("Does the accuracy survive on the chip's integers?", _deployments(lines)),
    ]


def _section(title: str, texts: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(line for text in texts for line in (text, ""))]


def said(found: Difference) -> str:
    """E.g. ``+0.83 points [+0.12, +1.54]``."""
    return f"{_number(found.points)} points [{_number(found.low)}, {_number(found.high)}]"


def _number(points: float) -> str:
    rounded = round(points, 2) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:+.2f}" if rounded else "0.00"


def percent(share: float) -> str:
    """E.g. ``98.8 %``."""
    return f"{100 * share:.1f} %"


def seeded(line: Group) -> str:
    """E.g. ``3 seeds``, ``1 seed of 3``."""
    count, wanted = len(line.results), len(line.seeds)
    number = f"{count} seed{'s' if count != 1 else ''}"
    return number if count == wanted else f"{number} of {wanted}"


# --- rates against time ----------------------------------------------------------------------------------------------


def _rates(data: str, lines: Sequence[Group]) -> str:
    if baseline_mode(data) != "rate":
        return f"**{data}**: not asked. A recurrent student is trained through time alone (SNX281)."
    rate, bptt = group_of(lines, "no_teacher", "rate"), group_of(lines, "no_teacher", "bptt")
    if rate is None or bptt is None:
        return f"**{data}**: open, rows are missing."
    found = compare(rate, bptt)
    margin = max(ALLOWED, found.half_width)
    below = found.points < -margin
    faster = bptt.epoch_seconds / rate.epoch_seconds
    speed = (
        "as fast" if 0.95 < faster < 1.05 else f"{faster:.1f} times faster" if faster > 1 else f"{1 / faster:.1f} times slower"
    )
    cost = "" if math.isnan(faster) else f" An epoch on rates is {speed}."
    return (
        f"**{data}**: {'yes' if below else 'no'}. Without a teacher, rates reach {percent(rate.mean('test_accuracy'))} "
        f"({seeded(rate)}), backpropagation through time {percent(bptt.mean('test_accuracy'))} ({seeded(bptt)}): {said(found)}. "
        f"That is {'' if below else 'not '}below by more than {margin:.2f} points, the larger of {ALLOWED} and half the "
        f"interval.{cost}"
    )


# --- distillation against conversion ---------------------------------------------------------------------------------


def best_student(lines: Sequence[Group]) -> Group | None:
    """The distilled student with the highest validation accuracy, among those with the most seeds; the test set has no say."""
    candidates = [line for line in lines if line.results and line.recipe not in UNTAUGHT and line.mode in ("rate", "bptt")]
    most = max((len(line.results) for line in candidates), default=0)
    return max(
        (line for line in candidates if len(line.results) == most), key=lambda line: line.mean("validation_best"), default=None
    )


def _conversion(data: str, lines: Sequence[Group]) -> Iterator[str]:
    best = best_student(lines)
    if best is None:
        yield f"**{data}**: open, rows are missing."
        return
    baseline = baseline_of(best, lines)
    text = (
        f"**{data}**: the best distilled student, chosen by its validation accuracy among those with {seeded(best)}, is "
        f"{best.name} (T = {best.first['steps']}) with {percent(best.mean('test_accuracy'))}"
    )
    text += f", {said(compare(best, baseline))} to no teacher." if baseline else "; no teacher: the row is missing."
    if EXPERIMENTS[data].source is None:
        yield text + " A recurrent network has no conversion to be compared with (SNX351)."
        return
    qcfs = group_of(lines, "qcfs", "conversion")
    if qcfs is None:
        yield text + " QCFS: the row is missing."
        return
    found = compare(best, qcfs)
    outcome = {"above": "Distillation wins", "below": "Conversion wins"}.get(found.verdict, "Neither wins")
    reached = f"QCFS at T = {STEPS} reaches {percent(qcfs.mean('test_accuracy'))} ({seeded(qcfs)}): {said(found)}. {outcome}."
    yield f"{text}{_head_start(best)} {reached} {_catching_up(qcfs, best)}{_other_conversions(lines)}"
    yield _sources(data, lines, qcfs)


def _head_start(student: Group) -> str:
    """What the words "one budget" do not cover."""
    if student.recipe != "idsnn":
        return ""
    return " It begins with weights taken from the teacher; QCFS's network begins with random ones."


def _other_conversions(lines: Sequence[Group]) -> str:
    """What the conversions that a chip can run reach at the same T."""
    found = [line for line in lines if line.mode == "conversion" and line.recipe != "qcfs" and line.results]
    parts = [f"{line.recipe} {percent(line.mean('test_accuracy'))} ({seeded(line)})" for line in found]
    return f" Conversions that begin at zero, as chips do, reach at T = {STEPS}: {', '.join(parts)}." if parts else ""


def _catching_up(conversion: Group, student: Group) -> str:
    steps = first_to_reach(conversion.curve(), student.mean("test_accuracy"))
    name = "QCFS" if conversion.recipe == "qcfs" else conversion.recipe
    if steps is None:
        return f"{name} does not catch up with the student within T = {max(conversion.curve())}."
    if steps <= STEPS:
        return f"{name} is as accurate as the student from T = {steps} on."
    return f"{name} catches up with the student at T = {steps}, {steps / STEPS:g} times its steps."


def _sources(data: str, lines: Sequence[Group], qcfs: Group) -> str:
    plain = group_of(lines, "relu_ann", "ann")
    if plain is None:
        return f"{data}: the plain ReLU network's row is missing."
    apart = 100 * (qcfs.mean("source_accuracy") - plain.mean("test_accuracy"))
    return (
        f"The network that QCFS converts reaches {percent(qcfs.mean('source_accuracy'))} before conversion, the plain ReLU "
        f"network of its shape under the same budget {percent(plain.mean('test_accuracy'))} ({_number(apart)} points): "
        f"{_source_words(apart)}."
    )


def _source_words(apart: float) -> str:
    if apart < -ALLOWED:
        return "quantised activations cost accuracy before any spike"
    if apart > ALLOWED:
        return "quantised activations did not cost accuracy here, they brought some"
    return "the baseline is not a weak one"


# --- methods and claims ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What one data set says about the claim of one paper. held: True, False, or None where the rows do not decide it."""

    held: bool | None
    text: str


def _methods(lines: Lines) -> list[str]:
    table = [f"| method | {' | '.join(lines)} |", f"| --- | {' | '.join('---' for _ in lines)} |"]
    table += [f"| `{method}` | {' | '.join(_against_none(method, found) for found in lines.values())} |" for method in COMPARED]
    cells = sum(line.count(" points [") for line in table)
    heading = (
        "Test accuracy against no teacher in the same mode, with 95 % interval, and in how many of the common seeds it is above "
        f"({cells} comparisons: by chance alone, about {max(1, round(cells / 20))} of them would miss 0; one seed is set in no "
        "bold type). `idsnn` begins with weights taken from the teacher, whose training is in no student's budget."
    )
    return [heading, "\n".join(table), *_claims(lines)]


def _against_none(method: str, lines: Sequence[Group]) -> str:
    line = _line_of(method, lines)
    if line is None:
        return next((item.absent for item in lines if item.recipe == method), "not in the plan")
    baseline = baseline_of(line, lines)
    if baseline is None:
        return "no baseline yet"
    found, (above, shared) = compare(line, baseline), seeds_above(line, baseline)
    word = {"above": "better", "below": "worse"}.get(found.verdict, found.verdict)
    bold = "**" if word in ("better", "worse") and shared > 1 else ""  # one seed shows what one seed does
    return f"{bold}{word}{bold}: {said(found)}, {above} of {shared}"


def _line_of(method: str, lines: Sequence[Group]) -> Group | None:
    return next((line for line in lines if line.recipe == method and line.results), None)


CLAIMS = {
    "hybrid_blockwise": "no worse than distilling logits alone, at less training cost than backpropagation through time",
    "ckdsnn": "activation maps and smoothed logits teach more than logits alone",
    "ckdsnn_code": "the same, in the form of the released code",
    "lasnn": "as accurate as a network converted by threshold balancing with a twentieth of its steps",
    "esd": "branches on the student's own stages make it better, without a teacher",
}


def _claims(lines: Lines) -> list[str]:
    texts: list[str] = []
    failed: list[str] = []
    undecided: list[str] = []
    for method, claim in CLAIMS.items():
        findings = {data: _finding(method, found) for data, found in lines.items() if _line_of(method, found) is not None}
        words = {True: "reproduced", False: "not reproduced", None: "not decided"}
        parts = [f"{words[found.held]} on {data} ({found.text})" for data, found in findings.items()]
        parts += [
            f"{line.absent} on {data}"
            for data, found in lines.items()
            if data not in findings
            for line in found
            if line.recipe == method
        ]
        texts.append(f"- `{method}` - {claim}: {'; '.join(parts)}.")
        failed += [f"{method} on {data}" for data, found in findings.items() if found.held is False]
        undecided += [f"{method} on {data}" for data, found in findings.items() if found.held is None]
    tried = any(_line_of(method, found) is not None for method in CLAIMS for found in lines.values())
    nothing = "No claim failed outright." if tried else "No claim has been tried yet."
    plain = f"Claims that did not reproduce at this scale: {', '.join(failed)}." if failed else nothing
    plain += f" Neither shown nor refuted: {', '.join(undecided)}." if undecided else ""
    scale = (
        "The scale is small networks, few epochs and few images; the papers train for hundreds of epochs. A claim that did not "
        "reproduce here is not refuted, and one that did is not proved."
    )
    return ["What the papers claim, and what is left of it:", "\n".join(texts), f"**{plain}** {scale}"]


def _finding(method: str, lines: Sequence[Group]) -> Finding:
    line = _line_of(method, lines)
    if line is None:
        return Finding(None, "no row")
    if method == "lasnn":
        return _fewer_steps(line, lines)
    other = baseline_of(line, lines) if method == "esd" else group_of(lines, "plain_kd", line.mode)
    if other is None:
        return Finding(None, "the row to compare with is missing")
    found = compare(line, other)
    text = f"{said(found)} to {other.recipe}" + (f", {seeded(line)}" if len(line.results) < len(other.results) else "")
    if method == "hybrid_blockwise":
        return _cheaper(line, found, text)
    return Finding({"above": True, "below": False}.get(found.verdict), text)


def _cheaper(line: Group, found: Difference, text: str) -> Finding:
    """Hybrid block-wise replacement: comparable to or better than others, and cheaper than the same loss through time."""
    if found.verdict == "below":
        return Finding(False, text)
    cost = line.epoch_seconds / line.through_time_seconds if line.mode == "rate" else math.nan
    if math.isnan(cost):
        return Finding(None, f"{text}; the cost was not compared")
    return Finding(cost < 1, f"{text}; an epoch takes {cost:.2f} times as long as one of the same loss through time")


def _fewer_steps(line: Group, lines: Sequence[Group]) -> Finding:
    """LaSNN: 20 times fewer steps than threshold balancing at the same accuracy."""
    balanced = group_of(lines, "max_norm", "conversion")
    if balanced is None:
        return Finding(None, "there is no conversion to compare with")
    steps = first_to_reach(balanced.curve(), line.mean("test_accuracy"))
    if steps is None:
        last = max(balanced.curve())
        factor = last / STEPS
        return Finding(True if factor >= 20 else None, f"max_norm has not caught up at T = {last}, {factor:g} times the steps")
    modern = group_of(lines, "qcfs", "conversion")
    reached = first_to_reach(modern.curve(), line.mean("test_accuracy")) if modern else None
    beside = f", qcfs at T = {reached}" if reached else ""
    return Finding(steps / STEPS >= 20, f"max_norm is as accurate at T = {steps}, {steps / STEPS:g} times the steps{beside}")


# --- what was tried --------------------------------------------------------------------------------------------------


def _tried(lines: Lines, trials: Mapping[Row, Result]) -> Iterator[str]:
    """Other weights for methods that did not beat the same student without a teacher, by validation accuracy."""
    points = []
    for row in TRIALS:
        line, baseline = (group_of(lines.get(row.data, ()), recipe, row.mode) for recipe in (row.recipe, "no_teacher"))
        if line is None or baseline is None:
            continue
        changed = " and ".join(f"{term} at {weight:g}" for term, weight in row.weights)
        found = trials.get(row, {})
        outcome = percent(found["validation_best"]) if "validation_best" in found else found.get("refused", "missing")
        beside = [f"{name} {percent(item.results[row.seed]['validation_best'])}" for name, item in
                  (("with the published weights", line), ("no teacher", baseline)) if row.seed in item.results]  # fmt: skip
        points.append(f"- `{row.recipe}` on {row.data}, {changed}: {outcome} ({', '.join(beside)})")
    if points:
        yield (
            "Tried where a method did not beat no teacher: other weights of its terms, one run of seed "
            f"{', '.join(sorted({str(row.seed) for row in TRIALS}))} each, judged by validation accuracy alone:"
        )
        yield "\n".join(points)


# --- deployment ------------------------------------------------------------------------------------------------------


def _deployments(lines: Lines) -> list[str]:
    return [_deployment(data, found) for data, found in lines.items()]


def _deployment(data: str, lines: Sequence[Group]) -> str:
    there = [(line, seed, result) for line in lines for seed, result in sorted(line.results.items()) if "deployed" in result]
    ran = [(line, seed, result) for line, seed, result in there if "integer_accuracy" in result]
    if not ran:
        return f"**{data}**: open, no row has been deployed."
    integer, floating = (np.mean([right(row, kind) for _, _, row in ran], axis=0) for kind in ("integer", "test"))
    whole = {
        line.name: difference(line.scores("integer"), line.scores("test"))
        for line in lines
        if line.results and all("integer_accuracy" in row for row in line.results.values())
    }
    single = {
        f"{line.name}{'' if len(line.seeds) == 1 else f' seed {seed}'}": difference(
            *(right(row, kind).astype(np.float64) for kind in ("integer", "test"))
        )
        for line, seed, row in ran
    }
    texts = [
        f"**{data}**: {_losses(whole, int(ran[0][2]['test_samples']))}",
        _single_losses(single),
        f"The mean of integer minus float over all runs is {said(difference(integer, floating))}.",
        *_fine_tuning([row for _, _, row in ran]),
    ]
    refused = {line.name: row["deployed"] for line, _, row in there if "integer_accuracy" not in row}
    if refused:
        listed = ", ".join(f"{name} ({reason.removeprefix('refused: ')})" for name, reason in refused.items())
        texts.append(f"Refused, not replaced by another network: {listed}.")
    programmed = list(dict.fromkeys(line.name for line, _, row in ran if row["deployed"] == "loihi2 microcode"))
    texts += [f"Only Loihi 2 runs these, as neuron programs: {', '.join(programmed)}."] if programmed else []
    return " ".join(texts)


def _losses(lines: Mapping[str, Difference], samples: int) -> str:
    """Which lines lose more than is allowed, by name, and how many gain more than that: they are no loss of the chip's grid."""
    lost = {name: found for name, found in lines.items() if found.points < -ALLOWED - 1e-9}
    gained = {name: found.points for name, found in lines.items() if found.points > ALLOWED + 1e-9}
    beyond = [name for name, found in lost.items() if found.verdict == "below"]
    if lost:
        listed = ", ".join(f"{name} ({said(found).replace(' points', '')})" for name, found in lost.items())
        chance = f"beyond chance {', '.join(beyond)}" if beyond else "none beyond chance"
        head = "not everywhere" if beyond else "as far as the test samples tell"
        text = f"{head}. {len(lost)} of {len(lines)} lines lose more than {ALLOWED} points: {listed}; {chance}."
    else:
        worst = _number(min(found.points for found in lines.values()))
        text = f"yes. None of {len(lines)} lines loses more than {ALLOWED} points; the worst is {worst}."
    text += f" One of the {samples:,} test samples is {100 / samples:.2f} points." if 100 / samples > ALLOWED / 10 else ""
    best = max(gained, key=lambda name: gained[name], default=None)
    return text if best is None else f"{text} {len(gained)} gain more than {ALLOWED}, {best} the most ({_number(gained[best])})."


def _single_losses(rows: Mapping[str, Difference]) -> str:
    """The same of single runs, where one sample weighs more."""
    lost = {name: found for name, found in rows.items() if found.points < -ALLOWED - 1e-9}
    if not lost:
        return f"No single run of the {len(rows)} does."
    listed = ", ".join(
        f"{name} ({_number(found.points)}{', beyond chance' if found.verdict == 'below' else ''})" for name, found in lost.items()
    )
    return f"Of the {len(rows)} single runs {len(lost)} lose more: {listed}."


def _fine_tuning(rows: Sequence[Result]) -> Iterator[str]:
    """How many rows were trained on after quantisation, and what they had lost before."""
    tuned = [row for row in rows if row.get("fine_tuned_epochs")]
    if not tuned:
        yield "No row was trained on after quantisation."
        return
    epochs = sorted({int(row["fine_tuned_epochs"]) for row in tuned})
    known = [row for row in tuned if row.get("integer_accuracy_before_fine_tuning") is not None]
    text = (
        f"{len(tuned)} of the {len(rows)} were trained on the grid for {' or '.join(map(str, epochs))} "
        f"epoch{'' if epochs == [1] else 's'} more, because quantisation had cost more than {TOLERATED} "
        "points of validation accuracy; labels alone teach there, whatever the recipe"
    )
    if known:
        lost = np.mean([100 * (row["integer_accuracy_before_fine_tuning"] - row["test_accuracy"]) for row in known])
        now = np.mean([100 * (row["integer_accuracy"] - row["test_accuracy"]) for row in known])
        text += f": on average {_number(float(lost))} points to float before, {_number(float(now))} after"
    yield f"{text}."

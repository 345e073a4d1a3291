"""The report as Markdown, for a pull request's comment or a job's summary: verdict, gates, ladder, what differs, and why.

Written for GitHub's and GitLab's dialect (tables, ``<details>``). Text of the report can neither break out of its place nor
call anyone: what has a meaning in Markdown or HTML becomes a character reference, and names after ``@``, numbers after ``#``
and addresses are split by an invisible character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from snn_export.reporting import wording
from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.energy_words import takes_less
from snn_export.reporting.formatting import ABSENT, count, text_of
from snn_export.reporting.report import Attribution, Comparison, LayerComparison, Report
from snn_export.text_safety import printable

LONGEST: Final = 600
"""Characters of one piece of text; what is beyond them is counted. No line of a table grows past a screenful of them."""

WORD_JOINER: Final = "\u2060"
_TOGETHER: Final = "\u00a0"
"""Space at which no line breaks, between a mark and its word."""
_REFERENCES: Final = str.maketrans({mark: f"&#{ord(mark)};" for mark in "`*[]|~\\$"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_BLOCK_START: Final = re.compile(r"^(\d*)([-+=#.)])(?=[-+=#\s]|$)")
"""What could begin a heading, a rule or a list where the text begins a line."""
_BREAKS: Final = re.compile("[ \n\u2028\u2029]+")
_COMMAND: Final = re.compile(r"^:(?=:)|##(?=\[)")
"""What GitHub takes for a command in the log that a rendering may be printed into: ``::`` at a line's start, ``##[`` anywhere."""
_FENCE: Final = re.compile(r"^(`{3,})")


def render(report: Report) -> str:
    """The whole report as Markdown, ending with a newline. The same report gives the same text."""
    blocks = [_verdict(report), _gates(report), _ladder(report), _differences(report), _attribution(report), _amounts(report)]
    blocks += [_coverage(report), _reproduce(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def inline(text: str) -> str:
    """``text`` as one piece of running text: no line breaks, no markup, nobody called, at most :data:`LONGEST` characters."""
    plain = _one_line(text)
    if len(plain) > LONGEST:
        plain = f"{plain[:LONGEST]}… ({count(len(plain) - LONGEST)} more characters)"
    split = re.sub(r"@(?=\w)|#(?=\d)|:(?=//)|\bwww(?=\.)", lambda found: found[0] + WORD_JOINER, plain, flags=re.IGNORECASE)
    safe = re.sub("_+", _underscores, split.translate(_REFERENCES))
    if safe.startswith("::"):  # see _COMMAND
        safe = f"&#58;{safe[1:]}"
    return _BLOCK_START.sub(lambda found: f"{found[1]}&#{ord(found[2])};", safe)


def _one_line(text: str) -> str:
    return _BREAKS.sub(" ", printable(text)).strip(" ")


def _underscores(found: re.Match[str]) -> str:
    """Underscores within a word are text in every dialect; others could begin or end emphasis."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return found[0] if before.isalnum() and after.isalnum() else "&#95;" * len(found[0])


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already (:func:`inline`); a header that begins with ``>`` is aligned right."""
    rule = ("--:" if header.startswith(">") else ":--" for header in headers)
    lines = [_row(header.removeprefix(">") for header in headers), _row(rule), *(_row(row) for row in rows)]
    return "\n".join(lines)


def within(text: str, limit: int, whole: str) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8, cut at the end of a line; a last line tells how much is missing.

    Args:
        text: Markdown of :func:`render`.
        limit: bytes; at least a thousand.
        whole: where all of it is, in words, e.g. ``out/report/report.html``.

    Raises:
        ValueError: the limit leaves no room for the line that tells.
    """
    if len(text.encode()) <= limit:
        return text
    if limit < 1000:
        raise ValueError(f"{limit} bytes leave no room to say what is missing")
    lines, kept, size = text.removesuffix("\n").split("\n"), list[str](), 0
    for line in lines:
        size += len(line.encode()) + 1
        if size > limit - 500 - len(inline(whole).encode()):
            break
        kept.append(line)
    missing = len(lines) - len(kept)
    told = f"**Cut short:** {count(missing)} of {count(len(lines))} lines are left out here. All of them: {inline(whole)}"
    return "\n".join([*kept, *_open_ends(kept), "", told]) + "\n"


def _open_ends(lines: list[str]) -> list[str]:
    """What closes a block of code and ``<details>`` that the cut fell into."""
    fence, details = "", False
    for line in lines:
        mark = _FENCE.match(line)
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        elif not fence:
            details = details ^ line.startswith(("<details>", "</details>"))
    return [*([fence] if fence else []), *(["", "</details>"] if details else [])]


def _verdict(report: Report) -> str:
    facts = f"{inline(report.dataset)}: {count(report.samples)} samples, {count(report.steps)} steps, reference "
    facts += inline(report.reference) + ("" if report.passed else f", exit code {report.exit_code}")
    head = f"## {'✓ PASS' if report.passed else '✗ FAIL'}: {inline(wording.headline(report))}"
    claims = [f"- {inline(claim)}" for claim in (*report.causes, *wording.exact_claims(report))]
    return "\n".join([head, "", facts, *(["", *claims] if claims else [])])


def _gates(report: Report) -> str:
    if not report.gates:
        return ""
    rows = []
    for gate in report.gates:
        state = f"○{_TOGETHER}skipped" if gate.skipped else f"✓{_TOGETHER}pass" if gate.passed else f"✗{_TOGETHER}**FAIL**"
        measured = inline(gate.measured) + (f"<br>{inline(gate.detail)}" if gate.detail else "")
        rows.append((state, inline(gate.name), inline(gate.required), measured))
    return "### Gates\n\n" + table(("", "Gate", "Required", "Measured"), rows)


def _ladder(report: Report) -> str:
    if not report.ladder:
        return ""
    models = {network.model for network in report.carried}
    rows = []
    for index, rung in enumerate(report.ladder):
        if rung.name in models:
            continue
        numbers = [_number(report, f"ladder.{index}.{field}") for field in ("accuracy", "interval", "samples")]
        compared, verdict = inline(rung.compared_with or ABSENT), _badge(rung.verdict)
        differ = _number(report, f"ladder.{index}.mismatched_spikes")
        rows.append((f"**{inline(rung.name)}**", inline(rung.backend), *numbers, compared, verdict, differ))
    headers = ("Rung", "Backend", ">Accuracy", ">95 % interval", ">Samples", "Compared with", "Verdict", ">Differ")
    return "### Ladder\n\n" + table(headers, rows)


def _differences(report: Report) -> str:
    """Every layer that is not exact in one table, what is known about it below; what is equal in one line each."""
    rows, notes, equal = list[Sequence[str]](), list[str](), list[str]()
    for index, comparison in enumerate(report.comparisons):
        differing = [(number, layer) for number, layer in enumerate(comparison.layers) if layer.verdict != "EXACT"]
        rows += [_layer_row(report, index, number) for number, _ in differing]
        told = _notes(report, index, [number for number, _ in differing])
        notes += [f"- **{_pair(comparison)}**", *(f"  - {note}" for note in told)] if told else []
        if comparison.layers and not differing:
            amount = f"{count(len(comparison.layers))} layers, {count(comparison.samples)} samples"
            equal.append(f"- **{_pair(comparison)}**: {_badge(comparison.verdict)} in every spike and membrane ({amount})")
    if not (rows or notes or equal):
        return ""
    headers = (
        "Comparison", "Layer", "Verdict", ">Reference", ">Got", ">Differ", ">Count error", ">Membranes differ", ">By itself",
        ">Tolerance that would pass",
    )  # fmt: skip
    parts = [table(headers, rows)] if rows else []
    parts += ["\n".join(group) for group in (notes, equal) if group]
    return "### Layer by layer\n\n" + "\n\n".join(parts)


def _layer_row(report: Report, index: int, number: int) -> Sequence[str]:
    comparison = report.comparisons[index]
    layer = comparison.layers[number]
    fields = ("reference_spikes", "got_spikes", "mismatched_spikes", "count_error_sum", "mismatched_membranes")
    at = f"comparisons.{index}.layers.{number}"
    cells = [_number(report, f"{at}.{field}") for field in fields]
    tolerance = _number(report, f"{at}.tolerance_that_would_pass")
    return (_pair(comparison), f"**{inline(layer.layer)}**", _badge(layer.verdict), *cells, _by_itself(layer), tolerance)


def _by_itself(layer: LayerComparison) -> str:
    """Spikes, or membranes where every spike is right, that the layer gets wrong driven by what it received."""
    found = layer.isolated
    if found is None:
        return ABSENT
    if found.mismatched_spikes or not found.mismatched_membranes:
        return count(found.mismatched_spikes)
    return f"{count(found.mismatched_membranes)} membranes"


def _notes(report: Report, index: int, differing: list[int]) -> list[str]:
    """What a comparison says beside its numbers."""
    comparison = report.comparisons[index]
    found = []
    if not comparison.layers:
        log = f"; log: {comparison.log}" if comparison.log else ""
        found.append(f"{_badge(comparison.verdict)}: {inline(comparison.message + log)}")
    sentences = (
        wording.faulty_layer_sentence(comparison), wording.isolated_sentence(comparison),
        *wording.lag_sentences(comparison), wording.paired_sentence(comparison),
    )  # fmt: skip
    found += [inline(sentence) for sentence in sentences if sentence]
    for number in differing:
        if comparison.layers[number].first_divergence is not None:
            place = _number(report, f"comparisons.{index}.layers.{number}.first_divergence")
            found.append(f"first in {inline(comparison.layers[number].layer)}: {place}")
    return found


def _attribution(report: Report) -> str:
    attribution = report.attribution
    if attribution is None:
        return ""
    headers = (
        "Effect", ">Forward", ">Backward", ">Interaction", ">Left without it", ">Removed", ">Accuracy", "First divergence"
    )  # fmt: skip
    parts = [f"### Where the changes come from\n\n{inline(wording.attribution_headline(attribution))}"]
    parts.append(table(headers, _effect_rows(report, attribution)))
    parts.append(f"**{inline(attribution.sentence)}**" + (f" Fix: {inline(attribution.fix)}" if attribution.fix else ""))
    if layers := wording.cause_sentences(attribution):
        parts.append("\n".join(f"- {inline(layer)}" for layer in layers))
    return "\n\n".join(parts)


def _effect_rows(report: Report, attribution: Attribution) -> list[Sequence[str]]:
    fields = ("forward", "backward", "interaction", "without", "removed", "accuracy")
    return [
        (
            f"**{inline(effect.name)}**" if effect.name == attribution.cause else inline(effect.name),
            *(_number(report, f"attribution.effects.{number}.{field}") for field in fields),
            "explained" if effect.explains_first else "",
        )
        for number, effect in enumerate(attribution.effects)
    ]


def _amounts(report: Report) -> str:
    lines = []
    if report.size is not None:
        lines.append(f"Size: {inline(wording.size_sentence(report.size))}")
    if report.energy is not None:
        lines += _energy(report, report.energy)
    if report.placement is not None:
        lines.append(f"Placement: {inline(wording.placement_sentence(report.placement))}")
    return "\n\n".join(lines)


def _energy(report: Report, energy: EnergyReport) -> list[str]:
    """The total, who takes less on the fairest terms, and the same as a table."""
    lines = [f"Energy per inference: {_number(report, 'energy.total')}, {inline(energy.label)}"]
    fairest = [(number, item) for number, item in enumerate(energy.comparisons) if item.precision == "INT8" and item.memory]
    if fairest:
        rows = [
            (inline(item.own), _number(report, f"energy.comparisons.{number}.own_value"), inline(item.other),
             _number(report, f"energy.comparisons.{number}.value"), inline(takes_less(item)))
            for number, item in fairest
        ]  # fmt: skip
        title = f" in {inline(energy.process)}" if energy.process else ""
        lines.append(f"Against ANNs{title}, 8-bit weights, memory counted:")
        lines.append(table(("", ">Takes", "Against", ">Takes", "Takes less"), rows))
    if energy.verdict:
        lines.append("\n".join(f"- {inline(sentence)}" for sentence in (energy.verdict[0], *energy.verdict[1:][-1:])))
    return lines


def _coverage(report: Report) -> str:
    if not report.coverage:
        return "### Not covered\n\nNothing was left out."
    lines = []
    for item in report.coverage:
        status = item.status.replace("_", " ").lower()
        fix = f" To cover it: {inline(item.fix)}" if item.fix else ""
        lines.append(f"- **{inline(item.what)}** ({status}): {inline(item.why)}{'.' if fix else ''}{fix}")
    return "### Not covered\n\n" + "\n".join(lines)


def _reproduce(report: Report) -> str:
    """The way to the same report, folded away."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(report.versions.items()))
    lines = [*report.reproduce, *([f"# with {versions}"] if versions else [])]
    if not lines:
        return ""
    code = [_COMMAND.sub(lambda found: found[0] + WORD_JOINER, _one_line(line)) for line in lines]
    longest = max((len(run) for line in code for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join(["<details><summary>How to reproduce it</summary>", "", f"{fence}text", *code, fence, "", "</details>"])


def _pair(comparison: Comparison) -> str:
    return f"{inline(comparison.reference)} → {inline(comparison.target)}"


def _badge(verdict: str | None) -> str:
    if verdict is None:
        return ""
    return _TOGETHER.join((wording.VERDICT_MARK[verdict].replace("~", "&#126;"), *verdict.split("_")))


def _number(report: Report, path: str) -> str:
    return inline(text_of(report, path))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

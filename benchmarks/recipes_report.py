"""The document of the recipes benchmark: tables, answers and plots, from the rows that are there and the plan they belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.recipes_answers import answers, percent, said
from benchmarks.recipes_measures import Group, Result, baseline_of, compare, groups, unplanned
from benchmarks.recipes_plan import EXPERIMENTS, STEPS_OF_BALANCING, TRIALS, Experiment, Row
from benchmarks.recipes_plots import write_plots
from snn_export.reporting.json_file import write_text
from snn_export.training.settings import TrainingSettings

MIB = 2**20
COLUMNS = (
    "recipe", "mode", "T", "seeds", "test accuracy, %", "points to no_teacher [95 %]", "validation best / last, %", "teacher, %",
    "firing rate, %", "fully spiking", "s / epoch", "peak MiB", "on integers, %", "integer - float, points",
    "decisions changed, %",
)  # fmt: skip
NOTES = (
    "*test accuracy*: mean and standard deviation (n - 1) over the seeds, each at the epoch with the best validation accuracy, "
    "the test set read once. *points to no_teacher*: the same student without a teacher in the same mode; conversions and the "
    "ReLU network against the mode that most rows have. The interval is a paired bootstrap over test samples, 10,000 resamples "
    "of each sample's mean correctness over the seeds. It says how far the test set decides, not how far other seeds would "
    "differ: a line with one seed may owe its place to it.",
    "*firing rate*: spikes per neuron and step, the plain mean over populations whatever their size, and the lowest and highest "
    "of them. *s / epoch*: of training alone, all recipes of a data set side by side in one run of `--costs` (some batches in "
    "turn, the median of some rounds and the fastest, one thread); not what the rows took, which had other work beside them. "
    "*peak MiB*: what training added to the memory of the row's process at its highest, + what it had needed before. "
    "*on integers*: the same test samples on Loihi 2's integer grid in the `loihi` simulator, or why not; *microcode*: on "
    "Loihi 2 alone, as a neuron program; *tuned*: so many of the seeds were trained on the grid, on labels, for the epochs told "
    "at the end, so that integers may gain on floats. Conversions stand at T = 4; the whole curve is below, and their memory is "
    "that of everything up to the last T.",
)


def write_report(results: Path, costs: Path) -> None:
    """Write ``recipes.md`` and the plots beside ``results``, ``{"rows": {key: row}}``; no rows where the file is not there.

    costs: the file of ``recipes_costs.py``, if it is there.

    Raises:
        ValueError: rows of one data set that were measured on different samples.
    """
    found = json.loads(results.read_text(encoding="utf-8"))["rows"] if results.is_file() else {}
    results.parent.mkdir(parents=True, exist_ok=True)
    epochs = json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else {}
    lines = {data: groups(found, data, epochs.get(data)) for data in EXPERIMENTS}
    trials = {row: found[row.key] for row in TRIALS if row.key in found}
    plots = write_plots(lines, results.parent)
    loads = {data: entry["load_before"] for data, entry in epochs.items() if entry.get("load_before") is not None}
    write_text(results.with_suffix(".md"), document(lines, plots, unplanned(found), trials, loads))


def document(
    lines: Mapping[str, Sequence[Group]],
    plots: Mapping[str, Sequence[str]] | None = None,
    other: Sequence[str] = (),
    trials: Mapping[Row, Result] | None = None,
    loads: Mapping[str, float] | None = None,
) -> str:
    """The Markdown text.

    plots: names of the pictures of a data set; other: keys of rows that no plan asks for; loads: the machine's load average
    before the seconds per epoch of a data set were measured.
    """
    missing = sum(len(line.missing) for found in lines.values() for line in found)
    wanted = sum(len(line.seeds) for found in lines.values() for line in found)
    parts = [
        "# Every recipe under one budget",
        "",
        f"Written by `python benchmarks/recipes.py --report`: {wanted - missing} of {wanted} rows.",
        "",
        *(line for note in NOTES for line in (note, "")),
    ]
    for data, found in lines.items():
        parts += _data_set(data, found, (plots or {}).get(data, ()), (loads or {}).get(data))
    return "\n".join([*parts, *answers(lines, trials), *_leftovers(lines, other)])


def _data_set(data: str, lines: Sequence[Group], plots: Sequence[str], load: float | None) -> list[str]:
    parts = [f"## {data}", "", *_trained(EXPERIMENTS[data], lines)]
    parts += [] if load is None else [f"- Seconds per epoch: load average {load:.1f} before they were measured"]
    parts += [""]
    parts += [
        _row(COLUMNS),
        _row(["---", "---", *["---:"] * (len(COLUMNS) - 2)]),
        *(_row(_cells(line, lines)) for line in lines),
        "",
    ]
    parts += _curves(lines)
    for name in plots:
        parts += [f"![{name.removesuffix('.svg').replace('_', ' ')}]({name})", ""]
    return parts


# --- what was trained ------------------------------------------------------------------------------------------------


def _trained(experiment: Experiment, lines: Sequence[Group]) -> list[str]:
    there = [result for line in lines for result in line.results.values()]
    points = [
        f"Student: {_network(experiment.student)}",
        f"Budget of every row: {_budget(experiment.settings)}",
        f"Teacher: {_network(experiment.teacher)}{_teacher_accuracy(lines)}; {_budget(experiment.teacher_settings)}",
    ]
    if experiment.source is not None:
        points.append(f"Network that is converted: {_network(experiment.source)}, ReLU, the budget of every row")
    points.append(f"Samples: {_samples(there)}{''.join(f'; {note}' for note in experiment.notes)}")
    points.append(f"Machine: {_machine(there)}")
    return [f"- {point}" for point in points]


def _network(network: tuple[str, Mapping[str, Any]]) -> str:
    name, config = network
    return ", ".join([f"`{name}`", *(f"{key} {value}" for key, value in config.items())])


def _budget(settings: TrainingSettings) -> str:
    augmentation = " and ".join(settings.augmentation) or "no augmentation"
    return (
        f"{settings.epochs} epochs, batch {settings.batch_size}, {settings.optimizer}, learning rate {settings.learning_rate:g} "
        f"({settings.schedule.replace('_', ' ')}), weight decay {settings.weight_decay:g}, {augmentation}"
    )


def _teacher_accuracy(lines: Sequence[Group]) -> str:
    """What the teacher scored, and which rows had which where it was trained more than once."""
    taught: dict[float, list[str]] = {}
    for line in lines:
        for seed, row in sorted(line.results.items()):
            if row.get("teacher_accuracy") is not None:
                taught.setdefault(row["teacher_accuracy"], []).append(f"{line.recipe} {seed}")
    if len(taught) < 2:
        return "".join(f" with {percent(accuracy)} on the test set" for accuracy in taught)
    ranked = sorted(taught, key=lambda accuracy: -len(taught[accuracy]))
    others = "; ".join(f"{percent(accuracy)} in {', '.join(taught[accuracy])}" for accuracy in ranked[1:])
    return (
        f" with {percent(ranked[0])} on the test set (trained {len(taught)} times from the same seed, on processors that round "
        f"differently: {others})"
    )


def _samples(there: Sequence[Result]) -> str:
    names = ("training_samples", "validation_samples", "test_samples")
    sizes = {name: {row[name] for row in there if name in row} for name in names}
    found = [f"{size:,} {name.removesuffix('_samples')}" for name, values in sizes.items() for size in sorted(values)]
    return ", ".join(found) or "no row yet"


def _machine(there: Sequence[Result]) -> str:
    """What the rows say of where they ran; seconds mean little without it."""
    said_of = {name: sorted({str(row[name]) for row in there if name in row}) for name in ("machine", "workers", "torch")}
    parts = ["one thread per row"]
    parts += [", ".join(said_of["machine"])] if said_of["machine"] else []
    beside = " or ".join(said_of["workers"])
    parts.append(f"rows at the same time: {beside}" if beside else "how many rows ran at the same time was not recorded")
    parts += [f"torch {' and '.join(said_of['torch'])}"] if said_of["torch"] else []
    return "; ".join(parts)


# --- the table -------------------------------------------------------------------------------------------------------


def _cells(line: Group, lines: Sequence[Group]) -> list[str]:
    name = f"`{line.recipe}`"
    if not line.results:
        return [name, line.mode, "", f"0 of {len(line.seeds)}", line.absent, *[""] * (len(COLUMNS) - 5)]
    row, baseline = line.first, baseline_of(line, lines)
    seeds = f"{len(line.results)}" if not line.missing else f"{len(line.results)} of {len(line.seeds)}"
    before = f" + {line.mean('memory_before_bytes') / MIB:.0f}" if line.values("memory_before_bytes") else ""
    peak = (line.mean("peak_memory_bytes") - (line.mean("memory_before_bytes") if before else 0)) / MIB
    return [
        name, line.mode, str(row.get("steps", "-")), seeds, _spread(line, "test_accuracy"),
        said(compare(line, baseline)).replace(" points", "") if baseline else "-",
        f"{_hundred(line.mean('validation_best'))} / {_hundred(line.mean('validation_last'))}",
        _hundred(line.mean("teacher_accuracy")), _firing(line), "yes" if row["fully_spiking"] else "no",
        _epoch(line), f"{_plain(peak, 0)}{before}", *_deployed(line),
    ]  # fmt: skip


def _deployed(line: Group) -> list[str]:
    """Accuracy on integers, difference, decisions changed."""
    if "integer_accuracy" not in line.first:
        return [line.first.get("deployed", "-"), "-", "-"]
    microcode = ", microcode" if line.first["deployed"] == "loihi2 microcode" else ""
    tuned = sum(bool(row.get("fine_tuned_epochs")) for row in line.results.values())
    microcode += f", {tuned} tuned" if tuned else ""
    apart = 100 * (line.mean("integer_accuracy") - line.mean("test_accuracy"))
    return [_spread(line, "integer_accuracy") + microcode, f"{apart:+.2f}", _hundred(line.mean("decisions_changed"), 2)]


def _spread(line: Group, name: str) -> str:
    values = line.values(name)
    if len(values) == 1:
        return f"{_hundred(values[0], 2)} (1 seed)"
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{_hundred(mean, 2)} ± {_hundred(deviation, 2)}"


def _epoch(line: Group) -> str:
    """Median and minimum."""
    return "-" if math.isnan(line.epoch_seconds) else f"{line.epoch_seconds:.2f} ({line.epoch_minimum:.2f})"


def _firing(line: Group) -> str:
    rates = [rate for row in line.results.values() for rate in [row.get("firing_rates")] if rate]
    if not rates:
        return "-"
    means = {name: math.fsum(rate[name] for rate in rates) / len(rates) for name in rates[0]}
    mean = math.fsum(means.values()) / len(means)
    return f"{_hundred(mean)} ({_hundred(min(means.values()))} to {_hundred(max(means.values()))})"


def _curves(lines: Sequence[Group]) -> list[str]:
    """Accuracy of every conversion by T."""
    found = [line for line in lines if line.mode == "conversion"]
    if not found:
        return []
    head = ["test accuracy, %", "seeds", "source", *(f"T = {steps}" for steps in STEPS_OF_BALANCING)]
    parts = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for line in found:
        curve = line.curve()
        cells = [_hundred(curve.get(steps, math.nan)) for steps in STEPS_OF_BALANCING]
        source = _hundred(line.mean("source_accuracy")) if line.results else line.absent
        parts.append(_row([f"`{line.recipe}`", f"{len(line.results)} of {len(line.seeds)}", source, *cells]))
    return [*parts, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _hundred(share: float, digits: int = 1) -> str:
    return _plain(100 * share, digits)


def _plain(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


# --- what is not in the tables ---------------------------------------------------------------------------------------


def _leftovers(lines: Mapping[str, Sequence[Group]], other: Sequence[str]) -> list[str]:
    listed = [
        f"- {data}: {', '.join(_seeds(line) for line in found if line.missing)}"
        for data, found in lines.items()
        if any(line.missing for line in found)
    ]
    parts = ["## Missing rows", "", *(listed or ["None."]), ""]
    stale = [key for found in lines.values() for line in found for key in _stale_keys(line)]
    if stale:
        parts += ["## Rows of another budget", "", "Trained with other settings than the plan has now; they count above:", ""]
        parts += [*(f"- {key}" for key in stale), ""]
    if other:
        parts += ["## Rows that no plan asks for", "", "They count nowhere:", "", *(f"- {key}" for key in other), ""]
    return parts


def _seeds(line: Group) -> str:
    """E.g. ``plain_kd, rate (seeds 1, 2)``."""
    return f"{line.name} (seed{'s' if len(line.missing) > 1 else ''} {', '.join(map(str, line.missing))})"


def _stale_keys(line: Group) -> list[str]:
    """Rows whose settings, or student where the row tells it, are not those of the plan."""
    experiment = EXPERIMENTS[line.data]
    found = []
    for seed, row in line.results.items():
        planned = _as_json(asdict(replace(experiment.settings, seed=seed)))
        student = _as_json(experiment.student)
        if row["settings"] != planned or row.get("student", student) != student:
            found.append(f"{line.data}-{line.recipe}-{line.mode}-{seed}")
    return found


def _as_json(value: object) -> object:
    """As it comes back from a file: tuples are lists there."""
    found: object = json.loads(json.dumps(value))
    return found

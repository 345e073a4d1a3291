"""How a report writes its numbers: one function per kind, used by every renderer.

A number is addressed by its path in ``report.json`` (``ladder.2.accuracy``). The path decides the kind, so terminal and HTML
cannot write the same number in two ways. Numbers are grouped with a narrow no-break space; :func:`to_ascii` turns the few
characters beyond ASCII into plain ones for terminals that cannot show them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from pydantic import BaseModel

from snn_export.reporting.energy_records import FIGURE_GROUPS
from snn_export.reporting.report import Divergence, Report
from snn_export.text_safety import printable

NARROW_SPACE: Final = "\u202f"
MINUS: Final = "\u2212"
ABSENT: Final = "\u2013"
NO_FIGURE: Final = "no figure"

_ENERGY_UNITS: Final = ((1e-3, "fJ"), (1.0, "pJ"), (1e3, "nJ"), (1e6, "µJ"), (1e9, "mJ"), (1e12, "J"))
_TIME_UNITS: Final = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))
_THOUSAND: Final = 1000
_AXES_OF_IMAGE: Final = ("channel", "row", "column")
_KEPT_PRECISION: Final = 17


def count(value: int) -> str:
    """A whole number in groups of three."""
    return f"{value:,}".replace(",", NARROW_SPACE).replace("-", MINUS)


def amount(value: float) -> str:
    """A count averaged over samples: whole from a hundred up, else three significant digits."""
    if value == int(value) or abs(value) >= 99.95:
        return count(round(value))
    return _significant(value, 3)


def percent(value: float) -> str:
    """A percentage with one decimal. Only a true 0 or 100 is written as one."""
    if 0 < value < 0.05:
        return f"<{NARROW_SPACE}0.1{NARROW_SPACE}%"
    if 99.95 <= value < 100:
        return f">{NARROW_SPACE}99.9{NARROW_SPACE}%"
    return f"{value:.1f}{NARROW_SPACE}%".replace("-", MINUS)


def percent_interval(value: tuple[float, float]) -> str:
    """An interval of percentages, one decimal."""
    low, high = value
    return f"{low:.1f} to {high:.1f}{NARROW_SPACE}%"


def tolerance(value: float) -> str:
    """The fraction of mismatched positions that would have to be allowed, as percent.

    Rounded up to three significant digits: the tolerance as printed passes.
    """
    if value <= 0:
        return f"0{NARROW_SPACE}%"
    exact = Decimal(repr(value)) * 100
    step = Decimal(1).scaleb(exact.adjusted() - 2)
    rounded = float(exact.quantize(step, rounding=ROUND_CEILING))
    return f"{_significant(rounded, 3)}{NARROW_SPACE}%"


def energy(value: float | None) -> str:
    """An amount of energy given in pJ, in the unit that suits it, three significant digits."""
    if value is None:
        return NO_FIGURE
    factor, unit = _energy_unit(value)
    return f"{_significant(value / factor, 3)}{NARROW_SPACE}{unit}"


def energy_range(value: float | None, low: float | None, high: float | None) -> str:
    """An amount in pJ with its range, in one unit where that has room: ``12.3 nJ (6.1 to 18.4)``, ``4 pJ (4 pJ to 29 nJ)``."""
    if value is None:
        return NO_FIGURE
    if low is None or high is None or low == value == high:
        return energy(value)
    return _ranged(value, low, high, _energy_unit)


def time_range(value: float, low: float, high: float) -> str:
    """A time in ns with its range, in one unit where it has room: ``1.23 µs (0.98 to 2.4)``, ``843 µs (745 µs to 1.18 ms)``."""
    if low == value == high:
        factor, unit = _time_unit(value)
        return f"{_significant(value / factor, 3)}{NARROW_SPACE}{unit}"
    return _ranged(value, low, high, _time_unit)


def _ranged(value: float, low: float, high: float, unit_of: Callable[[float], tuple[float, str]]) -> str:
    """A value with its range; ends that need a thousand of its unit, or less than a thousandth, come with units of their own."""

    def told(number: float, unit: tuple[float, str]) -> str:
        return f"{_significant(number / unit[0], 3)}{NARROW_SPACE}{unit[1]}"

    factor, _ = own = unit_of(value)
    if float(f"{high / factor:.2e}") < _THOUSAND and (low == 0 or low / factor >= 1 / _THOUSAND):
        return f"{told(value, own)} ({_significant(low / factor, 3)} to {_significant(high / factor, 3)})"
    return f"{told(value, own)} ({told(low, unit_of(low))} to {told(high, unit_of(high))})"


def rate(value: float) -> str:
    """Spikes per neuron and step, three decimals; a rate above zero is never written as zero."""
    if 0 < value < 0.0005:
        return f"<{NARROW_SPACE}0.001"
    return f"{value:.3f}"


def share(value: float) -> str:
    """A fraction of one as a percentage."""
    return percent(100 * value)


def probability(value: float) -> str:
    """A chance between 0 and 1, three significant digits; one below a thousandth is not spelt out."""
    return f"<{NARROW_SPACE}0.001" if value < 0.0005 else f"{float(f'{value:.3g}'):g}"


def real(value: float) -> str:
    """A real number, at most four significant digits; whole numbers are written whole."""
    if value == int(value) and abs(value) < 1e15:
        return count(int(value))
    number, exponent, power = _significant(value, 4).partition("e")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + exponent + power


def distinct_pair(expected: float, got: float) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to tell them apart, four at least."""
    if expected == int(expected) and got == int(got):
        return real(expected), real(got)
    for digits in range(4, _KEPT_PRECISION + 1):
        pair = _significant(expected, digits), _significant(got, digits)
        if pair[0] != pair[1] or expected == got:
            return pair
    return repr(expected), repr(got)


def position(index: tuple[int, ...]) -> str:
    """A feature index with the names of its axes where it is that of an image; empty for a flat layer."""
    if len(index) == len(_AXES_OF_IMAGE):
        return ", ".join(f"{axis} {number}" for axis, number in zip(_AXES_OF_IMAGE, index, strict=True))
    return "" if len(index) <= 1 else "index " + ", ".join(str(number) for number in index)


def divergence_place(value: Divergence) -> str:
    """Where two traces part: ``sample 3, step 2, neuron 17 (channel 1, row 0, column 1)``; all counted from 0."""
    named = position(value.position)
    place = f"sample {count(value.sample)}, step {count(value.step)}, neuron {count(value.neuron)}"
    return f"{place} ({named})" if named else place


def divergence_values(value: Divergence) -> str:
    """What was expected there and what came."""
    if value.kind == "spike" and {value.expected, value.got} == {0.0, 1.0}:
        return "spike expected, none came" if value.expected else "no spike expected, one came"
    noun = "membrane" if value.kind == "membrane" else "spikes"
    expected, got = distinct_pair(value.expected, value.got)
    return f"{noun} {expected} expected, {got} came"


def divergence(value: Divergence) -> str:
    """Place and values in one line."""
    return f"{divergence_place(value)}: {divergence_values(value)}"


def brief_divergence(value: Divergence) -> str:
    """The same for the last column of a table: ``sample 3 step 2 neuron 17: spike 1 -> 0``."""
    expected, got = distinct_pair(value.expected, value.got)
    what = "spike" if value.kind == "spike" else "v"
    return f"sample {value.sample} step {value.step} neuron {value.neuron}: {what} {expected} -> {got}"


_KINDS: Final[dict[str, Callable[[Any], str]]] = {
    "ladder.*.accuracy": percent,
    "ladder.*.interval": percent_interval,
    "comparisons.*.agreement_interval": percent_interval,
    "comparisons.*.mcnemar_p": probability,
    "comparisons.*.layers.*.first_divergence": divergence,
    "comparisons.*.layers.*.isolated.first_divergence": divergence,
    "comparisons.*.layers.*.isolated.membrane_difference_max": real,
    "comparisons.*.layers.*.rate_error_mean": rate,
    "comparisons.*.layers.*.rate_error_max": rate,
    "comparisons.*.layers.*.spike_distance_mean": real,
    "comparisons.*.layers.*.tolerance_spikes": percent,
    "comparisons.*.layers.*.membrane_difference_max": real,
    "comparisons.*.layers.*.tolerance_that_would_pass": tolerance,
    "quantisation.*.scale": real,
    "quantisation.*.weight_error_rms": real,
    "activity.*.rate": rate,
    "accuracy_over_time.*.accuracy.*": percent,
    "rasters.*.membrane_threshold": real,
    "attribution.effects.*.removed": share,
    "attribution.effects.*.accuracy": percent,
    "energy.layers.*.synops": amount,
    "energy.layers.*.graded_operations": amount,
    "energy.layers.*.active_updates": amount,
    "energy.layers.*.inactive_updates": amount,
    **{f"energy.{group}.*.count": amount for group in FIGURE_GROUPS},
    "energy.layers.*.parts.*.count": amount,
    "energy.spikes_per_synapse": real,
    "energy.comparisons.*.ratio": real,
    "energy.curve.*.synops": amount,
    "energy.curve.*.accuracy": percent,
    "energy.early_exit.threshold": real,
    "energy.early_exit.mean_steps": real,
    **{f"energy.early_exit.{name}": percent for name in ("accuracy", "accuracy_full")},
    **{f"energy.early_exit.validation_{name}": percent for name in ("accuracy", "accuracy_full")},
    **{f"energy.memory.{name}": amount for name in ("weight_reads", "state_reads", "state_writes", "sum_accesses")},
    **{f"energy.neurobench.{name}": share for name in ("connection_sparsity", "activation_sparsity")},
    **{f"energy.neurobench.{name}": amount for name in ("effective_macs", "effective_acs", "dense", "membrane_updates")},
    **{f"energy.latency.{name}": amount for name in ("throughput", "throughput_low", "throughput_high")},
    **{f"placement.limits.*.{name}": share for name in ("mean", "most")},
    "placement.placed.*.fullest": share,
    **{f"placement.{name}": amount for name in ("links.*.packets", "spike_hops", "naive_spike_hops")},
    "training.*.validation_accuracy": percent,
}
_ENERGY_PATH: Final = re.compile(
    r"energy\.(total|early_exit\.value|layers\.\*\.parts\.\*\.value|comparisons\.\*\.(own_)?value"
    rf"|(layers|{'|'.join(FIGURE_GROUPS)}|curve)\.\*\.value)"
)
_TIME_PATH: Final = re.compile(r"energy\.latency\.(step|inference)\.value")


def text_of(report: Report, path: str) -> str:
    """The number at ``path`` as every renderer writes it.

    An energy comes with its range: the path of ``total`` or ``value`` stands for all three. None is written as a dash, except
    for an energy, where it means that no figure is published.

    Raises:
        KeyError: the report has nothing at ``path``.
        TypeError: a fractional number whose kind is not declared above.
    """
    pattern = re.sub(r"\.\d+(?=\.|$)", ".*", path)
    value = value_at(report, path)
    if _ENERGY_PATH.fullmatch(pattern):
        parent, _, name = path.rpartition(".")
        stem = parent + {"total": ".total_", "own_value": ".own_"}.get(name, ".")
        return energy_range(_as_float(value), *(_as_float(value_at(report, stem + end)) for end in ("low", "high")))
    if _TIME_PATH.fullmatch(pattern):
        stem = path.rpartition(".")[0]
        return time_range(*(_as_float(value_at(report, f"{stem}.{end}")) or 0.0 for end in ("value", "low", "high")))
    if value is None:
        return ABSENT
    if pattern in _KINDS:
        return _KINDS[pattern](value)
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    if isinstance(value, str):
        return printable(value)
    raise TypeError(f"no way to write {path} is declared: {type(value).__name__}")


def value_at(report: Report, path: str) -> object:
    """The value at a dotted path. Raises KeyError where the report has none."""
    node: object = report
    for part in path.split("."):
        if isinstance(node, tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, BaseModel) and part in type(node).model_fields:
            node = getattr(node, part)
        else:
            raise KeyError(path)
    return node


def to_ascii(text: str) -> str:
    """The same text in plain ASCII: commas group digits, names keep an escape for what ASCII cannot show."""
    grouped = re.sub(rf"(?<=\d){NARROW_SPACE}(?=\d{{3}})", ",", text)
    return grouped.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


_ASCII: Final = str.maketrans(
    {
        NARROW_SPACE: " ",
        ABSENT: "-",
        MINUS: "-",
        "µ": "u",
        "→": "->",
        "·": "-",
        "✓": "+",
        "✗": "x",
        "≠": "!",
        "≈": "~",
        "○": "o",
        "∅": "0",
    }
)


def _significant(value: float, digits: int) -> str:
    """``digits`` significant digits, grouped, in scientific notation only where it is far from one."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-", MINUS)
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if exponent >= 9 or exponent < -4:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", MINUS)
    text = f"{value:,.{max(digits - 1 - exponent, 0)}f}"
    return text.replace(",", NARROW_SPACE).replace("-", MINUS)


def _energy_unit(value: float) -> tuple[float, str]:
    """Factor to pJ and name of the largest unit that leaves at least one before the point, after rounding."""
    chosen = _ENERGY_UNITS[0]
    for factor, unit in _ENERGY_UNITS:
        if float(f"{abs(value) / factor:.2e}") >= 1:
            chosen = (factor, unit)
    return chosen if value else (1.0, "pJ")


def _time_unit(value: float) -> tuple[float, str]:
    """Factor to ns and name of the largest unit that leaves at least one before the point, after rounding."""
    return next((entry for entry in reversed(_TIME_UNITS) if float(f"{value / entry[0]:.2e}") >= 1), _TIME_UNITS[0])


def _as_float(value: object) -> float | None:
    """Narrow the type of an energy; a report holds nothing else there."""
    return float(value) if isinstance(value, int | float) else None

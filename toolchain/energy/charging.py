"""What operations cost by a table: amounts in picojoule with a range, and none where no figure is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snn_export.energy.cost_table import CostTable


@dataclass(frozen=True)
class Amount:
    """Picojoule with a range."""

    value: float
    low: float
    high: float

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Amount:
        return Amount(self.value * times, self.low * times, self.high * times)

    def overlaps(self, other: Amount) -> bool:
        """Whether the two ranges share a value."""
        return self.low <= other.high and other.low <= self.high


NOTHING = Amount(0.0, 0.0, 0.0)


def coefficient(table: CostTable, operation: str) -> Amount:
    """Energy of one operation. KeyError where the table has none."""
    found = table.coefficients[operation]
    return Amount(found.value, found.low, found.high)


def charge(table: CostTable, operation: str, count: float, fewest: float) -> Amount | None:
    """Energy of so many operations; None where the table has no figure. ``fewest`` is what the lower end counts."""
    found = table.coefficients.get(operation)
    return None if found is None else Amount(found.value * count, found.low * fewest, found.high * count)


def total(charges: Iterable[tuple[Amount | None, float]]) -> Amount | None:
    """Sum of what has a figure; None where nothing that happens has one.

    Args:
        charges: amounts, None without a figure, each with how often its operation happens.
    """
    found = [(amount, bool(count)) for amount, count in charges]
    happening = [amount is not None for amount, happens in found if happens]
    priced = [amount for amount, _ in found if amount is not None]
    return sum(priced, NOTHING) if priced and (any(happening) or not happening) else None


def charged(table: CostTable, amounts: Mapping[str, tuple[float, float]]) -> Amount | None:
    """Energy of all operations of :func:`snn_export.energy.operations.amounts` that have a figure; None where none has."""
    return total((charge(table, operation, *counts), counts[0]) for operation, counts in amounts.items())

"""Delta debugging: the fewest items with which a test still fails.

Source: A. Zeller and R. Hildebrandt, Simplifying and isolating failure-inducing input, IEEE TSE 28 (2002) 183, algorithm ddmin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")
Keeps = Callable[[tuple[Item, ...]], bool]
"""Whether what is looked for is still there with these items alone."""


def ddmin(items: Sequence[Item], keeps: Keeps[Item], guesses: Sequence[Sequence[Item]] = (), least: int = 1) -> tuple[Item, ...]:
    """A subset of items, in their order, that keeps what is looked for and loses it with any single item taken away.

    Halves are tried first, then quarters, and so on, each part alone and then everything but it.

    Args:
        items: with which ``keeps`` holds.
        keeps: the test; costly, so few calls are made.
        guesses: subsets that may well do, tried before the search and taken where they do.
        least: the smallest number of items that makes sense; with 0, none at all is tried first.
    """
    current = tuple(items)
    for guess in ((), *guesses) if least == 0 else guesses:
        wanted = tuple(item for item in current if item in guess)
        if least <= len(wanted) < len(current) and keeps(wanted):
            current = wanted
            break
    parts = 2
    while len(current) > max(least, 1):
        smaller = _smaller(current, keeps, min(parts, len(current)))
        if smaller is not None:
            complement = len(smaller) > -(-len(current) // parts)
            current, parts = smaller, max(parts - 1, 2) if complement else 2
        elif parts >= len(current):
            break
        else:
            parts = min(len(current), 2 * parts)
    return current


def _smaller(current: tuple[Item, ...], keeps: Keeps[Item], parts: int) -> tuple[Item, ...] | None:
    """One of ``parts`` equal parts, or all but one of them; None where no such subset keeps it."""
    ends = [len(current) * number // parts for number in range(parts + 1)]
    chunks = [current[start:stop] for start, stop in pairwise(ends)]
    for chunk in chunks:
        if keeps(chunk):
            return chunk
    if parts == 2:
        return None  # the complements of halves are the halves
    for start, stop in pairwise(ends):
        rest = current[:start] + current[stop:]
        if keeps(rest):
            return rest
    return None


def shorter_range(
    start: int, stop: int, keeps: Callable[[int, int], bool], guess: tuple[int, int] | None = None
) -> tuple[int, int]:
    """A range within start..stop that keeps what is looked for and loses it when its first or its last element goes.

    Args:
        start: first element.
        stop: one behind the last.
        keeps: the test, given a range.
        guess: tried first.
    """
    if guess is not None and guess != (start, stop) and start <= guess[0] < guess[1] <= stop and keeps(*guess):
        start, stop = guess
    step = (stop - start) // 2
    while step >= 1:
        if stop - start > step and keeps(start + step, stop):
            start += step
        elif stop - start > step and keeps(start, stop - step):
            stop -= step
        else:
            step //= 2
    return start, stop

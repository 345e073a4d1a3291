"""Making a case smaller as long as the backends still part on it.

Large things go first, and the first try of each kind is the one that is likely to do: the sample, layer, step and neuron in
which the runs part first, the inputs that fire. What does not do is searched by delta debugging (``ddmin.py``). At the end every
single thing is taken away once more; when none of these cases diverges, the case is minimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from snn_export.export import thinning
from snn_export.export.narrowing import CannotNarrowError
from snn_export.hardware_sims.trace import Trace
from snn_export.verification.bisection import reductions
from snn_export.verification.bisection.case import Case
from snn_export.verification.bisection.ddmin import ddmin, shorter_range
from snn_export.verification.bisection.trial import Bench, Finding, OutOfTimeError, over_time

Tell = Callable[[str, Finding], None]
"""Called after each phase with its name and what was reached."""


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The smallest finding that was reached. minimal: nothing more can be taken away; False where the search was cut short."""

    finding: Finding
    minimal: bool
    interrupted: bool = False


def shrink(bench: Bench, start: Finding, tell: Tell = lambda phase, finding: None) -> Shrunk:
    """The smallest case on which the backends of a bench still part, from one on which they do.

    The same backends and case give the same result, as long as the time suffices.
    """
    work = _Shrinking(bench, start)
    try:
        while True:
            before = work.best.case
            for name, phase in work.phases():
                phase()
                tell(name, work.best)
            if work.best.case is before and not work.take_one():
                return Shrunk(work.best, minimal=True)
    except OutOfTimeError:
        return Shrunk(work.best, minimal=False)
    except KeyboardInterrupt:  # what was reached is worth keeping
        return Shrunk(work.best, minimal=False, interrupted=True)


class _Shrinking:
    """The best case so far, and the phases that try to make it smaller."""

    def __init__(self, bench: Bench, start: Finding) -> None:
        self._bench = bench
        self.best = start

    def phases(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """In the order in which they pay."""
        yield "samples", self._samples
        yield "layers", self._layers
        yield "steps", self._steps
        yield "neurons", self._neurons
        yield "inputs", self._inputs
        yield "the rest", self._rest

    def take_one(self) -> bool:
        """Take one single thing away; False where the backends would not part any more, whichever it is."""
        best = self.best
        return any(self._try(step) for _, step in reductions.single_steps(best.case, best.reference, best.first.layer))

    def _try(self, reduction: reductions.Reduction) -> bool:
        """Keep what a reduction makes, where the backends still part on it."""
        case = reductions.made(reduction)
        found = None if case is None else self._bench.part_on(case)
        if found is not None:
            self.best = found
        return found is not None

    def _search(
        self,
        items: Sequence[int],
        made: Callable[[Case, Sequence[int]], Case],
        guesses: Sequence[Sequence[int]] = (),
        least: int = 1,
    ) -> None:
        """The fewest items of the best case that keep the divergence."""
        case = self.best.case
        if len(items) > (1 if least else 0):
            ddmin(items, lambda kept: self._try(lambda: made(case, kept)), guesses, least)

    def _samples(self) -> None:
        """One sample; under rate encoding its spikes depend on its place, so they are written out first."""
        count = self.best.case.inputs.shape[1]
        if count == 1:
            return
        guess, case = self.best.first.sample, self.best.case
        if case.deployment.contract.encoder.kind == "rate":
            written = over_time(case)
            _ = self._try(lambda: reductions.samples(written, [guess])) or self._try(lambda: written)
        self._search(range(self.best.case.inputs.shape[1]), reductions.samples, [[guess]])

    def _layers(self) -> None:
        """The smallest part that ends in the first layer that parts, driven by the spikes of one run or the other."""
        while self._smaller_part():
            pass

    def _smaller_part(self) -> bool:
        best = self.best
        for cut in reductions.parts(best.case, best.first.layer):
            runs = [best.reference] if _same_spikes(cut.source, best.reference, best.target) else [best.reference, best.target]
            if any(self._try(partial(reductions.part, best.case, cut, run)) for run in runs):
                return True
        return False

    def _steps(self) -> None:
        """Cut behind the first divergence, then drop what comes before it, then any step."""
        case, last = self.best.case, self.best.first.step + 1
        if last < case.deployment.contract.steps:
            self._try(lambda: reductions.steps(case, range(last)))
        if self.best.case.deployment.contract.steps > 1:
            self._try(partial(_written_out, self.best.case))
        length = self.best.case.deployment.contract.steps
        tails = [range(max(0, length - size), length) for size in _doubling(length)]
        self._search(range(length), reductions.steps, tails)

    def _neurons(self) -> None:
        """The neuron that parts first, then as few as do; of maps, whole channels."""
        for name in reversed(self.best.case.deployment.layers):
            shape, first = self.best.case.deployment.shapes[name], self.best.first
            guess = [int(np.unravel_index(first.neuron, shape)[0])] if first.layer == name else []
            self._search(range(shape[0]), partial(_of_node, reductions.neurons, name), [guess])

    def _inputs(self) -> None:
        """Channels or features, then the range of rows and columns, then single values."""
        self._try(partial(reductions.flat_input, self.best.case))
        case = self.best.case
        self._search(range(case.deployment.input_shape[0]), _features, [reductions.active(case, 0)])
        for axis in range(1, len(case.deployment.input_shape)):
            self._crop(axis)
        self._search(reductions.events(self.best.case), reductions.with_events, least=0)

    def _crop(self, axis: int) -> None:
        case = self.best.case
        guess = reductions.receptive_field(case, self.best.first, axis)

        def keeps(start: int, stop: int) -> bool:
            return self._try(lambda: reductions.input_kept(case, axis, range(start, stop)))

        shorter_range(0, case.deployment.input_shape[axis], keeps, guess)

    def _rest(self) -> None:
        """Padding, biases, delays, and weights."""
        for names, reduction in (
            (reductions.padded(self.best.case), reductions.unpadded),
            (thinning.biased_nodes(self.best.case.deployment), reductions.without_bias),
            (thinning.delays(self.best.case.deployment), reductions.without_delay),
        ):
            for name in names:
                self._try(partial(reduction, self.best.case, name))
        for name in thinning.weight_nodes(self.best.case.deployment):
            kept = reductions.weights(self.best.case, name)
            self._search(kept, partial(_of_node, reductions.with_weights, name), least=0)


def _features(case: Case, kept: Sequence[int]) -> Case:
    return reductions.input_kept(case, 0, kept)


def _of_node(made: Callable[[Case, str, Sequence[int]], Case], name: str, case: Case, kept: Sequence[int]) -> Case:
    return made(case, name, kept)


def _written_out(case: Case) -> Case:
    """The case with its input over time, where that is another one; else nothing is gained."""
    written = over_time(case)
    if written is case:
        raise CannotNarrowError("its input is written out already")
    return written


def _same_spikes(source: str, first: Trace, second: Trace) -> bool:
    """True where both runs sent the same from a population (of the input: always)."""
    if source not in first.layers:
        return True
    return np.array_equal(np.asarray(first.layers[source].sent), np.asarray(second.layers[source].sent))


def _doubling(length: int) -> Iterator[int]:
    """1, 2, 4, ... below a length."""
    size = 1
    while size < length:
        yield size
        size *= 2

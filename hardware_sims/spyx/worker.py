"""Steps populations with the neurons of Spyx 1.0 (JAX, float32), one ``spyx.nn`` module per population.

``python -I worker.py READ_FD WRITE_FD``, or ``--self-test``; see ``isolated/cell_server.py``. A script for Spyx's environment:
NumPy, JAX and Spyx, nothing of this project.

What Spyx's neurons compute in one call, s the spike they return (H(0) = 0: they fire above the threshold)::

    LIF, IF     s = H(V - theta) ; V = beta V + x - theta s                                  beta = 1 for IF
    CuBaLIF     s = H(V - theta) ; V = V - theta s ; I = alpha I + x ; V = beta V + I
    PSU_LIF     V = beta V + x ; s = H(V - theta)
    LI          V = beta V + x

LIF, IF and CuBaLIF return the spike of the membrane they were called with: every layer is a step late. In local time, where
that step is removed, the spike belongs to the call that made the membrane. It is had by asking the module once more, with
what it has just left and no input: the spike of that call is the one its next call will return, and the rest is thrown away.
The threshold then goes away in the next step in LIF and IF, *behind* its decay: a subtraction that comes one step late. In
CuBaLIF it goes *before* the decay, which is what a subtraction in the step of the spike is: V = beta (V - theta s) + I. A
CuBaLIF with alpha = 0 does so for a neuron without a synaptic filter.

So the population is held by:

    spiking  reset                        without a filter             behind a filter
    no                                    LI                           LI, LI
    yes      subtract, in the same step   CuBaLIF, alpha = 0           CuBaLIF; with a bias on the membrane LI, CuBaLIF, alpha = 0
    yes      subtract, a step late        IF with beta = 1, else LIF   LI, then IF or LIF
    yes      none                         PSU_LIF                      LI, PSU_LIF
    yes      zero, which Spyx has not     as Spyx reads a LIF or IF:   as Spyx reads a CubaLIF:
                                          subtract, a step late        subtract, in the same step
    yes      zero, without memory         PSU_LIF, beta = 0: its next membrane does not hear of the last, so it is set to 0

With the option ``zero_reset`` the caller of the module resets, which has its state in hand: the membrane of a neuron that fired
is set to 0 before the module is called again, which then finds nothing to subtract.

``hardware_sims/spyx/expressible.py`` says the same of the contract's side. Features are one axis here: Spyx doubles *every* axis
of a CuBaLIF's state, and cannot step one with two of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported; without it JAX looks for accelerators

import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "isolated"))
from cell_server import Cell, Neuron, serve

Array = Any
LARGEST = float(np.finfo(np.float32).max)
"""Stands for a threshold of infinity, which Spyx would multiply with a spike of 0."""


def import_neurons() -> Any:
    """``spyx.nn`` without ``spyx/__init__.py``, which imports data pipelines and checkpoints that no neuron needs.

    An empty module stands for the package. This script's own folder, of the same name, is not on ``sys.path``: ``-I`` sees to it.
    """
    if "spyx" not in sys.modules:
        found = importlib.util.find_spec("spyx")
        if found is None or found.submodule_search_locations is None:
            raise ImportError("Spyx is not installed in this environment")
        package = types.ModuleType("spyx")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["spyx"] = package
    import spyx.nn

    return spyx.nn


class Population:
    """One population; its state is what the module's last call returned, (rows, neurons or twice that)."""

    def __init__(self, neuron: Neuron) -> None:
        self._shape, self._size = neuron.shape, int(np.prod(neuron.shape))
        self._current_gain, self._membrane_gain = flat(neuron.current_gain), flat(neuron.membrane_gain)
        self._bias = flat(neuron.bias)
        self._threshold = np.minimum(flat(neuron.threshold), np.float32(LARGEST))
        self._kind, self._zeroes = kind_of(neuron), zeroed(neuron)
        self._whole = self._kind == "CuBaLIF" and whole(neuron)
        self._module = self._made(neuron)
        self._advance = jax.jit(self._module)
        # Two programs, so that the membrane which is compared is the one that is kept, not one that XLA computed again.
        self._announce = jax.jit(lambda state: self._module(jnp.zeros((state.shape[0], self._size), state.dtype), state)[0])
        self._filter = jax.jit(import_neurons().LI((self._size,), neuron.alpha, rngs=None)) if neuron.filtered else None
        self._rows = 0
        self._state, self._current = np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)

    def _made(self, neuron: Neuron) -> Any:
        """The module. ``rngs`` is None: there is nothing to draw where the decays are given."""
        nn, shape = import_neurons(), (self._size,)
        if self._kind == "LI":
            return nn.LI(shape, neuron.beta, rngs=None)
        if self._kind == "IF":
            return nn.IF(shape, threshold=self._threshold)
        if self._kind == "CuBaLIF":
            alpha = neuron.alpha if self._whole else 0.0
            return nn.CuBaLIF(shape, alpha, neuron.beta, threshold=self._threshold, rngs=None)
        return {"LIF": nn.LIF, "PSU_LIF": nn.PSU_LIF}[self._kind](shape, neuron.beta, threshold=self._threshold, rngs=None)

    def begin(self, batch: int) -> None:
        """Zero state. A smaller batch than before fills the rows that JAX has compiled for already, and leaves some idle."""
        self._rows = max(self._rows, batch)
        self.clear()

    def clear(self) -> None:
        """Zero u and v. A spike that Spyx has still to return is not lost: it was announced in the step of its crossing."""
        width = 2 * self._size if self._kind == "CuBaLIF" else self._size
        self._state, self._current = (np.zeros((self._rows, columns), np.float32) for columns in (width, self._size))

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """One step; see :class:`cell_server.Cell`."""
        given = np.zeros((self._rows, self._size), np.float32)
        given[: len(x)] = x.reshape(len(x), self._size)
        u, fired, v = self._stepped(self._current_gain * given)
        return tuple(np.asarray(part)[: len(x)].reshape(len(x), *self._shape) for part in (fired, u, v))  # type: ignore[return-value]

    def _stepped(self, x: Array) -> tuple[Array, Array, Array]:
        """U, spikes and v of local time, from the weighted input."""
        if self._whole:
            emitted, self._state = self._advance(self._membrane_gain * x, self._state)
            u = np.asarray(self._state)[:, self._size :] / self._membrane_gain
        else:
            if self._filter is not None:
                _, self._current = self._filter(x, self._current)
            u = x if self._filter is None else np.asarray(self._current)
            emitted, self._state = self._advance(self._membrane_gain * u + self._bias, self._state)
        membrane = np.asarray(self._state)[:, : self._size]
        if self._kind == "LI":
            return u, np.zeros_like(u), membrane
        fired = np.asarray(emitted if self._kind == "PSU_LIF" else self._announce(self._state))
        if self._zeroes:
            kept = np.where(fired > 0, np.float32(0), membrane)
            self._state = np.concatenate([kept, np.asarray(self._state)[:, self._size :]], axis=1)
            return u, fired, kept if self._zeroes == "now" else membrane
        return u, fired, membrane - fired * self._threshold if self._kind == "CuBaLIF" else membrane


def flat(values: Array) -> Array:
    """Constants as float32 on one axis."""
    return np.asarray(values, np.float32).ravel()


def whole(neuron: Neuron) -> bool:
    """True where one CuBaLIF holds filter and membrane: its membrane hears nothing but its current, times a factor to undo."""
    return neuron.filtered and not np.any(neuron.bias) and bool(np.all(flat(neuron.membrane_gain) != 0))


def zeroed(neuron: Neuron) -> str:
    """When the membrane of a neuron that fired is set to 0 here: "now", "next" (before the next step), or never, ""."""
    if not neuron.spiking or neuron.reset != "zero" or neuron.clears_input:
        return ""
    if neuron.reset_delay:
        return "next" if neuron.options.get("zero_reset") else ""
    return "now" if neuron.options.get("zero_reset") or neuron.memoryless else ""


def kind_of(neuron: Neuron) -> str:
    """The class of ``spyx.nn`` that holds a population's membrane."""
    if not neuron.spiking:
        return "LI"
    if neuron.reset == "none" or (neuron.memoryless and neuron.reset == "zero" and not neuron.reset_delay):
        return "PSU_LIF"
    same_step = not neuron.reset_delay if neuron.reset == "subtract" else neuron.filtered
    if same_step:
        return "CuBaLIF"
    return "IF" if neuron.beta == 1.0 else "LIF"


def make(neuron: Neuron) -> Cell:
    """A population's cell."""
    return Population(neuron)


def versions() -> dict[str, str]:
    """Of everything that computes here."""
    return {name: version(name) for name in ("spyx", "flax", "jax", "jaxlib", "numpy")}


def self_test() -> dict[str, Any]:
    """Every module that is used, against its equations and against ``spyx.nn.run``.

    Raises:
        RuntimeError: where one of them does something else.
    """
    seen: dict[str, list[str]] = {}
    for reset, delay, beta, filtered in TRIED:
        neuron = tried(reset, delay, beta, filtered)
        if wrong := difference(neuron):
            raise RuntimeError(f"spyx.nn.{kind_of(neuron)} for a population that {told(neuron)}: {wrong}")
        seen.setdefault(kind_of(neuron), []).append(told(neuron))
    return {"neurons": seen, "late": list(LATE), "fires": "above its threshold"}


LATE = ("LIF", "IF", "CuBaLIF")
TRIED_STEPS, TRIED_SIZE, HALF = 12, 16, 0.5
TRIED = [
    (reset, delay, beta, filtered)
    for reset, delay, beta in (
        ("subtract", 0, HALF),
        ("subtract", 1, HALF),
        ("subtract", 1, 1.0),
        ("none", 0, HALF),
        ("", 0, HALF),
    )
    for filtered in (False, True)
]


def tried(reset: str, delay: int, beta: float, filtered: bool) -> Neuron:
    """A population whose float32 sums are exact for as many steps as are run; without a reset's name one that never fires."""
    ones = np.ones(TRIED_SIZE)
    return Neuron(
        name="n", shape=(TRIED_SIZE,), filtered=filtered, alpha=HALF if filtered else 0.0, beta=beta, current_gain=ones,
        membrane_gain=ones, bias=0 * ones, threshold=ones, spiking=bool(reset), reset=reset or "none", reset_delay=delay,
    )  # fmt: skip


def told(neuron: Neuron) -> str:
    """A population in words."""
    how = {
        "subtract": "subtracts one step late" if neuron.reset_delay else "subtracts in the step of its spike",
        "none": "never resets",
    }[neuron.reset]
    return f"{how if neuron.spiking else 'never fires'}{', behind a filter' if neuron.filtered else ''}"


def difference(neuron: Neuron) -> str:
    """Empty where a cell is what the contract asks for, bit for bit, and Spyx's own run returns its spikes, late or not."""
    inputs = np.random.default_rng(0).integers(-4, 11, (TRIED_STEPS, 1, TRIED_SIZE)).astype(np.float32) / 4
    inputs[0] = 1.0  # a membrane that equals the threshold
    cell = Population(neuron)
    cell.begin(1)
    u = v = np.zeros((1, TRIED_SIZE))
    fired, late = np.zeros((1, TRIED_SIZE)), cell._kind in LATE
    announced = []
    for t, x in enumerate(inputs):
        u = neuron.alpha * u + x
        v = neuron.beta * v + u - (fired if neuron.reset_delay else 0.0)
        fired = 1.0 * (neuron.spiking & (v > 1.0))
        if neuron.reset == "subtract" and not neuron.reset_delay:
            v = v - fired
        got = cell.step(x)
        for what, expected, found in zip(("spikes", "u", "v"), (fired, u, v), got, strict=True):
            if not np.array_equal(expected, found):
                return f"{what} differ in step {t}"
        announced.append(got[0])
    if neuron.spiking and (cell._filter is None or cell._whole):
        returned = np.asarray(import_neurons().run(cell._module, inputs, cell._module.initial_state(1))[0])
        if not np.array_equal(returned[1:] if late else returned, np.stack(announced)[: -1 if late else None]):
            return "spyx.nn.run returns other spikes, or in other steps"
    return "" if (np.sum(announced) > 0) == neuron.spiking else "no neuron fired"


if __name__ == "__main__":
    serve(make, versions, self_test)

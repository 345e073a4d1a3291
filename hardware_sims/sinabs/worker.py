"""Steps sinabs' neurons (sinabs 3.1.3) for the graph walker; see ``isolated/cell_server.py`` for what it is asked.

A self-contained script for the sinabs environment: NumPy, torch and sinabs, nothing of this project but ``cell_server.py``.

A population is one ``sinabs.layers.LIF``, or an ``ExpLeak`` where it does not spike, stepped with one time step per call::

    i = x                                   i = alpha (i + x) with tau_syn, which is not used here, see below
    v = beta v + i                          norm_input=False; beta itself is the parameter (train_alphas=True)
    s = v >= theta                          SingleSpike; MultiSpike: trunc(v / theta) where v > 0
    v = 0 where s, or v - s c               MembraneReset(), MembraneSubtract(c)

- A synaptic filter is an ``ExpLeak`` in front, u = alpha u + x. LIF's own synapse decays the input of the step too, and leaves no
  place for a bias behind it.
- No reset is the subtraction of 0; sinabs has no other.
- The option ``strict`` gives the comparison the next float32 above theta: v >= that is v > theta.
- A subtraction that comes a step late, v = beta v + i - s theta, is c = theta / beta in the step of the spike: the decay of the
  next step makes theta of it. A late reset to zero, v = beta (1 - s) v + i, is the reset in the step of the spike: beta takes
  nothing from 0. Both show the membrane as it was before the reset, as late resets do.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "isolated"))
sys.modules.setdefault("pylab", ModuleType("pylab"))  # sinabs.network imports it for a plot; matplotlib is not installed

import numpy as np  # noqa: E402
import torch  # noqa: E402
from cell_server import Neuron, serve  # noqa: E402
from sinabs.activation import MembraneReset, MembraneSubtract, MultiSpike, SingleSpike  # noqa: E402
from sinabs.layers import LIF, ExpLeak  # noqa: E402

torch.set_grad_enabled(False)
torch.set_num_threads(1)

LARGEST = 1e30
"""In place of an infinite threshold, of which sinabs subtracts 0 times: not a number. Over any beta it is finite still."""

STEPS, NEURONS = 12, 64
"""Of the self-test: every step halves a state, and after so few all of them are exact in float32."""


class KeptMembrane:
    """A reset that keeps the membrane it was called with."""

    def __init__(self, reset: Any) -> None:
        self._reset, self.membrane = reset, torch.zeros(0)

    def __call__(self, spikes: Any, state: dict[str, Any], threshold: Any) -> Any:
        """See ``sinabs/activation/reset_mechanism.py``."""
        self.membrane = state["v_mem"]
        return self._reset(spikes, state, threshold)


class SinabsCell:
    """One population in sinabs' layers; see ``cell_server.Cell``."""

    def __init__(self, neuron: Neuron) -> None:
        self._shape = neuron.shape
        self._gains = _tensor(neuron.current_gain), _tensor(neuron.membrane_gain)
        self._bias = _tensor(neuron.bias)
        self._synapse = _decaying(ExpLeak(1.0, train_alphas=True), neuron.alpha) if neuron.filtered else None
        self._kept: KeptMembrane | None = None
        if not neuron.spiking:
            self._membrane = _decaying(ExpLeak(1.0, train_alphas=True), neuron.beta)
            return
        threshold = np.minimum(neuron.threshold, LARGEST).astype(np.float32)
        reset = _reset(neuron, threshold)
        self._kept = KeptMembrane(reset) if _late(neuron) else None
        compared = np.nextafter(threshold, np.float32(np.inf)) if neuron.options.get("strict") else threshold
        layer = LIF(
            1.0, train_alphas=True, norm_input=False, spike_threshold=_tensor(compared), reset_fn=self._kept or reset,
            spike_fn=MultiSpike if neuron.options.get("several_spikes") else SingleSpike,
        )  # fmt: skip
        self._membrane = _decaying(layer, neuron.beta)

    def begin(self, batch: int) -> None:
        """Zero state for (B, *shape)."""
        for layer in (self._synapse, self._membrane):
            if layer is not None:
                layer.init_state_with_shape((batch, *self._shape))

    def clear(self) -> None:
        """Zero u and v."""
        for layer in (self._synapse, self._membrane):
            if layer is not None:
                layer.reset_states()

    def step(self, x: Any) -> tuple[Any, Any, Any]:
        """One step on float32 (B, *shape); spikes, u and v, each (B, *shape)."""
        current_gain, membrane_gain = self._gains
        u = current_gain * torch.from_numpy(x)
        if self._synapse is not None:
            u = _one_step(self._synapse, u)
        out = _one_step(self._membrane, membrane_gain * u + self._bias)
        spikes = out if self._membrane.does_spike else torch.zeros_like(out)
        v = self._membrane.v_mem if self._kept is None else self._kept.membrane
        return spikes.numpy(), u.numpy(), v.numpy()


def make(neuron: Neuron) -> SinabsCell:
    """A population in sinabs."""
    return SinabsCell(neuron)


def versions() -> dict[str, str]:
    """Of what it runs on."""
    return {name: version(name) for name in ("sinabs", "torch", "numpy")}


def _tensor(values: Any) -> Any:
    return torch.from_numpy(np.asarray(values, np.float32))


def _decaying(layer: Any, kept: float) -> Any:
    """The layer with what it keeps per step set as it is: exp(-1/tau) would round, and has no tau for 0."""
    layer.alpha_mem.data = torch.tensor(kept)
    return layer


def _one_step(layer: Any, x: Any) -> Any:
    """A layer of sinabs takes (B, T, *shape)."""
    return layer(x[:, None])[:, 0]


def _late(neuron: Neuron) -> bool:
    """Reset a step late; a subtraction that no decay carries into the next step cannot be."""
    return bool(neuron.reset_delay) and not (neuron.reset == "subtract" and neuron.memoryless)


def _reset(neuron: Neuron, threshold: Any) -> Any:
    """What to subtract is declared as a float, and spikes are multiplied by it: one per neuron serves too."""
    if neuron.reset == "zero":
        return MembraneReset()
    if neuron.reset == "none":
        return MembraneSubtract(0.0)
    return MembraneSubtract(_tensor(threshold / neuron.beta if _late(neuron) else threshold))


# --- self-test -------------------------------------------------------------------------------------------------------


def self_test() -> dict[str, Any]:
    """Steps sinabs' neurons against the equations above, and its own synapse against what is said of it.

    Raises RuntimeError where one of them does something else.
    """
    cases = {
        "reset to zero": _case(), "subtraction": _case(reset="subtract"), "no reset": _case(reset="none"),
        "late reset to zero": _case(reset_delay=1), "late subtraction": _case(reset="subtract", reset_delay=1),
        "synaptic filter": _case(filtered=True, alpha=0.5), "without memory": _case(beta=0.0, memoryless=True),
        "integrator": _case(beta=1.0, spiking=False), "several spikes": _case(reset="subtract", options={"several_spikes": True}),
        "strict": _case(reset="subtract", options={"strict": True}),
    }  # fmt: skip
    wrong = [told for told, neuron in cases.items() if not _as_stated(neuron)]
    layer = LIF(1.0, 1.0, train_alphas=True, norm_input=False)
    layer.alpha_mem.data, layer.alpha_syn.data = torch.tensor(0.5), torch.tensor(0.25)
    layer(torch.ones(1, 1, 1))
    if layer.i_syn.item() != 0.25:
        wrong.append("the synapse of a LIF")
    if wrong:
        raise RuntimeError(f"sinabs {version('sinabs')} does something else than it is taken to do: {', '.join(wrong)}")
    return {"as stated": sorted(cases), "at its threshold": "fires", "input of a LIF's synapse": "decays in its own step"}


def _case(**changes: Any) -> Neuron:
    """A population whose numbers, and those of its inputs, are exact in float32; changes over a LIF that resets to zero."""
    one = np.ones(NEURONS)
    plain: dict[str, Any] = {
        "name": "n", "shape": (NEURONS,), "filtered": False, "alpha": 0.0, "beta": 0.5, "current_gain": one,
        "membrane_gain": 0.5 * one, "bias": 0.125 * one, "threshold": one, "spiking": True, "reset": "zero",
    }  # fmt: skip
    return Neuron(**{**plain, **changes})


def _as_stated(neuron: Neuron) -> bool:
    """The same spikes, u and v as the equations, bit for bit, over a run in which it reaches its threshold exactly."""
    inputs = np.random.default_rng(0).integers(-8, 24, (STEPS, NEURONS)).astype(np.float32) / 4
    cell, u, v, before = make(neuron), np.zeros(NEURONS), np.zeros(NEURONS), np.zeros(NEURONS)
    cell.begin(1)
    several, strict, met = *(neuron.options.get(name, False) for name in ("several_spikes", "strict")), False
    for x in inputs:
        u = neuron.alpha * u + neuron.current_gain * x
        v = neuron.beta * v + neuron.membrane_gain * u + neuron.bias
        if neuron.reset_delay and neuron.reset == "subtract":
            v = v - before * neuron.threshold
        elif neuron.reset_delay and neuron.reset == "zero":
            v = np.where(before > 0, neuron.membrane_gain * u + neuron.bias, v)
        met |= bool((v == neuron.threshold).any())
        held = np.floor(np.maximum(v, 0.0) / neuron.threshold) * (v > neuron.threshold if strict else 1.0)
        spikes = (held if several else np.minimum(held, 1.0)) * neuron.spiking
        if not neuron.reset_delay:
            taken = {"zero": v * (spikes > 0), "subtract": spikes * neuron.threshold, "none": 0.0}[neuron.reset]
            v = v - taken
        before = spikes
        found = cell.step(x[None])
        if any(np.any(got[0] != want.astype(np.float32)) for got, want in zip(found, (spikes, u, v), strict=True)):
            return False
    return met


if __name__ == "__main__":
    serve(make, versions, self_test)

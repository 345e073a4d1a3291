"""Rockpool side of the rockpool backend: populations as LIFTorch modules, stepped on request; see ``isolated/cell_server.py``.

What LIFTorch computes in a step, seen by running it (:func:`self_test` compares it with these lines, bit for bit)::

    isyn = (isyn + x) * beta                    its alpha is the membrane's decay, its beta the synapse's: the input decays too
    vmem = vmem * alpha + isyn + bias
    n    = floor(vmem / theta) where vmem >= theta, at most max_spikes_per_dt
    vmem = vmem - n theta                       what it records is this, after the reset

``leak_mode="decays"`` takes the decays themselves, so those of the contract are exact. The current must reach the membrane with
the gain of the neuron and undecayed, so the input is handed over times gain / beta. Without a synaptic filter LIFTorch's current
is emptied before every step and does not decay. A population that never spikes has a threshold out of reach. With the option
``strict`` it is handed :class:`Above` as its ``spike_generation_fn``: n counts the thresholds that lie below vmem, v > theta.

LIFTorch carries the state of the first sample only from one call to the next, and its recurrent matrix has N x N zeros
for N neurons without recurrence (1 GiB for a convolution of 16 x 32 x 32). Every neuron of every sample is therefore a sample
of a LIFTorch of one neuron; the state of them all is set before each call (``_force_set_attributes`` is how Rockpool itself sets
attributes of another shape).
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "isolated"))
from cell_server import Neuron, serve

warnings.simplefilter("ignore")  # Rockpool tells at its import which of its other backends are missing
import torch  # noqa: E402
from rockpool.nn.modules.torch.lif_torch import LIFTorch  # noqa: E402

Array = Any
OUT_OF_REACH = float(np.finfo(np.float32).max)
"""Threshold of what never spikes, as LIFTorch multiplies it by the number of spikes, and 0 times infinity is no number; and limit
of several spikes in one step, in place of its own of 65536."""

STEPS, BATCH, NEURONS = 40, 3, 5


class Above:
    """A spike function for LIFTorch that fires above the threshold only; called as an autograd function's ``apply`` is."""

    @staticmethod
    def apply(vmem: torch.Tensor, threshold: torch.Tensor, window: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
        """As many spikes as there are thresholds below the membrane, at most ``most``; ``window`` is of a surrogate gradient."""
        held = torch.minimum(torch.ceil(vmem / threshold) - 1, most).clamp(min=1)
        return torch.where(vmem > threshold, held, torch.zeros_like(held))


class LifCell:
    """One population; see :class:`cell_server.Cell`."""

    def __init__(self, neuron: Neuron) -> None:
        self._shape, self._filtered = neuron.shape, neuron.filtered and neuron.alpha > 0
        gain = neuron.current_gain * neuron.membrane_gain
        self._gain = (gain / neuron.alpha if self._filtered else gain).astype(np.float32)
        self._current_gain = np.float32(neuron.current_gain)
        self._membrane_gain = np.float32(neuron.membrane_gain)
        self._bias = neuron.bias.astype(np.float32)
        self._threshold = np.minimum(neuron.threshold, OUT_OF_REACH).astype(np.float32)
        most = OUT_OF_REACH if neuron.options.get("several_spikes") else 1.0
        fires = {"spike_generation_fn": Above} if neuron.options.get("strict") else {}
        self._module = lif(1, neuron.beta, neuron.alpha if self._filtered else 1.0, most, **fires)
        self._module._force_set_attributes = True
        self._batch = 0

    def begin(self, batch: int) -> None:
        """See :class:`cell_server.Cell`."""
        if batch != self._batch:
            self._batch = batch
            self._module.threshold = constant(np.tile(self._threshold.reshape(-1, 1), (batch, 1)))
            self._module.bias = constant(np.tile(self._bias.reshape(-1, 1), (batch, 1)))
        self.clear()

    def clear(self) -> None:
        """See :class:`cell_server.Cell`."""
        rows = self._batch * int(np.prod(self._shape))
        self._v, self._u = torch.zeros(rows, 1), torch.zeros(rows, 1, 1)

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """See :class:`cell_server.Cell`."""
        if not x.size:
            return x, x, x
        drive = torch.from_numpy(x * self._gain).reshape(-1, 1, 1)
        self._module.vmem = self._v
        self._module.isyn = self._u if self._filtered else torch.zeros_like(self._u)
        with torch.no_grad():
            spikes, _, record = self._module.evolve(drive, record=True)
        self._v, self._u = record["vmem"][:, 0], record["isyn"][:, 0]
        current = self._u.reshape(x.shape).numpy() / self._membrane_gain if self._filtered else x * self._current_gain
        return spikes.reshape(x.shape).numpy(), current, self._v.reshape(x.shape).numpy()


def lif(neurons: int, membrane_decay: float, current_decay: float, most_spikes: float, **constants: Any) -> LIFTorch:
    """A LIFTorch with decays in place of time constants, which are kept per step."""
    return LIFTorch(
        shape=(neurons,),
        leak_mode="decays",
        alpha=torch.tensor(membrane_decay),
        beta=torch.tensor(current_decay),
        max_spikes_per_dt=torch.tensor(most_spikes),
        **constants,
    )


def constant(values: Array) -> torch.nn.Parameter:
    """A parameter that is not trained."""
    return torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(values, np.float32)), requires_grad=False)


def make(neuron: Neuron) -> LifCell:
    """A population's cell."""
    return LifCell(neuron)


def versions() -> dict[str, str]:
    """Of what the populations run on."""
    return {name: version(name) for name in ("rockpool", "torch", "numpy")}


# --- what the installed Rockpool does --------------------------------------------------------------------------------


def self_test() -> dict[str, Any]:
    """Step LIFTorch against the equations above, and the cell against LIFTorch.

    Raises:
        RuntimeError: where LIFTorch or the cell computes something else.
    """
    fired = {name: _lif_torch_is_as_stated(most) for name, most in (("one", 1.0), ("several", OUT_OF_REACH))}
    for filtered in (False, True):
        for several in (False, True):
            _cell_is_lif_torch(filtered, several)
    _fires_where_it_should()
    return {"spikes": fired, "fires at the threshold": True}


def _lif_torch_is_as_stated(most: float) -> int:
    """Run a LIFTorch as a user makes it; returns its spikes."""
    inputs, theta, bias = _inputs()[0], np.linspace(0.5, 1.5, NEURONS, dtype=np.float32), np.float32(0.125)
    module = lif(NEURONS, 0.75, 0.625, most, threshold=torch.from_numpy(theta), bias=torch.full((NEURONS,), 0.125))
    with torch.no_grad():
        spikes, _, record = module.evolve(torch.from_numpy(inputs)[None], record=True)
    u, v = np.zeros(NEURONS, np.float32), np.zeros(NEURONS, np.float32)
    for t, x in enumerate(inputs):
        u = (u + x) * np.float32(0.625)
        v = v * np.float32(0.75) + u + bias
        fired = np.minimum(np.where(v >= theta, np.floor(v / theta), 0), np.float32(most))
        v = v - fired * theta
        seen = (record["isyn"][0, t, :, 0], record["vmem"][0, t], spikes[0, t])
        for what, found, wanted in zip(("current", "membrane", "spikes"), seen, (u, v, fired), strict=True):
            _demand(bool((found.numpy() == wanted).all()), f"step {t}: LIFTorch's {what} {found.tolist()}, not {wanted.tolist()}")
    return int(spikes.sum())


def _cell_is_lif_torch(filtered: bool, several: bool) -> None:
    """A cell's batch, step by step, is what one LIFTorch per sample does in one run."""
    inputs, theta = _inputs(), np.linspace(0.5, 1.5, NEURONS)
    kept, most = 0.5 if filtered else 1.0, OUT_OF_REACH if several else 1.0
    ones, options = np.ones(NEURONS), {"several_spikes": several}
    cell = make(Neuron(
        "n", (NEURONS,), filtered, 0.5 if filtered else 0.0, 0.75, ones, 0.25 * ones, 0.125 * ones, theta, True, "subtract",
        options=options,
    ))  # fmt: skip
    cell.begin(BATCH)
    stepped = [cell.step(np.ascontiguousarray(inputs[:, t])) for t in range(STEPS)]
    constants = {"threshold": torch.from_numpy(theta).float(), "bias": torch.full((NEURONS,), 0.125)}
    for sample in range(BATCH):
        module = lif(NEURONS, 0.75, kept, most, **constants)
        for t in range(STEPS):
            if not filtered:
                module.isyn = torch.zeros_like(module.isyn)
            drive = torch.from_numpy(inputs[sample, t] * np.float32(0.25 / kept))
            with torch.no_grad():
                spikes, _, record = module.evolve(drive[None, None], record=True)
            found = (stepped[t][0][sample], stepped[t][2][sample])
            wanted = (spikes[0, 0].numpy(), record["vmem"][0, 0].numpy())
            same = all(bool((a == b).all()) for a, b in zip(found, wanted, strict=True))
            _demand(same, f"sample {sample}, step {t}: the cell has {found}, LIFTorch {wanted}")


def _fires_where_it_should() -> None:
    """LIFTorch fires at its threshold and not one rounding below it; with :class:`Above`, one rounding above and not at it."""
    below, at, above = 1.0 - 2.0**-24, 1.0, 1.0 + 2.0**-23
    for strict, wanted in ((False, [0.0, 1.0, 1.0]), (True, [0.0, 0.0, 1.0])):
        module = lif(3, 1.0, 1.0, 1.0, **({"spike_generation_fn": Above} if strict else {}))
        with torch.no_grad():
            spikes, _, _ = module.evolve(torch.tensor([[[below, at, above]]]), record=False)
        found = spikes.flatten().tolist()
        _demand(found == wanted, f"below, at and above its threshold LIFTorch fires {found}, not {wanted}")


def _inputs() -> Array:
    """(B, T, N) float32: silence, one threshold and several."""
    return np.random.default_rng(0).uniform(-1.0, 3.0, (BATCH, STEPS, NEURONS)).astype(np.float32)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


if __name__ == "__main__":
    serve(make, versions, self_test)

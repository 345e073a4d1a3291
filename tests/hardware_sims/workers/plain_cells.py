"""A worker whose cells are NumPy: a package that fires at its threshold, for tests of the engine around it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[3] / "hardware_sims" / "isolated"))
from cell_server import Neuron, serve


class Plain:
    """The canonical neuron in float32, but for what its options say."""

    def __init__(self, neuron: Neuron) -> None:
        self._n, self._u, self._v, self._steps = neuron, np.zeros(0), np.zeros(0), 0

    def begin(self, batch: int) -> None:
        self._u = np.zeros((batch, *self._n.shape), np.float32)
        self._v = np.zeros_like(self._u)

    def clear(self) -> None:
        self.begin(len(self._u))

    def step(self, x: Any) -> tuple[Any, Any, Any]:
        n = self._n
        self._steps += 1
        self._misbehave(str(n.options.get("fault", "")))
        self._u = (n.alpha * self._u + n.current_gain * x).astype(np.float32)
        v = (n.beta * self._v + n.membrane_gain * self._u + n.bias).astype(np.float32)
        theta = n.threshold.astype(np.float32)
        spikes = (v > theta) if not n.options.get("at_threshold") else (v >= theta)
        if n.options.get("several") and n.spiking:
            spikes = np.floor(v / theta) * spikes
        spikes = spikes.astype(np.float32)
        taken = {"zero": v * (spikes > 0), "subtract": np.where(np.isinf(theta), 0, theta) * spikes, "none": 0 * v}[n.reset]
        self._v = (v - taken).astype(np.float32)
        if n.options.get("fault") == "half a spike":
            spikes = spikes * np.float32(0.5)
        return spikes[:, ...] if n.options.get("fault") != "shape" else spikes[:1, ..., :1], self._u, self._v

    def _misbehave(self, fault: str) -> None:
        if self._steps < 3 or not fault:
            return
        if fault == "raise":
            raise RuntimeError("no such kernel")
        if fault == "exit":
            os._exit(3)
        if fault == "killed":
            os.kill(os.getpid(), 9)
        if fault == "hang":
            time.sleep(600)
        if fault == "noise":
            os.write(int(sys.argv[2]), b"\xff" * 64)
        if fault == "huge":
            text = b'{"arrays": [["<f4", [1000000000000]]]}'
            os.write(int(sys.argv[2]), len(text).to_bytes(8, "little") + text)
        if fault == "close":
            os.close(int(sys.argv[2]))
            time.sleep(600)
        if fault == "deep":
            text = b"[" * 200000
            os.write(int(sys.argv[2]), len(text).to_bytes(8, "little") + text[:60000])
            os.write(int(sys.argv[2]), text[60000:])
        if fault == "flood":
            while True:
                print("again " * 10000)
        if fault == "print":
            print("a line on standard output")


if __name__ == "__main__":
    serve(Plain, lambda: {"numpy": np.__version__}, lambda: {"seen": True})

"""What Rockpool's own NIR import makes of graphs of one node: ``python rockpool_imports.py`` in Rockpool's environment.

One line of JSON: by name of the node, the module it became, with its constants and its response to 1 in step 0, or what was
raised; and the step that is left of 1 ms after Rockpool's own export and import.
The nodes are made here, because nir 1.0.4, which Rockpool needs, cannot read what later versions write.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
import nir  # noqa: E402
import torch  # noqa: E402
from rockpool.nn.modules.torch.lif_torch import LIFTorch  # noqa: E402
from rockpool.nn.modules.torch.nir import from_nir, to_nir  # noqa: E402


def imports() -> dict[str, str]:
    """What ``from_nir`` makes of a node of each type, dt = 1 ms and tau = 4 ms: module, constants, response to 1 in step 0."""
    one, dt, tau = np.ones(2), 1e-3, 4e-3
    leaks, none = {"tau": tau * one, "r": one, "v_leak": 0 * one}, np.zeros(2, int)
    cuba = {"tau_syn": tau * one, "tau_mem": tau * one, "v_leak": 0.25 * one, "v_threshold": one}
    nodes = {
        "Linear": (nir.Linear(np.array([[1.0, 2.0], [3.0, 4.0]])), (2,), (2,)),
        "Affine": (nir.Affine(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, -0.5])), (2,), (2,)),
        "LIF": (nir.LIF(**leaks, v_threshold=one), (2,), (2,)),
        "LI": (nir.LI(**leaks), (2,), (2,)),
        "CubaLIF": (nir.CubaLIF(**cuba, r=tau / dt * one), (2,), (2,)),
        "CubaLIF with w_in = 5": (nir.CubaLIF(**cuba, r=tau / dt * one, w_in=5 * one), (2,), (2,)),
        "CubaLIF with r = 1": (nir.CubaLIF(**cuba, r=one), (2,), (2,)),
        "IF": (nir.IF(one / dt, one), (2,), (2,)),
        "I": (nir.I(one / dt), (2,), (2,)),
        "Threshold": (nir.Threshold(one), (2,), (2,)),
        "Scale": (nir.Scale(one), (2,), (2,)),
        "Delay": (nir.Delay(one * dt), (2,), (2,)),
        "Flatten": (nir.Flatten({"input": np.array([2, 1])}, 0, 1), (2, 1), (2,)),
        "Conv1d": (nir.Conv1d(3, np.ones((1, 1, 2)), 1, 0, 1, 1, np.zeros(1)), (1, 3), (1, 2)),
        "Conv2d": (nir.Conv2d((3, 3), np.ones((1, 1, 2, 2)), 1, 0, 1, 1, np.zeros(1)), (1, 3, 3), (1, 2, 2)),
        "SumPool2d": (nir.SumPool2d(none + 2, none + 2, none), (1, 2, 2), (1, 1, 1)),
        "AvgPool2d": (nir.AvgPool2d(none + 2, none + 2, none), (1, 2, 2), (1, 1, 1)),
    }
    return {name: _imported(*found) for name, found in nodes.items()}


def _imported(node: Any, given: tuple[int, ...], made: tuple[int, ...]) -> str:
    """What a graph of one node becomes, in a line."""
    ends = {"input": nir.Input({"input": np.array(given)}), "output": nir.Output({"output": np.array(made)})}
    graph = nir.NIRGraph({**ends, "node": node}, [("input", "node"), ("node", "output")])
    try:
        network = from_nir(graph)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    module = next(part for part in network.modules() if type(part).__module__.startswith("rockpool"))
    constants = {
        name: f"{float(torch.as_tensor(getattr(module, name)).flatten()[0]):.4g}"
        for name in ("dt", "tau", "tau_mem", "tau_syn", "bias") if getattr(module, name, None) is not None
    }  # fmt: skip
    inputs = torch.zeros(1, 4, *given)
    inputs[:, 0] = 1.0
    with torch.no_grad():
        response = network(inputs)[0][0, :, 0]
    told = ", ".join(f"{name} {value}" for name, value in constants.items())
    return f"{type(module).__name__}({told}): {[round(value, 4) for value in response.tolist()]}"


def round_trip() -> float:
    """dt that a LIFTorch of dt = 1 ms and tau = 4 ms has after Rockpool's own export and import."""
    module = LIFTorch(shape=(2,), tau_mem=torch.tensor(4e-3), tau_syn=torch.tensor(4e-3), dt=1e-3)
    network = from_nir(to_nir(module, torch.zeros(1, 3, 2)))
    return float(next(part for part in network.modules() if isinstance(part, LIFTorch)).dt)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"nodes": imports(), "round trip": round_trip()}) + "\n")

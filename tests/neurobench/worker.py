"""Runs in NeuroBench's own environment: builds a snnTorch network from a request, and has NeuroBench measure it.

A request is an .npz file: ``inputs`` (batch, time, *shape), and ``layers``, a JSON text: a list of {"kind": "conv" or "dense",
"stride", "padding", "groups", "beta", "threshold"}; weights and biases stand beside it as ``weight0``, ``bias0``, ... The last
line of the output is a JSON object. ``--self-test`` prints the versions.
"""

from __future__ import annotations

import contextlib
import json
import sys
from importlib.metadata import version

import numpy as np
import snntorch
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def network(request: dict) -> nn.Sequential:
    """Weight layer, neurons, weight layer, neurons, ...; a Flatten before the first dense one."""
    made = []
    layers = json.loads(str(request["layers"]))
    for index, layer in enumerate(layers):
        weight, bias = torch.tensor(request[f"weight{index}"]), torch.tensor(request[f"bias{index}"])
        if layer["kind"] == "conv":
            groups, size = layer["groups"], tuple(weight.shape[2:])
            module = nn.Conv2d(
                weight.shape[1] * groups, weight.shape[0], size, tuple(layer["stride"]), tuple(layer["padding"]), groups=groups
            )
        else:
            if made and not any(isinstance(item, nn.Linear) for item in made):
                made.append(nn.Flatten())
            module = nn.Linear(weight.shape[1], weight.shape[0])
        module.weight.data, module.bias.data = weight, bias
        neurons = snntorch.Leaky(
            beta=layer["beta"], threshold=layer["threshold"], reset_mechanism="zero", reset_delay=False, init_hidden=True,
            output=index == len(layers) - 1,
        )  # fmt: skip
        made += [module, neurons]
    return nn.Sequential(*made)


def _spikes(output: object) -> torch.Tensor:
    """What a neuron layer gives: spikes, or spikes and membranes for the last one."""
    return (output[0] if isinstance(output, tuple) else output).detach()


def measure(path: str) -> dict:
    """NeuroBench's metrics; and what of its footprint are buffers of snnTorch's neurons."""
    with np.load(path, allow_pickle=False) as file:
        request = {name: file[name] for name in file.files}
    net, inputs = network(request), torch.tensor(request["inputs"])
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in net.buffers())
    loader = DataLoader(TensorDataset(inputs, torch.zeros(len(inputs))), batch_size=len(inputs))
    spikes = []
    for item in net:
        if isinstance(item, snntorch.Leaky):
            seen: list = []
            spikes.append(seen)
            item.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(_spikes(out)))
    metrics = [[Footprint, ConnectionSparsity, ParameterCount], [ActivationSparsity, SynapticOperations, MembraneUpdates]]
    with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        found = Benchmark(SNNTorchModel(net), loader, [], [], metrics).run(quiet=True)
    result = {
        "spikes": [[int(step.sum()) for step in seen] for seen in spikes],
        "buffers": buffers,
    }
    for name, value in found.items():
        result[name] = {key: float(each) for key, each in value.items()} if isinstance(value, dict) else float(value)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--self-test"]:
        print(json.dumps({name: version(name) for name in ("neurobench", "snntorch", "torch", "tqdm")}))
    else:
        print(json.dumps(measure(sys.argv[1])))

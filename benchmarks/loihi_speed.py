"""Speed of the simulated Loihi beside Lava, snnTorch, Norse and the bare products, in one run.

    python benchmarks/loihi_speed.py [--quick] [--output FOLDER] [--threads 2]

Prints a table and writes it as JSON, Markdown and a plot (PNG and SVG). All times are per sample and step; runs are interleaved,
so that a busy moment does not fall on one backend alone, and shown as the median with the minimum beside it. Every network is
compared with the int64 interpreter, and with Lava where it is installed, spike by spike in the same run: a bit that differs ends
the program with status 1.

Lava runs one sample at a time. Its time per step is taken between its first and its last report of a long run, which leaves out
the seconds it needs to start: the best that Lava can do at any T.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads that spin take the processor from those that work

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this file, also under PYTHONSAFEPATH

import numpy as np
import torch
from loihi_speed_backends import Run, Spikes, bare, loihi, norse, snn_torch
from loihi_speed_networks import NETWORKS, Network, dense, small_conv
from loihi_speed_report import write

from snn_export.export import interpreter
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator

Times = dict[str, list[float]]
REPEATS, QUICK_REPEATS = 20, 7
LONGEST = 90.0
"""Seconds after which a group of interleaved runs ends early, though not before three rounds."""


def interleaved(runs: dict[str, Run], repeats: int) -> Times:
    """Seconds of every run, one after the other, round by round; the first round warms up and does not count."""
    found: Times = {name: [] for name in runs}
    began = time.perf_counter()
    for index in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if index:
                found[name].append(time.perf_counter() - started)
        if index >= 3 and time.perf_counter() - began > LONGEST:
            break
    return found


def summary(times: list[float], sample_steps: int) -> dict[str, float]:
    """Median and minimum in microseconds per sample-step."""
    scale = 1e6 / sample_steps
    return {"median": statistics.median(times) * scale, "minimum": min(times) * scale, "runs": len(times)}


def spikes_of(network: Network, events: np.ndarray[Any, Any], threads: int) -> Spikes:
    """Spikes of every layer, as this project's simulator gives them."""
    simulator = LoihiSimulator(threads=threads)
    trace = simulator.run(simulator.compile(network.deployment(len(events))), events)
    return {name: layer.spikes for name, layer in trace.layers.items() if layer.spikes is not None}


def mismatches(network: Network, threads: int) -> int:
    """Spikes, u and v that differ from the int64 interpreter's, all layers, on a short run."""
    steps, batch = (4, 1) if network.name == "VGG-9" else (12, 3)
    deployment, events = network.deployment(steps), network.inputs(steps, batch)
    simulator = LoihiSimulator(threads=threads)
    trace = simulator.run(simulator.compile(deployment), events, ("spikes", "membrane", "current"))
    wrong = 0
    for name, wanted in interpreter.run(deployment, events, "int64").items():
        layer = trace.layers[name]
        for got, expected in (
            (layer.spikes, wanted.spikes), (layer.membrane, wanted.membrane), (layer.current, wanted.current),
        ):  # fmt: skip
            wrong += int(np.count_nonzero(got != expected))
    return wrong


def lava(network: Network, threads: int, quick: bool) -> dict[str, Any] | None:
    """Lava's microseconds per step, and spikes that differ from ours; None where Lava is not installed or cannot run it."""
    ticks: list[tuple[int, float]] = []
    simulator = LavaSimulator(progress=lambda done, _: ticks.append((done, time.perf_counter())))
    steps = 32 if network.name == "VGG-9" else 1000
    deployment, events = network.deployment(steps), network.inputs(steps, 1)
    if not simulator.availability().ok or simulator.check(deployment):
        return None
    program, ours = simulator.compile(deployment), spikes_of(network, events, threads)
    slopes, wrong = [], 0
    for _ in range(2 if quick else 3):
        ticks.clear()
        trace = simulator.run(program, events)
        wrong += sum(int(np.count_nonzero(ours[name] != layer.spikes)) for name, layer in trace.layers.items())
        under_way = [tick for tick in ticks if 0 < tick[0] < steps]
        (first, began), (last, ended) = under_way[0], under_way[-1]
        slopes.append((ended - began) / (last - first) * 1e6)
    return {"median": statistics.median(slopes), "minimum": min(slopes), "runs": len(slopes), "mismatches": wrong}


def measure(network: Network, steps: int, batch: int, threads: int, repeats: int, others: bool = True) -> dict[str, Any]:
    """All backends but Lava on one size."""
    events = network.inputs(steps, batch)
    spikes = spikes_of(network, events, threads)
    runs = {
        "loihi": loihi(network, events, threads),
        "bare": bare(network, events, spikes, channels_last=False),
        "bare, channels last": bare(network, events, spikes, channels_last=True),
    }
    if others:
        runs |= {"snnTorch": snn_torch(network, events), "Norse": norse(network, events)}
    found = {name: summary(times, steps * batch) for name, times in interleaved(runs, repeats).items()}
    rates = {name: float(layer.mean()) for name, layer in spikes.items()}
    return {"steps": steps, "batch": batch, "times": found, "rates": rates}


def sizes_of(network: Network, quick: bool) -> list[tuple[int, int]]:
    """(T, B) to measure: batch 1, and batches among which the best is found."""
    if network.name == "VGG-9":
        return [(8, 1), (32, 4)] if quick else [(8, 1), (32, 1), (32, 8), (32, 16)]
    sizes = [(8, 1), (100, 1), (100, 32)]
    return sizes if quick else [*sizes, (1000, 1), (100, 8), (100, 128), (32, 512)]


def growth(threads: int, quick: bool) -> dict[str, list[dict[str, float]]]:
    """Our time against T, batch, neurons, synapses and activity, all else equal."""
    net, repeats = small_conv(), 5 if quick else 9
    found: dict[str, list[dict[str, float]]] = {}

    def point(axis: str, x: float, network: Network, steps: int, batch: int, rate: float = 0.1) -> None:
        run = loihi(network, network.inputs(steps, batch, rate), threads)
        times = interleaved({"loihi": run}, repeats)["loihi"]
        found.setdefault(axis, []).append({"x": x, **summary(times, steps * batch)})

    for steps in (10, 100, 1000) if quick else (10, 30, 100, 300, 1000, 3000):
        point("steps T", steps, net, steps, 4)
    for batch in (1, 16, 64) if quick else (1, 2, 4, 16, 64, 256, 1024):
        point("batch B", batch, net, 32, batch)
    for side in (16, 32, 64) if quick else (16, 32, 64, 128):
        wide = small_conv(side=side)
        point("neurons", 20 * (side // 2) ** 2 + 4 * (side // 2) ** 2 + 10, wide, 50, 8)
    for hidden in (200, 800) if quick else (200, 400, 800, 1600, 3200):
        point("synapses (dense)", 794 * hidden, dense(hidden), 50, 8)
    for rate in (0.02, 0.1, 0.4) if quick else (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5):
        point("activity", rate, small_conv(rate=rate), 50, 8, rate)
    return found


def peak_memory(case: str, backend: str, threads: int) -> float | None:
    """MiB by which a process of its own grows when it runs a network once (T = 100, B = 32; VGG-9: 16, 8). Linux only."""
    command = [sys.executable, __file__, "--memory-of", case, backend, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def _memory_of(case: str, backend: str, threads: int) -> None:
    network = NETWORKS[case]()
    steps, batch = (16, 8) if case == "VGG-9" else (100, 32)
    events = network.inputs(steps, batch)
    make: dict[str, Callable[[], Run]] = {
        "loihi": lambda: loihi(network, events, threads),
        "bare": lambda: bare(network, events, spikes_of(network, events, threads), False),
        "snnTorch": lambda: snn_torch(network, events),
        "Norse": lambda: norse(network, events),
    }
    run = make[backend]()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew (Linux)
    before = _kibibytes("VmRSS")
    run()
    print((_kibibytes("VmHWM") - before) / 1024)


def _kibibytes(field: str) -> int:
    """A memory figure of this process, as Linux counts it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def benchmark(name: str, threads: int, quick: bool, with_lava: bool) -> dict[str, Any]:
    """Everything about one network."""
    network, repeats = NETWORKS[name](), QUICK_REPEATS if quick else REPEATS
    print(f"{network.name}: {network.what}", file=sys.stderr, flush=True)
    found = [measure(network, steps, batch, threads, repeats) for steps, batch in sizes_of(network, quick)]
    memory = {backend: peak_memory(name, backend, threads) for backend in ("loihi", "bare", "snnTorch", "Norse")}
    return {
        "name": network.name, "what": network.what, "synapses": network.synapses, "sizes": found, "memory": memory,
        "mismatches": mismatches(network, threads), "lava": lava(network, threads, quick) if with_lava else None,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder for the artefacts")
    parser.add_argument("--threads", type=int, default=2, help="threads of every backend but Lava")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="networks to run")
    parser.add_argument("--no-lava", action="store_true", help="leave Lava out")
    parser.add_argument("--memory-of", nargs=2, metavar=("NETWORK", "BACKEND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        _memory_of(*options.memory_of, options.threads)
        return 0
    networks = [benchmark(name, options.threads, options.quick, not options.no_lava) for name in options.only]
    result = {
        "threads": options.threads, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "versions": {package: version(package) for package in ("torch", "numba", "numpy", "snntorch", "norse")},
        "networks": networks, "growth": growth(options.threads, options.quick),
    }  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "loihi_speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(write(result, options.output))
    wrong = sum(network["mismatches"] + ((network["lava"] or {}).get("mismatches", 0)) for network in networks)
    if wrong:
        print(f"{wrong} bits differ", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

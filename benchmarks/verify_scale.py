"""A verification shared among worker processes: the same report to the bit, bounded memory, and a worker killed midway.

    python benchmarks/verify_scale.py [--samples 10000] [--workers 2] [--output docs/verify-scale.json]

The network has five spiking layers (two convolutions, three matrices) and a readout, T = 8, quantised for Loihi 2, with random
weights and inputs. Its rungs: the float network and the quantised one in float64, ``loihi``, the integer module in PyTorch. They
run three times, each time started anew: in one process, in several, and in several of which one is killed (SIGKILL) when a third
of the shards is done. The three reports must be equal byte for byte, or the program ends with status 1.

Memory is what psutil shows as resident every 0.2 s, of this process and all it started. Idle is after the workers started and
imported what they need, before they were sent anything; shared libraries are counted in every process that has them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads that spin take the processor from those that work

import argparse
import json
import platform
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import snntorch
import torch
from torch import nn

import snn_export
from snn_export.config_schema import BackendConfig, Config, VerifyConfig
from snn_export.energy.cost_table import load_table
from snn_export.energy.estimate import estimate
from snn_export.models.neurons.integrator import Integrator
from snn_export.pipeline import scaling
from snn_export.pipeline.verification import Forms, Watchers, ladder_of
from snn_export.verification import assemble
from snn_export.verification.distributed import Pool, Where, open_pool
from snn_export.verification.gates import Criteria
from snn_export.verification.ladder import LadderResult, run_ladder

SHAPE, CLASSES, STEPS = (1, 8, 8), 10, 8
INTERVAL = 0.2
"""Seconds between two looks at the memory."""
KILLED_AT = 1 / 3
MEGABYTE = 1e6
GIGABYTE = 1e9
ABOVE_IDLE = 600.0
"""Megabytes that all processes together may take beyond what they take idle."""
WORKER_LIMIT = 1000.0
"""Megabytes that one worker may take."""


def network() -> nn.Sequential:
    """Five spiking layers and a readout, weights so large that all of them fire."""
    torch.manual_seed(6)
    spiking = [
        ("conv1", nn.Conv2d(1, 8, 3, padding=1)), ("conv2", nn.Conv2d(8, 8, 3, stride=2, padding=1)), ("flatten", nn.Flatten()),
        ("fc3", nn.Linear(128, 128)), ("fc4", nn.Linear(128, 96)), ("fc5", nn.Linear(96, 64)),
    ]  # fmt: skip
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in spiking:
        layers[name] = layer
        if hasattr(layer, "weight"):
            layer.weight.data *= 2.5
            layers[f"lif{name[-1]}"] = snntorch.Leaky(beta=0.75, threshold=0.6, reset_mechanism="zero", reset_delay=False)
    return nn.Sequential(OrderedDict([*layers.items(), ("fc6", nn.Linear(64, CLASSES)), ("readout", Integrator())])).eval()


def forms() -> Forms:
    """The float network and the quantised one."""
    inputs = data(64)[0]
    folded = snn_export.from_snntorch(network(), SHAPE, STEPS, inputs)
    return Forms(quantised=snn_export.quantize(folded, inputs), folded=folded, student=None)


def data(samples: int) -> tuple[Any, Any]:
    """Random inputs (B, *shape) and labels (B,)."""
    rng = np.random.default_rng(1)
    return rng.uniform(0, 1, (samples, *SHAPE)).astype(np.float32), rng.integers(0, CLASSES, samples)


def settings() -> Config:
    """Both integer backends beside the forms."""
    backends = {"loihi": BackendConfig(), "quantised_student": BackendConfig()}
    return Config(verify=VerifyConfig(reference="reference", backends=backends))


@dataclass
class Memory:
    """Resident megabytes of this process and those it started, looked at in a thread of its own."""

    idle: float = 0.0
    sum_peak: float = 0.0
    worker_peak: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> float:
        """Megabytes now, all processes together."""
        parent, found = psutil.Process(), []
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it ended since the list was made
                found.append((process.pid, process.memory_info().rss / MEGABYTE))
        self.worker_peak = max(self.worker_peak, *(size for pid, size in found if pid != parent.pid), 0.0)
        return sum(size for _, size in found)

    def watch(self) -> None:
        """Until :meth:`end`."""
        while not self._over.wait(INTERVAL):
            self.sum_peak = max(self.sum_peak, self.look())

    def end(self) -> None:
        """Stop watching."""
        self._over.set()


def imported() -> None:
    """What a worker needs, in a worker."""
    for module in (
        "snn_export.pipeline.scaling",
        "snn_export.hardware_sims.loihi.engine",
        "numba",
        "threadpoolctl",
        "scipy.sparse",
    ):
        import_module(module)


def report_of(made: Forms, ladder: LadderResult, watchers: Watchers, inputs: Any) -> str:
    """The report's bytes."""
    counts = watchers.energy.counts
    around = assemble.Surroundings(
        network="five spiking layers", dataset="random", reference="folded", inputs=inputs, float_deployment=made.folded,
        activity=watchers.firing[0].result(made.quantised), rasters=watchers.raster.rasters,
        energy=None if counts is None else estimate(made.quantised, counts, load_table("loihi1")),
    )  # fmt: skip
    return assemble.report(made.quantised, ladder, Criteria(), around).model_dump_json(indent=1)


def alone(samples: int) -> tuple[str, dict[str, Any]]:
    """The report of one process."""
    made = forms()
    rungs, links, watchers = ladder_of(made, settings(), lambda message: None)
    inputs, labels = data(samples)
    torch.set_num_threads(1)
    started = time.perf_counter()
    ladder = run_ladder(rungs, links, inputs, labels, observers=watchers.all)
    seconds = time.perf_counter() - started
    return report_of(made, ladder, watchers, inputs), {"seconds": round(seconds, 1)}


def shared(samples: int, workers: int, kill: bool) -> tuple[str, dict[str, Any]]:
    """The report of several processes, and what they took."""
    made, memory = forms(), Memory()
    rungs, links, watchers = ladder_of(made, settings(), lambda message: None)
    inputs, labels = data(samples)
    parcel = scaling.packed(made, settings())
    with TemporaryDirectory() as folder, open_pool(Where(workers, "", Path(folder))) as pool:
        pool.client.run(imported)
        time.sleep(1.0)
        memory.idle, memory.worker_peak = memory.look(), 0.0
        watcher = threading.Thread(target=memory.watch)
        watcher.start()
        killer = Killer(pool) if kill else None
        started = time.perf_counter()
        try:
            ladder = pool.run(parcel, rungs, links, watchers.all, inputs, labels, killer or (lambda message: None))
        finally:
            memory.end()
            watcher.join()
        seconds = time.perf_counter() - started
    facts = {
        "seconds": round(seconds, 1), "idle_sum_mb": round(memory.idle), "above_idle_mb": round(memory.sum_peak - memory.idle),
        "worker_peak_mb": round(memory.worker_peak), "killed": killer.killed if killer else 0,
    }  # fmt: skip
    return report_of(made, ladder, watchers, inputs), facts


class Killer:
    """Progress that kills a worker once, when so many of the shards are done."""

    def __init__(self, pool: Pool) -> None:
        self._workers, self.killed = list(pool.client.run(os.getpid).values()), 0

    def __call__(self, told: str) -> None:
        """``told`` begins with "DONE of ALL shards"."""
        done, _, total = told.split()[:3]
        if not self.killed and int(done) >= KILLED_AT * int(total):
            os.kill(self._workers[0], signal.SIGKILL)
            self.killed += 1


def one(kind: str, samples: int, workers: int, output: Path) -> None:
    """One of the three runs, in this process; writes its report and its facts."""
    report, facts = alone(samples) if kind == "alone" else shared(samples, workers, kill=kind == "killed")
    (output / f"{kind}.report.json").write_text(report, encoding="utf-8")
    (output / f"{kind}.json").write_text(json.dumps(facts), encoding="utf-8")


def measured(samples: int, workers: int) -> dict[str, Any]:
    """All three runs, and whether their reports are equal."""
    with TemporaryDirectory() as name:
        folder, rows, reports = Path(name), {}, []
        for kind in ("alone", "shared", "killed"):
            arguments = ["--only", kind, "--samples", str(samples), "--workers", str(workers), "--output", name]
            subprocess.run([sys.executable, __file__, *arguments], check=True)
            rows[kind] = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
            reports.append((folder / f"{kind}.report.json").read_bytes())
    return {
        "samples": samples, "workers": workers, "equal": len(set(reports)) == 1, "report_bytes": len(reports[0]), "runs": rows,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} processors", "python": platform.python_version(),
        "distributed": version("distributed"), "torch": version("torch"), "numpy": version("numpy"),
    }  # fmt: skip


def failures(found: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    wrong = [] if found["equal"] else ["the reports differ"]
    for kind in ("shared", "killed"):
        row = found["runs"][kind]
        if row["worker_peak_mb"] >= WORKER_LIMIT:
            wrong.append(f"{kind}: a worker took {row['worker_peak_mb']} MB")
        if row["above_idle_mb"] > ABOVE_IDLE:
            wrong.append(f"{kind}: {row['above_idle_mb']} MB above idle")
    return wrong if found["runs"]["killed"]["killed"] else [*wrong, "no worker was killed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=("alone", "shared", "killed"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        one(given.only, given.samples, given.workers, given.output)
        return 0
    found = measured(given.samples, given.workers)
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    wrong = failures(found)
    print("\n".join(wrong) or "equal to the bit, within the limits", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory of one training step against T: rate-based and through time, beside snnTorch and SpikingJelly, in one run.

    python benchmarks/training_cost.py [--steps 1 2 4 8 16 32 64] [--threads 1] [--repeats 5] [--output docs]

One network (conv5, width 32, random images 3x32x32, batch 32) takes the same training step (forward, cross-entropy, backward,
SGD) in five ways: this project's rate-based pass, as it is and with float32 alone, its backpropagation through time, snnTorch's
plain loop as its tutorials write it, and SpikingJelly's multi-step mode. That they are one network is checked first: in
evaluation mode all logits must agree, or the program ends with status 1.

Times are medians of interleaved steps, all methods in one process per T, so that a busy moment does not fall on one method alone;
the first round warms up and does not count. Memory is the peak of a process of its own for every method and T, after three steps,
with what the process held before the first of them beside it (Linux; elsewhere the peak alone). What would need more than
``--memory-limit`` is left out, and the table says so. Beside the methods stands a limit: the convolutions that a rate-based step
in float32 cannot do without, and nothing else.

SpikingJelly is no dependency of this project: its licence is not one that the Open Source Initiative has approved. Where it is
not installed (``pip install spikingjelly``), its column says so.
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
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this file, also under PYTHONSAFEPATH

import torch
from training_cost_methods import LIMIT, METHODS, Size, agreement, training_step

from snn_export.models.rate_based import spike_convolution

STEPS = (1, 2, 4, 8, 16, 32, 64)
REPEATS, FEWEST = 5, 3
LONGEST = 90.0
"""Seconds after which the rounds of one T end early, though not before ``FEWEST`` of them."""
TOLERANCE = 1e-5
FEWEST_EQUAL = 0.99
"""Share of neurons that have the same rate in float32, whether spikes are convolved in integers or not."""
MEMORY_STEPS = 3
Row = dict[str, Any]


def times(size: Size, steps: int, names: list[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of every training step of every method, one method after the other, round by round, after a first round."""
    ways = {name: training_step(name, size, steps) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for index in range(repeats + 1):
        for name, step in ways.items():
            started = time.perf_counter()
            step()
            if index:
                found[name].append(time.perf_counter() - started)
        if index >= FEWEST and time.perf_counter() - began > LONGEST:
            break
    return found


def memory(size: Size, steps: int, name: str) -> dict[str, float | None]:
    """MiB that this process holds before its first step, and at most until after ``MEMORY_STEPS``: call it in a fresh process."""
    step = training_step(name, size, steps)
    base = _kibibytes("VmRSS")
    for _ in range(MEMORY_STEPS):
        step()
    peak = _kibibytes("VmHWM") or _peak_of_process()
    return {"base": base and base / 1024, "peak": peak / 1024}


def _kibibytes(field: str) -> int | None:
    """A memory figure of this process, as Linux counts it; None elsewhere.

    Not ``ru_maxrss``, which on Linux begins at what the parent held.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _peak_of_process() -> int:
    """The peak in KiB where there is no /proc; macOS counts bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def reason_to_skip(name: str, size: Size, steps: int, limit: float) -> str:
    """Why a method is not measured at this T; empty where it is."""
    method = METHODS[name]
    if not method.installed:
        return "not installed"
    expected = method.expected_gigabytes(size, steps)
    return f"would need about {expected:.0f} GB" if expected > limit else ""


def in_a_process(question: list[str], size: Size, threads: int) -> Any:
    """The answer of this program, started anew, to one question; None where it died, as for want of memory."""
    command = [sys.executable, __file__, "--ask", *question, "--threads", str(threads), "--size", json.dumps(asdict(size))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(question)} ended with {done.returncode}: {done.stderr[-400:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: Size, steps: int, threads: int, repeats: int, limit: float) -> list[Row]:
    """All methods at one T."""
    skipped = {name: reason_to_skip(name, size, steps, limit) for name in METHODS}
    names = [name for name, reason in skipped.items() if not reason]
    seconds = in_a_process(["times", str(steps), str(repeats), LIMIT, *names], size, threads)
    rows = [_row(LIMIT, steps, "" if seconds else "failed", seconds)]
    for name, reason in skipped.items():
        held = None if reason else in_a_process(["memory", str(steps), name], size, threads)
        failed = "" if seconds and held else "failed"
        rows.append(_row(name, steps, reason or failed, seconds) | ({} if reason or failed else held or {}))
    return rows


def _row(name: str, steps: int, skipped: str, seconds: dict[str, list[float]] | None) -> Row:
    """A line of the result; memory is not known yet."""
    row: Row = {"method": name, "steps": steps, "skipped": skipped, "seconds": None, "base": None, "peak": None}
    if not skipped and seconds:
        taken = seconds[name]
        row["seconds"] = {"median": statistics.median(taken), "minimum": min(taken), "runs": len(taken)}
    return row


def answer(question: list[str], size: Size) -> Any:
    """What a process of its own was started for: ``times T repeats methods...`` or ``memory T method``."""
    kind, steps, *rest = question
    if kind == "times":
        return times(size, int(steps), rest[1:], int(rest[0]))
    return memory(size, int(steps), rest[0])


def processor() -> str:
    """The processor's name, where the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything the report needs."""
    size = Size(options.width, options.side, options.batch)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result: dict[str, Any] = {
        "command": f"python benchmarks/{Path(__file__).name} " + " ".join(options.shown),
        "size": asdict(size), "threads": options.threads, "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(), "load_before": busy,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "snntorch")},
        "titles": {name: method.title for name, method in METHODS.items()},
        "agreement": agreement(size, 4), "integer_convolutions": spike_convolution.available(),
        "rows": [],
    }  # fmt: skip
    if METHODS["spikingjelly"].installed:
        result["versions"]["spikingjelly"] = version("spikingjelly")
    print("in evaluation mode, T = 4, the logits lie apart by", result["agreement"]["logits_apart"], file=sys.stderr, flush=True)
    for steps in sorted(options.steps):
        result["rows"] += measure(size, steps, options.threads, options.repeats, options.memory_limit)
        for row in result["rows"][-len(METHODS) - 1 :]:
            print(json.dumps(row), file=sys.stderr, flush=True)
    result["load_after"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return result


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), metavar="T", help="numbers of steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of every method")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds that count")
    parser.add_argument("--memory-limit", type=float, default=12.0, metavar="GB", help="leave out what would need more")
    parser.add_argument("--width", type=int, default=Size.width, help="channels of the first layer")
    parser.add_argument("--side", type=int, default=Size.side, help="height and width of the images, a multiple of 4")
    parser.add_argument("--batch", type=int, default=Size.batch, help="images per training step")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs", help="folder for the artefacts")
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    options.shown = [word for index, word in enumerate(given) if "--output" not in given[max(index - 1, 0) : index + 1]]
    return options


def main(given: list[str]) -> int:
    options = arguments(given)
    torch.set_num_threads(options.threads)
    if options.ask:
        print(json.dumps(answer(options.ask, Size(**options.size))))
        return 0
    result = run(options)
    from training_cost_report import write  # not in the processes whose memory is measured

    print(write(result, options.output))
    apart = max(result["agreement"]["logits_apart"].values())
    if result["agreement"]["rates_in_integers"] < FEWEST_EQUAL:
        print("convolutions in integers give other rates than those in float32", file=sys.stderr)
        return 1
    if not apart <= TOLERANCE:
        print(f"the logits lie {apart:.2g} apart: these are not one network", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

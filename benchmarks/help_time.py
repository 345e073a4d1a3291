"""How long ``snn-export --help`` takes, beside a bare interpreter: ``python benchmarks/help_time.py``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 10


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import click": [sys.executable, "-c", "import click"],
        "snn-export --help": [sys.executable, "-m", "snn_export", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):  # interleaved, so that a busy moment does not fall on one of them alone
        for name, command in commands.items():
            times[name].append(seconds(command))
    base = statistics.median(times["python -c pass"])
    print(f"median of {RUNS} runs")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<18} {median * 1000:6.0f} ms  {median / base:5.1f} x a bare interpreter")


if __name__ == "__main__":
    main()

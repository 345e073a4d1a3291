"""Every recipe under one budget: accuracy, cost, and what is left of it on integer Loihi.

``python benchmarks/recipes.py --data digits cifar10 fsdd --workers 2``

Every row (a data set, a recipe, a seed) is trained in a process of its own with one thread, chosen by validation, tested once and
deployed. A finished row is kept in the work folder and in ``docs/results/recipes.json``; a run that was killed goes on with the
rows that are missing, and within a row after its last epoch. ``--costs`` measures what an epoch of each recipe takes, on an idle
machine; ``--report`` writes the table and the plots of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))

from benchmarks.recipes_data import available  # noqa: E402
from benchmarks.recipes_plan import EXPERIMENTS, TRIALS, Row, rows  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "recipes.json"
COSTS = RESULTS.with_name("recipes_costs.json")
ROW_LIMIT_SECONDS = 3 * 3600
ALLOCATOR = {
    # Large tensors come and go in every step. Keeping their memory in place of giving it back halves the time of a convolution.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(EXPERIMENTS), default=tuple(EXPERIMENTS))
    parser.add_argument("--workers", type=int, default=1, help="rows trained at the same time, one thread each")
    parser.add_argument("--only", nargs="+", default=(), metavar="RECIPE", help="rows of these recipes alone")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "benchmarks" / "results" / "recipes", help="networks, checkpoints, logs"
    )
    parser.add_argument("--costs", action="store_true", help="train no row; measure what an epoch of each takes, side by side")
    parser.add_argument("--report", action="store_true", help="train nothing; write the table of what is there")
    options = parser.parse_args()
    missing = [name for name in options.data if not available(name)]
    for name in missing:
        print(f"{name}: skipped, its file is not here (see benchmarks/recipes_data.py)")
    there = [name for name in options.data if name not in missing]
    wanted = [row for name in there for row in rows(name)] + [row for row in TRIALS if row.data in there]
    wanted = [row for row in wanted if not options.only or row.recipe in options.only]
    options.work.mkdir(parents=True, exist_ok=True)
    if options.costs:
        _measure_costs(there)
    failed = 0 if options.report or options.costs else _train(wanted, options.work, options.workers)
    from benchmarks.recipes_report import write_report

    write_report(RESULTS, COSTS)
    return 1 if failed else 0


def _train(wanted: list[Row], work: Path, workers: int) -> int:
    """Train the rows that are not there yet; returns how many failed."""
    done = kept()
    missing = [row for row in wanted if row.key not in done]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} rows are there")
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(lambda row: _row(row, work, workers), missing))
    return sum(not outcome for outcome in outcomes)


def _row(row: Row, work: Path, workers: int) -> bool:
    started = time.monotonic()
    log = work / f"{row.key}.log"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "recipes_row.py"),
        row.data,
        row.recipe,
        row.mode,
        str(row.seed),
        str(work),
        str(workers),
        json.dumps(row.weights),
    ]
    with log.open("a", encoding="utf-8") as stream:
        surroundings = {**os.environ, **ALLOCATOR}
        try:
            done = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, timeout=ROW_LIMIT_SECONDS, env=surroundings, check=False
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = 124
    print(f"{row.key}: {'done' if code == 0 else f'failed ({code}), see {log}'}, {time.monotonic() - started:.0f} s", flush=True)
    if code == 0:
        keep(row.key, json.loads((work / f"{row.key}.json").read_text(encoding="utf-8")))
    return code == 0


def _measure_costs(names: list[str]) -> None:
    """Seconds per epoch of every recipe, as a row's process has them, beside those of other data sets that are there already."""
    from snn_export.reporting.json_file import write_text

    for name in names:
        command = [sys.executable, str(ROOT / "benchmarks" / "recipes_costs.py"), name]
        surroundings = {**os.environ, **ALLOCATOR}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=ROW_LIMIT_SECONDS, env=surroundings, check=True)
        found = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else {}
        found[name] = json.loads(done.stdout.splitlines()[-1])
        write_text(COSTS, json.dumps(found, indent=1, sort_keys=True) + "\n")


def kept() -> dict[str, object]:
    """Rows that are finished, by key."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.is_file() else {}


def keep(key: str, result: object) -> None:
    """Add a row to the results; a crash leaves the old file or the new one."""
    import fcntl

    from snn_export.reporting.json_file import write_text

    with (Path(tempfile.gettempdir()) / "snn-export-recipes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {**kept(), key: result}
        write_text(RESULTS, json.dumps({"rows": dict(sorted(found.items()))}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""Random networks on real Lava against the int64 interpreter, as many neuron-steps as asked for.

``python benchmarks/lava_parity.py --neuron-steps 1e8 --seed 0``

Where our own simulator, ``loihi``, takes a network, it is compared, too.

One Lava run is a *chunk*: networks of every kind side by side, several samples in one stream. Every eighth chunk has many small
networks, whose currents wrap and whose delays reach 62 steps; the others have few wide ones. A chunk follows from the seed and
its number alone. Finished chunks are appended to a file of JSON lines beside the report, so that a run that was killed goes on
where it was, and a run that is asked for more adds to what is there; chunks that older code compared do not count. The report is
written when everything is compared.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))  # the networks are those of the tests

from snn_export.hardware_sims.lava import worker  # noqa: E402
from snn_export.hardware_sims.lava.simulator import LavaSimulator, Program  # noqa: E402
from snn_export.reporting.json_file import write_text  # noqa: E402
from tests.builders import Plan, deployment_from, random_inputs  # noqa: E402
from tests.lava_networks import (  # noqa: E402
    EVERYTHING,
    KINDS,
    SMALL,
    WIDE,
    compare,
    compare_with_loihi,
    operations,
    random_network,
)

SMALL_EVERY = 8


def chunk(seed: int, number: int) -> dict[str, Any]:
    """Build, run and compare one chunk; returns its line in the file."""
    rng = np.random.default_rng([seed, number])
    small = number % SMALL_EVERY == 0
    size, networks, steps, samples, reach = (SMALL, 36, 12, 5, 15) if small else (WIDE, 12, 48, 3, 2)
    drawn = [random_network(rng, f"n{index}", KINDS[index % len(KINDS)], size) for index in range(networks)]
    common: dict[str, Any] = {"steps": steps, "low": -reach if rng.random() < 0.5 else 0, "high": reach, "events": True}
    deployment = deployment_from(Plan(size.input, tuple(layer for layers in drawn for layer in layers), **common))
    inputs = random_inputs(rng, deployment, samples)
    simulator = LavaSimulator(time_limit=600.0)
    started = time.perf_counter()
    program = simulator.compile(deployment)
    trace = simulator.run(program, inputs, EVERYTHING)
    taken = time.perf_counter() - started
    found = compare(deployment, inputs, trace)
    ours = compare_with_loihi([deployment_from(Plan(size.input, layers, **common)) for layers in drawn], inputs)
    return {
        "seed": seed, "chunk": number, "code": code(),
        "size": "small" if small else "wide", "networks": networks, "samples": samples,
        "steps": steps, "neuron_steps": found.neuron_steps, "spikes": found.spikes, "overflows": found.overflows,
        "mismatched": found.mismatched, "places": list(found.places), "operations": dict(operations(deployment, program)),
        "loihi": {"networks": ours.networks, "neuron_steps": ours.neuron_steps, "mismatched": sum(ours.mismatched.values())},
        "pauses": pauses(program, samples), "lava_seconds": round(taken, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {name: trace.provenance[name] for name in ("lava-nc", "numpy", "scipy", "python")},
    }  # fmt: skip


def pauses(program: Program, samples: int) -> int:
    """How often such a run is paused."""
    steps = program.deployment.contract.steps
    request = {
        "samples": samples, "period": program.period, "populations": program.populations, "connections": program.connections,
    }  # fmt: skip
    total = program.period * (samples - 1) + steps + max(item["latency"] for item in program.populations)
    return sum(step < total for step in worker.pauses(request, []))


@functools.cache
def code() -> str:
    """Digest of what is compared and of what draws the networks."""
    lava = [f"hardware_sims/lava/{name}.py" for name in ("worker", "lowering", "schedule", "simulator")]
    files = [*lava, "export/interpreter.py", "models/arithmetic.py", "tests/builders.py", "tests/lava_networks.py"]
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in files)).hexdigest()[:16]


def read(path: Path, seed: int) -> list[dict[str, Any]]:
    """Finished chunks of this seed and this code; a line that was cut off in the middle is none."""
    found, current = [], code()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        item = _parsed(line)
        if item.get("seed") == seed and item.get("code") == current:
            found.append(item)
    return found


def _parsed(line: str) -> dict[str, Any]:
    """One chunk; nothing for a line that was cut off when the run was killed."""
    try:
        item: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return item


def append(path: Path, item: dict[str, Any]) -> None:
    """One line, on disk before the next chunk begins; a cut-off line before it gets its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_off + json.dumps(item, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def report(chunks: list[dict[str, Any]], seed: int, wanted: int, command: str) -> str:
    """The document: what ran, what was compared, what differed."""
    total = {
        key: sum(item[key] for item in chunks) for key in ("neuron_steps", "spikes", "overflows", "networks", "pauses", "seconds")
    }
    mismatched = {what: sum(item["mismatched"][what] for item in chunks) for what in EVERYTHING}
    loihi = {key: sum(item["loihi"][key] for item in chunks) for key in ("networks", "neuron_steps", "mismatched")}
    used: Counter[str] = Counter()
    for item in chunks:
        used.update(item["operations"])
    versions = chunks[-1]["versions"]
    kinds = Counter(item["size"] for item in chunks)
    lines = [
        "# Lava and the integer interpreter, bit for bit",
        "",
        f"Real Lava (lava-nc {versions['lava-nc']}, `fixed_pt` models; Python {versions['python']}, NumPy {versions['numpy']}, "
        f"SciPy {versions['scipy']}) against `export/interpreter.py` in int64: spikes, u and v of every neuron in every step.",
        "",
        f"Command: `{command}`",
        "",
        "| what | |",
        "| --- | ---: |",
        f"| neuron-steps asked for | {wanted:,} |",
        f"| neuron-steps compared | {total['neuron_steps']:,} |",
        f"| mismatched spikes | {mismatched['spikes']:,} |",
        f"| mismatched u | {mismatched['current']:,} |",
        f"| mismatched v | {mismatched['membrane']:,} |",
        f"| random networks | {total['networks']:,} |",
        f"| Lava runs ({kinds['small']} with small networks, {kinds['wide']} with wide ones) | {len(chunks):,} |",
        f"| of these on `loihi` too: networks | {loihi['networks']:,} |",
        f"| neuron-steps on `loihi` | {loihi['neuron_steps']:,} |",
        f"| mismatched spikes, u and v on `loihi` | {loihi['mismatched']:,} |",
        f"| spikes | {total['spikes']:,} |",
        f"| wraps of u and saturations of v | {total['overflows']:,} |",
        f"| pauses in which connections, states or biases were set | {total['pauses']:,} |",
        f"| seconds (building, Lava, interpreter; {os.cpu_count()} processors, {platform.machine()}) | {total['seconds']:,.0f} |",
        "",
        f"Seed {seed}, chunks 0 to {len(chunks) - 1}: chunk n is drawn from `numpy.random.default_rng([{seed}, n])`.",
        "Wherever it runs, every number above but the seconds is the same.",
        "",
        "How often the networks used what Lava has (connections, then populations):",
        "",
        "| operation | times |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in used.items() if count),
        "",
    ]
    places = [f"- chunk {item['chunk']}: {place}" for item in chunks for place in item["places"]]
    return "\n".join(lines + (["## Where they differ", "", *places, ""] if places else []))


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neuron-steps", type=float, default=1e8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "lava-parity.md")
    parser.add_argument("--chunks", type=Path, help="file of finished chunks (default: beside the report, .jsonl)")
    return parser.parse_args(given)


def main(command_line: list[str] | None = None) -> int:
    given = arguments(command_line)
    wanted, path = int(given.neuron_steps), given.chunks or given.output.with_suffix(".jsonl")
    done = read(path, given.seed)
    compared = sum(item["neuron_steps"] for item in done)
    if done:
        print(f"going on after {len(done)} chunks, {compared:,} neuron-steps", file=sys.stderr)
    started, before = time.perf_counter(), compared
    while compared < wanted:
        item = chunk(given.seed, len(done))
        append(path, item)
        done.append(item)
        compared += item["neuron_steps"]
        wrong = mismatches(done)
        left = (wanted - compared) * (time.perf_counter() - started) / (compared - before)
        end = "\r" if sys.stderr.isatty() else "\n"
        print(
            f"chunk {len(done) - 1}: {compared:,} of {wanted:,} neuron-steps, {wrong} mismatches, {max(left, 0):.0f} s left  ",
            file=sys.stderr, end=end, flush=True,
        )  # fmt: skip
    command = f"python benchmarks/lava_parity.py --neuron-steps {given.neuron_steps:g} --seed {given.seed}"
    given.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.output, report(done, given.seed, wanted, shlex.join(shlex.split(command))))
    print(f"\n{given.output}: {compared:,} neuron-steps, {mismatches(done)} mismatches", file=sys.stderr)
    return 1 if mismatches(done) else 0


def mismatches(chunks: list[dict[str, Any]]) -> int:
    """Spikes, u and v that differ, on Lava and on our own simulator."""
    return sum(sum(item["mismatched"].values()) + item["loihi"]["mismatched"] for item in chunks)


if __name__ == "__main__":
    sys.exit(main())

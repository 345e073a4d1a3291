"""Every fault of ``tests/mutation`` in every layer of every network it can be put into, in the target and in the reference.

``python benchmarks/mutations.py`` verifies all of them and writes ``docs/mutations.json`` and, from it, ``docs/mutations.md``.
Exit code 1 where a fault was neither caught nor proven to change nothing, where one that was caught has such a proof, or where
fewer than 95 % of the layers were named.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # at the end: its folders are named like our packages
    sys.path.append(str(ROOT))

from snn_export.reporting.json_file import write_text  # noqa: E402
from tests.mutation.equivalence import proof  # noqa: E402
from tests.mutation.kinds import FAULTS  # noqa: E402
from tests.mutation.networks import NETWORKS, network  # noqa: E402
from tests.mutation.suite import SIDES, Outcome, outcome, places  # noqa: E402

TABLE = ROOT / "docs" / "mutations.json"
DOCUMENT = ROOT / "docs" / "mutations.md"
NAMED_AT_LEAST = 0.95

Row = dict[str, Any]


def outcomes(names: Sequence[str]) -> Iterator[Outcome]:
    """All faults, network by network."""
    for name in names:
        where = network(name)
        for fault in FAULTS.values():
            for layer, injected in places(fault, where):
                for side in SIDES:
                    found = outcome(fault, where, layer, injected, side)
                    excuse = proof(fault.name, where, layer, injected) if found.caught else None
                    if excuse is not None:
                        raise RuntimeError(f"{fault.name} in {layer} of {name} was caught and has a proof: {excuse}")
                    yield found


def row(found: Outcome) -> Row:
    """As it stands in the file: what was told only where something is wrong."""
    return {key: value for key, value in asdict(found).items() if key != "told" or not (found.named or found.proof)}


def table(totals: Mapping[str, int], rows: Sequence[Row]) -> str:
    """The file, a row per line."""
    lines = ",\n".join(json.dumps(item) for item in rows)
    return f'{{"totals": {json.dumps(totals)},\n"outcomes": [\n{lines}\n]}}\n'


def percent(part: int, whole: int) -> str:
    """A share, rounded down: 100 % is all."""
    return f"{int(1000 * part / whole) / 10:g} %" if whole else "-"


def summary(rows: Sequence[Row]) -> dict[str, int]:
    """Totals. Layers are named by the isolated comparison where the fault leaves something to compare."""
    caught = [item for item in rows if item["caught"]]
    judged = [item for item in caught if item["compared"]]
    return {
        "kinds": len({item["fault"] for item in rows}),
        "networks": len({item["network"] for item in rows}),
        "runs": len(rows),
        "equivalent": sum(item["proof"] is not None for item in rows),
        "effective": sum(item["proof"] is None for item in rows),
        "caught": len(caught),
        "judged": len(judged),
        "named": sum(item["named"] for item in judged),
        "left_out": len(caught) - len(judged),
        "left_out_named": sum(item["named"] for item in caught if not item["compared"]),
        "shifted": sum(item["lag_found"] is not None for item in caught),
        "shift_found": sum(item["lag_found"] is True for item in caught),
    }


def document(rows: Sequence[Row]) -> str:
    """The page."""
    lines = [*opening(summary(rows)), *FAULT_HEAD]
    lines += [fault_line(name, [item for item in rows if item["fault"] == name]) for name in FAULTS]
    lines += NETWORK_HEAD
    lines += [network_line(name, [item for item in rows if item["network"] == name]) for name in NETWORKS]
    return "\n".join([*lines, *EQUIVALENT_HEAD, *equivalents(rows), *CLOSING])


def opening(totals: Mapping[str, int]) -> list[str]:
    """What was measured, in sentences."""

    def of(part: str, whole: str) -> str:
        return f"{totals[part]:,} of {totals[whole]:,}"

    def share(part: str, whole: str) -> str:
        return percent(totals[part], totals[whole])

    return [
        "# The verifier, verified",
        "",
        "A verifier that has never failed proves nothing. So faults are put into backends, one at a time, and",
        "`snn_export.verify` has to say that something is wrong, in which layer, and in whose run. Every figure here was",
        "measured by `python benchmarks/mutations.py`, which writes this page; `tests/mutation` runs one place per fault and",
        "network with the other tests.",
        "",
        f"- **{totals['kinds']} kinds of fault, {totals['networks']} networks**, every layer that has a place for the fault,",
        f"  once in the target and once in the reference: {totals['runs']:,} verifications.",
        f"- **Caught: {of('caught', 'effective')}** that change anything ({share('caught', 'effective')}): no verdict of",
        "  agreement, and an exit code that is not 0.",
        f"- **Named by the isolated comparison: {of('named', 'judged')}** ({share('named', 'judged')}): the layer, and the run",
        "  it is in.",
        f"- Left out of a trace, so that nothing can be compared: {of('left_out_named', 'left_out')} fail as NOT_COMPARED and",
        "  name the layer.",
        f"- Latency declared wrongly: {of('shift_found', 'shifted')} shifts of spiking layers are measured to the step and fail",
        "  a gate of their own.",
        f"- Change nothing: {totals['equivalent']:,}, each with a proof for all inputs of the declared range (below).",
    ]


FAULT_HEAD = [
    "",
    "## Faults",
    "",
    "*places*: layers, in how many networks; each is verified twice. The other figures count verifications. *seen by*: the",
    "coarsest thing that shows the fault in the layer it is in: spike **counts**, single **spikes** where all counts agree,",
    "**membranes** where all spikes agree, **currents** where all membranes agree too; **coverage** where something is missing;",
    "**claims** where every recorded number agrees and what the run says about them (overflows, decisions) does not.",
    "",
    "| fault | what is wrong | places | change something | caught | named | seen by |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]
NETWORK_HEAD = [
    "",
    "## Networks",
    "",
    "Integer networks run on our Loihi simulator and are held to it bit for bit; float networks run on snnTorch and are held to",
    "the float64 interpreter up to the rounding of their sums. A network that a backend refuses because of the fault runs in the",
    "interpreter, as do faults in the equations themselves. Thresholds are",
    "chosen so that a membrane lands on them exactly: otherwise nothing would tell `>=` from `>`. In *overflowing* none comes",
    "near, and faults of the threshold are not put into it.",
    "",
    "| network | what it is | layers | samples | caught | named |",
    "| --- | --- | --- | --- | --- | --- |",
]
EQUIVALENT_HEAD = [
    "",
    "## Faults that change nothing",
    "",
    "Proven, not sampled: by equal registers, by the static bounds over all inputs (`export/bounds.py`), by divisibility, or,",
    "for *tiny*, by running all inputs there are. The benchmark stops if a fault that was caught has such a proof.",
    "",
    "| fault | network | layers | proof |",
    "| --- | --- | --- | --- |",
]
CLOSING = [
    "",
    "## The suite has teeth",
    "",
    "`test_a_broken_verifier_is_noticed` breaks the verifier itself (counts only, membranes or currents ignored, missing",
    "layers or membranes passed, the last sample skipped, only the readout compared, latencies taken on trust, the target",
    "always blamed, claims believed, the first layer of a loop named, nothing driven, generous rounding, exit code 0) and",
    "shows for each that a fault of this table is then no longer caught or no longer found.",
    "",
    "## Run it",
    "",
    "```",
    "pytest tests/mutation              # one place per fault and network",
    "python benchmarks/mutations.py     # all places; writes docs/mutations.json and this page",
    "```",
    "",
]
SHORT = {"what the run says of itself": "claims", "nothing": "-"}


def fault_line(name: str, rows: Sequence[Row]) -> str:
    """One fault over all networks."""
    effective = [item for item in rows if item["proof"] is None]
    caught = [item for item in effective if item["caught"]]
    places_ = {(item["network"], item["layer"]) for item in rows}
    seen = Counter(SHORT.get(item["seen_by"], item["seen_by"]) for item in caught)
    told = ", ".join(f"{metric} {count}" for metric, count in seen.most_common())
    kind, networks_ = FAULTS[name].told.rstrip("."), len({where for where, _ in places_})
    named = sum(item["named"] for item in caught)
    return f"| {name} | {kind} | {len(places_)} in {networks_} | {len(effective)} | {len(caught)} | {named} | {told} |"


def network_line(name: str, rows: Sequence[Row]) -> str:
    """One network over all faults."""
    where = network(name)
    effective = [item for item in rows if item["proof"] is None]
    samples = where.inputs.shape[where.inputs.ndim - len(where.deployment.input_shape) - 1]
    caught, named = sum(item["caught"] for item in effective), sum(item["named"] for item in effective)
    return (
        f"| {name} | {where.told} | {', '.join(where.deployment.layers)} | {samples:,} | {caught} of {len(effective)} "
        f"| {named} of {len(effective)} |"
    )


def equivalents(rows: Iterable[Row]) -> list[str]:
    """Proofs; layers with the same one together."""
    together: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in rows:
        if item["proof"] is not None and item["side"] == "target":
            together[item["fault"], item["network"], item["proof"]].append(item["layer"])
    order = list(FAULTS)
    found = sorted(together.items(), key=lambda entry: order.index(entry[0][0]))
    return [
        f"| {fault} | {name} | {', '.join(layers)} | {reason.replace('|', '&#124;')} |" for (fault, name, reason), layers in found
    ]


def main() -> int:
    """Measure, write, judge."""
    start, rows = time.monotonic(), list[Row]()
    for found in outcomes(list(NETWORKS)):
        rows.append(row(found))
        if not found.caught and found.proof is None:
            print(f"NOT CAUGHT: {found}")
        elif found.caught and (not found.named or found.lag_found is False):
            print(f"NOT FOUND: {found}")
    totals = summary(rows)
    write_text(TABLE, table(totals, rows))
    write_text(DOCUMENT, document(rows))
    print(f"{totals} in {time.monotonic() - start:.0f} s")
    complete = totals["caught"] == totals["effective"] and totals["named"] >= NAMED_AT_LEAST * totals["judged"]
    return 0 if complete and totals["shift_found"] == totals["shifted"] else 1


if __name__ == "__main__":
    sys.exit(main())

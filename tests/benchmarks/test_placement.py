"""The placement benchmark's table: what a row says is so, and where cores row by row are beaten, or only equalled."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import Placement, place
from tests.benchmark_modules import benchmark
from tests.toolchain.test_energy_latency import large

bench = benchmark("placement")
PAGE = Path(__file__).parents[2] / "docs" / "placement.md"
ROWS = re.findall(r"^\| ([A-Z]?[\w\-, ]+) \| (loihi[12]) \|(.*)\|$", PAGE.read_text("utf-8"), re.M)


def hops_row_by_row(placement: Placement) -> float:
    """Hops with cores in the order of the layers, routers row by row; packets are counted anew from what lies on each core."""
    deployment, per_router = large(), placement.mesh.cores_per_router
    assert placement.chips == 1
    steps, columns = deployment.contract.steps, placement.mesh.columns
    owner = {name: np.full(deployment.shapes[name], -1) for name in deployment.layers}
    for number, core in enumerate(placement.cores):
        for piece in core.pieces:
            owner[piece.population][tuple(slice(*ends) for ends in piece.box)] = number
    at = [divmod(number // per_router, columns) for number in range(len(placement.cores))]
    packets: dict[tuple[int, int], float] = defaultdict(float)  # between cores; -1 is the host's port
    for name, wires in deployment.wires.items():
        for wire in wires:
            node = deployment.graph.nodes[wire.weight]
            hears = _hears(node, deployment.shapes[wire.source], deployment.shapes[wire.weight])
            for source, targets in enumerate(hears):
                cores = np.unique(owner[name].reshape(-1)[targets])
                begin = -1 if wire.source == "input" else int(owner[wire.source].reshape(-1)[source])
                for end in cores:
                    packets[begin, int(end)] += steps
    for neuron in owner["out"].reshape(-1):
        packets[int(neuron), -1] += 1  # the host reads the last membrane

    def apart(begin: int, end: int) -> int:
        (row, column), (to_row, to_column) = (at[core] if core >= 0 else (0, 0) for core in (begin, end))
        return abs(row - to_row) + abs(column - to_column)

    return sum(number * apart(*ends) for ends, number in packets.items())


def _hears(node: object, given: tuple[int, ...], made: tuple[int, ...]) -> list[np.ndarray]:
    """By source neuron, targets with a weight that is not zero: 3 x 3 kernels of stride 1 and padding 1, and matrices."""
    weight = np.asarray(node.weight)  # type: ignore[attr-defined]
    if weight.ndim == 2:
        return [np.flatnonzero(column) for column in weight.T]
    found: list[list[int]] = [[] for _ in range(int(np.prod(given)))]
    for out, channel, down, right in zip(*np.nonzero(weight), strict=True):
        for row in range(made[1]):
            for column in range(made[2]):
                r, c = row + down - 1, column + right - 1
                if 0 <= r < given[1] and 0 <= c < given[2]:
                    found[int(np.ravel_multi_index((channel, r, c), given))].append(
                        int(np.ravel_multi_index((out, row, column), made))
                    )
    return [np.array(sorted(set(targets)), np.int64) for targets in found]


def test_a_row_tells_a_network_that_gains() -> None:
    placement = place(large(), load_chip("loihi1"))
    assert placement.naive_spike_hops == hops_row_by_row(placement)
    assert 0 < placement.spike_hops < placement.naive_spike_hops
    cells = [cell.strip() for cell in bench.line("small", placement, 0.25).strip("|").split("|")]
    ours, naive, gain = f"{placement.spike_hops:,.0f}", f"{placement.naive_spike_hops:,.0f}", cells[7]
    assert cells[:7] == ["small", "loihi1", str(len(placement.cores)), "1", "0.2", ours, naive]
    assert gain == f"{placement.naive_spike_hops / placement.spike_hops:.2f}" and float(gain) > 1
    resource, share = cells[8].split()
    means = {name: np.mean(placement.utilisation(name)) for name in placement.chip.capacities}
    assert (resource, share) == (max(means, key=means.get), f"{max(means.values()):.0%}")


def test_a_network_on_one_router_gains_nothing_and_says_so() -> None:
    placement = place(large(), load_chip("loihi2"))
    assert (placement.spike_hops, placement.naive_spike_hops) == (0, 0)
    assert "| 0 | 0 | one router |" in bench.line("small", placement, 0.0)


@pytest.mark.parametrize("chip", ("loihi1", "loihi2"))
@pytest.mark.parametrize("width", (24, 32, 64))
def test_more_than_one_router_and_more_than_two_cores_are_better_than_row_by_row(chip: str, width: int) -> None:
    deployment, activity = bench.student("convnet", (1, 8, 8), width=width)
    placement = place(deployment, load_chip(chip), activity)
    ours, naive = placement.spike_hops, placement.naive_spike_hops
    assert ours < naive if len(placement.cores) > max(2, placement.mesh.cores_per_router) else ours == naive


def test_activity_is_counted_as_a_verification_counts_it() -> None:
    deployment, _ = bench.student("convnet", (1, 8, 8))
    images = np.random.default_rng(0).random((5, 1, 8, 8)) * (np.random.default_rng(1).random((5, 1, 8, 8)) < 0.5)
    rates = bench.measured(deployment, images)
    assert set(rates) == {"input", *deployment.layers}
    assert np.array_equal(rates["input"], (images != 0).mean(axis=0) * deployment.contract.steps)
    assert place(deployment, load_chip("loihi1"), rates).journeys["input"].packets > 0


def test_gains_in_the_page_are_quotients_of_its_numbers_and_nothing_is_said_to_gain_that_does_not() -> None:
    assert {name for name, *_ in ROWS} == {network.name for network in bench.NETWORKS} and len(ROWS) == 2 * len(bench.NETWORKS)
    equal = 0
    for _, _, rest in ROWS:
        ours, naive, gain = (cell.strip() for cell in rest.split("|")[3:6])
        hops, rows = (int(number.replace(",", "")) for number in (ours, naive))
        assert gain == (f"{rows / hops:.2f}" if hops else "one router")
        equal += hops == rows
    assert f"in {equal} of the {len(ROWS)} rows" in " ".join(PAGE.read_text("utf-8").split())

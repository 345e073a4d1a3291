"""What a core holds, for a single neuron and for the network: limits whose sources stand in the chip tables.

A population is cut into parts of as many neurons as fit, but a neuron is never cut: all its synapses lie on its own core.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snn_export.hardware_sims.chips.core_resources import MEMORIES, RESOURCES
from snn_export.hardware_sims.placement.relief import remedies
from snn_export.hardware_sims.placement.resources import Part, core_amounts
from snn_export.hardware_sims.rules.fan_in import box_of, busiest, total_synapses
from snn_export.hardware_sims.rules.network import Network
from snn_export.models.diagnostics import Diagnostic


def fan_in_fits_axons(network: Network) -> Iterator[Diagnostic]:
    """The source neurons that one neuron hears do not outnumber a core's input axons: each takes one of them."""
    deployment, chip = network.on_chip, network.chip
    if deployment is None or chip is None or "axons_in" not in chip.capacities:
        return
    limit, needs = chip.capacities["axons_in"], network.sized
    for name in deployment.layers:
        found = busiest(deployment, name, needs.get(name), limit)
        if found.sources > limit:
            yield Diagnostic(
                "SNX480",
                f"a neuron of {name} hears {found.sources:,} neurons; a core of {chip.title} has {limit:,} input axons",
                where=name,
                why=f"all synapses of a neuron, here {name}{list(found.index)}, lie on one core; every neuron it hears takes an "
                "input axon there",
                fix="; or ".join(remedies("axons_in", found.sources, chip)),
            )


def synapses_fit_one_core(network: Network) -> Iterator[Diagnostic]:
    """The synapses of one neuron fit into the memory of a core."""
    deployment, chip = network.on_chip, network.chip
    if deployment is None or chip is None or chip.synapses is None:
        return
    for name, needs in network.sized.items():
        neuron = box_of(needs, int(np.argmax(total_synapses(deployment, name))))
        used = core_amounts((Part(needs, neuron),), 1, chip.synapses)
        for resource in MEMORIES:
            limit, title = chip.capacities.get(resource), RESOURCES[resource].title
            if limit is not None and used[resource] > limit:
                yield Diagnostic(
                    "SNX481",
                    f"a neuron of {name} takes {used[resource]:,} {title}; a core of {chip.title} has {limit:,}",
                    where=name,
                    why=f"all synapses of a neuron, here {name}{[start for start, _ in neuron]}, lie on one core",
                    fix="; or ".join(remedies(resource, used[resource], chip)),
                )


def parts_fit_cores(network: Network) -> Iterator[Diagnostic]:
    """Every population can be cut into parts that fit a core under all its limits at once: memory, axons in and out, tables."""
    broken = network.cut.findings
    if not broken:
        return
    told = {item.where for rule in (fan_in_fits_axons, synapses_fit_one_core) for item in rule(network)}
    yield from (item for item in broken if item.where.partition("[")[0] not in told)  # its neurons alone are too large


def cores_suffice(network: Network) -> Iterator[Diagnostic]:
    """The network takes no more cores than the chips that may be used have."""
    cores, chip = network.cut.cores, network.chip
    if cores is None or chip is None or chip.mesh is None:
        return
    chips = chip.mesh.chips_for(cores.count)
    if chips > network.chips:
        largest, most = max(cores.layers.items(), key=lambda item: item[1])
        yield Diagnostic(
            "SNX482",
            f"the network takes {_counted(cores.count, cores.exact)} cores, which is {chips} chips; {network.chips} may be used",
            where=largest,
            why=f"a chip ({chip.title}) has {chip.mesh.cores} cores; {largest} takes the most, {most:,}",
            fix=f"allow more chips (--chips {chips}), or make {largest} smaller: {_smaller(network, largest)}",
        )


def one_chip_suffices(network: Network) -> Iterator[Diagnostic]:
    """Whether the network fits one chip: a note where it takes several, whose spikes to each other travel further."""
    cores, chip = network.cut.cores, network.chip
    if cores is None or chip is None or chip.mesh is None:
        return
    chips = chip.mesh.chips_for(cores.count)
    if 1 < chips <= network.chips:
        yield Diagnostic(
            "SNX483",
            f"the network takes {_counted(cores.count, cores.exact)} cores, which is {chips} chips; one has {chip.mesh.cores}",
            where="network",
            why="spikes between chips travel further than those within one",
            fix="nothing has to be mended; fewer channels in the largest layers take fewer cores",
        )


def _smaller(network: Network, layer: str) -> str:
    maps = network.on_chip is not None and len(network.on_chip.shapes[layer]) > 1
    return "fewer channels, a larger stride, more pooling" if maps else "fewer neurons, or pooling in front of it"


def _counted(count: int, exact: bool) -> str:
    return f"{count:,}" if exact else f"at least {count:,}"

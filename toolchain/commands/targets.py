"""``snn-export targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import Format, format_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from snn_export.export.chips import Chip
    from snn_export.hardware_sims.chips.chip_table import ChipTable
    from snn_export.hardware_sims.simulator import Simulator

FIGURES = (
    "weights", "weight exponents", "decays", "thresholds", "state", "biases", "delays", "graded input", "neurons", "resets"
)  # fmt: skip


@click.command("targets")
@click.argument("chip", required=False, metavar="[CHIP|FILE.toml]")
@format_option
def command(chip: str | None, output_format: Format) -> None:
    """Show what each chip and each backend can do.

    With a chip: its limits alone, each with unit, source, year and certainty, and what nobody publishes. FILE.toml is a table
    of your own.

    Nothing that a backend runs on is imported: whether it is installed is read from package metadata, or from the stamp of an
    environment of its own. What a backend cannot do is what it declares to the conformance kit, check by check in JSON;
    `snn-export conformance` proves it and `snn-export doctor` tests the installed versions.
    """
    from snn_export.commands.output import print_json
    from snn_export.export.chips import CHIPS
    from snn_export.hardware_sims.chips.chip_table import chip_names, load_chip
    from snn_export.hardware_sims.registry import locations, simulator_or_broken

    if chip is not None:
        from snn_export.commands import chip_limits

        chip_limits.show(chip, output_format)
        return
    tables = [load_chip(name) for name in chip_names()]
    backends = [_backend(simulator_or_broken(name), where) for name, where in sorted(locations().items())]
    if output_format == "json":
        limits = [table.model_dump(mode="json") for table in tables]
        print_json({"chips": [each.as_dict() for each in CHIPS], "limits": limits, "backends": backends})
    else:
        _print(CHIPS, tables, backends)


def _backend(simulator: Simulator, location: str) -> dict[str, Any]:
    """One backend as plain data. ``floats`` and ``integers``: what it computes a float or quantised network's state with."""
    from snn_export.hardware_sims.registry import BrokenSimulator

    can, broken = simulator.capabilities(), isinstance(simulator, BrokenSimulator)
    reason, fix, versions = _presence(simulator)
    return {
        "name": simulator.name, "location": location, "description": can.description, "isolated": can.isolated,
        "floats": None if can.needs_integers or broken else can.arithmetic,
        "integers": None if broken else can.on_integers or can.arithmetic,
        "state": "broken" if broken else "missing" if reason else "installed",
        "reason": reason, "fix": fix, "versions": versions,
        "cannot": _grouped(getattr(simulator, "expected_failures", None) or {}),
        "cannot_on_integers": _grouped(getattr(simulator, "expected_failures_on_integers", None) or {}),
    }  # fmt: skip


def _presence(simulator: Simulator) -> tuple[str, str, dict[str, str]]:
    """Why it is not installed (empty where it is), what to do, and versions; imports none of its packages."""
    from importlib.metadata import PackageNotFoundError, version

    from snn_export.hardware_sims.registry import BrokenSimulator

    if simulator.capabilities().isolated or isinstance(simulator, BrokenSimulator):
        there = simulator.availability()
        return "" if there.ok else there.reason, there.fix, dict(there.versions)
    versions, missing = {}, []
    for package in getattr(simulator, "packages", ()):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}", versions
    return "", "", versions


def _grouped(failures: Mapping[str, str]) -> list[dict[str, Any]]:
    """Checks of the kit that it declares it cannot pass, by their reason."""
    found: dict[str, list[str]] = {}
    for check, reason in failures.items():
        found.setdefault(reason, []).append(check)
    return [{"reason": reason, "checks": checks} for reason, checks in found.items()]


def _print(chips: tuple[Chip, ...], tables: list[ChipTable], backends: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from snn_export.commands import chip_limits
    from snn_export.commands.output import print_table

    print_table(("Chip", *(chip.name for chip in chips)), zip(*(_column(chip) for chip in (None, *chips)), strict=True))
    click.echo()
    print_table(chip_limits.SHORT, map(chip_limits.short, tables))
    click.echo("`snn-export targets CHIP` shows each limit with its source\n")
    colours = {"installed": "green", "missing": "yellow", "broken": "red"}
    print_table(
        ("Backend", "State", "On floats", "On integers", "Runs in", "What it is"),
        (
            (item["name"], Text(item["state"], colours[item["state"]]), item["floats"] or "-", item["integers"] or "-",
             "an environment of its own" if item["isolated"] else "this process", item["description"])
            for item in backends
        ),
    )  # fmt: skip
    for line in _lines(backends):
        click.echo(line)


def _column(chip: Chip | None) -> tuple[str, ...]:
    """A chip's figures in words; what they are of for None."""
    if chip is None:
        return FIGURES
    (low, high), bits = chip.weight_range, chip.graded_input_bits
    return (
        f"{chip.weight_bits} bits: even {low}..{high}, or 0..{chip.single_sign_weight} of one sign",
        _range(chip.weight_exponents),
        f"{chip.decay_bits} bits, in 1/{1 << chip.decay_bits} per step",
        f"{chip.threshold_bits} bits << {chip.state_shift}",
        f"{chip.state_bits} bits: u wraps, v saturates",
        f"{_range(chip.bias_mantissa)} << {_range(chip.bias_exponents)}",
        f"{_range(chip.delays)} steps",
        f"yes, on a grid of up to {bits} bits" if bits else "no: spikes, or a bias from the host",
        "programmable (microcode)" if chip.programmable_neurons else "fixed",
        ", ".join(chip.resets) + " (in the step of the spike)",
    )


def _range(limits: tuple[int, int]) -> str:
    return f"{limits[0]}..{limits[1]}"


def _lines(backends: list[dict[str, Any]]) -> Iterator[str]:
    """What is missing, and what each backend says it cannot do."""
    from snn_export.text_safety import printable

    for item in backends:
        forms = ((item["cannot"], ""), (item["cannot_on_integers"], " on integers"))
        if item["reason"]:
            yield printable(f"\n{item['name']}: {item['reason']}\n  fix: {item['fix']}")
        for groups, form in forms:
            if groups:
                yield f"\n{printable(item['name'])} declares that it cannot{form}:"
            for group in groups:
                checks = group["checks"]
                yield printable(f"  {group['reason']} ({checks[0] if len(checks) == 1 else f'{len(checks)} checks'})")

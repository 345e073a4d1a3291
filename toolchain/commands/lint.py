"""``snn-export lint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import FindingsFormat, findings_format_option

if TYPE_CHECKING:
    from snn_export.export.inspection import Inspection, Layer

_LEVELS = {"error": 0, "warning": 1, "note": 2}


@click.command("lint")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--dt", type=float, help="Time per step in the unit of the file's time constants [default: what is certain].")
@click.option("--reset", type=click.Choice(("zero", "subtract", "none")), help="Reset [default: what is certain].")
@click.option("--steps", type=click.IntRange(min=1), help="Steps per inference, as the network will be run.")
@click.option("--round-decays", is_flag=True, help="Accept time constants between two integer decays, and take the nearest.")
@findings_format_option
def command(
    path: Path, dt: float | None, reset: Any, steps: int | None, round_decays: bool, output_format: FindingsFormat
) -> None:
    """Say what a NIR file of any program is: its writer, time step, reset, layers and loops.

    Shapes are computed here, and everything that is odd is a finding with a fix.

    NIR has no field for the time step and the reset. They are inferred where the file's constants leave no doubt, with the
    evidence; what is assumed is said; what would silently change spikes is an error until an option states it. Nothing is
    written or run. Exits with 0 where the file can be read as it stands, 2 where something must be stated or the file cannot
    be read, 3 where the network cannot be expressed.
    """
    from snn_export.exit_codes import worst_exit_code
    from snn_export.export.inspection import inspect

    found = inspect(path, steps=steps, dt=dt, reset=reset, round_decays=round_decays)
    code = worst_exit_code(item.exit_code for item in found.findings if item.severity == "error")
    if output_format == "json":
        from snn_export.commands.output import print_json

        print_json(_document(found, code))
    elif output_format == "sarif":
        from snn_export.reporting.sarif import render

        click.echo(render({str(path): found.findings}), nl=False)
    else:
        _show(found)
    raise SystemExit(code)


def _document(found: Inspection, code: int) -> dict[str, Any]:
    told = found.provenance
    return {
        "path": found.path,
        "nir_version": told.nir_version,
        "writer": {"name": told.writer, "evidence": list(told.evidence)},
        "contract": found.contract,
        "dt": {
            "value": found.dt, "from": found.dt_from,
            "candidates": [{"dt": step.dt, "because": step.because} for step in told.candidates],
        },
        "reset": {"value": found.reset, "from": found.reset_from, "because": told.reset_because},
        "steps": found.steps,
        "layers": [
            {
                "name": layer.name, "type": layer.kind, "shape": layer.shape, "weights": layer.weights,
                "constants": {key: list(value) for key, value in layer.constants.items()},
                "kept_per_step": layer.kept,
            }
            for layer in found.layers
        ],
        "loops": [
            {"source": loop.source, "path": loop.path, "target": loop.target, "nested_in": loop.within or None}
            for loop in found.loops
        ],
        "findings": [item.as_dict() for item in found.findings],
        "exit_code": code,
    }  # fmt: skip


def _show(found: Inspection) -> None:
    from snn_export.commands.output import print_table
    from snn_export.text_safety import printable

    told = found.provenance
    unit = "in the unit of its time constants"
    rows = [
        ("nir version", told.nir_version or "not stated", ""),
        ("writer", told.writer, "; ".join(told.evidence)),
        ("contract", "yes" if found.contract else "no", "" if found.contract else "NIR states no time step, reset or encoder"),
        ("dt", "unknown" if found.dt is None else f"{found.dt:g}", f"{found.dt_from}, {unit}"),
        ("reset", found.reset or "unknown", found.reset_from if found.contract else f"{found.reset_from}: {told.reset_because}"),
        ("steps", str(found.steps) if found.steps else "not stated", "" if found.steps else "state them when it is run"),
    ]
    click.echo(f"{printable(found.path)}\n")
    print_table(("Setting", "Value", "Because"), rows)
    click.echo()
    print_table(
        ("Node", "Type", "Shape", "Weights", "Constants", "Kept per step"),
        (
            (layer.name, layer.kind, _shape(layer.shape), _shape(layer.weights), _constants(layer), _range(layer.kept))
            for layer in found.layers
        ),
    )
    if found.loops:
        click.echo()
        ways = ((" -> ".join((loop.source, *loop.path, loop.target)), loop.within or "flat") for loop in found.loops)
        print_table(("Loop, one step late", "Nested in"), ways)
    click.echo()
    if not found.findings:
        click.echo("no findings")
        return
    ordered = sorted(found.findings, key=lambda item: _LEVELS[item.severity])
    print_table(
        ("Code", "Severity", "Where", "What", "Why", "Fix"),
        ((item.code, item.severity, item.where, item.what, item.why, item.fix) for item in ordered),
    )
    click.echo("\n`snn-export explain CODE` tells more")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else " x ".join(str(size) for size in shape)


def _constants(layer: Layer) -> str:
    shown = {key: value for key, value in layer.constants.items() if any(value) or key not in ("v_leak", "v_reset")}
    return ", ".join(f"{key} {_range(value)}" for key, value in shown.items())


def _range(value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    low, high = value
    return f"{low:g}" if low == high else f"{low:g} .. {high:g}"

"""``snn-export quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import Format, config_options, format_option
from snn_export.models.diagnostics import UserError

if TYPE_CHECKING:
    from snn_export.verification.bit_sweep import BitSweep, Measured, SweepRow


@click.command("quantize")
@click.argument("path", type=click.Path(path_type=Path), metavar="[FLOAT.NIR]", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE|DIR", help="File to write, or the run's folder.")
@click.option(
    "--fine-tune", type=click.IntRange(min=0), metavar="EPOCHS", help="Train this long on the chip's integers afterwards."
)
@click.option(
    "--sweep", metavar="bits[=8,6,4]",
    help="Write no network: show accuracy and spike error against weight bits. With --fine-tune also after it.",
)  # fmt: skip
@click.option(
    "--on", "part", type=click.Choice(["validation", "test"]), default="validation", show_default=True,
    help="Samples that a sweep is measured on.",
)  # fmt: skip
@config_options
@format_option
def command(
    path: Path | None,
    output: Path | None,
    fine_tune: int | None,
    sweep: str | None,
    part: str,
    config_file: Path | None,
    overrides: dict[str, str],
    output_format: Format,
) -> None:
    """Put a network on the integer grid of a chip.

    With FLOAT.NIR: quantize that file (a deployment this program wrote), scales chosen on training samples of data.source,
    and write it to --output. Without: the same steps as `snn-export run --until quantize`.
    """
    from snn_export.commands import pipeline_run
    from snn_export.pipeline.files import FLOAT_FILE, QUANTISED_FILE

    bits = None if sweep is None else sweep_of(sweep)
    if fine_tune is not None:
        overrides = {**overrides, "quantize.fine_tune_epochs": str(fine_tune)}
    if path is None:
        run = pipeline_run.prepare(config_file, overrides, output)
        pipeline_run.execute(run, until="quantize" if bits is None else "export")
        if bits is None:
            written = run.workspace.folder("quantize") / QUANTISED_FILE
            _tell_file(written, output_format)
            return
        path = run.workspace.folder("export") / FLOAT_FILE
    else:
        run = pipeline_run.prepare(config_file, overrides)
    from snn_export.commands.telling import ConsoleTeller
    from snn_export.pipeline.quantising import quantize_file, sweep_file

    with ConsoleTeller() as teller:
        if bits is not None:
            found = sweep_file(path, run.config, run.base, bits, part, teller)
        else:
            target = output or path.with_name(f"{path.stem}.{run.config.quantize.target}.nir")
            written = quantize_file(path, target, run.config, run.base, teller)
    if bits is None:
        _tell_file(written, output_format)
    else:
        _tell_sweep(found, part, output_format)


def sweep_of(text: str) -> tuple[int, ...]:
    """Numbers of bits in ``bits`` (8 down to 3) or ``bits=8,6,4``. Raises SNX001 for anything else, SNX307 out of range."""
    from snn_export.models.weight_grid import weight_grid
    from snn_export.verification.bit_sweep import DEFAULT_BITS

    name, equals, values = text.partition("=")
    found = [value.strip() for value in values.split(",")]
    if name.strip() != "bits" or (equals and not all(value.isdecimal() for value in found)):
        raise UserError(
            "SNX001", f"--sweep {text} is not understood", where="--sweep", why="what can be swept is the number of weight bits",
            fix="--sweep bits, or for instance --sweep bits=8,6,4,3",
        )  # fmt: skip
    if not equals:
        return DEFAULT_BITS
    return tuple(weight_grid(int(value), "mixed").bits for value in found)


def _tell_file(written: Path, output_format: Format) -> None:
    from snn_export.commands.output import print_json

    if output_format == "human":
        click.echo(str(written))
        return
    from snn_export.export import nir_io

    held = nir_io.read(written).contract
    grid = held.quantisation.model_dump(mode="json") if held.quantisation is not None else {}
    print_json({"file": str(written), "quantisation": grid, "input_bits": held.encoder.bits})


def _tell_sweep(found: BitSweep, part: str, output_format: Format) -> None:
    from snn_export.commands.output import print_json, print_table

    tuned = any(row.fine_tuned is not None for row in found.rows)
    if output_format == "json":
        print_json({
            "samples": found.samples, "part": part, "float_correct": found.float_correct,
            "rows": [_row_as_json(row) for row in found.rows],
        })  # fmt: skip
        return
    headings = ["bits", "correct", "spike error", *(["fine-tuned", "spike error"] if tuned else []), "input bits", "limited by"]
    rows = [["float", _right(found.float_correct, found.samples), "", *(["", ""] if tuned else []), "", ""]]
    for row in found.rows:
        cells = _cells(row.searched, found.samples) + (_cells(row.fine_tuned, found.samples) if tuned else [])
        limits = ", ".join(f"{name}: {limit}" for name, limit in row.binding.items())
        rows.append([str(row.bits), *cells, str(row.input_bits) if row.searched else "", limits or row.refusal])
    print_table(headings, rows)
    click.echo(f"{found.samples} {part} samples; spike error: unmatched spikes of the layer that differs most", err=True)


def _cells(measured: Measured | None, samples: int) -> list[str]:
    return ["-", "-"] if measured is None else [_right(measured.correct, samples), f"{100 * measured.worst_spike_error:.1f} %"]


def _right(correct: int | None, samples: int) -> str:
    return "-" if correct is None else f"{correct}/{samples}  {100 * correct / samples:.1f} %"


def _row_as_json(row: SweepRow) -> dict[str, Any]:
    def measured(found: Measured | None) -> dict[str, Any] | None:
        return None if found is None else {"correct": found.correct, "spike_error": found.spike_error}

    return {
        "bits": row.bits, "searched": measured(row.searched), "fine_tuned": measured(row.fine_tuned), "binding": row.binding,
        "input_bits": row.input_bits, "refusal": row.refusal,
    }  # fmt: skip

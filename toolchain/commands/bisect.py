"""``snn-export bisect``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import Format, config_options, format_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from snn_export.commands.telling import ConsoleTeller
    from snn_export.config import Loaded
    from snn_export.export.deployment import Deployment
    from snn_export.verification.bisection.finding import Bisection, Phase

PHASES = ("samples", "layers", "steps", "neurons", "inputs", "the rest")


@click.command("bisect")
@click.argument("path", type=click.Path(path_type=Path), metavar="NET.NIR|NET.NET")
@click.option("--reference", default="loihi", show_default=True, metavar="BACKEND", help="Backend whose runs count as expected.")
@click.option("--target", default="lava", show_default=True, metavar="BACKEND", help="Backend that is held against it.")
@click.option(
    "--inputs", "inputs_file", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="Array 'inputs', (samples, *shape) or (steps, samples, *shape). Without: the test samples of data.source where there "
    "are settings, else made-up ones of the range that the network declares.",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(min=1), help="Use the first so many of them, or make so many up [default: all, or 32]."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder for the bug report [default: repro-NET-REFERENCE-TARGET].",
)  # fmt: skip
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True, metavar="SECONDS",
    help="Take the smallest case found by then.",
)  # fmt: skip
@config_options
@format_option
def command(
    path: Path,
    reference: str,
    target: str,
    inputs_file: Path | None,
    samples: int | None,
    output: Path | None,
    time_limit: float,
    config_file: Path | None,
    overrides: dict[str, str],
    output_format: Format,
) -> None:
    """Find the smallest network and input on which two backends part, and write a folder that shows it.

    Layers, steps, neurons and inputs are taken away as long as the two still part: every candidate is run on both. The folder
    holds the network, the input, both runs and a script for a bug report. Exits with 1 where they part, 0 where they agree.
    """
    from snn_export import library
    from snn_export.commands.telling import ConsoleTeller
    from snn_export.config import load_config
    from snn_export.verification.bisection.finding import bisect_backends
    from snn_export.verification.bisection.repro import Origin, check_folder, write_repro

    folder = output or Path(f"repro-{path.stem}-{reference}-{target}")
    check_folder(folder)
    loaded = load_config(config_file, overrides, allow_missing=config_file is None)
    deployment = library.load(path)
    inputs, told = _inputs(deployment, inputs_file, samples, loaded)
    with ConsoleTeller() as teller, _inexpressible():
        teller.step(0, len(PHASES), "compare", f"{path.name} on {reference} and {target}, {told}")
        found = bisect_backends(
            deployment,
            inputs,
            reference,
            target,
            options={name: _options(loaded, name, time_limit) for name in (reference, target)},
            time_limit=time_limit,
            tell=_Progress(teller).phase,
            on_run=lambda counts: teller.line(f"{counts.tests} tests, {counts.runs} runs of a backend"),
        )
    if found.diverged:
        command_line = f"snn-export bisect {path.name} --reference {reference} --target {target}"
        found = write_repro(found, folder, Origin(path.name, told, command_line))
    _show(found, output_format)
    raise SystemExit(found.exit_code)


@contextmanager
def _inexpressible() -> Iterator[None]:
    """A network that a backend cannot hold ends with 3, whatever the finding's family: 1 is kept for backends that part."""
    from snn_export import failures
    from snn_export.models.diagnostics import EXIT_GATE, EXIT_INEXPRESSIBLE, UserError

    try:
        yield
    except UserError as error:
        if error.exit_code != EXIT_GATE:
            raise
        failures.show(error.diagnostics)
        raise SystemExit(EXIT_INEXPRESSIBLE) from error


class _Progress:
    """One line per phase; those of later rounds only where something became smaller."""

    def __init__(self, teller: ConsoleTeller) -> None:
        self._teller, self._last = teller, ""

    def phase(self, phase: Phase) -> None:
        """Told after each phase."""
        size = phase.size
        reached = f"{_count(size.layers, 'layer')}, {_count(size.neurons, 'neuron')}, {_count(size.steps, 'step')}, "
        reached += f"{_count(size.features, 'input')}"
        if phase.number == 1 or reached != self._last:
            done = f"{reached}  ({_count(phase.tests, 'test')}, {_count(phase.runs, 'run')})"
            self._teller.step(PHASES.index(phase.name) + 1, len(PHASES), phase.name, done)
        self._last = reached


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _inputs(deployment: Deployment, file: Path | None, samples: int | None, loaded: Loaded) -> tuple[NDArray[Any], str]:
    """Inputs, and where they come from: the file, else the settings' data where there are settings, else made-up ones."""
    from snn_export.verification.example_inputs import SAMPLES, example_inputs

    if file is not None:
        return _first(deployment, _read(file), samples), f"inputs of {file.name}"
    if loaded.file is not None:
        return _test_samples(loaded, samples)
    count = samples or SAMPLES
    return example_inputs(deployment, count), f"{count} made-up samples of the range that the network declares"


def _first(deployment: Deployment, values: NDArray[Any], samples: int | None) -> NDArray[Any]:
    """The first so many samples."""
    import numpy as np

    from snn_export.export.encoding import shaped

    shaped(deployment, values)  # says what is wrong with them
    axis = np.ndim(values) - len(deployment.input_shape) - 1
    return np.take(values, range(min(samples or values.shape[axis], values.shape[axis])), axis=axis)


def _test_samples(loaded: Loaded, samples: int | None) -> tuple[NDArray[Any], str]:
    from snn_export.pipeline.data_source import dataset, told

    config = loaded.config
    found = dataset(config.data.source, loaded.folder, config.project.seed, config.data.validation)
    count = samples or config.verify.samples or None
    return found.signal(found.test.x[:count]), f"test samples of {told(config.data.source)}"


def _read(file: Path) -> NDArray[Any]:
    """The array ``inputs`` of an npz file, or its only array."""
    import zipfile

    import numpy as np

    from snn_export.models.diagnostics import UserError

    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = list(arrays.files)
            if "inputs" in names or len(names) == 1:
                return np.asarray(arrays["inputs" if "inputs" in names else names[0]])
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            "SNX110", f"{file.name} cannot be read", where=str(file), why=str(error) or type(error).__name__,
            fix="write it with numpy.savez(file, inputs=inputs)",
        ) from error  # fmt: skip
    raise UserError(
        "SNX111", f"{file.name} holds no array 'inputs'", where=str(file), why=f"it holds {', '.join(names) or 'nothing'}",
        fix="write it with numpy.savez(file, inputs=inputs)",
    )  # fmt: skip


def _options(loaded: Loaded, name: str, time_limit: float) -> Mapping[str, Any]:
    """Of a backend, from the settings; no run of one in an environment of its own takes longer than the whole search may."""
    from snn_export.hardware_sims import environments

    settings = loaded.config.verify.backends.get(name) if loaded.file is not None else None
    options: dict[str, Any] = {} if settings is None else dict(settings.options)
    if name in environments.BUILT_IN:
        options["time_limit"] = time_limit if settings is None else min(time_limit, settings.time_limit)
    return options


def _show(found: Bisection, output_format: Format) -> None:
    if output_format == "json":
        from snn_export.commands.output import print_json

        print_json(found.as_dict())
        return
    compared = found.compared
    amount = (
        f"{_count(compared.samples, 'sample')}, {compared.positions:,} places for a spike ({compared.spikes:,} spikes in "
        f"the two runs), {compared.membranes:,} membranes"
    )
    if found.first is None:
        click.echo(f"{found.reference} and {found.target} agree: {amount} compared, none differs")
        return
    _show_divergence(found, amount)


def _show_divergence(found: Bisection, amount: str) -> None:
    from snn_export.commands.output import print_table
    from snn_export.verification.bisection.repro import sizes

    click.echo(f"{found.reference} and {found.target} part ({amount} compared)\n")
    click.echo(f"whole network   {found.original}")
    click.echo(f"smallest case   {found.first}\n")
    print_table(("", "Whole", "Smallest"), ((name, f"{before:,}", f"{after:,}") for name, before, after in sizes(found)))
    counts = found.counts
    told = f"{_count(counts.tests, 'test')}, {_count(counts.runs, 'run')} of a backend, {found.seconds:.1f} s"
    if counts.refused or counts.broken:
        told += f"; {counts.refused} candidates refused and {counts.broken} broke a backend (last: {counts.last_reason})"
    click.echo(f"\n{told}")
    ended = "interrupted" if found.interrupted else "stopped early by the time limit"
    click.echo(
        "minimal: with any single thing taken away they agree" if found.minimal else f"{ended}: this may not be the smallest case"
    )
    click.echo(f"\n{found.folder}: python {found.folder}/reproduce.py shows it")

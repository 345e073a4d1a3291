"""The ``snn-export`` command: its sub-commands, and what becomes of an error.

Nothing here imports more than click until a sub-command is called or something goes wrong; ``--help`` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from snn_export.command_group import CommandGroup, LazyCommand
from snn_export.interrupts import kept_interrupts

PROGRAM = "snn-export"

COMMANDS = {
    "init": LazyCommand("snn_export.commands.init:command", "Write a commented snn-export.toml."),
    "doctor": LazyCommand("snn_export.commands.doctor:command", "Check that this machine can do the work."),
    "run": LazyCommand("snn_export.commands.run:command", "Do everything: train, distil, export, quantize, verify, report."),
    "train": LazyCommand("snn_export.commands.train:command", "Train the teacher and distil the spiking student."),
    "recipes": LazyCommand("snn_export.commands.recipes:command", "List the ways a student can learn, and what each needs."),
    "quantize": LazyCommand("snn_export.commands.quantize:command", "Put a network on the integer grid of a chip."),
    "export": LazyCommand(
        "snn_export.commands.export:command",
        "Write the trained network as NIR with its contract, as lava-dl's HDF5, or as ONNX.",
    ),
    "check": LazyCommand(
        "snn_export.commands.check:command", "Say whether networks can be expressed on a target, and all that stands in the way."
    ),
    "lint": LazyCommand(
        "snn_export.commands.lint:command",
        "Say what a NIR file of any program is: its writer, time step, reset, layers and loops.",
    ),
    "verify": LazyCommand(
        "snn_export.commands.verify:command", "Compare backends spike by spike, layer by layer, and check the gates."
    ),
    "bisect": LazyCommand(
        "snn_export.commands.bisect:command",
        "Find the smallest network and input on which two backends part, and write a folder that shows it.",
    ),
    "energy": LazyCommand(
        "snn_export.commands.energy:command",
        "Count operations of the verified run and estimate energy, with ranges, sources and what an ANN would take.",
    ),
    "report": LazyCommand("snn_export.commands.report:command", "Show a report, render it, or show what changed between two."),
    "backends": LazyCommand("snn_export.commands.backends:command", "List the backends, or install one."),
    "targets": LazyCommand("snn_export.commands.targets:command", "Show what each chip and each backend can do."),
    "conformance": LazyCommand(
        "snn_export.commands.conformance:command",
        "Put backends through the conformance kit: small networks whose every spike is known beforehand.",
    ),
    "config": LazyCommand("snn_export.commands.config:command", "Show the configuration and where each value came from."),
    "explain": LazyCommand("snn_export.commands.explain:command", "Explain an error code."),
}

EPILOG = (
    "Exit codes: 0 every gate passed; 1 a gate failed; 2 usage, configuration or unreadable file; 3 the network cannot be "
    "expressed on a required target; 4 a required backend is unavailable or broken; 5 nothing was compared; 70 a bug, its "
    "traceback is saved; 130 interrupted."
)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"{PROGRAM} {version('snn-export')}")
    ctx.exit()


@click.group(PROGRAM, cls=CommandGroup, lazy=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version.")
def command_line() -> None:
    """From a trained network to a spiking one on Loihi's integer grid, with a spike-by-spike proof."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; what goes wrong is told on stderr, never as a bare traceback.

    Args:
        arguments: without the program's name; those of this process where None.
    """
    context: click.Context | None = None
    # Threads that wait actively fight for the cores with every other process: training was seen to take seven times as long
    # on a busy machine. Read by OpenMP when torch is imported, so it must stand before that.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with (
            kept_interrupts(),
            command_line.make_context(PROGRAM, list(sys.argv[1:] if arguments is None else arguments)) as context,
        ):
            command_line.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except SystemExit as ended:
        return _status(ended)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return _leave_quietly()
        from snn_export import failures

        return failures.tell(error, context)
    return 0


def _status(ended: SystemExit) -> int:
    """Exit code of a SystemExit as the interpreter reads it: nothing is 0, a message goes to stderr and is 1."""
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    click.echo(ended.code, err=True)
    return 1


def _reader_is_gone() -> bool:
    """Whether the broken pipe is one of our own outputs, and not that of some worker."""
    import select

    poll = select.poll()
    for stream in _outputs():
        poll.register(stream, 0)  # an end without a reader is always reported, whatever is asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _leave_quietly() -> int:
    """Send what is left in the buffers nowhere, so that the interpreter does not complain about it on its way out."""
    from snn_export.exit_codes import EXIT_BROKEN_PIPE

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _outputs():
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return EXIT_BROKEN_PIPE


def _outputs() -> tuple[int, ...]:
    """File descriptors of stdout and stderr; a stream that was closed or replaced by one without a descriptor is left out."""
    found = []
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            found.append(stream.fileno())
    return tuple(found)

"""Plugin for pytest: a test that a network does the same on several backends, and that fails with a table of its layers.

    def test_deploy(snn_export):
        snn_export.assert_equivalent("net.nir", "loihi", "lava")

Installing snn-export registers it (entry point ``pytest11``, name ``snn_export``; ``-p no:snn_export`` leaves it out). Loading it
costs nothing: everything is imported when a test calls it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from snn_export.export.deployment import Deployment
    from snn_export.export.targets import CheckTarget
    from snn_export.reporting.report import Report

__all__ = ["SnnExport", "SnnExportError"]

OPTION: Final = "--snn-export-report"
PROPERTY: Final = "snn_export_report"
"""Name under which a test's report travels: from a worker of xdist to the summary, and into JUnit XML."""
PAGE: Final = "report.html"
INPUTS: Final = "inputs.npz"
_LONGEST: Final = 80
"""Characters of a test's name in the name of its folder."""


class SnnExportError(AssertionError):
    """A network does not do what a test says. The message is the table of layers, or the findings; no traceback is shown."""


class SnnExport:
    """What the fixture ``snn_export`` is: checks of a network, each a plain call that returns or fails the test.

    ``network`` is always the path of a ``.nir`` or ``.net`` file, or a Deployment.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node, self._config = request.node, request.config
        self._written = 0

    def assert_equivalent(
        self,
        network: str | os.PathLike[str] | Deployment,
        reference: str,
        target: str,
        *more_targets: str,
        inputs: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
        samples: int = 32,
        seed: int = 0,
        exact: bool = False,
        spike_mismatch: float = 20.0,
        decision_mismatch: float = 5.0,
        layers: Mapping[str, float] | None = None,
        accuracy_drop: float | None = None,
        skip_unavailable: bool = False,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Report:
        """Fail unless every target agrees with the reference as far as their arithmetic can.

        Two integer backends must agree in every spike, membrane and current; two float backends in every spike that rounding
        does not explain; others within the tolerance. Nothing that was demanded is left out: a layer that could not be compared
        fails, and so does a network in which nothing fires.

        Args:
            network: what all of them run.
            reference: backend the others are held against.
            target: backend to compare.
            *more_targets: further ones.
            inputs: (B, *shape) or (T, B, *shape), real units. None: inputs of the range that the network declares, see
                :func:`snn_export.verification.example_inputs.example_inputs`.
            labels: (B,) class indices of ``inputs``; None: no accuracy.
            samples: how many inputs to make.
            seed: of these inputs.
            exact: demand bits of every target; what cannot show them fails.
            spike_mismatch: percent of a layer's spikes that may lack a counterpart where the two sides compute differently.
            decision_mismatch: percent of samples that may then be classified differently.
            layers: ``spike_mismatch`` of single layers, by name; a name that the network does not have fails.
            accuracy_drop: points a target may lose against the reference; with labels 1 by default.
            skip_unavailable: skip where a backend is not here, after the others agreed. Otherwise its absence fails.
            options: per backend, as in :func:`snn_export.simulate`.

        Returns:
            The report; ``report.comparisons`` holds every number.

        Raises:
            SnnExportError: it does not hold. The message is the table of layers.
        """
        __tracebackhide__ = True
        deployment = self._load(network)
        wanted, absent = [target, *more_targets], dict[str, str]()
        if skip_unavailable:
            absent = self._absent([reference, *wanted], options or {})
            wanted = [name for name in wanted if name not in absent]
            if reference in absent or not wanted:
                pytest.skip("; ".join(absent.values()))
        report, given = self._verified(
            deployment, inputs, labels, reference, wanted, samples, seed, options or {}, accuracy_drop=accuracy_drop,
            tolerance=(spike_mismatch, decision_mismatch, layers or {}), exact=exact,
        )  # fmt: skip
        folder = self._write(report, given)
        if not report.passed:
            raise SnnExportError(_message(report, network, folder))
        if absent:
            pytest.skip(f"{reference} agrees with {', '.join(wanted)}; not compared: {'; '.join(absent.values())}")
        return report

    def verify(
        self,
        network: str | os.PathLike[str] | Deployment,
        reference: str,
        target: str,
        *more_targets: str,
        inputs: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
        samples: int = 32,
        seed: int = 0,
        spike_mismatch: float = 20.0,
        decision_mismatch: float = 5.0,
        accuracy_drop: float | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Report:
        """The report of the same comparison, whatever the verdict; arguments as for :meth:`assert_equivalent`."""
        __tracebackhide__ = True
        report, given = self._verified(
            self._load(network), inputs, labels, reference, (target, *more_targets), samples, seed, options or {},
            accuracy_drop=accuracy_drop, tolerance=(spike_mismatch, decision_mismatch, {}), exact=False,
        )  # fmt: skip
        self._write(report, given)
        return report

    def check(self, network: str | os.PathLike[str] | Deployment, target: CheckTarget = "loihi2") -> None:
        """Fail if a network breaks a design rule of a chip or backend; warnings and notes do not fail.

        Raises:
            SnnExportError: with all that it breaks, each with its code, where, why and fix.
        """
        __tracebackhide__ = True
        import snn_export

        deployment = self._load(network)
        try:
            findings = [item for item in snn_export.check(deployment, target) if item.severity == "error"]
        except snn_export.UserError as error:
            raise SnnExportError(str(error)) from None
        if findings:
            count = f"{len(findings)} design rule{'s' if len(findings) > 1 else ''} of {target}"
            raise SnnExportError("\n\n".join([f"{count} broken", *map(str, findings)]))

    # --- what the three share ----------------------------------------------------------------------------------------

    def _load(self, network: str | os.PathLike[str] | Deployment) -> Deployment:
        __tracebackhide__ = True
        import snn_export

        if isinstance(network, snn_export.Deployment):
            return network
        try:
            return snn_export.load(network)
        except snn_export.UserError as error:
            raise SnnExportError(str(error)) from None

    def _absent(self, names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Backends that are not here, each with the reason. A name that nobody registered is a mistake, not an absence."""
        __tracebackhide__ = True
        import snn_export
        from snn_export.hardware_sims.registry import simulator_or_broken

        try:
            asked = {name: simulator_or_broken(name, **options.get(name, {})).availability() for name in names}
        except snn_export.UserError as error:
            raise SnnExportError(str(error)) from None
        return {
            name: f"{name} is not available: {found.reason}" + (f" ({found.fix})" if found.fix else "")
            for name, found in asked.items()
            if not found.ok
        }

    def _verified(
        self,
        deployment: Deployment,
        inputs: NDArray[Any] | None,
        labels: NDArray[Any] | None,
        reference: str,
        targets: Sequence[str],
        samples: int,
        seed: int,
        options: Mapping[str, Mapping[str, Any]],
        *,
        accuracy_drop: float | None,
        tolerance: tuple[float, float, Mapping[str, float]],
        exact: bool,
    ) -> tuple[Report, NDArray[Any]]:
        """A report and the inputs behind it; a mistake in the call fails the test with what to do about it."""
        __tracebackhide__ = True
        import snn_export
        from snn_export.verification.compare import Tolerance
        from snn_export.verification.direct import verify_backends
        from snn_export.verification.example_inputs import example_inputs

        try:
            _check_labels(inputs, labels, accuracy_drop)
            given = example_inputs(deployment, samples, seed) if inputs is None else inputs
            report = verify_backends(
                deployment, given, labels, reference, targets, options, tolerance=Tolerance(*tolerance), exact=exact,
                accuracy_drop=1.0 if accuracy_drop is None else accuracy_drop,
            )  # fmt: skip
        except (snn_export.UserError, snn_export.BackendError) as error:
            raise SnnExportError(str(error)) from None
        return report, given

    def _write(self, report: Report, inputs: NDArray[Any]) -> Path | None:
        """Report and inputs in a folder named after the test, where ``--snn-export-report`` was given."""
        root = self._config.getoption(OPTION)
        if root is None:
            return None
        import numpy as np

        from snn_export.reporting.html import write_html
        from snn_export.reporting.json_file import write_report

        self._written += 1
        number = f"-{self._written}" if self._written > 1 else ""
        folder = Path(root) / f"{folder_name(self._node.nodeid)}{number}"
        write_report(report, folder / "report.json")
        write_html(report, folder / PAGE)
        temporary = folder / f".inputs.{os.getpid()}.npz"
        np.savez_compressed(temporary, inputs=inputs)
        temporary.replace(folder / INPUTS)
        self._node.user_properties.append((PROPERTY, str(folder / PAGE)))
        return folder


def _message(report: Report, network: object, folder: Path | None) -> str:
    """The table of layers, and at its end where all of it stands and how to find the smallest case."""
    from snn_export.reporting.layer_text import failure_text

    ending = [f"Whole report: {folder / PAGE}" if folder is not None else f"Whole report and inputs: pytest {OPTION} DIR"]
    parted = next((c for c in report.comparisons if c.verdict == "DRIFT"), None)
    if parted is not None:
        file = os.fspath(network) if isinstance(network, str | os.PathLike) else "NETWORK.nir"
        words = ["snn-export", "bisect", file, "--reference", parted.reference, "--target", parted.target]
        words += ["--inputs", str(folder / INPUTS)] if folder is not None else []
        ending.append(f"Smallest case: {shlex.join(words)}")
    return failure_text(report, ending)


def _check_labels(inputs: object, labels: object, accuracy_drop: float | None) -> None:
    """Accuracy is of somebody's inputs. Raises UserError SNX531, SNX532."""
    from snn_export.models.diagnostics import UserError

    if labels is not None and inputs is None:
        raise UserError(
            "SNX531", "labels were given without their inputs", where="assert_equivalent(labels=...)",
            why="inputs that are made up have no class", fix="pass the inputs too, or leave the labels out",
        )  # fmt: skip
    if accuracy_drop is not None and labels is None:
        raise UserError(
            "SNX532", "accuracy_drop was demanded without labels", where="assert_equivalent(accuracy_drop=...)",
            why="a demand that cannot be measured does not hold", fix="pass inputs and labels, or leave accuracy_drop out",
        )  # fmt: skip


def folder_name(nodeid: str) -> str:
    """A test's name as a folder's, readable and unlike any other's: plain characters, and eight digits of a hash of the rest."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid).strip("-.")[-_LONGEST:].lstrip("-.")
    return f"{plain}-{hashlib.sha256(nodeid.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


@pytest.fixture
def snn_export(request: pytest.FixtureRequest) -> SnnExport:
    """Checks of spiking networks: assert_equivalent, verify and check; see :class:`SnnExport`."""
    return SnnExport(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--snn-export-report``."""
    group = parser.getgroup("snn-export", "equivalence of spiking networks")
    group.addoption(
        OPTION, metavar="DIR", default=None, help="write report.json and report.html of every comparison into a folder per test"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder absolute: workers may start elsewhere."""
    given = config.getoption(OPTION)
    if given is not None:
        config.option.snn_export_report = str(Path(config.invocation_params.dir, given))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the message of a failed check alone, unless a style of traceback was asked for."""
    report = yield
    found = call.excinfo
    if found is not None and isinstance(found.value, SnnExportError) and item.config.option.tbstyle == "auto":
        shown = found.getrepr(style="value")
        if shown.reprcrash is not None:
            shown.reprcrash.message = str(found.value)  # the line of the short summary: the verdict, not the exception's name
        report.longrepr = shown
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the reports are."""
    found = {
        value: (report.nodeid, report.outcome)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    }
    if found:
        terminalreporter.section("snn-export reports")
        for place, (nodeid, outcome) in found.items():
            terminalreporter.write_line(f"{outcome}: {nodeid}: {place}")

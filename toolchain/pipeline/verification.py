"""Step "verify": the ladder from the teacher to the last backend, on test data, read here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_export.config_schema import Config
from snn_export.data.dataset import Samples
from snn_export.energy.cost_table import load_table
from snn_export.energy.estimate import estimate
from snn_export.energy.observer import EnergyObserver
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.deploying import load_student
from snn_export.pipeline.files import FLOAT_FILE, QUANTISED_FILE, REPORT_FILE, STUDENT_FILE, TEACHER_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.pipeline.training import read_summary
from snn_export.reporting.json_file import write_report
from snn_export.reporting.report import CoverageItem, Gate, Report, TrainingSummary
from snn_export.reporting.report import Rung as RungRecord
from snn_export.training.checkpoint import load_model
from snn_export.training.evaluate import predictions
from snn_export.training.threads import use_threads
from snn_export.verification import assemble
from snn_export.verification.direct import link_kind
from snn_export.verification.gates import Criteria, minimum_accuracy
from snn_export.verification.ladder import Link, Progress, Rung, run_ladder
from snn_export.verification.observe import ActivityObserver, RasterObserver
from snn_export.verification.statistics import wilson_interval

INTEGER = "loihi"
"""Backend whose arithmetic is the chip's: the rung every other integer backend is held against."""


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms of a network that were found. teacher, student and folded may be missing; absent says why."""

    quantised: Deployment
    folded: Deployment | None
    student: SpikingStudent | None
    teacher_correct: NDArray[np.bool_] | None
    training: tuple[TrainingSummary, ...] = ()
    absent: tuple[CoverageItem, ...] = ()
    fingerprints: Mapping[str, str] | None = None


def verify(context: Context) -> StepResult:
    """Run the whole ladder on the test samples and write ``report.json``."""
    config, space = context.config, context.workspace
    use_threads(config.training.threads)
    data = dataset(config.data.source, context.base, config.project.seed, config.data.validation)
    test = _chosen(data.test, config.verify.samples)
    teacher = load_model(space.folder("teacher") / TEACHER_FILE)
    forms = Forms(
        quantised=nir_io.read(space.folder("quantize") / QUANTISED_FILE),
        folded=nir_io.read(space.folder("export") / FLOAT_FILE),
        student=load_student(space.folder("student") / STUDENT_FILE),
        teacher_correct=predictions(teacher, test.x) == test.y,
        training=(read_summary(space.folder("teacher")), read_summary(space.folder("student"))),
        fingerprints={"data": data.fingerprint, "student": nir_io.file_digest(space.folder("student") / STUDENT_FILE)},
    )
    report = verify_forms(forms, test, config, data.name, context.teller.line)
    write_report(report, context.folder / REPORT_FILE)
    broken = any(comparison.verdict in ("ERROR", "UNAVAILABLE") for comparison in report.comparisons)
    verdict = "PASS" if report.passed else f"FAIL, exit {report.exit_code}"
    return StepResult(f"{verdict}: {len(report.comparisons)} comparisons on {report.samples} samples", reusable=not broken)


def verify_forms(forms: Forms, test: Samples, config: Config, data_name: str, progress: Progress) -> Report:
    """Compare every form that is there, link by link, and put the result together.

    Raises:
        UserError: SNX501 for no samples, SNX023 where config demands a pair that no rung can show.
    """
    if not len(test):
        raise UserError("SNX501", "there are no test samples", where="data", why="a verdict over nothing shows nothing",
                        fix="give at least one test sample, or set verify.samples = 0 for all")  # fmt: skip
    rungs = _rungs(forms, config, progress)
    links = _links(rungs, config)
    reference = _reference(rungs, config)
    activity, energy = ActivityObserver(INTEGER), EnergyObserver(INTEGER, forms.quantised)
    raster = RasterObserver(reference, tuple(rung.name for rung in reversed(rungs)), forms.quantised)
    ladder = run_ladder(rungs, links, test.x, test.y, observers=(activity, energy, raster), progress=progress)
    criteria = _criteria(rungs, links, config)
    teacher, teacher_gates = _teacher(forms.teacher_correct, config)
    return assemble.report(
        forms.quantised,
        ladder,
        criteria,
        network=config.project.name,
        dataset=data_name,
        reference=reference,
        coverage=forms.absent,
        float_deployment=forms.folded,
        before=teacher,
        more_gates=teacher_gates,
        activity=activity.result(forms.quantised),
        rasters=raster.rasters,
        energy=None if energy.counts is None else estimate(forms.quantised, energy.counts, load_table(config.energy.table)),
        training=forms.training,
        fingerprints={**(forms.fingerprints or {}), "quantised": forms.quantised.fingerprint},
        reproduce=("snn-export run --config snn-export.toml", "snn-export report show snn-export-out/report.json"),
    )


def _chosen(test: Samples, limit: int) -> Samples:
    return test if not limit else Samples(test.x[:limit], test.y[:limit])


def _rungs(forms: Forms, config: Config, progress: Progress) -> list[Rung]:
    rungs = []
    if forms.student is not None:
        module = simulator("student", layers=forms.student.layers)
        base = forms.folded or forms.quantised
        rungs.append(Rung("student", "student", base, module, "the trained snnTorch module, float32"))
    if forms.folded is not None:
        rungs.append(
            Rung(
                "folded",
                "reference",
                forms.folded,
                simulator("reference"),
                "NIR graph, batch-norm folded, pooling absorbed, float64",
            )
        )
    rungs.append(
        Rung(
            "quantised",
            "reference",
            forms.quantised,
            simulator("reference"),
            "parameters on the integer grid, state still float64",
        )
    )
    for name in sorted(config.verify.backends, key=lambda name: name != INTEGER):
        settings = config.verify.backends[name]
        backend = _backend(name, settings.time_limit, progress)
        rungs.append(
            Rung(name, name, forms.quantised, backend, backend.capabilities().description, settings.required, settings.samples)
        )
    return rungs


def _backend(name: str, time_limit: float, progress: Progress) -> Simulator:
    """A configured backend; those that run as a worker get their time limit and report their steps."""
    if name not in environments.BUILT_IN:
        return simulator(name)
    return simulator(name, time_limit=time_limit, progress=lambda done, total: progress(f"{name}: step {done} of {total}"))


def _links(rungs: list[Rung], config: Config) -> list[Link]:
    """Each rung with the one before it; each backend behind the integer simulator with that; and the whole way in one link."""
    by_name = {rung.name: rung for rung in rungs}
    links: list[Link] = []
    for before, after in pairwise(rungs):
        anchor = by_name[INTEGER] if INTEGER in by_name and rungs.index(after) > rungs.index(by_name[INTEGER]) else before
        same = anchor.deployment is after.deployment
        kind = link_kind(anchor.simulator, after.simulator, after.deployment) if same else "approximate"
        links.append(Link(anchor.name, after.name, kind))
    demanded = {(pair[0], pair[1]) for pair in config.gates.exact} - {(link.reference, link.target) for link in links}
    for reference, target in sorted(demanded):
        if reference in by_name and target in by_name:
            links.append(Link(reference, target, "exact"))
    reference = _reference(rungs, config)
    for name in dict.fromkeys((INTEGER, rungs[-1].name)):
        if name in by_name and name != reference and (reference, name) not in {(link.reference, link.target) for link in links}:
            links.append(Link(reference, name, "approximate"))
    return links


def _reference(rungs: list[Rung], config: Config) -> str:
    """The rung the config names; a backend's name means the first rung it runs."""
    wanted = config.verify.reference
    found = next((rung.name for rung in rungs if wanted in (rung.name, rung.backend)), None)
    return found or rungs[0].name


def _criteria(rungs: list[Rung], links: list[Link], config: Config) -> Criteria:
    names = [rung.name for rung in rungs]
    gates = config.gates
    baseline = "student" if "student" in names else names[0]
    minimum = () if gates.student_accuracy is None or baseline != "student" else (("student", gates.student_accuracy),)
    return Criteria(
        exact=tuple((pair[0], pair[1]) for pair in gates.exact if pair[1] in names),
        faithful=tuple((link.reference, link.target) for link in links if link.kind == "float"),
        accuracy=(baseline, INTEGER, gates.accuracy_drop) if INTEGER in names else None,
        overflows=(INTEGER, gates.overflows) if INTEGER in names else None,
        spike_mismatch=gates.spike_mismatch,
        minimum_accuracy=minimum,
    )


def _teacher(correct: NDArray[np.bool_] | None, config: Config) -> tuple[tuple[RungRecord, ...], tuple[Gate, ...]]:
    """The teacher's place in front of the ladder and its gate. It has no spikes, so nothing is compared with it."""
    if correct is None:
        return (), ()
    right, samples = int(correct.sum()), len(correct)
    rung = RungRecord(
        name="teacher",
        backend="pytorch",
        description=f"the trained ANN ({config.model.teacher})",
        samples=samples,
        correct=right,
        accuracy=100.0 * right / samples,
        interval=wilson_interval(right, samples),
    )
    least = config.gates.teacher_accuracy
    return (rung,), () if least is None else (minimum_accuracy("teacher", least, right, samples),)


def forms_beside(path: Path) -> Forms:
    """A quantised deployment with the earlier forms its lineage names; those that are gone are listed as NOT_COMPARED.

    Raises:
        UserError: SNX302 for a float deployment, SNX119 where a file is there but not the one the lineage names.
    """
    quantised = nir_io.read(path)
    if not quantised.quantised:
        raise UserError("SNX302", f"{path.name} is not on an integer grid", where=str(path), why="integer backends run integers",
                        fix=f"snn-export quantize {path.name}")  # fmt: skip
    files, absent = quantised.contract.lineage.files, []
    found: dict[str, Path] = {}
    for role in ("student", "float"):
        file = path.parent / files[role].path if role in files else None
        if file is None or not file.is_file():
            where = "the lineage names none" if file is None else f"{files[role].path} is not there"
            absent.append(CoverageItem(what=f"the {role} form of the network", status="NOT_COMPARED", why=where,
                                       fix="verify beside the files it was made from"))  # fmt: skip
            continue
        if nir_io.file_digest(file) != files[role].sha256:
            raise UserError("SNX119", f"{files[role].path} is not the file {path.name} was made from", where=str(file),
                            why="its SHA-256 is not the lineage's", fix="restore the file, or export again")  # fmt: skip
        found[role] = file
    return Forms(
        quantised=quantised,
        folded=nir_io.read(found["float"]) if "float" in found else None,
        student=load_student(found["student"]) if "student" in found else None,
        teacher_correct=None,
        absent=tuple(absent),
    )

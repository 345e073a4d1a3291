"""Step "verify": the ladder from the teacher to the last backend, on test data, read here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from snn_export import library
from snn_export.config_schema import BackendConfig, Config, to_toml
from snn_export.data.dataset import Samples
from snn_export.energy import cost_table
from snn_export.energy.observer import EnergyObserver
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.registry import simulator, simulator_or_broken
from snn_export.hardware_sims.simulator import Simulator
from snn_export.models.diagnostics import UserError
from snn_export.models.quantised.student import QuantisedStudent
from snn_export.models.students.student import SpikingStudent
from snn_export.pipeline import energy_run, placing
from snn_export.pipeline.attributing import attributed
from snn_export.pipeline.data_source import dataset, told
from snn_export.pipeline.deploying import load_student
from snn_export.pipeline.files import (
    FLOAT_FILE,
    QUANTISED_FILE,
    QUANTISED_STUDENT_FILE,
    REPORT_FILE,
    SEARCHED_FILE,
    STUDENT_FILE,
    TRAINING_FILE,
)
from snn_export.pipeline.steps import Context, StepResult
from snn_export.pipeline.training import read_summary, teacher_of
from snn_export.reporting import wording
from snn_export.reporting.energy_records import AnnOperations
from snn_export.reporting.json_file import write_report
from snn_export.reporting.report import CoverageItem, Gate, Report, TrainingSummary
from snn_export.reporting.report import Rung as RungRecord
from snn_export.training.evaluate import Network
from snn_export.training.fine_tuning import load_quantised_student
from snn_export.training.mac_counts import count_macs
from snn_export.training.threads import use_threads
from snn_export.verification import assemble, deviations
from snn_export.verification.compare import Kind, Tolerance
from snn_export.verification.direct import link_kind
from snn_export.verification.gates import Criteria, minimum_accuracy
from snn_export.verification.ladder import Link, Observer, Progress, Rung
from snn_export.verification.layer_gates import firing
from snn_export.verification.observe import ActivityObserver, RasterObserver
from snn_export.verification.statistics import wilson_interval

INTEGER = "loihi"
"""Backend whose arithmetic is the chip's: the rung every other integer backend is held against."""

LEARNT = "quantised_student"
"""Rung and backend of the module that was fine-tuned: it must agree with INTEGER bit for bit."""

FORMS = ("student", "folded", "quantised")
"""Rungs that are forms of the network; all others are backends that run one of them."""


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms of a network that were found. teacher, student and folded may be missing; absent says why.

    quantised_student: the module behind a network that was fine-tuned, None where it was not; searched: what it started from.
    """

    quantised: Deployment
    folded: Deployment | None
    student: SpikingStudent | None
    teacher: Network | None = None
    quantised_student: QuantisedStudent | None = None
    searched: Deployment | None = None
    training: tuple[TrainingSummary, ...] = ()
    absent: tuple[CoverageItem, ...] = ()


def verify(context: Context) -> StepResult:
    """Run the whole ladder on the test samples and write ``report.json``."""
    config, space = context.config, context.workspace
    folders = {name: space.folder(name) for name in ("teacher", "student", "export", "quantize")}
    quantised = nir_io.read(folders["quantize"] / QUANTISED_FILE)
    learnt, absent = _learnt(quantised, folders["quantize"])
    forms = Forms(
        quantised=quantised,
        folded=nir_io.read(folders["export"] / FLOAT_FILE),
        student=load_student(folders["student"] / STUDENT_FILE),
        teacher=teacher_of(context, dataset(config.data.source, context.base, config.project.seed, config.data.validation)),
        quantised_student=learnt,
        searched=None if learnt is None else nir_io.read(folders["quantize"] / SEARCHED_FILE),
        training=tuple(read_summary(folders[name]) for name in _trained(folders)),
        absent=absent,
    )
    report = verify_forms(forms, config, context.base, context.teller.line, space.root)
    write_report(report, context.folder / REPORT_FILE)
    broken = any(comparison.verdict in wording.BROKEN for comparison in report.comparisons)
    verdict = "PASS" if report.passed else f"FAIL, exit {report.exit_code}"
    return StepResult(f"{verdict}: {len(report.comparisons)} comparisons on {report.samples} samples", reusable=not broken)


def _learnt(quantised: Deployment, folder: Path) -> tuple[QuantisedStudent | None, tuple[CoverageItem, ...]]:
    """The student that fine-tuning left in a step's folder; where its files are gone, the item that says so. None: not tuned."""
    if not quantised.contract.lineage.fine_tuned:
        return None, ()
    gone = [name for name in (QUANTISED_STUDENT_FILE, SEARCHED_FILE) if not (folder / name).is_file()]
    if gone:
        return None, (_absent(LEARNT, f"{gone[0]} is not there"),)
    return load_quantised_student(folder / QUANTISED_STUDENT_FILE, nir_io.read(folder / SEARCHED_FILE)), ()


def _absent(role: str, why: str) -> CoverageItem:
    """The item of an earlier form that is not there."""
    fix = "verify beside the files it was made from"
    if role == LEARNT:
        fix += "; snn-export quantize --fine-tune writes the student's beside the network"
    return CoverageItem(what=f"the {role} form of the network", status="NOT_COMPARED", why=why, fix=fix)


def _trained(folders: Mapping[str, Path]) -> tuple[str, ...]:
    """Steps in which something was trained."""
    return ("teacher", "student", *(["quantize"] if (folders["quantize"] / TRAINING_FILE).is_file() else []))


def verify_forms(forms: Forms, config: Config, base: Path, progress: Progress, scratch: Path) -> Report:
    """Compare every form that is there on the test samples, link by link, and put the result together.

    Args:
        forms: of one network.
        config: data, backends, gates.
        base: folder that relative data paths start from.
        progress: told what runs.
        scratch: folder for temporary files of worker processes, where some are started.

    Raises:
        UserError: SNX501 for no samples, those of a cost table that cannot be used, and those of the data layer.
    """
    from snn_export.pipeline import scaling

    cost_table.find_table(config.energy.table, base)  # what cannot be used is refused before the ladder runs, not after
    use_threads(config.training.threads)
    data = dataset(config.data.source, base, config.project.seed, config.data.validation)
    test = _chosen(data.test, config.verify.samples)
    inputs = data.signal(test.x)
    tuned, chosen = energy_run.with_threshold(config, forms.quantised, data, INTEGER, progress)
    rungs, links, watchers = ladder_of(forms, tuned, progress)
    reference, criteria = watchers.raster.reference, _criteria(rungs, config)
    ladder = scaling.run(forms, tuned, (rungs, links, watchers), inputs, test.y, scratch, progress)
    teacher, teacher_gates, macs = _teacher(forms.teacher, test, config)
    named, counts = told(config.data.source), watchers.energy.counts
    activity = {seen.rung: seen.result(forms.quantised) for seen in watchers.firing}
    anywhere = config.verify.model_copy(update={"workers": 0, "scheduler": None})  # the result does not depend on where it ran
    table = config.energy.model_copy(update={"table": cost_table.told(config.energy.table)})
    source = config.data.model_copy(update={"source": named})
    settings = config.model_copy(update={"data": source, "verify": anywhere, "energy": table})
    integer, floats = ladder.find(INTEGER), forms.folded
    attribution = attributed(
        floats if integer is not None and integer.status is None else None, forms.quantised, inputs, test.y,
        samples=config.verify.attribution_samples, structure={} if counts is None else counts.structure, progress=progress,
    )  # fmt: skip
    counted = watchers.energy.counted
    placements = (
        None if counted is None else placing.Placements(forms.quantised, counted.fired, config.placement, counted.counts.samples)
    )
    placement, unplaced = placing.on_the_target(forms.quantised, placements)
    around = assemble.Surroundings(
        network=config.project.name,
        dataset=data.name,
        reference=reference,
        inputs=inputs,
        coverage=(*forms.absent, *attribution.coverage, *unplaced),
        float_deployment=forms.folded,
        before=teacher,
        more_gates=(*teacher_gates, *firing(criteria, ladder, activity)),
        activity=activity[INTEGER],
        rasters=watchers.raster.rasters,
        attribution=attribution.found,
        placement=placement,
        energy=energy_run.energy_report(forms.quantised, counted, tuned, base, chosen, macs, placements),
        training=forms.training,
        fingerprints={"data": data.fingerprint},
        settings=to_toml(settings),
        reproduce=(
            "save the settings of this report as snn-export.toml",
            "snn-export run",
            f"snn-export report show {config.project.output}/report/report.json",
        ),
    )
    return assemble.report(forms.quantised, ladder, criteria, around)


@dataclass(frozen=True, eq=False)
class Watchers:
    """What watches a ladder: how rungs fire, the integer one first; its operations; the spikes of one sample."""

    firing: tuple[ActivityObserver, ...]
    energy: EnergyObserver
    raster: RasterObserver

    @property
    def all(self) -> tuple[Observer, ...]:
        """All of them, in one order."""
        return (*self.firing, self.energy, self.raster)


def ladder_of(forms: Forms, config: Config, progress: Progress) -> tuple[list[Rung], list[Link], Watchers]:
    """Rungs, links and observers of a verification: the same in every process that makes them from the same forms."""
    rungs = _rungs(forms, config, progress)
    firing_of = dict.fromkeys((INTEGER, *_criteria(rungs, config).watched()))
    watchers = Watchers(
        tuple(ActivityObserver(name) for name in firing_of),
        EnergyObserver(INTEGER, forms.quantised, config.energy.exit_margin),
        RasterObserver(_reference(rungs, config), tuple(rung.name for rung in reversed(rungs)), forms.quantised),
    )
    return rungs, _links(rungs, config), watchers


def _chosen(test: Samples, limit: int) -> Samples:
    return test if not limit else Samples(test.x[:limit], test.y[:limit])


def _rungs(forms: Forms, config: Config, progress: Progress) -> list[Rung]:
    """The forms that are there, then the configured backends, the integer simulator first."""
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
    if forms.quantised_student is not None:
        module = simulator(LEARNT, module=forms.quantised_student)
        rungs.append(Rung(LEARNT, LEARNT, forms.quantised, module, module.capabilities().description))
    taken = {rung.name for rung in rungs}
    for name in sorted(config.verify.backends, key=lambda name: name != INTEGER):
        if name in taken:
            continue  # the fine-tuned student stands for itself already
        settings = config.verify.backends[name]
        backend = _backend(name, settings, progress)
        can = backend.capabilities()
        if can.on_integers is not None and forms.folded is not None:  # it runs both forms, each in the numbers of that form
            told = f"{can.description}: the float network, {can.arithmetic}"
            rungs.append(Rung(f"{name}_float", name, forms.folded, backend, told, settings.required, settings.samples))
        deployment = forms.folded
        if deployment is None or can.needs_integers or can.on_integers is not None:
            deployment = forms.quantised
        rungs += _with_model(Rung(name, name, deployment, backend, can.description, settings.required, settings.samples))
    return rungs


def _with_model(rung: Rung) -> list[Rung]:
    """A backend, after its model where it declares deviations."""
    model = deviations.model_of(rung)
    return [rung] if model is None else [model, rung]


def _backend(name: str, settings: BackendConfig, progress: Progress) -> Simulator:
    """A configured backend; those that run as a worker get their time limit, and those that can tell report their steps."""
    options: dict[str, Any] = dict(settings.options)

    def tell(done: int, total: int) -> None:
        progress(f"{name}: step {done} of {total}")

    if name in environments.BUILT_IN:
        return simulator(name, **options, time_limit=settings.time_limit, progress=tell)
    return simulator(name, **options, progress=tell) if name == INTEGER else simulator_or_broken(name, **options)


def _links(rungs: list[Rung], config: Config) -> list[Link]:
    """The forms one after the other, each backend with its anchor, demanded pairs, and the whole way in one link.

    A backend's anchor is what runs the same form: the integer simulator for integers, the folded graph for floats.
    """
    by_name = {rung.name: rung for rung in rungs}
    forms = [rung for rung in rungs if rung.name in FORMS]
    links = [Link(first.name, second.name, _kind(first, second)) for first, second in pairwise(forms)]
    models = {rung.model_of: rung for rung in rungs if rung.model_of}
    for rung in rungs:
        if rung.name in FORMS or rung.model_of:
            continue
        integer = rung.deployment.quantised and rung.name != INTEGER and INTEGER in by_name
        anchor = by_name[INTEGER] if integer else next(form for form in reversed(forms) if form.deployment is rung.deployment)
        model = models.get(rung.name)
        links += [Link(anchor.name, rung.name, _kind(anchor, rung))] if model is None else deviations.links(anchor, model, rung)
    demanded = [(pair[0], pair[1]) for pair in config.gates.exact]
    ends = {(link.reference, link.target) for link in links}
    links += [Link(*pair, "exact") for pair in demanded if pair not in ends and set(pair) <= by_name.keys()]
    links += _paired_links(rungs, links, config)
    reference = _reference(rungs, config)
    for name in dict.fromkeys((INTEGER, rungs[-1].name)):
        if name in by_name and name != reference and (reference, name) not in {(link.reference, link.target) for link in links}:
            links.append(Link(reference, name, "approximate"))
    return links


def _paired_links(rungs: list[Rung], links: list[Link], config: Config) -> Iterator[Link]:
    """The first rung beside those whose loss of accuracy has a gate: sample by sample, as some of them run on a few only."""
    criteria, there = _criteria(rungs, config), {(link.reference, link.target) for link in links}
    for rung in rungs[1:]:
        asked = criteria.of_target(rung.name, "accuracy_drop") or criteria.of_target(rung.name, "accuracy_significance")
        if asked and not rung.model_of and (rungs[0].name, rung.name) not in there:
            yield Link(rungs[0].name, rung.name, "approximate")


def _kind(first: Rung, second: Rung) -> Kind:
    same = first.deployment is second.deployment
    return link_kind(first.simulator, second.simulator, second.deployment) if same else "approximate"


def _reference(rungs: list[Rung], config: Config) -> str:
    """The rung the config names; a backend's name means the first rung it runs, and a student that is gone the form after it.

    Raises:
        UserError: SNX025, what is named does not run: another reference in its place would go unnoticed.
    """
    wanted = config.verify.reference
    found = next((rung.name for rung in rungs if wanted in (rung.name, rung.backend)), None)
    if found is None and wanted != "student":
        raise UserError(
            "SNX025", f"verify.reference names {wanted}, which does not run", where="verify.reference",
            why=f"this run has {', '.join(rung.name for rung in rungs)}",
            fix=f"add [verify.backends.{wanted}], or name one of these",
        )  # fmt: skip
    return found or rungs[0].name


def _criteria(rungs: list[Rung], config: Config) -> Criteria:
    """What the config demands of these rungs. A demand that no rung can show stays a demand, and fails."""
    names = [rung.name for rung in rungs]
    gates = config.gates
    return Criteria(
        exact=tuple((pair[0], pair[1]) for pair in gates.exact),
        accuracy=((names[0], INTEGER, gates.accuracy_drop),) if INTEGER in names else (),
        overflows=(INTEGER, gates.overflows) if INTEGER in names else None,
        significance=gates.accuracy_significance,
        baseline=names[0],
        tolerance=Tolerance(gates.spike_mismatch, gates.decision_mismatch),
        clipped_inputs=gates.clipped_inputs,
        minimum_accuracy=() if gates.student_accuracy is None else (("student", gates.student_accuracy),),
        targets=gates.targets,
        layers=gates.layers,
        backends={rung.name: rung.backend for rung in rungs if not rung.model_of},
        table="gates",
    )


def _teacher(
    model: Network | None, test: Samples, config: Config
) -> tuple[tuple[RungRecord, ...], tuple[Gate, ...], AnnOperations | None]:
    """The teacher's place in front of the ladder, its gate, and what it multiplies. It has no spikes, so nothing is compared."""
    least = config.gates.teacher_accuracy
    if model is None:
        return (), () if least is None else (minimum_accuracy("teacher", least, 0, 0, "gates.teacher_accuracy"),), None
    macs, logits = count_macs(model, test.x, "teacher")
    right, samples = int(np.count_nonzero(np.argmax(logits, axis=1) == test.y)), len(test)
    rung = RungRecord(
        name="teacher",
        backend="pytorch",
        description=f"the trained ANN ({config.model.teacher})",
        samples=samples,
        correct=right,
        accuracy=100.0 * right / samples,
        interval=wilson_interval(right, samples),
    )
    gates = () if least is None else (minimum_accuracy("teacher", least, right, samples, "gates.teacher_accuracy"),)
    return (rung,), gates, macs.model_copy(update={"correct": right})


def forms_beside(path: Path) -> Forms:
    """A quantised deployment with the earlier forms its lineage names; those that are gone are listed as NOT_COMPARED.

    Raises:
        UserError: SNX302 for a float deployment, SNX119 where a file is there but not the one the lineage names.
    """
    quantised = library.load(path)
    if not quantised.quantised:
        raise UserError("SNX302", f"{path.name} is not on an integer grid", where=str(path), why="integer backends run integers",
                        fix=f"snn-export quantize {path.name}")  # fmt: skip
    files, absent = quantised.contract.lineage.files, dict[str, CoverageItem]()
    found: dict[str, Path] = {}
    for role in ("student", "float", *((LEARNT, "searched") if quantised.contract.lineage.fine_tuned else ())):
        file = path.parent / files[role].path if role in files else None
        if file is None or not file.is_file():
            form = LEARNT if role == "searched" else role  # the deployment it started from is there to read it with
            why = f"the lineage names no {role} file" if file is None else f"{files[role].path} is not there"
            absent.setdefault(form, _absent(form, why))
            continue
        if nir_io.file_digest(file) != files[role].sha256:
            raise UserError("SNX119", f"{files[role].path} is not the file {path.name} was made from", where=str(file),
                            why="its SHA-256 is not the lineage's", fix="restore the file, or export again")  # fmt: skip
        found[role] = file
    searched = nir_io.read(found["searched"]) if {"searched", LEARNT} <= found.keys() else None
    return Forms(
        quantised=quantised,
        folded=nir_io.read(found["float"]) if "float" in found else None,
        student=load_student(found["student"]) if "student" in found else None,
        quantised_student=None if searched is None else load_quantised_student(found[LEARNT], searched),
        searched=searched,
        absent=tuple(absent.values()),
    )

"""Whether a verification runs in this process or on several, and what has to travel if it is several."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.config_schema import BackendConfig, Config, VerifyConfig
from snn_export.export import nir_io
from snn_export.pipeline.deploying import load_student
from snn_export.pipeline.verification import INTEGER, Forms, Watchers, ladder_of
from snn_export.pipeline.workspace import COMPUTING_LIBRARIES, source_digest
from snn_export.training.checkpoint import save_model
from snn_export.training.fine_tuning import load_quantised_student, save_quantised_student
from snn_export.training.threads import use_threads
from snn_export.verification.ladder import LadderResult, Link, Progress, Rung, run_ladder, sample_axis
from snn_export.verification.sharding import ROOM, Work, work_on, workers_that_help

_SOURCES = (
    "models", "export", "hardware_sims", "verification", "energy", "pipeline.verification", "pipeline.energy_run",
    "pipeline.scaling",
)  # fmt: skip
"""Parts of this program that a shard's result depends on."""

_SETTINGS, _QUANTISED, _FOLDED = "settings.json", "quantised.nir", "folded.nir"
_STUDENT, _LEARNT, _SEARCHED = "student.safetensors", "learnt.safetensors", "searched.nir"


def run(
    forms: Forms,
    config: Config,
    ladder: tuple[Sequence[Rung], Sequence[Link], Watchers],
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    scratch: Path,
    progress: Progress,
) -> LadderResult:
    """Run a ladder where the settings say, or where it is worth it; the result is the same to the bit.

    Args:
        forms: of the network.
        config: where to run, and on what.
        ladder: what :func:`snn_export.pipeline.verification.ladder_of` makes of these.
        inputs: (B, *shape) or (T, B, *shape).
        labels: (B,) or None.
        scratch: folder for the temporary files of worker processes.
        progress: told what was decided, then what runs.

    Raises:
        UserError: SNX431 to SNX434, see :mod:`snn_export.verification.distributed`.
    """
    rungs, links, watchers = ladder
    samples = int(np.shape(inputs)[sample_axis(rungs[0], inputs)])
    workers = _workers(config.verify, rungs, samples)
    use_threads(1)  # a sum of floats depends on how many threads share it, and so would the report
    try:
        if workers == 1 and not config.verify.scheduler:
            progress(f"{samples} samples in this process")
            return run_ladder(rungs, links, inputs, labels, observers=watchers.all, progress=progress)
        from snn_export.verification.distributed import Where, open_pool

        progress(f"{samples} samples on {config.verify.scheduler or f'{workers} workers, which start now'}")
        parcel = packed(forms, config)
        with open_pool(Where(workers, config.verify.scheduler or "", scratch)) as pool:
            progress(f"{samples} samples on {pool.told}")
            return pool.run(parcel, rungs, links, watchers.all, inputs, labels, progress)
    finally:
        use_threads(config.training.threads)


def _workers(settings: VerifyConfig, rungs: Sequence[Rung], samples: int) -> int:
    """Processes: those that were asked for, else as many as help."""
    if settings.workers or settings.scheduler:
        return settings.workers
    wanted = workers_that_help(rungs, samples)
    if wanted == 1:
        return 1
    from snn_export.verification.distributed import memory_limit

    return max(1, min(wanted, memory_limit() // ROOM))


def packed(forms: Forms, config: Config) -> Any:
    """The forms as files, and the settings: what the ladder can be made from again in another process."""
    from snn_export.verification.distributed import Parcel

    with TemporaryDirectory(prefix="snn-export-forms-") as name:
        folder = Path(name)
        nir_io.write(forms.quantised, folder / _QUANTISED)
        if forms.folded is not None:
            nir_io.write(forms.folded, folder / _FOLDED)
        if forms.student is not None:
            save_model(folder / _STUDENT, forms.student)
        if forms.quantised_student is not None and forms.searched is not None:
            nir_io.write(forms.searched, folder / _SEARCHED)
            save_quantised_student(folder / _LEARNT, forms.quantised_student, forms.searched)
        (folder / _SETTINGS).write_text(config.model_dump_json(), encoding="utf-8")
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return Parcel(f"{__name__}:unpacked", files, {**facts(), "network": forms.quantised.fingerprint})


def unpacked(parcel: Any) -> Work:
    """The ladder of a parcel, compiled in this process, on one thread.

    Raises:
        UserError: SNX432 where this process does not run the program that packed it.
    """
    from snn_export.verification.distributed import check_facts

    wanted = dict(parcel.facts)
    network = wanted.pop("network")
    check_facts(wanted, facts())
    use_threads(1)
    with TemporaryDirectory(prefix="snn-export-forms-") as name:
        folder = Path(name)
        for file, content in parcel.files.items():
            (folder / file).write_bytes(content)
        there = {path.name: path for path in folder.iterdir()}
        searched = nir_io.read(there[_SEARCHED]) if _SEARCHED in there else None
        forms = Forms(
            quantised=nir_io.read(there[_QUANTISED]),
            folded=nir_io.read(there[_FOLDED]) if _FOLDED in there else None,
            student=load_student(there[_STUDENT]) if _STUDENT in there else None,
            quantised_student=None if searched is None else load_quantised_student(there[_LEARNT], searched),
            searched=searched,
        )
        config = Config.model_validate_json(there[_SETTINGS].read_bytes())
    check_facts({"network": network}, {"network": forms.quantised.fingerprint})
    rungs, links, watchers = ladder_of(forms, _on_one_thread(config), lambda message: None)
    return work_on(rungs, links, watchers.all)


def _on_one_thread(config: Config) -> Config:
    """Settings whose integer simulator leaves the other processors to the other workers."""
    if INTEGER not in config.verify.backends:
        return config
    settings: BackendConfig = config.verify.backends[INTEGER]
    alone = settings.model_copy(update={"options": {**settings.options, "threads": 1}})
    verify = config.verify.model_copy(update={"backends": {**config.verify.backends, INTEGER: alone}})
    return config.model_copy(update={"verify": verify})


def facts() -> dict[str, str]:
    """What must be the same in every process that shares a verification, for its result to be that of one."""
    found = {name: _installed(name) for name in ("snn-export", *COMPUTING_LIBRARIES)}
    return {**found, "Python": ".".join(platform.python_version_tuple()[:2]), "source": source_digest(_SOURCES)}


def _installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"

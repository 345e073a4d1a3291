"""Shards on worker processes through Dask distributed: an embedded cluster of this machine, or a running scheduler.

A worker makes its own rungs, once, from files that travel to it as bytes; no simulator, program or module is ever sent. A shard's
inputs and labels travel with its task, a few shards at a time, and tallies come back. Dask itself pickles what it sends between
its processes, so a scheduler must be trusted as far as a shell account on this machine is.

A worker that is lost is replaced where Dask can do so, and its shards run again; a shard that takes several workers with it is an
error that names it. Every shard is taken exactly once.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError
from snn_export.verification.ladder import LadderResult, Link, Observer, Progress, Rung, sample_axis, samples_per_chunk
from snn_export.verification.sharding import Gathering, Shard, ShardResult, Work, cut, run_shard, samples_of

IN_FLIGHT = 2
"""Shards per worker that are under way: one runs while the next one travels."""

CONNECT_SECONDS = 15.0
"""Time in which a scheduler must answer, and embedded workers must start."""

WORKER_SECONDS = 60.0
"""Time without any worker after which none is waited for any longer."""

LOSSES = 3
"""Workers that a shard may take with it before it is given up."""

_POLL_SECONDS = 1.0
_SETTINGS = {
    # Tallies are small and inputs travel with their tasks: there is nothing to spill, and a paused worker would never go on.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.allowed-failures": LOSSES,
    # Dask looks once, this long after a loss, and ends for good whichever worker is not connected then. The worker that took the
    # first one's place may itself be lost, or not up yet, at that very moment; its nanny replaces it, and we count who is there.
    "distributed.deploy.lost-worker-timeout": "365 days",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.large-graph-warning-threshold": "1GB",
}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
SET_BY_DASK = ("MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED", *_ONE_THREAD)
"""Variables that Dask sets in this process when it starts others."""


@dataclass(frozen=True, eq=False)
class Parcel:
    """What a worker makes its rungs from.

    Attributes:
        make: ``"module:function"``, called in the worker with this parcel; returns its :class:`Work`.
        files: by name; what ``make`` reads.
        facts: versions and the like, by name, that must be the same in every process; ``make`` compares them.
    """

    make: str
    files: Mapping[str, bytes]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Where:
    """Workers to use.

    workers: processes to start on this machine; beside a scheduler, how many to wait for.
    scheduler: address of one that runs; empty: start an embedded cluster.
    scratch: folder for temporary files of an embedded cluster.
    """

    workers: int
    scheduler: str
    scratch: Path


@dataclass(eq=False)
class Pool:
    """Connected workers; made by :func:`open_pool`.

    Attributes:
        client: Dask's.
        told: what they are, in a few words.
        scheduler: its address.
    """

    client: Any
    told: str
    scheduler: str
    embedded: bool
    _absent_since: float | None = None

    def run(
        self,
        parcel: Parcel,
        rungs: Sequence[Rung],
        links: Sequence[Link],
        observers: Sequence[Observer],
        inputs: NDArray[Any],
        labels: NDArray[np.int64] | None,
        progress: Progress = lambda message: None,
    ) -> LadderResult:
        """The result of :func:`snn_export.verification.ladder.run_ladder`, to the bit.

        Args:
            parcel: makes these same rungs, links and observers in a worker.
            rungs: as for ``run_ladder``, like all that follow; they are not compiled or run here.
            links: between them.
            observers: receive what those in the workers took.
            inputs: of all samples.
            labels: of all samples, or None.
            progress: told after every shard.

        Raises:
            UserError: SNX431 where the scheduler is lost, SNX432 where a worker differs from this process, SNX433 for a shard
                that several workers were lost with, SNX434 where no worker is left; and those of ``parcel.make``.
        """
        axis = sample_axis(rungs[0], inputs)
        samples = int(np.shape(inputs)[axis])
        sample_bytes = np.asarray(inputs).nbytes // max(1, samples)
        shards = cut(samples, samples_per_chunk(rungs), self.workers(), sample_bytes)
        gathering = Gathering(rungs, links, observers, shards, labels is not None)
        name = f"snn-export-{os.urandom(8).hex()}"
        self._check_versions(parcel)
        with self._carried(parcel, name):
            self._share(name, gathering, inputs, labels, axis, progress)
        return gathering.finish()

    def workers(self) -> int:
        """Workers that are connected. Raises SNX431 where the scheduler does not answer, SNX434 where none came back."""
        found = len(self._asked(self.client.nthreads))
        now = time.monotonic()
        self._absent_since = None if found else self._absent_since or now
        if self._absent_since is not None and now - self._absent_since > WORKER_SECONDS:
            raise no_workers(self.scheduler, f"none was connected for {WORKER_SECONDS:.0f} seconds")
        return max(1, found)

    def _share(
        self,
        name: str,
        gathering: Gathering,
        inputs: NDArray[Any],
        labels: NDArray[np.int64] | None,
        axis: int,
        progress: Progress,
    ) -> None:
        rest = list(gathering.shards)[::-1]
        under_way: dict[str, tuple[Shard, Any]] = {}
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        workers = self.workers()
        try:
            while rest or under_way:
                while rest and len(under_way) < IN_FLIGHT * workers:
                    shard = rest.pop()
                    part = samples_of(shard, inputs, labels, axis)
                    key = f"{name}-{shard.number}"
                    future = self.client.submit(run_on_worker, name, shard, *part, gathering.broken, key=key, pure=False)
                    under_way[key] = (shard, future)
                    future.add_done_callback(lambda ended_future: ended.put(ended_future.key))
                try:
                    key = ended.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    workers = self.workers()
                    continue
                shard, future = under_way.pop(key)
                gathering.add(self._result(shard, future))
                future.release()
                last = len(gathering.shards)
                progress(f"{gathering.done} of {last} shards, {gathering.samples} samples, on {self.told}")
        finally:
            if under_way:
                with suppress(Exception):  # the reason to stop is told; that the scheduler is gone too would hide it
                    self.client.cancel([future for _, future in under_way.values()], force=True)

    def _result(self, shard: Shard, future: Any) -> ShardResult:
        """What a shard brought. Raises what its run raised."""
        from distributed import KilledWorker

        if future.status == "cancelled":
            raise unreachable(self.scheduler, "it went away while it worked")
        error = self._asked(future.exception)
        if isinstance(error, KilledWorker):
            raise _lost(shard, self.embedded) from error
        if error is not None:
            raise _another_program(error) or error
        found: ShardResult = self._asked(future.result)
        return found

    def _asked(self, question: Any, *arguments: Any, **options: Any) -> Any:
        """An answer of the scheduler; SNX431 where it gives none."""
        from concurrent.futures import CancelledError

        try:
            return question(*arguments, **options)
        except (OSError, TimeoutError, CancelledError) as error:
            raise unreachable(self.scheduler, f"it went away while it worked: {error or type(error).__name__}") from error

    def _check_versions(self, parcel: Parcel) -> None:
        """Ask every worker, by functions that are there without this program, before it is sent anything of this program."""
        theirs = self._asked(self.client.run, platform.python_version, on_error="return")
        mine = _minor(platform.python_version())
        for found in theirs.values():
            if _minor(found) != mine:
                raise _different({"Python": (str(found), mine)})
        for found in self._asked(self.client.run, version, "snn-export", on_error="return").values():
            wanted = parcel.facts.get("snn-export", version("snn-export"))
            if found != wanted:
                missing = isinstance(found, Exception)
                raise _different({"snn-export": ("not installed" if missing else str(found), wanted)})

    @contextmanager
    def _carried(self, parcel: Parcel, name: str) -> Iterator[None]:
        """Bring the parcel to every worker, also to those that come later; end there what was made of it."""
        try:
            self._asked(self.client.register_plugin, _carrier(parcel), name=name)
        except Exception as error:  # whatever reading it raised in a worker
            raise _another_program(error) or error from error
        try:
            yield
        finally:
            if self.client.status == "running":
                with suppress(Exception):  # whatever ended the run is told; a scheduler that is gone holds nothing any more
                    self.client.unregister_worker_plugin(name)


def _minor(found: object) -> str:
    return ".".join(str(found).split(".")[:2])


# --- in a worker -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Bench:
    """What a worker holds: the parcel until its rungs are made, then these. One shard at a time, whatever its threads."""

    parcel: Parcel | None
    work: Work | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, shard: Shard, inputs: NDArray[Any], labels: NDArray[np.int64] | None, skip: frozenset[int]) -> ShardResult:
        """Run a shard; the first one waits until the rungs are made."""
        with self._lock:
            if self.work is None:
                if self.parcel is None:
                    raise RuntimeError("this worker's rungs were given back")
                module, _, function = self.parcel.make.partition(":")
                self.work = getattr(import_module(module), function)(self.parcel)
                self.parcel = None
            return run_shard(self.work, shard, inputs, labels, skip=skip)

    def close(self) -> None:
        """Let the rungs go; those that run in a process of their own end it with themselves."""
        self.parcel = self.work = None


def run_on_worker(
    name: str, shard: Shard, inputs: NDArray[Any], labels: NDArray[np.int64] | None, skip: frozenset[int]
) -> ShardResult:
    """The task of a shard, run in a worker."""
    from distributed import get_worker

    carrier: Any = get_worker().plugins[name]
    bench: Bench = carrier.bench
    return bench.run(shard, inputs, labels, skip)


def _carrier(parcel: Parcel) -> Any:
    """A plugin: Dask hands it to every worker there is, and to every one that joins or is started anew."""
    from distributed import WorkerPlugin

    class Carrier(WorkerPlugin):
        def __init__(self) -> None:
            self.given = parcel

        def setup(self, worker: Any) -> None:
            del worker
            self.bench = Bench(self.given)
            del self.given

        def teardown(self, worker: Any) -> None:
            del worker
            self.bench.close()

    return Carrier()


# --- the workers -----------------------------------------------------------------------------------------------------


@contextmanager
def open_pool(where: Where) -> Iterator[Pool]:
    """Connect to workers, or start them; what was started is ended.

    Raises:
        UserError: SNX431 where the scheduler does not answer, SNX434 where no worker is there or starts.
    """
    import dask

    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module="distributed")  # of versions, which are compared here, and of its own clean-up
        yield stack.enter_context(_connected(where) if where.scheduler else _embedded(where))


@contextmanager
def _connected(where: Where) -> Iterator[Pool]:
    dask: Any = import_module("distributed")
    try:
        client = dask.Client(where.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise unreachable(where.scheduler, str(error) or type(error).__name__) from error
    with client:
        wanted = max(1, where.workers)
        try:
            client.wait_for_workers(wanted, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            found = len(client.nthreads())
            raise no_workers(where.scheduler, f"{found} of {wanted} came within {WORKER_SECONDS:.0f} seconds") from error
        yield Pool(client, f"{len(client.nthreads())} workers of {where.scheduler}", where.scheduler, embedded=False)


@contextmanager
def _embedded(where: Where) -> Iterator[Pool]:
    """Processes of this machine that nobody else can reach: all ports are on the loopback interface."""
    dask: Any = import_module("distributed")
    limit = int(0.9 * memory_limit()) // where.workers
    where.scratch.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix=".workers-", dir=where.scratch, ignore_cleanup_errors=True))
        stack.enter_context(_environment_kept())
        try:
            with _interrupts_held():
                cluster = stack.enter_context(dask.LocalCluster(
                    n_workers=where.workers, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=limit,
                    dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False}, silence_logs=logging.CRITICAL,
                    local_directory=folder, env=_ONE_THREAD,
                ))  # fmt: skip
            client = stack.enter_context(dask.Client(cluster, set_as_default=False, timeout=CONNECT_SECONDS))
        except (OSError, TimeoutError, RuntimeError) as error:
            raise no_workers("this machine", f"{type(error).__name__}: {error}") from error
        yield Pool(client, f"{where.workers} workers, each at most {limit / (1 << 30):.1f} GiB", "this machine", embedded=True)


def memory_limit() -> int:
    """Bytes of memory that this process and those it starts may take."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Dask sets variables for its workers in this process as well; take them back at the end."""
    before = {name: os.environ.get(name) for name in SET_BY_DASK}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started in here never sees Ctrl-C, which a terminal sends to all processes: this one ends the others in order.

    Threads take over the mask of the thread that makes them, and processes that of the thread that starts them. The first process
    that multiprocessing spawns is preceded by its resource tracker, whose start lets the signal through again in that thread, and
    so in the worker that follows; hence it is started before the signal is held.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- errors ----------------------------------------------------------------------------------------------------------


def unreachable(scheduler: str, why: str) -> UserError:
    """SNX431: a scheduler does not answer."""
    return UserError(
        "SNX431", f"the scheduler {scheduler} cannot be reached", where="--scheduler", why=why,
        fix="start one with `dask scheduler` and give the address it prints, such as tcp://host:8786; or leave --scheduler out",
    )  # fmt: skip


def no_workers(scheduler: str, why: str) -> UserError:
    """SNX434: there is nobody to work."""
    return UserError(
        "SNX434", f"{scheduler} has no workers", where="--workers", why=why,
        fix="start some with `dask worker ADDRESS`, or leave --scheduler out; --workers 1 runs in one process",
    )  # fmt: skip


def _lost(shard: Shard, embedded: bool) -> UserError:
    fix = "give fewer --workers: each then has more memory" if embedded else "start workers with a higher --memory-limit"
    return UserError(
        "SNX433", f"{shard} could not be run: {LOSSES + 1} workers were lost with them", where=f"shard {shard.number}",
        why="a worker is lost when the system ends it, most often for want of memory, or when its machine goes away", fix=fix,
    )  # fmt: skip


def _different(differences: Mapping[str, tuple[str, str]]) -> UserError:
    told = "; ".join(f"{name} is {theirs} there and {ours} here" for name, (theirs, ours) in differences.items())
    return UserError(
        "SNX432", "a worker does not run the same program", where="workers", why=told,
        fix="install the same versions in the environment of every worker",
    )  # fmt: skip


def _another_program(error: BaseException) -> UserError | None:
    """SNX432 for what a worker raises that lacks a module, or part of one; None for anything else."""
    if isinstance(error, ImportError) or (isinstance(error, AttributeError) and str(error).startswith("Can't get attribute")):
        return _different({"a module": (str(error), "there")})
    return None


def check_facts(wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Compare what must be the same in every process. Raises UserError SNX432 that names all that differs."""
    differences = {
        name: (found.get(name, "not there"), value) for name, value in wanted.items() if found.get(name, "not there") != value
    }
    if differences:
        raise _different(differences)

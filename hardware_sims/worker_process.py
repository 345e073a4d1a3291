"""Drives a worker: a script in a backend's own environment that turns a request folder into a trace folder.

The protocol every worker follows: it is called as ``python worker.py REQUEST TRACE``, writes into ``TRACE.partial`` and renames
that to ``TRACE`` when everything is there; it may keep two int64 (done, in all) in ``TRACE.partial/progress.bin``.

Whatever a worker does - crash, hang, stop, be killed, print without end - the call ends within its time limit with a
:class:`BackendError` that names the log, and no process of the worker's is left. Linux only, like the backends that need it.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from snn_export.hardware_sims.simulator import BackendError
from snn_export.models.diagnostics import Diagnostic

LOG_LIMIT = 64 << 20
"""Bytes of log after which a worker counts as broken."""

GRACE = 5.0
"""Seconds that killed processes get to disappear."""

_POLL = 0.02
_QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Shared memory that a failed worker leaves is removed here; the warning would only hide the worker's last words."""

_BOOTSTRAP = Path(__file__).with_name("worker_bootstrap.py")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker to start.

    Attributes:
        backend: name, for messages.
        python: interpreter of the worker's environment.
        script: what it runs.
        log: file that receives its stdout and stderr.
        time_limit: seconds until it is killed.
        environment: variables set on top of a small part of this process's.
    """

    backend: str
    python: Path
    script: Path
    log: Path
    time_limit: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkerCall:
    """One run of a worker.

    Attributes:
        worker: that runs.
        request, trace: folder it reads; folder it makes (must not exist yet).
    """

    worker: Worker
    request: Path
    trace: Path


def run_worker(call: WorkerCall, progress: Progress | None = None) -> None:
    """Run a worker to its end; returns where the trace folder exists and the worker ended well.

    Raises:
        BackendError: SNX420 past the time limit (the message says if it had been stopped), SNX421 killed by a signal,
            SNX422 ended with an error, SNX423 ended well without a trace, SNX424 could not be started, SNX426 flooded its log.
        KeyboardInterrupt: passed on after the worker's processes are gone.
    """
    worker, prefix = call.worker, f"snx{secrets.token_hex(8)}-"
    worker.log.parent.mkdir(parents=True, exist_ok=True)
    arguments = (str(call.request), str(call.trace))
    with worker.log.open("wb") as log, killed_at_exit(start_worker(worker, arguments, prefix, log), prefix) as process:
        _wait(call, process, progress)
    check_status(worker, process.returncode)
    if not call.trace.is_dir():
        raise worker_error(worker, "SNX423", "ended without an error and without a trace", last_words(worker.log))


def check_status(worker: Worker, status: int) -> None:
    """Raises BackendError for a worker that did not end well: SNX421 killed by a signal, SNX422 ended with an error."""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        why = f"the kernel does so when memory runs out; {last_words(worker.log)}"
        raise worker_error(worker, "SNX421", f"was killed by {name}", why)
    if status > 0:
        raise worker_error(worker, "SNX422", f"ended with status {status}", last_words(worker.log))


def start_worker(
    worker: Worker, arguments: Sequence[str], prefix: str, log: IO[bytes], pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start the worker as leader of a session of its own, so that one signal reaches all it forks."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
    }
    given = [str(os.getpid()), prefix, str(worker.script), *arguments]
    try:
        return subprocess.Popen(
            [str(worker.python), "-I", "-u", "-W", _QUIET, str(_BOOTSTRAP), *given],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**kept, "OMP_NUM_THREADS": "1", **worker.environment},
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    except OSError as error:
        why = f"its interpreter is {worker.python}"
        raise worker_error(worker, "SNX424", f"could not be started: {error.strerror}", why) from error


@contextmanager
def killed_at_exit(process: subprocess.Popen[bytes], prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens inside: kill the whole process group, reap the leader, remove shared memory it left.

    The leader is reaped last. Until then its id cannot be given to another process, so the signal hits nobody else. A fork of
    this process that comes by here leaves everything as it is.
    """
    owner = os.getpid()
    try:
        yield process
    finally:
        if os.getpid() == owner:
            _end(process, prefix)


def _end(process: subprocess.Popen[bytes], prefix: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + GRACE
    while group_members(process.pid) and time.monotonic() < deadline:
        time.sleep(_POLL)
    process.wait()
    for segment in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - the kernel's folder of POSIX shared memory
        segment.unlink(missing_ok=True)


def _wait(call: WorkerCall, process: subprocess.Popen[bytes], progress: Progress | None) -> None:
    """Until the leader has ended (it is left unreaped) or is to be killed."""
    worker = call.worker
    deadline = time.monotonic() + worker.time_limit
    seen: tuple[int, int] | None = None
    while not _ended(process.pid):
        if time.monotonic() > deadline:
            stopped = any(state in "Tt" for state in group_members(process.pid).values())
            what = "was stopped (SIGSTOP) and did not continue" if stopped else "did not finish"
            why = "it hangs, or the job is larger than its limit"
            raise worker_error(worker, "SNX420", f"{what} within {worker.time_limit:g} seconds", why)
        if worker.log.stat().st_size > LOG_LIMIT:
            what = f"wrote more than {LOG_LIMIT >> 20} MiB of log"
            raise worker_error(worker, "SNX426", what, "it repeats an error without end")
        seen = _report(call.trace, progress, seen)
        time.sleep(_POLL)
    _report(call.trace, progress, seen)


def _ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # the host ignores SIGCHLD: the kernel has reaped it
        return True


def group_members(group: int) -> dict[int, str]:
    """Living processes of a process group and their state letters as ``/proc`` shows them; zombies do not count."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        state, its_group = _state_and_group(folder)
        if its_group == group and state not in "ZX":
            found[int(folder.name)] = state
    return found


def _state_and_group(folder: Path) -> tuple[str, int]:
    """State letter and process group of a ``/proc`` folder; ("X", 0), dead, where it ended while we looked."""
    try:
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[2])


def _report(trace: Path, progress: Progress | None, seen: tuple[int, int] | None) -> tuple[int, int] | None:
    """Pass on how far the worker is, where that is known and new; returns what was passed on last."""
    if progress is None:
        return None
    steps = _steps_done(trace.with_name(f"{trace.name}.partial")) or _steps_done(trace)
    if steps is not None and steps != seen:
        progress(*steps)
    return steps or seen


def _steps_done(folder: Path) -> tuple[int, int] | None:
    """(done, in all) as a trace folder tells it; None where that is not there yet, or just being written."""
    try:
        done, total = np.fromfile(folder / "progress.bin", np.int64).tolist()
    except (OSError, ValueError):
        return None
    return done, total


def last_words(log: Path) -> str:
    """Last line with content, shortened: nearly always the error."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f"its last words: {lines[-1][:300]}" if lines else "it said nothing"


def worker_error(worker: Worker, code: str, what: str, why: str) -> BackendError:
    """The error of a worker that broke, with its log."""
    fix = f"read {worker.log}; `snn-export backends install {worker.backend} --force` makes the environment anew"
    return BackendError(Diagnostic(code, f"the {worker.backend} worker {what}", worker.backend, why, fix), str(worker.log))


def new_log(folder: Path, backend: str) -> Path:
    """An unused log file in ``folder``, named after backend and time; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{backend}-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log", dir=folder)
    os.close(handle)
    return Path(path)

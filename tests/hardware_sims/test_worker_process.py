"""A worker that dies, stops, hangs or lies ends as an error with a log, in time, and leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_export.hardware_sims import worker_process
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.worker_process import Worker, WorkerCall, group_members, run_worker
from tests.builders import random_deployment, random_inputs
from tests.lava_environment import require_lava

FORKS = """
import ctypes, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)
if os.fork() == 0:
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, 0)  # an orphan that does not follow its parent: only the group's signal reaches it
        (folder / "grandchild").write_text(str(os.getpid()))
        time.sleep(600)
    wait_for("grandchild")
    os._exit(0)
(folder / "leader").write_text(str(os.getpid()))
wait_for("grandchild")
os.wait()
"""

FOLLOWS = """
import os, sys, time
from pathlib import Path
name = "leader" if os.fork() else "child"
Path(sys.argv[1], name).write_text(str(os.getpid()))
time.sleep(600)
"""


def call(folder: Path, script: str, time_limit: float = 20.0) -> WorkerCall:
    path, log = folder / "worker.py", folder / "log.txt"
    path.write_text(script, encoding="utf-8")
    (folder / "request").mkdir(exist_ok=True)
    worker = Worker(backend="test", python=Path(sys.executable), script=path, log=log, time_limit=time_limit)
    return WorkerCall(worker=worker, request=folder / "request", trace=folder / "trace")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def written_pid(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ("os.kill(os.getpid(), 9)", "SNX421", "SIGKILL"),
        ("os.kill(os.getpid(), 19)", "SNX420", "SIGSTOP"),
        ("time.sleep(600)", "SNX420", "did not finish"),
        ("pass", "SNX423", "without a trace"),
        ("print(chr(0) * 10 + 'garbage')", "SNX423", "garbage"),
        ("raise ValueError('seven')", "SNX422", "ValueError: seven"),
        ("sys.exit(3)", "SNX422", "status 3"),
    ],
)
def test_every_bad_end_is_an_error_with_a_log_and_without_survivors(tmp_path: Path, ending: str, code: str, words: str) -> None:
    limit, started = (3.0 if code == "SNX420" else 30.0), time.monotonic()
    with pytest.raises(BackendError) as caught:
        run_worker(call(tmp_path, FORKS + ending, limit))
    assert time.monotonic() - started < limit + worker_process.GRACE
    assert caught.value.diagnostic.code == code
    assert words in str(caught.value)
    assert caught.value.log == str(tmp_path / "log.txt") and Path(caught.value.log).exists()
    assert str(tmp_path / "log.txt") in caught.value.diagnostic.fix
    assert group_members(written_pid(tmp_path / "request" / "leader")) == {}
    assert not alive(written_pid(tmp_path / "request" / "grandchild"))


def test_a_good_worker_returns_and_its_stragglers_are_ended(tmp_path: Path) -> None:
    run_worker(call(tmp_path, FORKS + "os.mkdir(sys.argv[2])"))
    assert (tmp_path / "trace").is_dir()
    assert not alive(written_pid(tmp_path / "request" / "grandchild"))


def test_a_flooded_log_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "LOG_LIMIT", 1 << 16)
    with pytest.raises(BackendError) as caught:
        run_worker(call(tmp_path, "while True: print('again ' * 1000)"))
    assert caught.value.diagnostic.code == "SNX426"


def test_a_missing_interpreter_is_a_coded_error(tmp_path: Path) -> None:
    good = call(tmp_path, "")
    with pytest.raises(BackendError) as caught:
        run_worker(replace(good, worker=replace(good.worker, python=tmp_path / "nowhere")))
    assert caught.value.diagnostic.code == "SNX424"


def test_shared_memory_of_a_killed_worker_is_removed(tmp_path: Path) -> None:
    script = """
import os, sys
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
segment = SharedMemory(create=True, size=4096)
Path(sys.argv[1], "segment").write_text(segment.name)
os.kill(os.getpid(), 9)
"""
    with pytest.raises(BackendError):
        run_worker(call(tmp_path, script))
    name = (tmp_path / "request" / "segment").read_text(encoding="utf-8")
    assert name.startswith("snx") and not Path("/dev/shm", name).exists()


def test_progress_is_passed_on(tmp_path: Path) -> None:
    script = """
import os, sys, time
from array import array
from pathlib import Path
partial = Path(sys.argv[2] + ".partial")
partial.mkdir()
for done in (1, 2):
    (partial / "progress.bin").write_bytes(array("q", [done, 2]).tobytes())
    time.sleep(0.3)
os.rename(partial, sys.argv[2])
"""
    seen: list[tuple[int, int]] = []
    run_worker(call(tmp_path, script), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_an_interrupt_ends_the_worker(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    script = (
        FORKS
        + 'partial = Path(sys.argv[2] + ".partial"); partial.mkdir(); '
        + '(partial / "progress.bin").write_bytes(bytes(16)); time.sleep(600)'
    )
    with pytest.raises(KeyboardInterrupt):
        run_worker(call(tmp_path, script), interrupt)
    assert group_members(written_pid(tmp_path / "request" / "leader")) == {}


def test_the_worker_and_what_it_forked_die_with_the_caller(tmp_path: Path) -> None:
    call(tmp_path, FOLLOWS)
    caller = f"""
from pathlib import Path
from snn_export.hardware_sims.worker_process import Worker, WorkerCall, run_worker
folder = Path({str(tmp_path)!r})
request, trace, log = folder / "request", folder / "trace", folder / "log.txt"
worker = Worker(backend="test", python=Path({sys.executable!r}), script=folder / "worker.py", log=log, time_limit=600.0)
run_worker(WorkerCall(worker=worker, request=request, trace=trace))
"""
    process = subprocess.Popen([sys.executable, "-c", caller])
    try:
        files = [tmp_path / "request" / name for name in ("leader", "child")]
        wait_for(lambda: all(file.exists() and file.read_text(encoding="utf-8") for file in files))
        pids = [written_pid(file) for file in files]
        assert all(alive(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.lava
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, "SNX421"), (signal.SIGSTOP, "SNX420")])
def test_a_real_lava_worker_killed_or_stopped_in_the_middle(tmp_path: Path, number: signal.Signals, code: str) -> None:
    require_lava()
    rng = np.random.default_rng(0)
    deployment = random_deployment(rng, steps=16)
    hit: list[int] = []
    prefixes: list[str] = []

    def strike(done: int, total: int) -> None:
        if done > 3 and not hit:
            hit.append(leader_of(os.getpid()))
            prefixes.append(shared_memory_prefix(hit[0]))
            assert shared_memory(prefixes[0]), "Lava's channels were expected under this name"
            os.kill(hit[0], number)

    simulator = LavaSimulator(time_limit=8.0, log_folder=tmp_path, progress=strike)
    started = time.monotonic()
    with pytest.raises(BackendError) as caught:
        simulator.run(simulator.compile(deployment), random_inputs(rng, deployment, 400))
    assert time.monotonic() - started < 8.0 + worker_process.GRACE
    assert caught.value.diagnostic.code == code and Path(caught.value.log or "").parent == tmp_path
    assert group_members(hit[0]) == {}
    assert shared_memory(prefixes[0]) == []


@pytest.mark.lava
def test_one_killed_lava_process_ends_the_run_at_once(tmp_path: Path) -> None:
    """Lava itself would wait for it for ever."""
    require_lava()
    rng = np.random.default_rng(0)
    deployment = random_deployment(rng, steps=16)
    hit: list[int] = []

    def strike(done: int, total: int) -> None:
        if done > 3 and not hit:
            leader = leader_of(os.getpid())
            hit.extend([leader, max(group_members(leader))])
            os.kill(hit[1], signal.SIGKILL)

    simulator, started = LavaSimulator(time_limit=60.0, log_folder=tmp_path, progress=strike), time.monotonic()
    with pytest.raises(BackendError) as caught:
        simulator.run(simulator.compile(deployment), random_inputs(rng, deployment, 400))
    assert caught.value.diagnostic.code == "SNX422" and "killed by signal 9" in str(caught.value)
    assert time.monotonic() - started < 30.0
    assert group_members(hit[0]) == {}


def leader_of(parent: int) -> int:
    """The only child of ``parent`` that leads a session of its own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and int(fields[3]) == int(folder.name):
            return int(folder.name)
    raise AssertionError("there is no worker")


def shared_memory_prefix(leader: int) -> str:
    """What the names of this worker's segments start with: another run on the same machine has a prefix of its own."""
    arguments = Path("/proc", str(leader), "cmdline").read_text(encoding="utf-8").split("\0")
    return next(argument for argument in arguments if re.fullmatch(r"snx[0-9a-f]{16}-", argument))


def shared_memory(prefix: str) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"{prefix}*"))

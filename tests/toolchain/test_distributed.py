"""Shards on worker processes: the same report, whatever happens to the workers; and what is said where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from snn_export.config_schema import BackendConfig, Config, VerifyConfig
from snn_export.export import nir_io
from snn_export.models.diagnostics import UserError
from snn_export.pipeline import scaling
from snn_export.pipeline.verification import Forms, ladder_of
from snn_export.verification import distributed
from snn_export.verification.distributed import Parcel, Pool, Where, open_pool
from snn_export.verification.ladder import LadderResult, run_ladder
from snn_export.verification.sharding import Shard, ShardResult, samples_of
from tests.benchmark_modules import benchmark
from tests.conftest import REPOSITORY, heed_interrupts, snn_export
from tests.worker_ladders import SAMPLES, small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder from which workers can import these tests, without the repository's other folders; they take over our path."""
    folder = tmp_path_factory.mktemp("importable")
    (folder / "tests").symlink_to(REPOSITORY / "tests")
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pool(importable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two workers that all tests share."""
    before = {name: os.environ.get(name) for name in distributed.SET_BY_DASK}
    scratch = tmp_path_factory.mktemp("scratch")
    with open_pool(Where(2, "", scratch)) as found:
        yield found
    assert {name: os.environ.get(name) for name in distributed.SET_BY_DASK} == before
    assert not list(scratch.iterdir())


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards of one chunk."""
    monkeypatch.setattr(distributed, "samples_per_chunk", lambda rungs: 2)


def shared(pool: Pool, make: str, progress: Any = lambda message: None, **facts: str) -> str:
    """The report of the small ladder, shared."""
    found = small()
    observers = found.observers()
    parcel = Parcel(f"tests.worker_ladders:{make}", {"note": b"bytes"}, facts)
    result = pool.run(parcel, found.rungs, found.links, observers, found.inputs, found.labels, progress)
    return found.report(result, observers)


def test_the_report_is_that_of_one_process_to_the_bit(pool: Pool) -> None:
    told: list[str] = []
    assert shared(pool, "made_small", told.append) == small().whole()
    assert len(told) == SAMPLES / 2
    assert told[-1].startswith(f"12 of 12 shards, {SAMPLES} samples, on 2 workers, each at most ")


def test_killing_a_worker_changes_nothing(pool: Pool) -> None:
    before = set(pool.client.run(os.getpid).values())

    def kill(told: str) -> None:
        if told.startswith("4 of"):
            os.kill(min(before), signal.SIGKILL)

    assert shared(pool, "made_slow", kill) == small().whole()
    pool.client.wait_for_workers(2, timeout=60)
    assert len(before & set(pool.client.run(os.getpid).values())) == 1, "one was lost, and another one started in its place"


def test_a_shard_that_takes_its_workers_with_it_is_named(pool: Pool) -> None:
    with pytest.raises(UserError) as caught:
        shared(pool, "made_killing")
    pool.client.wait_for_workers(2, timeout=60)
    found = caught.value.diagnostics[0]
    assert (found.code, found.exit_code) == ("SNX433", 4)
    assert found.what.startswith("samples ")
    assert "fewer --workers" in found.fix
    assert shared(pool, "made_small") == small().whole(), "the workers that took their place can work"


def test_a_worker_is_replaced_however_long_its_replacement_takes(importable: Path, tmp_path: Path) -> None:
    """Dask itself gives up a worker whose replacement is not up some seconds after the loss: none of them, on a busy machine."""
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}), open_pool(Where(2, "", tmp_path)) as found:
        for process in found.client.run(os.getpid).values():
            os.kill(process, signal.SIGKILL)
        time.sleep(0.5)
        found.client.wait_for_workers(2, timeout=60)
        assert shared(found, "made_small") == small().whole()


def test_a_worker_that_differs_is_refused_and_what_differs_is_named(pool: Pool) -> None:
    with pytest.raises(UserError, match=r"numpy is 2\.0 there and 0\.1 here") as caught:
        shared(pool, "made_refusing")
    assert (caught.value.code, caught.value.exit_code) == ("SNX432", 4)
    with pytest.raises(UserError, match=r"snn-export is .* there and 9\.9 here") as caught:
        shared(pool, "made_small", **{"snn-export": "9.9"})
    assert caught.value.code == "SNX432"


def test_a_worker_without_a_module_is_refused(pool: Pool) -> None:
    parcel = Parcel("a_module_that_is_not_there:make", {}, {})
    found = small()
    with pytest.raises(UserError, match="a_module_that_is_not_there") as caught:
        pool.run(parcel, found.rungs, found.links, found.observers(), found.inputs, found.labels)
    assert caught.value.code == "SNX432"


def test_a_result_that_came_twice_is_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[ShardResult] = []
    original = Pool._result

    def always_the_first(self: Pool, shard: Any, future: Any) -> ShardResult:
        kept.append(original(self, shard, future))
        return kept[0]

    monkeypatch.setattr(Pool, "_result", always_the_first)
    with pytest.raises(ValueError, match="not awaited"):
        shared(pool, "made_small")


def test_nothing_listens_beyond_this_machine(pool: Pool) -> None:
    me = psutil.Process()
    ends = [end for process in (me, *me.children(recursive=True)) for end in process.net_connections() if end.status == "LISTEN"]
    assert len(ends) >= 3, "a scheduler and two workers"
    assert {end.laddr.ip for end in ends} == {"127.0.0.1"}


def test_a_worker_computes_on_one_thread(pool: Pool) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert set(pool.client.run(os.environ.get, name).values()) == {"1"}


# --- through a scheduler that runs already -----------------------------------------------------------------------------


def forms() -> Forms:
    """The form of a small convolutional network, its students left out."""
    from tests.networks import conv_net, quantised, read

    folded = read(conv_net(), (2, 9, 7))
    return Forms(quantised=quantised(folded), folded=folded, student=None)


def run_forms(config: Config, scratch: Path, made: Forms) -> tuple[LadderResult, Any]:
    rng = np.random.default_rng(0)
    inputs, labels = rng.uniform(0, 1, (SAMPLES, 2, 9, 7)), rng.integers(0, 5, SAMPLES)
    parts = ladder_of(made, config, lambda message: None)
    told: list[str] = []
    result = scaling.run(made, config, parts, inputs, labels, scratch, told.append)
    return result, (parts, inputs, labels, told)


def test_forms_travel_as_bytes_to_the_workers_of_a_scheduler(pool: Pool, tmp_path: Path) -> None:
    backends = {"loihi": BackendConfig(options={"threads": 2}), "quantised_student": BackendConfig(samples=5)}
    config = Config(verify=VerifyConfig(backends=backends, scheduler=pool.client.scheduler.address))
    result, (parts, inputs, labels, told) = run_forms(config, tmp_path, forms())
    expected = run_ladder(parts[0], parts[1], inputs, labels)
    assert "workers of tcp://127.0.0.1" in told[1]
    assert [tally.layers for _, tally in result.links] != [{} for _ in result.links]
    for (_, mine), (_, theirs) in zip(result.links, expected.links, strict=True):
        assert mine.samples == theirs.samples
        assert [vars(layer) for layer in mine.layers.values()].__repr__() == [vars(x) for x in theirs.layers.values()].__repr__()
    assert [(rung.samples, rung.correct) for rung in result.rungs] == [(rung.samples, rung.correct) for rung in expected.rungs]
    assert not list(tmp_path.iterdir()), "nothing is written for workers that may be elsewhere"


def test_a_student_and_a_fine_tuned_network_travel_too() -> None:
    from snn_export.hardware_sims.student.quantised import student_from_deployment
    from snn_export.models.students.registry import build_student

    student = build_student("convnet", seed=1, input_shape=(1, 8, 8), classes=10, steps=4, width=4).eval()
    made = forms()
    made = replace(made, student=student, searched=made.quantised, quantised_student=student_from_deployment(made.quantised))
    parcel = scaling.packed(made, Config())
    assert sorted(parcel.files) == [
        "folded.contract.json", "folded.nir", "learnt.safetensors", "quantised.contract.json", "quantised.nir",
        "searched.contract.json", "searched.nir", "settings.json", "student.safetensors",
    ]  # fmt: skip


def test_a_scheduler_that_is_not_there_is_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "CONNECT_SECONDS", 1.0)
    for address in ("tcp://127.0.0.1:9", "no address at all", "tcp://127.0.0.1"):
        with pytest.raises(UserError) as caught, open_pool(Where(0, address, tmp_path)):
            raise AssertionError
        assert (caught.value.code, caught.value.exit_code) == ("SNX431", 4), address


def test_a_scheduler_without_workers_is_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(distributed, "WORKER_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(UserError, match="0 of 1 came") as caught,
        open_pool(Where(0, cluster.scheduler_address, tmp_path)),
    ):
        raise AssertionError
    assert (caught.value.code, caught.value.exit_code) == ("SNX434", 4)


SCHEDULER = """
import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    sys.path.append({folder!r})
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        print(cluster.scheduler_address, flush=True)
        time.sleep(600)
"""


def test_a_scheduler_that_goes_away_is_exit_4(importable: Path, tmp_path: Path) -> None:
    script = tmp_path / "scheduler.py"
    script.write_text(SCHEDULER.format(folder=str(importable)), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            ended: list[str] = []

            def end(told: str) -> None:
                if not ended:
                    ended.append(told)
                    process.kill()

            with pytest.raises(UserError) as caught, open_pool(Where(1, address, tmp_path)) as remote:
                shared(remote, "made_slow", end)
        finally:
            process.kill()
    assert ended
    assert (caught.value.code, caught.value.exit_code) == ("SNX431", 4)


# --- the command -------------------------------------------------------------------------------------------------------

CONFIG = """\
[data]
source = "npz:data.npz"
[verify]
reference = "reference"
[verify.backends.lava]
required = false
[gates]
exact = []
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, data and settings: enough samples that an interrupt comes in time."""
    folder = tmp_path_factory.mktemp("project")
    made, rng = forms(), np.random.default_rng(0)
    nir_io.write(made.quantised, folder / "net.nir")
    arrays = {"x": rng.uniform(0, 1, (6000, 2, 9, 7)).astype(np.float32), "y": rng.integers(0, 5, 6000)}
    arrays["x"].flat[:2] = 0.0, 1.0
    train = {"x_train": arrays["x"][:60], "y_train": np.arange(60) % 5}
    np.savez(folder / "data.npz", **train, x_test=arrays["x"], y_test=arrays["y"])
    (folder / "snn-export.toml").write_text(CONFIG, encoding="utf-8")
    return folder


def test_the_command_writes_the_same_report_with_workers(project: Path) -> None:
    few = ["--set", "verify.samples=700"]
    codes = []
    for name, arguments in (("one", ["--workers", "1"]), ("two", ["--workers", "2"])):
        done = snn_export("verify", "net.nir", "-o", name, *few, *arguments, cwd=project)
        codes.append(done.returncode)
        assert done.stderr == ""
    one, two = ((project / name / "verify-net" / "report.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert codes[0] == codes[1]
    assert sorted(path.name for path in (project / "two").iterdir()) == [".lock", "verify-net"]


def test_the_command_says_what_is_wrong_with_a_scheduler(project: Path) -> None:
    done = snn_export("verify", "net.nir", "-o", "none", "--scheduler", "tcp://127.0.0.1:9", cwd=project)
    assert done.returncode == 4, done.stderr
    assert "SNX431" in done.stderr
    assert "Traceback" not in done.stderr


def holds_interrupts(process: psutil.Process) -> bool:
    """Whether SIGINT is blocked or ignored there; raced with, a worker that heeds it may or may not print a traceback."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    masks = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn")))
    return any(int(mask, 16) & 1 << (signal.SIGINT - 1) for mask in masks.values())


def test_an_interrupt_ends_the_workers_and_leaves_130(project: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group, workers included."""
    command = [sys.executable, "-m", "snn_export", "verify", "net.nir", "-o", "interrupted", "--workers", "2"]

    def as_in_a_terminal() -> None:
        heed_interrupts()
        os.setsid()

    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    ) as process:
        try:
            parent = psutil.Process(process.pid)
            deadline = time.monotonic() + 120
            while len(parent.children(recursive=True)) < 3 and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(4.0)
            started = parent.children(recursive=True)
            heeding = [child.cmdline() for child in started if not holds_interrupts(child)]
            os.killpg(process.pid, signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert not heeding
    assert process.returncode == 130, stderr
    assert stderr == "\ninterrupted: what was finished is kept; run again to continue\n"
    assert len(started) >= 2
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    assert sorted(path.name for path in (project / "interrupted").iterdir()) == [".lock"]


# --- memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_a_worker_may_be_killed() -> None:
    """The benchmark, smaller; benchmarks/verify_scale.py runs it on 10,000 samples."""
    found = benchmark("verify_scale").measured(1200, 2)
    assert benchmark("verify_scale").failures(found) == [], found


def test_threads_of_a_worker_take_turns() -> None:
    """A worker of somebody else's scheduler may have several threads; simulators and observers are made for one."""
    made, results = small(), list[ShardResult]()
    bench, gathering = distributed.Bench(None, made.work()), made.gathering(made.observers(), 6)

    def run(shard: Shard) -> None:
        results.append(bench.run(shard, *samples_of(shard, made.inputs, made.labels, 0), frozenset()))

    threads = [threading.Thread(target=run, args=(shard,)) for shard in gathering.shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        gathering.add(result)
    assert made.report(gathering.finish(), gathering.observers) == made.whole()

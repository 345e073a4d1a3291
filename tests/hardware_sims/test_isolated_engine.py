"""Cells in another process: the network's own spikes, declared deviations proven, and every way a worker can go wrong."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack, final

import numpy as np
import pytest
from numpy.random import default_rng

from snn_export.export import interpreter, nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation, deviating, sentences
from snn_export.export.graph import replace_nodes
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.environments import Environment
from snn_export.hardware_sims.isolated.backend import CellBackend, RunOptions
from snn_export.hardware_sims.isolated.engine import Rules
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net
from tests.torch_graphs import assert_runs_its_integers, graph_of, refusals, with_spec

pytestmark = pytest.mark.usefixtures("one_thread", "plain_package")

ALL: tuple[Record, ...] = ("spikes", "membrane", "current")
SEVERAL = Deviation(NeuronSpec(0), ("emits several spikes in one step",), several_spikes=True, at_threshold=True)
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip


@pytest.fixture
def plain_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of ``workers/plain_cells.py`` as an isolated backend called "plain"."""
    folder = Path(__file__).parent / "workers"

    class Plain(Environment):
        worker = folder / "plain_cells.py"  # type: ignore[assignment]

    monkeypatch.setattr(environments, "BUILT_IN", {"plain": Plain("plain", folder)})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@final
class Plain(CellBackend):
    """A backend on that worker."""

    name, description, meaning = "plain", "NumPy", "nothing"

    def __init__(self, deviations: dict[str, Deviation], options: dict[str, Any], **others: Unpack[RunOptions]) -> None:
        def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
            return dict.fromkeys(deployment.layers, LayerMapping("native", "NumPy"))

        super().__init__(Rules(mapping, lambda deployment: deviations, lambda deployment: []), options, **others)


def engine(
    time_limit: float = 60.0,
    deviations: dict[str, Deviation] | None = None,
    *,
    progress: Progress | None = None,
    log_folder: Path | None = None,
    python: Path | None = Path(sys.executable),
    **options: Any,
) -> CellBackend:
    return Plain(deviations or {}, options, time_limit=time_limit, progress=progress, log_folder=log_folder, python=python)


def run(made: CellBackend, deployment: Deployment, inputs: Any) -> Trace:
    assert made.check(deployment) == []
    return made.run(made.compile(deployment), inputs, ALL)


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_in_another_process_run_the_network(name: str) -> None:
    make, shape = NETWORKS[name]
    deployment = read(make(), shape)
    inputs = default_rng(0).uniform(0.0, 1.0, (5, *shape))
    trace = run(engine(), deployment, inputs)
    assert sum(int(layer.counts.sum()) for layer in trace.layers.values()) > 0
    for found in explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF).values():  # type: ignore[arg-type]
        assert not found.faulty.any() and not found.beyond.any()
    assert trace.provenance["numpy"] == np.__version__ and trace.provenance["plain mapping"].startswith("native: ")


def test_a_quantised_network_runs_its_integers_in_float_state() -> None:
    deployment = quantised(read(dense_net(), (4,)))
    trace = assert_runs_its_integers(engine(), deployment, default_rng(1).uniform(0, 1, (3, 4)))
    assert "no truncation" in trace.provenance["plain state"]


def chain() -> Deployment:
    """Weights of whole numbers in front of integrating neurons: membranes meet the threshold exactly, and pass it twice over."""
    import nir

    one = np.ones(4)
    rng = default_rng(3)
    nodes = {
        "input": nir.Input({"input": np.array([4])}), "fc1": nir.Linear(rng.integers(-1, 3, (4, 4)).astype(np.float64)),
        "if1": nir.IF(1e3 * one, 2 * one, 0 * one), "fc2": nir.Linear(rng.integers(-2, 3, (4, 4)).astype(np.float64)),
        "if2": nir.IF(1e3 * one, 2 * one, 0 * one), "output": nir.Output({"output": np.array([4])}),
    }  # fmt: skip
    names = list(nodes)
    spec = NeuronSpec(0, reset="subtract")
    return graph_of(nodes, list(pairwise(names)), {"if1": spec, "if2": spec}, steps=12)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_a_declared_deviation_is_all_that_separates_a_package_from_the_contract(several: bool) -> None:
    deployment = chain()
    inputs = default_rng(0).integers(0, 3, (12, 20, 4)).astype(np.float64)
    declared = {
        name: Deviation(spec, ("fires at its threshold",), at_threshold=True, several_spikes=several)
        for name, spec in deployment.contract.neurons.items()
    }
    trace = run(engine(deviations=declared, at_threshold=True, several=several), deployment, inputs)
    model = deviating(deployment, declared)
    reference = ReferenceSimulator()
    expected = reference.run(reference.compile(model), inputs, ALL)  # type: ignore[arg-type]
    for name, layer in trace.layers.items():
        other = expected.layers[name]
        np.testing.assert_array_equal(layer.counts, other.counts)
        np.testing.assert_array_equal(layer.membrane, other.membrane)  # type: ignore[arg-type]
        if several:
            assert layer.several is not None and other.several is not None and layer.several.max() > 1
            np.testing.assert_array_equal(layer.several, other.several)
    plain = reference.run(reference.compile(deployment), inputs, ALL)  # type: ignore[arg-type]
    assert any((plain.layers[name].spikes != layer.spikes).any() for name, layer in trace.layers.items())  # type: ignore[union-attr]
    for found in explain(model, inputs, trace.layers, FLOAT32_ROUNDOFF).values():  # type: ignore[arg-type]
        assert not found.faulty.any() and not found.beyond.any() and not found.tied.any()
    assert trace.provenance["plain deviations"] == "fires at its threshold (if1, if2)"
    with pytest.raises(ValueError, match="write the one it was made from"):
        nir_io.write(model, "nowhere.nir")


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("several", [False, True])
def test_a_late_reset_takes_what_the_step_before_sent(reset: str, several: bool) -> None:
    spec = NeuronSpec(0, reset=reset, reset_delay=1)  # type: ignore[arg-type]
    deployment = with_spec(chain(), reset=reset, reset_delay=1)
    model = deviating(deployment, {"if1": Deviation(spec, ("fires early",), at_threshold=True, several_spikes=several)})
    inputs = default_rng(0).integers(0, 3, (12, 20, 4)).astype(np.float64)
    found = interpreter.run(model, inputs)["if1"]
    x = np.einsum("oi,tbi->tbo", deployment.graph.nodes["fc1"].weight, inputs)
    v, sent = np.zeros((20, 4)), np.zeros((20, 4))
    for t in range(12):
        v = (v * (sent == 0) + x[t]) if reset == "zero" else v + x[t] - 2 * sent
        sent = np.where(v >= 2, np.floor(v / 2) if several else 1.0, 0.0)
        np.testing.assert_array_equal(found.sent[t], sent)
        np.testing.assert_array_equal(found.membrane[t], v)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_wrong_count_of_spikes_is_no_tie(reset: str) -> None:
    """Membranes of whole numbers lie on multiples of the threshold: whatever is wrong there must not be taken for rounding."""
    deployment = with_spec(chain(), reset=reset)
    inputs = default_rng(0).integers(0, 3, (12, 20, 4)).astype(np.float64)
    declared = {
        name: Deviation(spec, ("several",), at_threshold=True, several_spikes=True)
        for name, spec in deployment.contract.neurons.items()
    }
    model = deviating(deployment, declared)
    good = run(engine(deviations=declared, at_threshold=True, several=True), deployment, inputs)
    judged = explain(model, inputs, good.layers, FLOAT32_ROUNDOFF)  # type: ignore[arg-type]
    assert not any(found.faulty.any() or found.tied.any() for found in judged.values())
    several = good.layers["if2"].several
    assert several is not None
    for wrong in (np.where(several > 0, several + 2, 0), 3 * several, several * (np.arange(12) % 2)[:, None, None]):
        layers = {**good.layers, "if2": replace(good.layers["if2"], several=wrong, spikes=wrong > 0)}
        found = explain(model, inputs, layers, FLOAT32_ROUNDOFF)["if2"]  # type: ignore[arg-type]
        assert found.faulty.any()


@pytest.mark.parametrize("delay", [0, 1])
def test_what_never_fires_keeps_its_membrane(delay: int) -> None:
    import nir

    deployment = with_spec(chain(), reset="subtract", reset_delay=delay)
    node = deployment.graph.nodes["if1"]
    never = nir.IF(node.r, np.array([2.0, np.inf, 2.0, 2.0]), 0 * node.r)
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"if1": never}))
    found = interpreter.run(deployment, default_rng(0).integers(0, 3, (12, 5, 4)).astype(np.float64))["if1"]
    assert np.isfinite(found.membrane).all() and found.spikes.any() and not found.spikes[..., 1].any()


def test_a_deviation_changes_firing_and_reset_and_nothing_else() -> None:
    deployment = chain()
    spec = deployment.contract.neurons["if1"]
    for name, other in (("if1", replace(spec, dv=5)), ("if1", replace(spec, spiking=False)), ("nobody", spec)):
        with pytest.raises(ValueError, match="how it fires and resets"):
            deviating(deployment, {name: Deviation(other, ("rounds a little",))})
    with pytest.raises(ValueError, match="in a sentence"):
        Deviation(spec, ())


def test_sentences_name_the_populations_they_hold_for() -> None:
    other = replace(SEVERAL, told=("emits several spikes in one step", "is clipped"))
    assert sentences({"a": SEVERAL, "b": other}) == ("emits several spikes in one step (a, b)", "is clipped (b)")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("raise", "SNX422", "no such kernel"),
        ("exit", "SNX422", "status 3"),
        ("killed", "SNX421", "SIGKILL"),
        ("hang", "SNX420", "within 6 seconds"),
        ("noise", "SNX425", "no message"),
        ("huge", "SNX425", "bytes are announced"),
        ("shape", "SNX425", "float32"),
        ("half a spike", "SNX425", "no counts"),
        ("deep", "SNX425", "something else than a message"),
        ("flood", "SNX426", "of log"),
        ("close", "SNX422", "broke off before the run was over"),
    ],
)
def test_every_fault_of_a_worker_is_an_error_with_a_log(fault: str, code: str, words: str) -> None:
    deployment, started = read(dense_net(), (4,)), time.monotonic()
    with pytest.raises(BackendError) as caught:
        run(engine(time_limit=6.0, fault=fault), deployment, default_rng(0).uniform(0, 1, (2, 4)))
    assert time.monotonic() - started < 20
    assert caught.value.diagnostic.code == code and words in str(caught.value)
    assert caught.value.log is not None and Path(caught.value.log).is_file()


def test_what_a_worker_prints_goes_to_its_log_which_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    made = engine(fault="print", log_folder=tmp_path / "logs")
    trace = run(made, read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4)))
    assert trace.predictions.shape == (2,)
    del made
    gc.collect()
    assert workers() == []
    [log] = (tmp_path / "logs").glob("plain-*.log")
    assert "a line on standard output" in log.read_text(encoding="utf-8")


def test_a_mistake_of_the_user_in_the_middle_of_a_run_leaves_the_worker_alive() -> None:
    deployment, inputs, made = read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4)), engine()
    first = run(made, deployment, inputs)
    [pid] = workers()
    for wrong in (inputs[:, :3], inputs[0]):
        with pytest.raises(UserError):
            run(made, deployment, wrong)
        assert workers() == [pid]
    np.testing.assert_array_equal(run(made, deployment, inputs).readout, first.readout)
    assert workers() == [pid]


@pytest.mark.parametrize("missing", ["name", "description", "meaning"])
def test_a_backend_without_a_name_or_a_description_cannot_be_made(missing: str) -> None:
    said = {key: "plain" for key in ("name", "description", "meaning") if key != missing}
    nameless = type("Nameless", (CellBackend,), said)
    with pytest.raises(TypeError, match=missing):
        nameless(Rules(lambda deployment: {}, lambda deployment: {}, lambda deployment: []), {})


def test_an_encoder_on_the_host_is_refused() -> None:
    deployment = quantised(read(dense_net(), (4,)))
    encoder = deployment.contract.encoder
    hosted = deployment.replace(contract=deployment.contract.model_copy(update={"encoder": replace(encoder, kind="bias")}))
    assert ("SNX293", "contract.encoder") in refusals(engine(), hosted)


def workers() -> list[int]:
    """Living workers of these tests."""
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if (folder / "cmdline").exists() and b"plain_cells.py" in (folder / "cmdline").read_bytes()
    ]


def test_a_worker_stays_for_the_next_run_is_replaced_when_it_died_and_ends_with_its_owner() -> None:
    deployment, inputs = read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4))
    told: list[tuple[int, int]] = []
    made = engine(progress=lambda done, total: told.append((done, total)))
    first = run(made, deployment, inputs)
    [pid] = workers()
    steps = deployment.contract.steps * len(deployment.layers)
    assert told == [(index + 1, steps) for index in range(steps)]
    again = run(made, deployment, inputs)
    assert workers() == [pid]
    np.testing.assert_array_equal(first.readout, again.readout)
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    np.testing.assert_array_equal(run(made, deployment, inputs).readout, first.readout)
    assert len(workers()) == 1 and workers() != [pid]
    logs = list((environments.log_folder()).glob("plain-*"))
    assert len(logs) == 1
    del made
    gc.collect()
    assert workers() == []
    assert not list(environments.log_folder().glob("plain-*"))


def test_a_run_on_another_thread_and_one_in_a_fork_leave_the_worker_alone() -> None:
    deployment, inputs, made = read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4)), engine()
    traces: list[Trace] = []
    thread = threading.Thread(target=lambda: traces.append(run(made, deployment, inputs)))
    thread.start()
    thread.join()
    [pid] = workers()  # it outlives the thread it was started from
    child = os.fork()
    if not child:
        code = 1
        try:
            np.testing.assert_array_equal(run(made, deployment, inputs).readout, traces[0].readout)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(run(made, deployment, inputs).readout, traces[0].readout)
    assert workers() == [pid]


def test_a_run_inside_the_progress_of_another_is_refused_and_does_not_hang() -> None:
    deployment, inputs = read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4))
    made = engine(progress=lambda done, total: run(made, deployment, inputs))
    with pytest.raises(RuntimeError, match="while another"):
        run(made, deployment, inputs)


def test_another_interpreter_gets_another_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    monkeypatch.setenv("SNN_EXPORT_PLAIN_PYTHON", sys.executable)
    made = engine(python=None)
    deployment, inputs = read(dense_net(), (4,)), default_rng(0).uniform(0, 1, (2, 4))
    run(made, deployment, inputs)
    [pid] = workers()
    monkeypatch.setenv("SNN_EXPORT_PLAIN_PYTHON", str(other))
    with contextlib.suppress(BackendError):  # whether it knows NumPy depends on how this Python was made
        run(made, deployment, inputs)
    assert pid not in workers()

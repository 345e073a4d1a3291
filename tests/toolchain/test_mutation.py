"""The verifier verified: a fault in what Lava runs must fail, and be found in the right layer.

Faults go into the request that the real worker gets, behind everything that checks deployments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snn_export import cli
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.lava.simulator import LavaSimulator, Program
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic
from snn_export.reporting.json_file import read_report
from tests.conftest import FinishedRun
from tests.lava_environment import require_lava

pytestmark = pytest.mark.lava

Fault = Callable[[Program, Mapping[str, NDArray[Any]]], Program]


@dataclass
class FaultyLava:
    """Real Lava, given a program with a fault in it."""

    fault: Fault
    active: Mapping[str, NDArray[Any]]
    name: str = "lava"
    real: LavaSimulator = field(default_factory=lambda: LavaSimulator(time_limit=120))

    def capabilities(self) -> Capabilities:
        return self.real.capabilities()

    def availability(self) -> Availability:
        return self.real.availability()

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return self.real.check(deployment)

    def compile(self, deployment: Deployment) -> Program:
        return self.fault(self.real.compile(deployment), self.active)

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        return self.real.run(program, inputs, record)


def with_array(program: Program, name: str, value: NDArray[Any]) -> Program:
    return replace(program, arrays={**program.arrays, name: value})


def with_population(program: Program, index: int, **fields: Any) -> Program:
    populations = [dict(population) for population in program.populations]
    populations[index].update(fields)
    return replace(program, populations=tuple(populations))


def one_weight_of_a_synapse_that_carried_a_spike(program: Program, active: Mapping[str, NDArray[Any]]) -> Program:
    """The readout's weight from the most active neuron of lif2, by the smallest step of the grid."""
    weight = program.arrays["weight_2"].copy()
    source = int(active["lif2"].argmax())
    weight[0, source] += 2 if weight[0, source] < 254 else -2
    return with_array(program, "weight_2", weight)


def a_dropped_bias(program: Program, active: Mapping[str, NDArray[Any]]) -> Program:
    """The bias of the channel of lif1 with the largest one."""
    bias = program.arrays["bias_0"].copy()
    channel = int(np.abs(bias).max(axis=(1, 2)).argmax())
    assert bias[channel].any()
    bias[channel] = 0
    return with_array(program, "bias_0", bias)


def a_shift_by_one_step(program: Program, active: Mapping[str, NDArray[Any]]) -> Program:
    """lif2 believes that its input arrives a step later: it is reset and read one step off."""
    return with_population(program, 1, latency=program.populations[1]["latency"] + 1)


def a_decay_off_by_one(program: Program, active: Mapping[str, NDArray[Any]]) -> Program:
    return with_population(program, 1, dv=program.populations[1]["dv"] + 1)


FAULTS: dict[str, tuple[Fault, str]] = {
    "weight": (one_weight_of_a_synapse_that_carried_a_spike, "readout"),
    "bias": (a_dropped_bias, "lif1"),
    "step": (a_shift_by_one_step, "lif2"),
    "decay": (a_decay_off_by_one, "lif2"),
}


@pytest.fixture(scope="module")
def activity(finished_run: FinishedRun) -> dict[str, NDArray[Any]]:
    """Spikes per neuron of the unharmed network on the samples that are verified."""
    from snn_export.data.registry import load_dataset

    deployment = nir_io.read(finished_run.folder / "quantize" / "net.nir")
    backend = simulator("loihi")
    trace = backend.run(backend.compile(deployment), load_dataset("digits", 0).x_test[:8], ("spikes",))
    return {name: layer.counts.sum(axis=0).reshape(-1) for name, layer in trace.layers.items()}


def verify(finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, Path]:
    out = tmp_path / "out"
    few = ("verify.samples=8", "verify.backends.lava.samples=8", "gates.accuracy_drop=100")
    settings = [argument for setting in few for argument in ("--set", setting)]
    network, config = finished_run.folder / "quantize" / "net.nir", finished_run.root / "snn-export.toml"
    code = cli.main(["verify", str(network), "--config", str(config), "-o", str(out), *settings])
    return code, capsys.readouterr().out, out / "verify-net" / "report.json"


@pytest.mark.parametrize("name", FAULTS)
def test_fault_fails_and_its_layer_is_named(
    name: str,
    finished_run: FinishedRun,
    activity: dict[str, NDArray[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require_lava()
    fault, layer = FAULTS[name]
    monkeypatch.setattr("tests.toolchain.test_mutation.CURRENT", FaultyLava(fault, activity))
    monkeypatch.setitem(registry.BUILT_IN, "lava", "tests.toolchain.test_mutation:current")  # type: ignore[arg-type]
    code, output, path = verify(finished_run, tmp_path, capsys)
    assert code == 1, output
    report = read_report(path)
    comparison = next(c for c in report.comparisons if (c.reference, c.target) == ("loihi", "lava"))
    assert comparison.verdict == "DRIFT"
    assert comparison.first_faulty_layer == layer
    faulty = next(found for found in comparison.layers if found.layer == layer)
    divergence = faulty.first_divergence
    assert divergence is not None
    for earlier in comparison.layers[: comparison.layers.index(faulty)]:
        assert earlier.verdict == "EXACT"
    assert re.search(
        rf"{layer}.*sample {divergence.sample}, step {divergence.step}, neuron {divergence.neuron}", output, re.DOTALL
    )


def test_the_same_command_without_a_fault_passes(
    finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_lava()
    code, output, _ = verify(finished_run, tmp_path, capsys)
    assert code == 0, output


CURRENT: FaultyLava | None = None


def current(**_: Any) -> FaultyLava | None:
    """What the registry makes while a fault is in place."""
    return CURRENT

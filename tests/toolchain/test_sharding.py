"""Sharing samples: the result does not depend on who ran which of them, to the bit."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from torch import nn

from snn_export.hardware_sims.registry import simulator
from snn_export.models.neurons.integrator import Integrator
from snn_export.verification import sharding
from snn_export.verification.isolated import Form, drive
from snn_export.verification.ladder import CHUNK_SAMPLES, Rung, run_ladder, samples_per_chunk
from snn_export.verification.sharding import Gathering, Shard, ShardResult, cut, run_shard, samples_of
from tests.conftest import REPOSITORY
from tests.ladders import NETWORKS, Faulty, Ladder, ladder
from tests.networks import leaky, named, quantised, read

pytestmark = pytest.mark.usefixtures("one_thread")


def sent(found: ShardResult) -> ShardResult:
    """What arrives of a result in another process."""
    again: ShardResult = pickle.loads(pickle.dumps(found))
    return again


def shared(made: Ladder, size: int) -> str:
    """The report of a run in shards of ``size`` samples."""
    observers = made.observers()
    result = sharding.in_shards(made.work(), made.gathering(observers, size), made.inputs, made.labels, 0, sent)
    return made.report(result, observers)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
def test_the_report_is_that_of_one_process_to_the_bit(network: str, chunks: int) -> None:
    made = ladder(network)
    whole = made.whole()
    assert shared(made, chunks * made.chunk) == whole
    assert '"verdict": "DRIFT"' in whole, "the faulty backend must be caught"
    assert '"rasters": [\n' in whole
    assert '"energy": {' in whole


@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(1, 17), chunk=st.integers(1, 5), chunks=st.integers(1, 4), few=st.integers(1, 9), above=st.floats(0, 1)
)
def test_no_way_to_cut_changes_anything(samples: int, chunk: int, chunks: int, few: int, above: float) -> None:
    made = ladder(samples=samples, chunk=chunk, few=few, faulty=Faulty(above=above))
    assert shared(made, chunk * chunks) == made.whole()


@pytest.mark.parametrize("size", [2, 4, 6, 14])
def test_samples_keep_their_number_and_rungs_their_limit(size: int) -> None:
    """The only fault lies in sample 9; ``few`` runs samples 0 to 4, and no others of later shards."""
    made = ladder(faulty=Faulty(above=0.99))
    made.inputs[9].flat[0] = 1.0
    found = json.loads(shared(made, size))
    comparison = next(item for item in found["comparisons"] if item["target"] == "faulty")
    assert {layer["first_divergence"]["sample"] for layer in comparison["layers"] if layer["first_divergence"]} == {9}
    assert [rung["samples"] for rung in found["ladder"]] == [14, 14, 14, 14, 5]
    assert shared(made, size) == made.whole()


@pytest.mark.parametrize("chunk", [1, 3, 5, 14])
def test_what_is_computed_exactly_does_not_depend_on_the_chunk(chunk: int) -> None:
    """Networks on the grid sum integers. In float networks a last bit may follow the batch, so the network cuts chunks."""
    made = ladder("conv", samples=14, chunk=2)
    made = replace(made, rungs=made.rungs[1:], links=[link for link in made.links if link.reference != "folded"])
    assert shared(replace(made, chunk=chunk), chunk) == made.whole()


@pytest.mark.parametrize("broken_by", [1, 6, 13])
def test_a_rung_that_breaks_leaves_no_figures_that_depend_on_when(broken_by: int) -> None:
    made = ladder()
    made.inputs[broken_by].flat[0] = 1.0
    made = replace(
        made, rungs=[replace(rung, simulator=Faulty(0.3, 0.99)) if rung.name == "faulty" else rung for rung in made.rungs]
    )
    whole = made.whole()
    assert '"measured": "ERROR"' in whole
    for size in (2, 4, 14):
        assert shared(made, size) == whole
    for chunk in (7, 14):
        faulty = next(rung for rung in json.loads(replace(made, chunk=chunk).whole())["ladder"] if rung["name"] == "faulty")
        assert (faulty["verdict"], faulty["samples"], faulty["correct"]) == ("ERROR", 0, None)


def test_later_shards_do_not_try_a_rung_that_broke() -> None:
    runs: list[int] = []

    class Counting(Faulty):
        def run(self, *arguments: Any, **options: Any) -> Any:
            runs.append(1)
            return super().run(*arguments, **options)

    shared(ladder(faulty=Counting(breaks_above=-1.0)), 2)
    assert len(runs) == 1


def results_of(made: Ladder, size: int) -> tuple[list[ShardResult], Gathering, Any]:
    observers = made.observers()
    gathering, work = made.gathering(observers, size), made.work()
    found = [sent(run_shard(work, shard, *samples_of(shard, made.inputs, made.labels, 0))) for shard in gathering.shards]
    return found, gathering, observers


def test_shards_may_come_in_any_order() -> None:
    made = ladder()
    whole, (found, _, _) = made.whole(), results_of(made, 4)
    for order in permutations(range(4)):
        observers = made.observers()
        gathering = made.gathering(observers, 4)
        for index in order:
            gathering.add(found[index])
        assert (gathering.done, gathering.samples) == (4, len(made.inputs))
        assert made.report(gathering.finish(), observers) == whole


def test_every_shard_counts_once() -> None:
    found, gathering, _ = results_of(ladder(), 4)
    gathering.add(found[0])
    for again in (found[0], replace(found[1], shard=Shard(1, 4, 7)), replace(found[1], shard=Shard(9, 4, 8))):
        with pytest.raises(ValueError, match="not awaited"):
            gathering.add(again)
    gathering.add(found[2])
    with pytest.raises(RuntimeError, match="shard 1 of 4 did not come"):
        gathering.finish()


def test_tallies_come_back_and_no_traces() -> None:
    """Of the samples that differ some are kept, 32 at most for each link; beyond, nothing grows."""
    few, many = (len(pickle.dumps(results_of(ladder(samples=n, chunk=n), n)[0][0])) for n in (500, 1500))
    assert many < 1.05 * few


def test_a_layer_driven_by_itself_in_floats_does_not_depend_on_the_other_samples() -> None:
    """Which samples are driven together depends on how many were before, and a product of more rows may sum otherwise."""
    torch.manual_seed(0)
    net = named(fc1=nn.Linear(300, 130), lif1=leaky(700, 0.3), fc2=nn.Linear(130, 60), readout=Integrator())
    folded, grid = read(net, (300,)), quantised(read(net, (300,)))
    inputs = default_rng(0).uniform(0, 1, (12, 300))
    loihi, form = simulator("loihi", threads=1), Form(folded, "float64")
    found = loihi.run(loihi.compile(grid), inputs, ("spikes", "membrane"))
    assert drive(form, inputs, found, range(12), 0) == [drive(form, inputs, found, [sample], 0)[0] for sample in range(12)]


@given(total=st.integers(1, 5000), chunk=st.integers(1, 300), workers=st.integers(1, 9), sample=st.integers(0, 10**6))
def test_shards_are_whole_chunks_and_cover_everything_once(total: int, chunk: int, workers: int, sample: int) -> None:
    shards = cut(total, chunk, workers, sample)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == total
    for shard in shards:
        assert shard.start % chunk == 0
        assert shard.stop - shard.start <= chunk or (shard.stop - shard.start) * sample <= sharding.SHARD_BYTES
    if total >= chunk * workers * sharding.SHARDS_PER_WORKER:
        assert len(shards) >= workers * sharding.SHARDS_PER_WORKER


def test_a_chunk_is_cut_by_the_networks_alone() -> None:
    made = ladder("conv")
    assert samples_per_chunk(made.rungs, 1 << 40) == CHUNK_SAMPLES
    tight = samples_per_chunk(made.rungs, 1 << 22)
    assert 1 < tight < CHUNK_SAMPLES
    assert samples_per_chunk(made.rungs, 1) == 1
    assert samples_per_chunk([*made.rungs, *made.rungs], 1 << 22) < tight, "more rungs are held at once"


def test_the_memory_of_a_chunk_is_what_was_estimated() -> None:
    import tracemalloc

    made = ladder("conv", samples=60, few=60)
    rungs: list[Rung] = list(made.rungs[:4])
    run_ladder(rungs, made.links[:3], made.inputs[:4], made.labels[:4])
    budget = 8 << 20
    size = samples_per_chunk(rungs, budget)
    inputs, labels = np.resize(made.inputs, (3 * size, *made.inputs.shape[1:])), np.resize(made.labels, 3 * size)
    tracemalloc.start()
    try:
        run_ladder(rungs, made.links[:3], inputs, labels, chunk_bytes=budget)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.2 * budget < peak < 1.25 * budget


def test_small_work_stays_in_this_process_and_large_work_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ladder("conv")
    monkeypatch.setattr(sharding, "processors", lambda: 8)
    assert sharding.workers_that_help(made.rungs, 360) == 1
    assert sharding.workers_that_help(made.rungs, 10_000_000) == 8
    monkeypatch.setattr(sharding, "processors", lambda: 1)
    assert sharding.workers_that_help(made.rungs, 10_000_000) == 1


SMALL = """
import sys
from pathlib import Path
import numpy as np
from snn_export.config_schema import BackendConfig, Config, VerifyConfig
from snn_export.pipeline import scaling
from snn_export.pipeline.verification import Forms, ladder_of
from tests.networks import dense_net, quantised, read

folded = read(dense_net(), (4,))
forms = Forms(quantised=quantised(folded), folded=folded, student=None)
config = Config(verify=VerifyConfig(backends={"loihi": BackendConfig()}))
told = []
result = scaling.run(forms, config, ladder_of(forms, config, told.append), np.zeros((6, 4)), None, Path(), told.append)
print(result.samples, told[0], sorted(name for name in sys.modules if name.split(".")[0] in ("dask", "distributed")))
"""


def test_small_work_imports_no_dask(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    code = f"import sys; sys.path.append({str(tmp_path)!r})\n{SMALL}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6 6 samples in this process []\n"

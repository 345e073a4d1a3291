"""Reports with realistic figures for the tests of the renderers.

``example_report`` passes, ``failing_report`` has everything that can go wrong, ``diverging_report`` has everything that is
measured where two runs part: each layer by itself, lags, paired accuracy, attribution, size.
"""

from __future__ import annotations

import math
import random

from snn_export.reporting.energy_records import EnergyFigure, EnergyReport, LayerEnergy
from snn_export.reporting.report import (
    AccuracyCurve,
    Activity,
    Attribution,
    Comparison,
    CoverageItem,
    Divergence,
    Effect,
    EffectOnLayer,
    Gate,
    IsolatedComparison,
    LayerComparison,
    LayerLag,
    NetworkSize,
    QuantisedLayer,
    Raster,
    Report,
    Rung,
    TrainingSummary,
)

STEPS = 8
LAVA_SAMPLES = 64
TEST_SAMPLES = 360
LAYERS = (("lif1", 1024, 61_337), ("lif2", 512, 40_218), ("lif3", 64, 6_127), ("readout", 10, 0))


def example_report() -> Report:
    """A digits network that passes: loihi against real Lava exact, nothing left out but an optional backend."""
    return Report(
        tool_version="0.1.0",
        network="digits-student",
        dataset="digits",
        target="loihi2",
        passed=True,
        exit_code=0,
        causes=(),
        steps=STEPS,
        samples=TEST_SAMPLES,
        reference="student",
        gates=(
            Gate(name="loihi against lava", required="EXACT in spikes and membranes", measured="EXACT", passed=True, exit_code=1),
            Gate(name="accuracy drop", required="at most 1.0 point", measured="0.3 points", passed=True, exit_code=1),
            Gate(name="overflow", required="none", measured="none", passed=True, exit_code=1),
            Gate(name="coverage", required="every layer compared", measured="every layer compared", passed=True, exit_code=5),
        ),
        coverage=(
            CoverageItem(
                what="netx",
                status="SKIPPED",
                why="lava-dl is not installed and the config does not require this backend",
                fix="snn-export backends install netx",
            ),
            CoverageItem(
                what="energy of Loihi 2",
                status="NOT_MODELLED",
                why="no energy per operation is published for Loihi 2; the figures shown are those of Loihi 1",
            ),
        ),
        ladder=_ladder(),
        comparisons=(
            _comparison("student", "reference (folded)", TEST_SAMPLES, "TIE", {"lif2": 2}),
            _comparison("loihi", "lava", LAVA_SAMPLES, "EXACT", {}),
        ),
        quantisation=_quantisation(),
        input_grid="inputs in [0, 1] are held in 6 bits: 63 steps",
        activity=_activity(),
        rasters=(_raster("lif1", STEPS, 28, 3, ()), _raster("lif2", STEPS, 24, 3, ()), _raster("lif3", STEPS, 24, 3, ())),
        accuracy_over_time=(
            AccuracyCurve(rung="student", accuracy=(61.4, 84.7, 92.2, 95.3, 96.7, 97.2, 97.8, 98.1)),
            AccuracyCurve(rung="integer", accuracy=(58.9, 83.6, 91.9, 95.0, 96.1, 97.2, 97.5, 97.8)),
        ),
        energy=_energy(),
        training=(
            TrainingSummary(
                model="teacher",
                recipe="cross-entropy",
                epochs=30,
                best_epoch=27,
                validation_accuracy=99.3,
                seed=0,
                parameters=21_386,
            ),
            TrainingSummary(
                model="student", recipe="bptt-kd", epochs=40, best_epoch=36, validation_accuracy=98.1, seed=0, parameters=21_290
            ),
        ),
        fingerprints={"checkpoint": "9f2c" * 16, "data": "41d7" * 16, "integer deployment": "c0de" * 16},
        versions={"snn-export": "0.1.0", "lava-nc": "0.10.0", "nir": "1.0.8", "snntorch": "1.0.0", "torch": "2.13.0"},
        reproduce=(
            "snn-export run --config snn-export.toml",
            "snn-export verify build/integer.nir --reference loihi --target lava",
        ),
    )


def failing_report() -> Report:
    """The same network with a divergence in lif2, a backend that broke, one that is absent and one that was skipped."""
    good = example_report()
    hostile = "<script>alert('lif')</script>"
    broken = _comparison("loihi", "lava", LAVA_SAMPLES, "DRIFT", {"lif2": 37, "lif3": 412})
    error = Comparison(
        reference="loihi",
        target="netx",
        required=True,
        verdict="ERROR",
        samples=0,
        layers=(),
        first_faulty_layer=None,
        decisions_equal=0,
        message="the worker died with signal 9 after step 3\nsee its log",
        log="build/netx/worker.log",
    )
    skipped = Comparison(
        reference="student",
        target="norse",
        required=False,
        verdict="SKIPPED",
        samples=0,
        layers=(),
        first_faulty_layer=None,
        decisions_equal=0,
        message="norse is not installed",
    )
    hidden = _layer(hostile, 96, 5_021, "NOT_COMPARED", 0, LAVA_SAMPLES).model_copy(
        update={"overflows": 3, "mismatched_membranes": None, "membranes_compared": 0, "membrane_difference_max": None}
    )
    causes = (
        "lava differs from loihi: first in lif2, sample 3, step 2, neuron 17 (channel 1, row 0, column 1)",
        "netx, which is required, broke: the worker died with signal 9",
        "integer accuracy is 4.2 points below the student, at most 1.0 is allowed",
    )
    gates = (
        Gate(
            name="loihi against lava",
            required="EXACT in spikes and membranes",
            measured="DRIFT, first in lif2",
            passed=False,
            exit_code=1,
            detail="449 spikes differ",
        ),
        Gate(name="accuracy drop", required="at most 1.0 point", measured="4.2 points", passed=False, exit_code=1),
        Gate(name="netx", required="available", measured="ERROR", passed=False, exit_code=4, detail="log: build/netx/worker.log"),
        *good.gates[2:],
    )
    ladder = (
        *good.ladder[:4],
        good.ladder[4].model_copy(update={"correct": 338, "accuracy": 93.8889, "interval": (90.9148, 95.9333)}),
        good.ladder[5].model_copy(
            update={"verdict": "DRIFT", "mismatched_spikes": 449, "correct": 58, "accuracy": 90.625, "interval": _wilson(58, 64)}
        ),
        Rung(
            name="netx",
            backend="netx",
            description="integer network in lava-dl's netx",
            samples=0,
            correct=None,
            accuracy=None,
            interval=None,
            compared_with="integer",
            verdict="ERROR",
            note="the worker died with signal 9",
        ),
    )
    return good.model_copy(
        update={
            "network": "digits-student <b>\x1b[31m",
            "passed": False,
            "exit_code": 4,
            "causes": causes,
            "gates": gates,
            "ladder": ladder,
            "coverage": (
                CoverageItem(what="netx", status="UNAVAILABLE", why="the worker died", fix="read build/netx/worker.log"),
                *good.coverage,
            ),
            "comparisons": (
                good.comparisons[0],
                broken.model_copy(update={"layers": (*broken.layers, hidden)}),
                error,
                skipped,
            ),
            "rasters": (
                _raster("lif2", STEPS, 24, 3, ((2, 4), (3, 4), (5, 11), (6, 11), (7, 19))),
                _raster(hostile, STEPS, 12, 3, ((1, 1),)),
                *good.rasters[:1],
            ),
        }
    )


def diverging_report() -> Report:
    """The same network with 4-bit weights: it changes with every step onto the chip, lava breaks lif2, netx fires a step late."""
    good = example_report()
    place = Divergence(sample=3, step=2, neuron=17, position=(1, 0, 1), kind="spike", expected=1.0, got=0.0)
    at_fault = IsolatedComparison(
        samples=5, mismatched_spikes=12, mismatched_membranes=96, membrane_difference_max=0.4375, first_divergence=place,
        reference_mismatched_spikes=0, reference_mismatched_membranes=0,
    )  # fmt: skip
    at_fault_late = at_fault.model_copy(update={"mismatched_spikes": 8_214, "samples": LAVA_SAMPLES})
    handed_on = at_fault.model_copy(
        update={"mismatched_spikes": 0, "mismatched_membranes": 0, "membrane_difference_max": 0.0, "first_divergence": None}
    )
    late = LayerLag(declared=0, best=1, mismatched=8_214, mismatched_at_best=0)
    to_chip = _paired("quantised", "loihi", TEST_SAMPLES, "WITHIN", {"lif1": 9_561, "lif2": 26_356, "lif3": 5_885}, (6, 1), 0.125)
    lava = _paired("loihi", "lava", LAVA_SAMPLES, "DRIFT", {"lif2": 37, "lif3": 412}, (3, 1), 0.625)
    netx = _paired("loihi", "netx", LAVA_SAMPLES, "DRIFT", {"lif1": 8_214, "lif2": 5_020, "lif3": 905}, (5, 0), 0.0625)
    comparisons = (
        good.comparisons[0],
        to_chip.model_copy(update={"layers": tuple(_measured(layer, handed_on) for layer in to_chip.layers)}),
        lava.model_copy(
            update={
                "layers": tuple(_measured(layer, at_fault if layer.layer == "lif2" else handed_on) for layer in lava.layers),
                "first_faulty_isolated": "lif2",
                "faulty_side": "target",
            }
        ),
        netx.model_copy(
            update={
                "layers": tuple(
                    _measured(layer, at_fault_late, late) if layer.layer == "lif1" else _measured(layer, handed_on)
                    for layer in netx.layers
                ),
                "first_faulty_isolated": "lif1",
                "faulty_side": "target",
            }
        ),
    )
    gates = (
        Gate(
            name="lava equals loihi bit for bit", required="0 mismatched spikes, membranes and currents",
            measured="DRIFT: 449 spikes, 1 347 membranes, 0 currents differ", passed=False, exit_code=1,
            detail="first in lif2: sample 3, step 2, neuron 17 (channel 1, row 0, column 1)",
        ),
        Gate(
            name="netx equals loihi bit for bit", required="0 mismatched spikes, membranes and currents",
            measured="DRIFT: 14 139 spikes, 42 417 membranes, 0 currents differ", passed=False, exit_code=1,
        ),
        Gate(
            name="accuracy of loihi", required="at most 1 points below student", passed=False, exit_code=1,
            measured="1.39 points lost (353 and 348 of 360 right)",
        ),
        *good.gates[2:],
    )  # fmt: skip
    return good.model_copy(
        update={
            "passed": False,
            "exit_code": 1,
            "causes": tuple(f"{gate.name}: {gate.measured}" for gate in gates if not gate.passed),
            "gates": gates,
            "coverage": good.coverage[1:],
            "ladder": (*good.ladder[:4], *_diverging_rungs(good.ladder)),
            "comparisons": comparisons,
            "rasters": (_raster("lif2", STEPS, 24, 3, ((2, 4), (3, 4), (5, 11), (6, 11), (7, 19))), *good.rasters[:1]),
            "attribution": _attribution(),
            "size": NetworkSize(neurons=1_610, synapses=38_160, nonzero=31_775, weight_bits=4, memory_bits=152_640),
        }
    )


def _diverging_rungs(ladder: tuple[Rung, ...]) -> tuple[Rung, ...]:
    def measured(rung: Rung, correct: int, verdict: str, mismatched: int) -> Rung:
        return rung.model_copy(
            update={
                "correct": correct,
                "accuracy": 100 * correct / rung.samples,
                "interval": _wilson(correct, rung.samples),
                "verdict": verdict,
                "mismatched_spikes": mismatched,
            }
        )

    netx = ladder[5].model_copy(update={"name": "netx", "backend": "netx", "description": "integer network in lava-dl's netx"})
    return (
        measured(ladder[4].model_copy(update={"name": "loihi"}), 348, "WITHIN", 41_802),
        measured(ladder[5].model_copy(update={"compared_with": "loihi"}), 60, "DRIFT", 449),
        measured(netx.model_copy(update={"compared_with": "loihi"}), 57, "DRIFT", 14_139),
    )


def _paired(
    reference: str, target: str, samples: int, verdict: str, mismatches: dict[str, int], only: tuple[int, int], chance: float
) -> Comparison:
    """A comparison with paired decisions: ``only`` the reference, and only the target, is right; ``chance`` is McNemar's p."""
    found = _comparison(reference, target, samples, verdict, mismatches)
    equal = samples - sum(only)
    return found.model_copy(
        update={
            "decisions_equal": equal,
            "agreement_interval": _wilson(equal, samples),
            "only_reference_right": only[0],
            "only_target_right": only[1],
            "mcnemar_p": chance,
        }
    )


def _measured(layer: LayerComparison, isolated: IsolatedComparison, lag: LayerLag | None = None) -> LayerComparison:
    """A layer with what is measured where it differs; an equal one is only judged by itself."""
    mismatched = layer.mismatched_spikes
    trains = layer.positions // STEPS
    wrong = [mismatched // 2, mismatched // 8, mismatched // 16, mismatched // 64, 0]
    return layer.model_copy(
        update={
            "count_error_histogram": (trains - sum(wrong), *wrong),
            "rate_error_mean": mismatched / layer.positions,
            "rate_error_max": 4 / STEPS if mismatched else 0.0,
            "spike_distance_mean": 1.3125 if mismatched else None,
            "spike_distance_trains": sum(wrong),
            "lag": lag if lag is not None or not mismatched else LayerLag(
                declared=0, best=0, mismatched=mismatched, mismatched_at_best=mismatched
            ),
            "isolated": isolated,
            "tolerance_spikes": 20.0 if layer.verdict == "WITHIN" else 0.0,
        }
    )  # fmt: skip


def _attribution() -> Attribution:
    """Weight rounding is the cause; decay rounding works together with it."""
    changed, after = 41_802, [0, 0, 0]
    effects = []
    for name, told, forward, backward, without, grown, explains in (
        ("discretisation of tau", "time constants on steps of dt", 0, 0, changed, (0, 0, 0), False),
        ("weight rounding", "weights in 4 bits", 38_914, 31_207, 6_530, (9_120, 24_310, 5_484), True),
        ("threshold rounding", "thresholds as whole mantissas", 611, 240, 41_507, (140, 380, 91), False),
        ("decay rounding", "decays in steps of 1/4096", 1_904, 9_850, 36_118, (220, 1_430, 254), False),
        ("bias rounding", "biases as mantissa and exponent", 112, 57, 41_790, (20, 70, 22), False),
        ("state truncation", "u and v cut to whole numbers in every step", 261, 448, 41_340, (61, 166, 34), False),
        ("saturation or wrap", "u and v in 24 bits", 0, 0, changed, (0, 0, 0), False),
    ):
        after = [value + more for value, more in zip(after, grown, strict=True)]
        parts = (("lif1", 33_905), ("lif2", 15_210), ("lif3", 38_020)) if explains else ()
        effects.append(
            Effect(
                name=name, told=told, forward=forward, backward=backward, interaction=forward - backward, without=without,
                removed=(changed - without) / changed, forward_by_layer=tuple(after), accuracy=96.6667 if any(after) else 98.0556,
                explains_first=explains,
                layers=tuple(
                    EffectOnLayer(layer=layer, changed=left, told="4 bits: steps of 32, largest weight 224")
                    for layer, left in parts
                ),
            )
        )  # fmt: skip
    return Attribution(
        reference="folded", target="loihi", samples=TEST_SAMPLES, layers=("lif1", "lif2", "lif3"), changed=changed,
        changed_by_layer=tuple(after), spikes=214_311, effects=tuple(effects), remainder=0, cause="weight rounding", layer="lif2",
        sentence="84 % of the changed spikes are gone when weight rounding alone is switched off, most of them in lif2: 4 bits "
        "leave steps of 32, the largest weight is 224.",
        fix="quantize with weight_bits = 6, or train on the grid: snn-export quantize --fine-tune 3",
    )  # fmt: skip


def _ladder() -> tuple[Rung, ...]:
    rungs = (
        ("teacher", "torch", "the trained network the student learned from", 355, 360, None, None, None),
        ("student", "student", "the spiking student as trained", 353, 360, None, None, None),
        ("folded", "reference", "batch-norm folded, portable NIR", 353, 360, "student", "TIE", 2),
        ("quantised", "reference", "weights on the Loihi grid, float state", 353, 360, "folded", "WITHIN", 1_204),
        ("integer", "loihi", "integer weights, integer state", 352, 360, "quantised", "WITHIN", 318),
        ("lava", "lava", "the same integers in real Lava, fixed point", 63, 64, "integer", "EXACT", 0),
    )
    return tuple(
        Rung(
            name=name,
            backend=backend,
            description=description,
            samples=samples,
            correct=correct,
            accuracy=100 * correct / samples,
            interval=_wilson(correct, samples),
            ties_in_readout=1 if name == "integer" else 0,
            compared_with=partner,
            verdict=verdict,  # type: ignore[arg-type]
            mismatched_spikes=mismatched,
        )
        for name, backend, description, correct, samples, partner, verdict, mismatched in rungs
    )


def _wilson(correct: int, samples: int) -> tuple[float, float]:
    z, fraction = 1.959964, correct / samples
    centre = fraction + z * z / (2 * samples)
    spread = z * math.sqrt(fraction * (1 - fraction) / samples + z * z / (4 * samples * samples))
    scale = 100 / (1 + z * z / samples)
    return (scale * (centre - spread), scale * (centre + spread))


def _comparison(reference: str, target: str, samples: int, verdict: str, mismatches: dict[str, int]) -> Comparison:
    layers = tuple(
        _layer(name, neurons, spikes, verdict if mismatches.get(name) else "EXACT", mismatches.get(name, 0), samples)
        for name, neurons, spikes in LAYERS
    )
    return Comparison(
        reference=reference,
        target=target,
        required=True,
        verdict=verdict,  # type: ignore[arg-type]
        samples=samples,
        layers=layers,
        first_faulty_layer=next(iter(mismatches), None) if verdict == "DRIFT" else None,
        decisions_equal=samples - (5 if verdict == "DRIFT" else 0),
    )


def _layer(name: str, neurons: int, spikes: int, verdict: str, mismatched: int, samples: int) -> LayerComparison:
    positions = STEPS * samples * neurons
    integers = samples == LAVA_SAMPLES
    first = Divergence(sample=3, step=2, neuron=17, position=(1, 0, 1), kind="spike", expected=1.0, got=0.0)
    return LayerComparison(
        layer=name,
        verdict=verdict,  # type: ignore[arg-type]
        neurons=neurons,
        positions=positions,
        reference_spikes=spikes,
        got_spikes=spikes - mismatched,
        mismatched_spikes=mismatched,
        count_error_sum=mismatched,
        count_error_max=min(mismatched, 4),
        neurons_with_count_error=min(mismatched, 29),
        first_divergence=first if mismatched else None,
        membranes_compared=positions,
        mismatched_membranes=mismatched * 3 if integers else None,
        membrane_difference_max=(0.4375 if mismatched else 0.0) if integers else 1.1920929e-07,
        currents_compared=positions if integers else 0,
        mismatched_currents=0 if integers else None,
        overflows=0 if integers else None,
        latency=0,
        ties=1 if verdict == "TIE" else 0,
        tolerance_that_would_pass=mismatched / positions,
    )


def _quantisation() -> tuple[QuantisedLayer, ...]:
    def histogram(seed: int, width: float, total: int) -> tuple[int, ...]:
        chance = random.Random(seed)
        bins = [0] * 32
        for _ in range(total):
            value = max(-256.0, min(254.0, chance.gauss(0, width)))
            bins[int((value + 256) // 16)] += 1
        return tuple(bins)

    rows = (
        ("lif1", 312.5, "weights in 8 bits and sign", 313, 4095, 410, 3, -254, 256, 71.0, 144, 4_871_104, 6_209_536),
        ("lif2", 214.25, "weights in 8 bits and sign", 214, 4095, 410, 2, -250, 254, 52.0, 4_608, 1_204_224, 3_318_720),
        ("lif3", 180.0, "current below 2^23", 180, 4095, 410, 2, -236, 212, 44.0, 32_768, 8_101_120, 8_240_960),
        ("readout", 96.0, "membrane below the readout threshold", 131071, 4095, 0, 4, -188, 196, 60.0, 640, 700_416, 5_603_328),
    )
    return tuple(
        QuantisedLayer(
            overflow="cannot overflow",
            layer=layer,
            scale=scale,
            binding=binding,
            threshold=threshold,
            du=du,
            dv=dv,
            bias_exponent=exponent,
            weight_min=low,
            weight_max=min(high, 254),
            weight_histogram=histogram(index, width, total),
            weight_error_rms=0.577 + index / 1000,
            current_bound=current,
            membrane_bound=membrane,
        )
        for index, (
            layer, scale, binding, threshold, du, dv, exponent, low, high, width, total, current, membrane,
        ) in enumerate(rows)
    )  # fmt: skip


def _activity() -> tuple[Activity, ...]:
    def histogram(seed: int, neurons: int, mean: float) -> tuple[int, ...]:
        chance = random.Random(seed)
        bins = [0] * 20
        for _ in range(neurons):
            bins[min(int(min(chance.expovariate(1 / mean), 0.999) * 20), 19)] += 1
        return tuple(bins)

    return (
        Activity(layer="lif1", rate=0.117, dead=31, saturated=4, neurons=1024, rate_histogram=histogram(1, 1024, 0.117)),
        Activity(layer="lif2", rate=0.1534, dead=12, saturated=0, neurons=512, rate_histogram=histogram(2, 512, 0.153)),
        Activity(layer="lif3", rate=0.187, dead=0, saturated=0, neurons=64, rate_histogram=histogram(3, 64, 0.187)),
    )


def _raster(layer: str, steps: int, rows: int, sample: int, wrong: tuple[tuple[int, int], ...]) -> Raster:
    chance = random.Random(f"{layer}{rows}")
    fired = tuple(
        (step, row) for step in range(steps) for row in range(rows) if chance.random() < 0.22 and (step, row) not in wrong
    )
    membrane: list[float] = []
    level = 0.0
    for _ in range(steps):
        level = 0.9 * level + chance.uniform(-0.1, 0.5)
        membrane.append(round(level, 4))
        level = 0.0 if level > 1 else level
    target = [value if index < 2 or not wrong else round(value - 0.31, 4) for index, value in enumerate(membrane)]
    return Raster(
        layer=layer,
        reference="loihi",
        target="lava",
        sample=sample,
        steps=steps,
        neurons=tuple(5 + 3 * row for row in range(rows)),
        both=fired,
        only_reference=wrong[::2],
        only_target=wrong[1::2],
        membrane_neuron=17,
        membrane_reference=tuple(membrane),
        membrane_target=tuple(target),
        membrane_threshold=1.0,
    )


def _energy() -> EnergyReport:
    source = "Davies et al., IEEE Micro 38(1), 2018, table 2 (pre-silicon, 0.75 V)"
    horowitz = "Horowitz, ISSCC 2014 (45 nm CMOS)"
    layers = (
        LayerEnergy(
            layer="lif1", synops=0.0, graded_operations=60_416.0, active_updates=954.2, inactive_updates=7_237.8,
            value=453_655.8, low=396_000.0, high=520_000.0,
        ),
        LayerEnergy(
            layer="lif2", synops=138_240.5, graded_operations=0.0, active_updates=628.4, inactive_updates=3_467.6,
            value=3_493_691.4, low=3_100_000.0, high=4_400_000.0,
        ),
        LayerEnergy(
            layer="lif3", synops=40_217.6, graded_operations=0.0, active_updates=95.7, inactive_updates=416.3,
            value=978_534.7, low=870_000.0, high=1_230_000.0,
        ),
        LayerEnergy(
            layer="readout", synops=957.3, graded_operations=0.0, active_updates=80.0, inactive_updates=0.0,
            value=29_072.3, low=25_400.0, high=36_000.0,
        ),
    )  # fmt: skip
    figures = (
        EnergyFigure(
            component="synaptic operations", operation="synaptic_operation",
            count=179_415.4, value=4_234_203.4, low=3_760_000.0, high=5_300_000.0,
            coefficient="23.6 pJ", source=source,
        ),
        EnergyFigure(
            component="active neuron updates", operation="neuron_update_active",
            count=1_758.3, value=142_422.3, low=126_000.0, high=178_000.0,
            coefficient="81 pJ", source=source,
        ),
        EnergyFigure(
            component="inactive neuron updates", operation="neuron_update_inactive",
            count=11_121.7, value=578_328.4, low=512_000.0, high=722_000.0,
            coefficient="52 pJ", source=source,
        ),
        EnergyFigure(
            component="graded operations", operation="graded_operation",
            count=60_416.0, value=None, low=None, high=None, coefficient="none",
            source="no figure is published for a graded synaptic operation",
        ),
    )  # fmt: skip
    baselines = (
        EnergyFigure(
            component="ANN, FP32", operation="fp32",
            count=221_184.0, value=1_017_446.4, low=813_957.0, high=1_220_935.0,
            coefficient="4.6 pJ per MAC", source=horowitz,
        ),
        EnergyFigure(
            component="ANN, INT8", operation="int8",
            count=221_184.0, value=50_872.3, low=40_698.0, high=61_046.0,
            coefficient="0.23 pJ per MAC", source=horowitz,
        ),
    )  # fmt: skip
    return EnergyReport(
        label="estimate from counted operations; Loihi 1 figures, none are published for Loihi 2",
        samples=TEST_SAMPLES,
        table="loihi1",
        layers=layers,
        figures=figures,
        total=4_954_954.1,
        total_low=4_398_000.0,
        total_high=6_200_000.0,
        baselines=baselines,
        spikes_per_synapse=0.811,
        break_even=(
            "Against a quantised ANN an SNN at T = 5 needs a spike rate below about 5.7 % (Yan, Bai, Wong, arXiv 2409.08290).",
            "Competitive only at 0.15 to 1.38 spikes per synapse and inference (Dampfhoffer et al., IEEE TETCI 7(3), 2023).",
        ),
        limits=("no static power, no input and output, no x86 cores", "spikes between cores are not placed yet and not charged"),
    )

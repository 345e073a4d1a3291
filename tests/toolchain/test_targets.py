from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from snn_export import cli
from snn_export.config_schema import QuantizeConfig
from snn_export.export.chips import BACKENDS, CHIPS, chip_of
from snn_export.export.contract import Quantisation
from snn_export.export.readiness import findings
from snn_export.export.targets import BackendName, CheckTarget, ChipName
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.chips.chip_table import chip_names, load_chip
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.models.delay import Delay
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.hardware_sims.test_chips import TINY
from tests.networks import dense_net, read

SDKS = ("torch", "snntorch", "norse", "onnx", "onnxruntime", "nirtorch", "lava")


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["targets", "--format", "json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("form", ["human", "json"])
def test_no_sdk_is_imported(form: str) -> None:
    program = (
        "import sys\n"
        "from snn_export import cli\n"
        f"assert cli.main(['targets', '--format', {form!r}]) == 0\n"
        f"print('LOADED', *(set(sys.modules) & set({SDKS!r})))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert all(name in done.stdout for name in registry.BUILT_IN)


def test_a_chip_takes_what_its_row_says(capsys: pytest.CaptureFixture[str]) -> None:
    chips = {chip["name"]: chip for chip in shown(capsys)["chips"]}
    assert list(chips) == ["loihi1", "loihi2"]
    before = read(dense_net(), (4,), steps=4)
    name = next(name for name, spec in before.contract.neurons.items() if spec.spiking)

    def refused(target: Any, encoder: EncoderSpec, **spec: Any) -> set[str]:
        neurons = {**before.contract.neurons, name: NeuronSpec(before.contract.neurons[name].dv, **spec)}
        contract = before.contract.model_copy(update={"encoder": encoder, "neurons": neurons})
        return {item.code for item in findings(before.replace(contract=contract), target)}

    spikes = EncoderSpec("rate")
    for target, chip in chips.items():
        assert ("SNX247" in refused(target, EncoderSpec("direct"))) == (not chip["graded_input_bits"])
        assert ("SNX203" in refused(target, spikes, reset="subtract")) == ("subtract" not in chip["resets"])
        assert ("SNX203" in refused(target, spikes)) == ("zero" not in chip["resets"])
        assert "SNX203" in refused(target, spikes, reset="none") and "none" not in chip["resets"]
        assert chip["programmable_neurons"] == ("subtract" in chip["resets"])


def test_names_of_targets_are_those_of_the_chips_and_of_what_stands_for_one() -> None:
    assert get_args(ChipName) == tuple(chip.name for chip in CHIPS)
    assert set(get_args(BackendName)) == set(BACKENDS) <= set(registry.BUILT_IN)
    assert {chip.name for chip in BACKENDS.values()} <= set(get_args(ChipName)) <= set(chip_names())
    for model in (Quantisation, QuantizeConfig):
        assert model.model_fields["target"].annotation == ChipName
    assert [chip_of(target).name for target in get_args(CheckTarget)] == ["loihi1", *["loihi2"] * 4]
    assert [target for target in get_args(CheckTarget) if chip_of(target).programmable_neurons] == ["loihi2", "loihi"]


def test_the_figures_are_those_that_are_applied() -> None:
    for chip in CHIPS:
        assert (chip.weight_bits, chip.weight_range, chip.decay_bits, chip.threshold_bits) == (8, (-256, 254), 12, 17)
        assert (chip.state_bits, chip.bias_mantissa, chip.bias_exponents) == (24, (-4096, 4095), (0, 7))
        Delay(chip.delays[1])
        with pytest.raises(UserError):
            Delay(chip.delays[1] + 1)
        NeuronSpec((1 << chip.decay_bits) - 1)
        with pytest.raises(UserError):
            NeuronSpec((1 << chip.decay_bits) + 1)


def test_a_backend_says_what_it_computes_with_and_what_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    content = shown(capsys)
    backends = {item["name"]: item for item in content["backends"]}
    assert set(registry.BUILT_IN) <= set(backends)
    assert (backends["loihi"]["floats"], backends["loihi"]["integers"]) == (None, "loihi_integer")
    assert (backends["onnxruntime"]["floats"], backends["onnxruntime"]["integers"]) == ("float32", "loihi_integer")
    assert {name for name in registry.BUILT_IN if backends[name]["isolated"]} >= {"lava", "netx"}
    (late,) = backends["norse"]["cannot"]
    assert late["reason"].startswith("SNX294") and "reset.delayed_to_zero" in late["checks"]
    assert len(backends["snntorch"]["cannot"]) == 2
    assert [len(group["checks"]) for group in backends["onnxruntime"]["cannot_on_integers"]] == [5]
    assert backends["snntorch"]["versions"]["snntorch"]


class Needy:
    """The reference, with a package that nobody has."""

    name = "needy"
    packages = ("no-such-sdk", "numpy")
    expected_failures = {"reset.none": "never \x1b[31m red", "fire.bias_alone": "no bias", "fire.negative_weights": "no bias"}  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        return getattr(ReferenceSimulator(), name)


def test_missing_and_broken_backends_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"needy": "tests.toolchain.test_targets:Needy", "torn": "no_such_module:Simulator"}
    monkeypatch.setattr(registry, "locations", lambda: made)
    needy, torn = shown(capsys)["backends"]
    assert (needy["state"], needy["reason"], needy["fix"]) == (
        "missing", "no-such-sdk not installed", "pip install no-such-sdk"
    )  # fmt: skip
    assert list(needy["versions"]) == ["numpy"]
    assert (torn["state"], torn["floats"], torn["integers"]) == ("broken", None, None)
    assert "no_such_module" in torn["reason"]
    assert cli.main(["targets"]) == 0
    out = capsys.readouterr().out
    assert "no bias (2 checks)" in out and "\x1b" not in out
    assert "red (reset.none)" in out


def test_every_chip_of_the_program_is_listed_with_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert [table["name"] for table in shown(capsys)["limits"]] == list(chip_names())
    assert cli.main(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (loihi1,) = (line for line in lines if line.startswith("loihi1") and "Intel Loihi" in line)
    assert "128 cores per chip" in loihi1 and "4,096 input axons" in loihi1 and "1,048,576 bits of synapses" in loihi1
    (speck,) = (line for line in lines if line.startswith("speck"))
    assert "kernel_memory 16,384 to 65,536" in speck and "strides 1, 2, 4, 8" in speck and "cores per chip" not in speck


@pytest.mark.parametrize("name", chip_names())
def test_a_chip_shows_every_limit_with_its_source(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    chip = load_chip(name)
    assert cli.main(["targets", name]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.partition("\nNotes:")[0].splitlines()[3:] if line}
    assert set(rows) == {*chip.limits, *(("mesh", "synapses") if chip.mesh else ())}
    for limit, row in ((each, rows[key]) for key, each in chip.limits.items()):
        values = limit.value if isinstance(limit.value, tuple) else (limit.value,)
        told = (", ".join(f"{value:,}" for value in values), limit.unit, limit.certainty, str(limit.year), limit.source)
        assert all(text in row for text in told)
    for sentence in (*chip.not_published.values(), *chip.covered.values(), *(each.note for each in chip.limits.values())):
        assert sentence in out
    assert cli.main(["targets", name, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == chip.model_dump(mode="json")


def test_a_chip_of_ones_own_is_shown_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(TINY.replace('name = "tiny"', 'name = "mine"'), encoding="utf-8")
    assert cli.main(["targets", str(tmp_path / "mine.toml")]) == 0
    assert "a lab note" in capsys.readouterr().out
    assert cli.main(["targets", str(tmp_path / "none.toml")]) == 2
    assert "SNX451" in capsys.readouterr().err


def test_an_unknown_chip_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["targets", "lohi1"]) != 0
    assert "did you mean 'loihi1'" in capsys.readouterr().err

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snn_export import cli, machine_checks
from snn_export.config_schema import BackendConfig
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.self_test import Probe
from snn_export.hardware_sims.simulator import Availability

HERE = "tests.toolchain.test_doctor"
SEEN = (
    Probe("order of a step", False, "resets before it compares", "spikes would differ", "pip install sdk==1.0"),
    Probe("units", True, "milliseconds", "taus are converted"),
)


class Standing:
    """The reference under another name."""

    name = "standing"

    def __init__(self) -> None:
        self._inner = ReferenceSimulator()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Finding(Standing):
    def self_test(self) -> tuple[Probe, ...]:
        return SEEN


class Exploding(Standing):
    def self_test(self) -> tuple[Probe, ...]:
        raise OSError("libsdk.so is not there")


class Absent(Finding):
    def availability(self) -> Availability:
        return Availability(False, "sdk is not installed", "pip install sdk")


class Unanswering(Standing):
    def availability(self) -> Availability:
        raise RuntimeError("cannot be asked")


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {kind.__name__.lower(): f"{HERE}:{kind.__name__}" for kind in (Standing, Finding, Exploding, Absent, Unanswering)}
    monkeypatch.setattr(registry, "locations", lambda: {**made, "torn": "no_such_module:Simulator"})


def found(**required: bool) -> dict[str, machine_checks.Finding]:
    settings = {name: BackendConfig(required=value) for name, value in required.items()}
    return {item.name: item for item in machine_checks.backend_findings(settings)}


def test_a_finding_is_broken_where_the_backend_is_required_and_a_warning_else() -> None:
    for settings, state, code, note in (
        ({"finding": True}, "broken", 4, False), ({"finding": False}, "warning", 0, True), ({}, "warning", 0, True)
    ):  # fmt: skip
        item = found(**settings)["finding: order of a step"]
        assert (item.state, item.exit_code, "not required" in item.meaning) == (state, code, note)
        assert (item.detail, item.fix) == ("resets before it compares", "pip install sdk==1.0")
        fine = found(**settings)["finding: units"]
        assert (fine.state, fine.meaning, fine.fix) == ("ok", "taus are converted", "")


def test_a_backend_that_is_not_there_is_told_only_where_the_settings_name_it() -> None:
    assert not any(name.startswith("absent") for name in found())
    for required, state in ((True, "broken"), (False, "warning")):
        item = found(absent=required)["absent"]
        assert (item.state, item.detail, item.fix) == (state, "sdk is not installed", "pip install sdk")


def test_a_backend_that_cannot_be_asked_is_told_and_does_not_hide_the_others() -> None:
    items = found(unanswering=True)
    assert (items["unanswering"].state, items["unanswering"].detail) == ("broken", "RuntimeError: cannot be asked")
    assert (items["torn"].state, "no_such_module" in items["torn"].detail) == ("warning", True)
    assert (items["exploding"].state, "libsdk.so" in items["exploding"].detail) == ("warning", True)
    assert "finding: units" in items


def test_a_backend_without_a_self_test_is_named_only_where_it_is_chosen() -> None:
    assert "standing" not in found()
    assert (found(standing=True)["standing"].state, found(standing=True)["standing"].detail) == ("ok", "can run here")


def test_the_command_shows_it_all_and_ends_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path / "none"))
    made = {name: registry.BUILT_IN[name] for name in ("lava", "loihi")} | {"finding": f"{HERE}:Finding"}
    monkeypatch.setattr(registry, "locations", lambda: made)
    optional = ("--set", "verify.backends.lava.required=false", "--set", "verify.backends.loihi.required=false")
    assert cli.main(["doctor", "--format", "json", *optional]) == 0
    checks = {item["name"]: item for item in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["finding: order of a step"]["state"] == "warning"
    assert cli.main(["doctor", *optional, "--set", "verify.backends.finding.required=true"]) == 4
    out = capsys.readouterr().out
    assert "finding: order of a step: pip install sdk==1.0" in out
    assert out.index("numba") < out.index("finding: units") < out.index("disk")

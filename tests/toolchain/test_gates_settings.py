"""Tables of gates in the settings: read, refused, shown, written and documented. What they demand: ``test_gates_config.py``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.config import Loaded, load_config, to_toml
from snn_export.config_schema import Config, GatesConfig, LayerGates, TargetGates, field_at, section_at
from snn_export.config_schema import settings as all_settings
from snn_export.models.diagnostics import UserError
from tests.conftest import REPOSITORY, snn_export


def load(tmp_path: Path, text: str, overrides: dict[str, str] | None = None, **environ: str) -> Loaded:
    path = tmp_path / "snn-export.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides, environ)


FILE = """\
[gates]
spike_mismatch = 10
[gates.targets.lava]
agree = "exact"
accuracy = 90
[gates.targets.lava.layers."block1.lif"]
dead = 5
[gates.layers.lif2]
spike_mismatch = 2
rate_min = 0.01
"""


def test_nested_tables_are_read_with_their_origin(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, FILE, {"gates.layers.lif2.rate_max": "0.5"}, SNN_EXPORT_GATES__TARGETS__LAVA__OVERFLOWS="3"
    )  # fmt: skip
    gates = loaded.config.gates
    assert gates.targets == {
        "lava": TargetGates(agree="exact", accuracy=90.0, overflows=3, layers={"block1.lif": LayerGates(dead=5.0)})
    }
    assert gates.layers == {"lif2": LayerGates(spike_mismatch=2.0, rate_min=0.01, rate_max=0.5)}
    assert {key: where for key, where in loaded.origin.items() if key.startswith("gates.") and where != "default"} == {
        "gates.spike_mismatch": "snn-export.toml:2",
        "gates.targets.lava.agree": "snn-export.toml:4",
        "gates.targets.lava.accuracy": "snn-export.toml:5",
        "gates.targets.lava.layers.block1.lif.dead": "snn-export.toml:7",
        "gates.layers.lif2.spike_mismatch": "snn-export.toml:9",
        "gates.layers.lif2.rate_min": "snn-export.toml:10",
        "gates.targets.lava.overflows": "environment SNN_EXPORT_GATES__TARGETS__LAVA__OVERFLOWS",
        "gates.layers.lif2.rate_max": "flag",
    }


def test_mistakes_in_nested_tables_have_their_line_and_a_suggestion(tmp_path: Path) -> None:
    text = """\
[gates.targets.lava]
accurcy = 90
agree = "exactly"
[gates.targets.lava.layers.lif1]
dead = 101
[gates.layers]
lif2 = 3
[gates]
dead = 3
"""
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, {"gates.targets.lava": "{}", "gates.layers": "{}"})
    found = {item.where: item for item in caught.value.diagnostics if item.where != "flag"}
    assert {where: item.code for where, item in found.items()} == {
        "snn-export.toml:2": "SNX022",
        "snn-export.toml:3": "SNX023",
        "snn-export.toml:5": "SNX023",
        "snn-export.toml:7": "SNX023",
        "snn-export.toml:9": "SNX022",
    }
    assert "did you mean accuracy?" in found["snn-export.toml:2"].fix
    assert found["snn-export.toml:3"].why == 'it must be one of "exact" or "rounding" or "within"'
    assert found["snn-export.toml:5"].why == "it must be a number, 0 to 100"
    assert found["snn-export.toml:7"].why == "it must be a table"
    assert "did you mean dead in [gates.layers.NAME]?" in found["snn-export.toml:9"].fix
    told = [item.what for item in caught.value.diagnostics if item.where == "flag"]
    assert told == [f"{key} is a table and has no value" for key in ("gates.targets.lava", "gates.layers")]


def test_tables_of_tables_are_found_at_every_depth() -> None:
    assert section_at(("gates", "targets", "any name")) is TargetGates
    assert section_at(("gates", "targets", "lava", "layers", "lif1")) is LayerGates
    assert section_at(("gates", "layers", "lif1")) is LayerGates
    for path in (("gates", "targets"), ("gates", "targets", "lava", "layers"), ("gates", "layers"), ("gates", "exact")):
        assert section_at(path) is None
        assert path == ("gates", "exact") or field_at(path) is None
    for path in (("gates", "targets", "lava", "agree"), ("gates", "targets", "lava", "layers", "lif1", "dead")):
        info = field_at(path)
        assert info is not None
        assert info.description


def _limits(model: type[LayerGates] | type[TargetGates]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy per setting of a table: a value that is allowed, or none."""
    special = {
        "agree": st.sampled_from(["exact", "rounding", "within"]), "overflows": st.integers(0, 9),
        "accuracy_significance": st.floats(0.001, 0.999),
    }  # fmt: skip
    return {
        name: st.none() | special.get(name, st.floats(0, 100)) for name in model.model_fields if name != "layers"
    }  # fmt: skip


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
LAYER_TABLES = st.dictionaries(NAMES, st.builds(LayerGates, **_limits(LayerGates)), max_size=3)
TARGET_TABLES = st.dictionaries(NAMES, st.builds(TargetGates, layers=LAYER_TABLES, **_limits(TargetGates)), max_size=3)


@settings(max_examples=60, deadline=None)
@given(targets=TARGET_TABLES, layers=LAYER_TABLES)
def test_any_gates_survive_being_written(targets: dict[str, TargetGates], layers: dict[str, LayerGates]) -> None:
    config = Config(gates=GatesConfig(targets=targets, layers=layers))
    text = to_toml(config)
    assert Config.model_validate(tomllib.loads(text)) == config
    for path, _ in all_settings(config):
        assert field_at(path) is not None


def test_config_show_prints_them_as_toml_that_reads_back(tmp_path: Path) -> None:
    (tmp_path / "snn-export.toml").write_text(FILE, encoding="utf-8")
    shown = snn_export("config", "show", "--origin", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if "block1" in line and "dead" in line]
    assert line.split() == ['gates.targets.lava.layers."block1.lif".dead', "=", "5.0", "#", "snn-export.toml:7"]
    assert Config.model_validate(tomllib.loads(shown.stdout)) == load_config(tmp_path / "snn-export.toml", {}, {}).config


def test_the_documentation_shows_settings_that_load_and_all_there_are(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "gates.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    gates = load(tmp_path, block).config.gates
    assert gates.targets["quantised"].layers["lif2"] == LayerGates(spike_mismatch=0.5)
    for name in {*LayerGates.model_fields, *TargetGates.model_fields} - {"layers"}:
        assert f"`{name}`" in text
    codes = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", codes, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "70", "130"]

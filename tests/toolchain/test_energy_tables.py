from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from snn_export.energy.cost_table import (
    CHIP_OPERATIONS,
    CHIP_TIMES,
    PROCESS_OPERATIONS,
    CostTable,
    find_table,
    load_table,
    read_table,
    table_names,
    told,
)
from snn_export.energy.counts import count
from snn_export.energy.estimate import estimate, estimate_from
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from

FIELDS = {
    "value", "low", "high", "unit", "node", "source", "doi", "year", "includes", "basis", "certainty", "range", "range_source",
}  # fmt: skip
FOLDER = Path(sys.modules[CostTable.__module__].__file__).parent / "tables"
VERIFIED = {
    # Davies et al., IEEE Micro 38(1), 2018, table 2 ("value at 0.75 V").
    "loihi1": {
        "coefficients": {
            "synaptic_operation": 23.6, "neuron_update_active": 81.0, "neuron_update_inactive": 52.0, "spike_message": 1.7,
            "hop_east_west": 3.0, "hop_north_south": 4.0,
        },
        "times": {
            "synaptic_operation": 3.5, "neuron_update_active": 8.4, "neuron_update_inactive": 5.3, "barrier": 465.0,
            "barrier_one_tile": 113.0,
        },
    },
    # Horowitz, ISSCC 2014.
    "cmos45": {
        "coefficients": {
            "fp32_add": 0.9, "fp32_multiply": 3.7, "int8_add": 0.03, "int8_multiply": 0.2, "int32_add": 0.1,
            "int32_multiply": 3.1, "cache_8_kib_64_bit": 10.0,
        },
        "times": {},
    },
    # Tang et al., Front. Neurosci. 17:1187252, 2023, table 3.
    "neuromorphic_chips": {
        "coefficients": {
            "odin": 12.7, "reckon": 5.3, "mubrain": 26.0, "truenorth": 2.5, "tianjic": 1.54, "neuronflow": 20.0, "loihi": 23.6,
            "spinnaker": 45.0, "spinnaker2": 10.0, "seneca": 2.8,
        },
        "times": {},
    },
}  # fmt: skip
"""Every figure that is shipped, as it was read in its source. A figure that is not here is not shipped."""
EVERY_TABLE = pytest.mark.parametrize("name", table_names())


@EVERY_TABLE
def test_every_coefficient_in_the_files_has_every_field_and_a_citation(name: str) -> None:
    """On the files themselves: a field that the reader would fill in is missing all the same."""
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    entries = {**raw["coefficients"], **{f"times.{key}": item for key, item in raw.get("times", {}).items()}}
    assert entries
    for operation, item in entries.items():
        assert set(item) == FIELDS | ({"title"} if raw["kind"] == "comparison" else set()), operation
        assert item["low"] <= item["value"] <= item["high"], operation
        assert re.fullmatch(r"10\.\d{4,}/\S+", item["doi"]), operation
        assert 1990 <= item["year"] <= 2030, operation
        assert item["basis"] in ("measured", "declared"), operation
        for text in ("source", "node", "includes", "certainty", "range"):
            assert len(item[text]) > 3, (operation, text)
        assert (item["low"] == item["high"]) or (item["range_source"] and item["range"] != "no published range"), operation


@EVERY_TABLE
def test_shipped_figures_are_the_published_ones(name: str) -> None:
    table = load_table(name)
    assert {key: item.value for key, item in table.coefficients.items()} == VERIFIED[name]["coefficients"]
    assert {key: item.value for key, item in table.times.items()} == VERIFIED[name]["times"]
    for item in (*table.coefficients.values(), *table.times.values()):
        assert item.doi in item.citation
        assert item.node in item.citation
        assert not item.range_source or item.range_source in item.citation


def test_no_chip_has_a_figure_that_nobody_published() -> None:
    assert table_names() == ("cmos45", "loihi1", "neuromorphic_chips")
    assert table_names("chip") == ("loihi1",)
    chips = load_table("neuromorphic_chips")
    assert "NA" in chips.no_figure["loihi2"]
    assert "loihi2" not in chips.coefficients
    for operation in ("graded_operation", "input_message", "readout_value", "hop_between_chips"):
        assert operation in load_table("loihi1").no_figure


def test_an_unknown_table_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        load_table("loihi2")
    assert caught.value.code == "SNX322"
    assert "loihi1" in caught.value.diagnostics[0].fix
    assert "my.toml" in caught.value.diagnostics[0].fix


def good() -> str:
    return (FOLDER / "loihi1.toml").read_text("utf-8")


def renamed() -> str:
    return good().replace('name = "loihi1"', 'name = "mine"').replace("title = \"Loihi 1's", 'title = "our')


def test_only_a_table_to_the_byte_is_the_published_one() -> None:
    """Sentences about Loihi 1's published figures are said of nothing else, however a table came to be."""
    deployment = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4], [6, 8, 10]])),), high=1))
    trace = Trace("test", {"out": LayerTrace(np.array([[3, 1]]))}, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    counts = count(deployment, trace, np.ones((1, 3)))
    made = CostTable.model_validate({**load_table("loihi1").model_dump(), "digest": ""})
    for table, published in ((load_table("loihi1"), True), (made, False)):
        found = estimate(deployment, counts, table)
        assert ("because no energy per operation is published for Loihi 2" in found.label) == published
        assert any("these are Loihi 1's figures" in limit for limit in found.limits) == published


def test_no_file_may_call_itself_a_table_that_comes_with_the_program(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    for name in ("loihi1", "LOIHI1", "cmos45"):
        path.write_text(good().replace('name = "loihi1"', f'name = "{name}"').replace("value = 23.6", "value = 30.0"))
        with pytest.raises(UserError, match="is the name of a table that comes with the program"):
            read_table(path)
    path.write_text(renamed())
    assert (read_table(path).told, read_table(path).shipped) == ("mine (file lab.toml)", False)
    path.write_text(good())
    assert (read_table(path).told, read_table(path).shipped) == ("loihi1", True)


@pytest.mark.parametrize("text", ["\\u001b]0;pwn\\u0007", "a\\nb", "\\u202e"])
@pytest.mark.parametrize("field", ["name", "title", "limits", "[no_figure]", "source", "chip"])
def test_a_text_that_could_steer_a_terminal_is_refused(field: str, text: str, tmp_path: Path) -> None:
    lines = renamed().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(field)) + (field in ("limits", "[no_figure]"))
    head, quote, tail = lines[at].partition('"')
    lines[at] = f"{head}{quote}{text}{tail}"
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="control characters"):
        read_table(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("low = 23.6", "low = 99.0", "low <= value <= high"),
        ('unit = "pJ"', 'unit = "nJ"', "unit"),
        ('unit = "pJ"', 'unit = "ns"', "must be in pJ"),
        ('unit = "ns"', 'unit = "pJ"', "must be in ns"),
        ("year = 2018\n", "", "year"),
        ('doi = "10.1109/MM.2018.112130359"\n', "", "doi"),
        ('includes = "one synapse served by one binary spike, without learning"', 'includes = ""', "includes"),
        ('source = "Davies', 'source = ""  # Davies', "source"),
        ('basis = "declared"', 'basis = "guessed"', "basis"),
        ("value = 23.6", "value = nan", "value"),
        ("value = 23.6", "value = -1", "value"),
        ("high = 35.5", "high = 1e300", "high"),
        ('name = "loihi1"', 'name = "loihi1"\nfile = "made up"', "file"),
        ('range_source = "Boyle', 'range_source = ""\nextra = "Boyle', "extra"),
        ("graded_operation =", "synaptic_operation =", "no_figure"),
        ("[coefficients.synaptic_operation]", "[coefficients.synaptic_operations]", "synaptic_operations is no operation"),
        ("[no_figure]", "[no_figure", "table"),
        ('name = "loihi1"', 'name = "loihi1"\ndigest = "made up"', "digest"),
        ('kind = "chip"', 'kind = "process"', "is no operation"),
    ],
)
def test_a_table_of_ones_own_must_be_complete(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(good())
    assert read_table(path) == load_table("loihi1")
    assert old in good()
    path.write_text(good().replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert caught.value.code == "SNX323"
    assert named in str(caught.value)


def test_a_range_without_a_source_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(re.sub(r'range_source = "Boyle.*"', 'range_source = ""', good(), count=1))
    with pytest.raises(UserError, match="range_source"):
        read_table(path)
    with pytest.raises(UserError, match="SNX323"):
        read_table(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="SNX323"):
        read_table(path)


def test_a_setting_names_a_table_or_a_file_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(renamed().replace("value = 23.6", "value = 24.0"))
    assert find_table("loihi1", tmp_path) == load_table("loihi1")
    assert find_table("mine.toml", tmp_path).coefficients["synaptic_operation"].value == 24.0
    assert find_table(str(tmp_path / "mine.toml"), Path("/nowhere")).digest == find_table("mine.toml", tmp_path).digest
    assert told(str(tmp_path / "mine.toml")) == "mine.toml", "a report says nothing of this machine"
    assert told("loihi1") == "loihi1"
    for other in ("cmos45", "neuromorphic_chips"):
        with pytest.raises(UserError, match="SNX470"):
            find_table(other, tmp_path)


def test_changing_a_table_changes_the_report_and_its_hash_is_in_it(tmp_path: Path) -> None:
    deployment = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4], [6, 8, 10]])),), high=1))
    trace = Trace("test", {"out": LayerTrace(np.array([[3, 1]]))}, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    counts = count(deployment, trace, np.ones((1, 3)))
    path = tmp_path / "mine.toml"
    path.write_text(good())
    before = estimate(deployment, counts, read_table(path))
    assert before == estimate(deployment, counts, load_table("loihi1"))
    assert before.table_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(renamed().replace("value = 23.6", "value = 30.0"))
    after = estimate(deployment, counts, read_table(path))
    assert after.table_digest == hashlib.sha256(path.read_bytes()).hexdigest() != before.table_digest
    assert after.total - before.total == pytest.approx(6.4 * 6 * 8), "6 synapses, every input in each of 8 steps"
    assert after == estimate_from(before.operations, read_table(path)), "the report holds what another estimate needs"


def test_a_table_of_ones_own_may_price_what_nobody_published(tmp_path: Path) -> None:
    def priced(operation: str, value: float) -> str:
        return (
            f'\n[coefficients.{operation}]\nvalue = {value}\nlow = {value}\nhigh = {value}\nunit = "pJ"\nnode = "our chip"\n'
            'source = "our bench"\ndoi = ""\nyear = 2026\nincludes = "one of them"\nbasis = "measured"\ncertainty = "ten runs"\n'
            'range = "no published range"\nrange_source = ""\n'
        )

    text = renamed()
    for operation in ("graded_operation", "input_message", "readout_value"):
        text = re.sub(rf"^{operation} = .*\n", "", text, flags=re.M)
        text += priced(operation, {"graded_operation": 2.0, "input_message": 5.0, "readout_value": 7.0}[operation])
    path = tmp_path / "mine.toml"
    path.write_text(text)
    deployment = deployment_from(Plan((3,), (LayerPlan("out", np.array([[2, 0, 4], [6, 8, 10]])),), high=9))
    trace = Trace("test", {"out": LayerTrace(np.array([[3, 1]]))}, np.zeros((1, 2)), np.zeros(1, np.int64), 0)
    counts = count(deployment, trace, np.ones((1, 3)))
    mine, published = (estimate(deployment, counts, table) for table in (read_table(path), load_table("loihi1")))
    graded, messages, readout = 6 * 8, 3 * 8, 2
    assert mine.total - published.total == pytest.approx(2 * graded + 5 * messages + 7 * readout)
    assert mine.layers[-1].layer == "(input)"
    assert mine.layers[-1].value == pytest.approx(5 * messages)
    assert sum(layer.value for layer in mine.layers) == pytest.approx(mine.total)


def test_what_is_documented_can_be_written() -> None:
    """The page for SNX323 names every operation that a table may hold."""
    page = (FOLDER.parents[1] / "explanations" / "pages" / "SNX323.md").read_text("utf-8")
    for name in (*CHIP_OPERATIONS, *CHIP_TIMES):
        assert f"`{name}`" in page or f"times.{name}" in page, name
    assert set(VERIFIED["cmos45"]["coefficients"]) == set(PROCESS_OPERATIONS)

"""Chip tables: every figure has a source, and what the exporter's own figures say is not contradicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snn_export.export.chips import CHIPS
from snn_export.hardware_sims.chips.chip_table import ChipTable, chip_names, load_chip, read_chip
from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.models.diagnostics import UserError

TINY = """
name = "tiny"
title = "Tiny"
[limits.neurons]
value = 4
unit = "neurons per core"
source = "a lab note"
year = 2024
certainty = "measured"
[not_published]
axons_in = "unknown"
axons_out = "unknown"
delay_slots = "unknown"
neuron_formats = "unknown"
threshold_formats = "unknown"
synapse_formats = "unknown"
synapse_memory = "unknown"
[covered]
core_memory = "no memory of that kind"
[mesh]
rows = 2
columns = 3
cores_per_router = 2
source = "a lab note"
year = 2024
certainty = "measured"
[synapses]
encodings = ["sparse"]
weight_fields = [8]
index_fields = [2]
delay_field = 0
block_entries = 0
block_header = 0
word = 1
base_reach = 0
kernel_once = false
neuron_state = 0
source = "a lab note"
year = 2024
certainty = "model"
"""


def test_chips_that_come_with_the_program() -> None:
    assert chip_names() == ("loihi1", "loihi2", "speck", "xylo")


@pytest.mark.parametrize("name", chip_names())
def test_every_figure_says_where_it_comes_from(name: str) -> None:
    chip = load_chip(name)
    tables = [*chip.limits.values(), *(table for table in (chip.mesh, chip.synapses) if table is not None)]
    assert tables
    for table in tables:
        assert table.source and table.year >= 2018 and table.certainty in table.citation
        assert table.doi or table.url or table.certainty == "model", f"{table.source} cannot be looked up"


@pytest.mark.parametrize("name", ("loihi1", "loihi2"))
def test_every_resource_is_limited_covered_or_said_to_be_unpublished(name: str) -> None:
    chip = load_chip(name)
    assert {*chip.capacities, *chip.not_published, *chip.covered} == set(RESOURCES)
    assert all(chip.not_published.values()) and all(chip.covered.values())


def test_limits_of_loihi1_are_those_of_its_paper() -> None:
    chip = load_chip("loihi1")
    assert {name: chip.capacities[name] for name in ("neurons", "synapse_memory", "axons_in", "axons_out")} == {
        "neurons": 1024, "synapse_memory": 128 * 1024 * 8, "axons_in": 4096, "axons_out": 4096,
    }  # fmt: skip
    assert chip.mesh is not None and chip.mesh.cores == 128


def test_loihi2_leaves_out_what_nobody_publishes() -> None:
    chip = load_chip("loihi2")
    assert {"axons_in", "axons_out"} <= set(chip.not_published)
    assert chip.capacities == {"neurons": 8192, "core_memory": 192 * 1024 * 8}
    assert chip.mesh is not None and chip.mesh.cores == 128


@pytest.mark.parametrize("figures", CHIPS, ids=lambda figures: figures.name)
def test_the_exporters_own_figures_agree(figures: Any) -> None:
    synapses = load_chip(figures.name).synapses
    assert synapses is not None
    assert max(synapses.weight_fields) >= figures.weight_bits and 1 << synapses.delay_field > figures.delays[1]


def test_chips_without_a_mesh_have_limits_only() -> None:
    for name in ("xylo", "speck"):
        chip = load_chip(name)
        assert chip.mesh is None and chip.synapses is None and chip.limits
    assert load_chip("speck").limits["kernel_memory"].value == (16384,) * 3 + (32768,) * 2 + (65536,) * 2 + (16384,) * 2
    assert load_chip("xylo").limits["hidden_neurons"].value == 992


def test_a_chip_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY, encoding="utf-8")
    chip = read_chip(file)
    assert chip.capacities == {"neurons": 4} and chip.mesh is not None and chip.mesh.cores == 12
    assert chip.limits["neurons"].citation == "a lab note (2024, measured)"


def test_an_unknown_chip_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="loihi2") as caught:
        load_chip("lohi2")
    assert caught.value.code == "SNX450"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('source = "a lab note"\n', "", "source"),
        ("year = 2024\n", "", "year"),
        ("value = 4", "value = 0", "positive"),
        ("value = 4", "value = [4, 4]", "one value for all cores"),
        ("value = 4", "value = 8", "index_fields"),
        ('axons_in = "unknown"\n', "", "axons_in stands in 0"),
        ('core_memory = "no', 'neurons = "no', "neurons stands in 2"),
        ('encodings = ["sparse"]', 'encodings = ["dense"]', "sparse"),
        ("rows = 2", "rows = 2\ncolour = 3", "colour"),
        ("[mesh]", "[mesh", "TOML|Expected"),
        ('name = "tiny"', 'name = "akida"', '"akida" is not the name of its file, "tiny"'),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        read_chip(file)
    assert caught.value.code == "SNX451"


def test_a_mesh_without_memory_is_refused() -> None:
    chip = load_chip("loihi1").model_dump()
    with pytest.raises(ValueError, match="both a mesh and synapses"):
        ChipTable.model_validate({**chip, "synapses": None})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_chip(tmp_path / "none.toml")
    assert caught.value.code == "SNX451"


def test_the_page_shows_the_limits_of_the_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "placement.md").read_text("utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells[1:] for cells in lines if len(cells) == 5}
    for chip, column in ((load_chip("loihi1"), 0), (load_chip("loihi2"), 2)):
        for name, resource in RESOURCES.items():
            value, origin = rows[resource.title][column : column + 2]
            if name in chip.capacities:
                assert value == f"{chip.capacities[name]:,}" and origin.startswith(chip.limits[name].certainty)
            else:
                assert not origin and (value == "not published") == (name in chip.not_published)
        mesh = chip.mesh
        assert mesh is not None
        (value, origin), plural = rows["mesh"][column : column + 2], "s" if mesh.cores_per_router > 1 else ""
        assert value == f"{mesh.rows} x {mesh.columns} routers, {mesh.cores_per_router} core{plural} each"
        assert origin.startswith(mesh.certainty)

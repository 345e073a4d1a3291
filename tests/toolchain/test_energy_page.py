"""The energy and the placement of a report as a page, as CSV and on the terminal; and that Chromium shows the page well."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from snn_export.cli import command_line
from snn_export.commands import energy_table, pipeline_run
from snn_export.energy.cost_table import load_table
from snn_export.energy.curve import Chosen
from snn_export.energy.estimate import estimate
from snn_export.energy.latency import core_loads, may_be_busiest
from snn_export.energy.observer import EnergyObserver
from snn_export.energy.operations import Beside
from snn_export.energy.placed import placement_report
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import place
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting import energy_csv, formatting, html, plots_energy
from snn_export.reporting.energy_records import FIGURE_GROUPS, AnnOperations, EnergyFigure, EnergyReport, ExitOperations
from snn_export.reporting.formatting import text_of, value_at
from snn_export.reporting.json_file import read_report, write_report
from snn_export.reporting.report import Report
from tests.builders import LayerPlan, Plan, deployment_from
from tests.chromium import Chromium, chromium, require_chromium
from tests.report_examples import example_report
from tests.toolchain import test_reporting_browser as rules
from tests.toolchain.test_reporting_html import Page, printed_numbers

HOSTILE = "=1<script>alert('a')</script>"


@cache
def report() -> Report:
    """The passing example with a measured energy and a placement over several routers of it; a layer has a hostile name."""
    rng = np.random.default_rng(0)
    first = LayerPlan("lif1", rng.integers(-4, 5, (12, 1, 3, 3)) * 2, padding=(1, 1))
    second = LayerPlan(HOSTILE, rng.integers(-4, 5, (8, 12, 3, 3)) * 2, "lif1", padding=(1, 1))
    out = LayerPlan("out", rng.integers(-4, 5, (10, 8 * 400)) * 2, HOSTILE)
    deployment = deployment_from(Plan((1, 20, 20), (first, second, out), steps=4, high=9))
    observer, layers = EnergyObserver("loihi", deployment, threshold=4.0), {}
    for name in deployment.layers:
        spikes = rng.random((4, 30, *deployment.shapes[name])) < (0.0 if name == "out" else 0.2)
        layers[name] = LayerTrace(spikes.sum(axis=0), spikes, rng.integers(-9, 9, spikes.shape))
    trace = Trace("loihi", layers, np.zeros((30, 10)), np.zeros(30, np.int64), 0)
    observer.chunk(rng.integers(0, 3, (30, 1, 20, 20)).astype(float), {"loihi": trace}, 0, rng.integers(0, 10, 30))
    counted = observer.counted
    placement = place(deployment, load_chip("loihi1"), counted.activity)
    chosen = Chosen(4.0, 25, 20, 20, (8, 14, 19, 20))
    sequential, on_chip = counted.steps.exit_records()
    early = ExitOperations(
        threshold=chosen.threshold, chosen_on=chosen.samples, validation_correct=chosen.correct, validation_correct_full=20,
        exits=tuple(counted.steps.exits.tolist()), total=sequential, on_chip=on_chip,
    )  # fmt: skip
    teacher = AnnOperations(
        name="teacher", samples=30, dense_macs=900_000, effective_macs=30 * 400_000, weights=20_000, activations=30_000, layers=4
    )  # fmt: skip
    beside = Beside(
        by_step=counted.steps.records(), early_exit=early, validation_samples=25, validation_correct=chosen.by_step,
        teacher=teacher, placement=placement,
        cores=may_be_busiest(core_loads(deployment, placement, counted.activity, counted.counts.binary_input)),
    )  # fmt: skip
    energy = estimate(deployment, counted.counts, load_table("loihi1"), beside)
    return example_report().model_copy(update={"energy": energy, "placement": placement_report(placement)})


def energy() -> EnergyReport:
    found = report().energy
    assert found is not None
    return found


def test_every_number_of_energy_and_placement_is_shown_as_the_json_file_holds_it(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "report.json")
    read_back = read_report(tmp_path / "report.json")
    assert read_back == report()
    fields = Page(html.render_energy(read_back)).fields()
    for path, text in fields:
        assert text == text_of(read_back, path), path
    shown, plain = {path for path, _ in fields}, report().model_dump(mode="json")
    expected = set(printed_numbers({"energy": plain["energy"], "placement": plain["placement"]}))
    drawn_or_raw = {path for path in expected if path.startswith(("energy.operations.", "placement.links.")) or is_drawn(path)}
    left_out = {path for path in expected - shown - drawn_or_raw if not value_at(report(), path) or ends_of_a_range(path)}
    assert expected - shown - drawn_or_raw - left_out == set()
    assert {"energy.comparisons.0.ratio", "energy.neurobench.dense", "energy.early_exit.mean_steps"} <= shown


def is_drawn(path: str) -> bool:
    """Where the mesh is drawn, its geometry is not printed; and a part of nothing is left out of its table."""
    name = path.rpartition(".")[2]
    if path.startswith("placement.") and name in {
        "row",
        "column",
        "slot",
        "chip",
        "neurons",
        "rows",
        "columns",
        "chip_rows",
        "chip_columns",
    }:
        return True
    parts = path.split(".")
    return parts[:2] == ["energy", "layers"] and "parts" in parts and not value_at(report(), ".".join([*parts[:-1], "value"]))


def ends_of_a_range(path: str) -> bool:
    return path.rpartition(".")[2] in {"own_low", "own_high"}


def test_the_page_says_who_wins_and_what_it_was_charged_with() -> None:
    page = Page(html.render_energy(report()))
    text = " ".join(" ".join(element.text.split()) for element in page.elements if element.tag == "section")
    for sentence in (*energy().verdict, *energy().break_even, *energy().limits, energy().table_digest[:12]):
        assert " ".join(sentence.split()) in text
    sources = [e for e in page.elements if e.attributes.get("id", "").startswith("source-")]
    cited = {f.source for f in (*energy().figures, *energy().cmos, *energy().baselines, *energy().teacher, *energy().other_chips)}
    assert cited | set(energy().latency.sources) == set(energy().sources())
    assert [e.text.strip() for e in sources] == [" ".join(source.split()) for source in energy().sources()]
    assert not any(element.tag == "script" for element in page.elements)


def test_the_page_says_above_a_time_whose_it_is() -> None:
    page = Page(html.render_energy(report()))
    (title,) = [element.text for element in page.elements if element.tag == "h3" and element.text.startswith("Time")]
    assert title == f"Time, {energy().latency.terms}"


def test_the_whole_report_holds_both_sections_and_they_stand_alone_too() -> None:
    whole = Page(html.render(report()))
    assert {"energy", "placement"} <= whole.ids()
    assert len([e for e in whole.elements if "id" in e.attributes]) == len(whole.ids()), "ids are unique"
    alone = Page(html.render_energy(report().model_copy(update={"placement": None})))
    assert "energy" in alone.ids()
    assert not {"placement", "ladder", "layers"} & alone.ids()
    assert html.render_energy(report()) == html.render_energy(report().model_copy(deep=True))


def test_bars_are_as_long_as_the_energies_they_stand_for() -> None:
    scale = plots_energy.layer_scale(energy())
    layer = max(energy().layers, key=lambda item: item.value)
    parts = plots_energy.parts_of(layer)
    assert sum(parts.values()) == pytest.approx(layer.value)
    drawn = str(plots_energy.layer_bar(scale, layer))
    widths = [float(item.split('"')[0]) for item in drawn.split('width="')[1:]]
    assert widths == pytest.approx([scale.at(value) for value in parts.values()], abs=0.01)
    assert scale.at(layer.high) <= 100
    assert [name for name in plots_energy.PARTS if name in parts] == list(parts), "always in one order"


def test_the_mesh_has_a_router_for_every_place_in_use_and_a_link_for_every_way() -> None:
    placement = report().placement
    rows, columns = plots_energy.mesh_shown(placement)
    page = Page(str(plots_energy.mesh(placement)))
    routers = [e for e in page.elements if "router" in e.attributes.get("class", "").split()]
    used = {(core.row, core.column) for core in placement.placed}
    assert len(routers) == rows * columns
    assert rows == max(row for row, _ in used) + 2 <= placement.rows
    assert columns == max(column for _, column in used) + 2 <= placement.columns
    assert len([e for e in routers if "empty" not in e.attributes["class"]]) == len(used) > 1
    links = [float(e.attributes["stroke-width"]) for e in page.elements if e.attributes.get("class") == "way"]
    assert len(links) == len(placement.links) > 2
    assert max(links) == 8.0
    busiest = plots_energy.busiest_links(placement)
    assert placement.links[busiest[0]].packets == max(link.packets for link in placement.links)


def test_a_network_at_one_router_gets_no_mesh() -> None:
    placement = report().placement
    alone = placement.model_copy(update={"placed": placement.placed[:1], "links": ()})
    page = html.render(report().model_copy(update={"placement": alone}))
    assert 'class="mesh"' not in page
    assert "nothing travels over the mesh" in page
    assert 'class="mesh"' in html.render(report())


def test_the_energy_page_begins_with_the_energy() -> None:
    page = html.render_energy(report())
    assert page.index('<section id="energy"') < page.index('<section id="placement"')


@pytest.mark.parametrize(
    ("chosen_on", "said"), [(25, "validation samples."), (None, "It was read off these samples themselves.")]
)
def test_the_page_says_on_which_samples_the_knee_was_chosen(chosen_on: int | None, said: str) -> None:
    assert energy().knee_chosen_on == 25
    page = html.render(report().model_copy(update={"energy": energy().model_copy(update={"knee_chosen_on": chosen_on})}))
    told = page[page.index("The knee lies at") :][:600]
    assert said in told
    assert ("25" in told.split("It was")[1][:160]) is (chosen_on is not None)


def test_the_knee_of_the_curve_has_a_shape_of_its_own() -> None:
    found = energy()
    drawn = str(plots_energy.energy_curve(found.curve, found.knee, "c"))
    assert drawn.count('class="knee"') == 1
    assert drawn.count('class="dot"') == len(found.curve) - 1
    assert str(plots_energy.energy_curve((), None, "c")) == ""


def test_csv_holds_every_figure_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(energy_csv.render(energy()))))
    assert tuple(rows[0]) == energy_csv.COLUMNS
    total = next(row for row in rows if row["group"] == "total")
    assert (float(total["value_pJ"]), total["source"]) == (energy().total, energy().table_digest)
    layers = [row for row in rows if row["group"] == "layer" and row["component"] == "all"]
    assert sum(float(row["value_pJ"]) for row in layers) == pytest.approx(energy().total)
    assert len([row for row in rows if row["group"] == "curve"]) == 4
    assert any(row["layer"].startswith("'=1") for row in rows), "a name is no formula of a spreadsheet"
    graded = next(row for row in rows if row["component"] == "graded operations")
    assert (graded["value_pJ"], graded["coefficient"], graded["operation"]) == ("", "no figure", "graded_operation")


def test_csv_holds_comparisons_times_metrics_and_memory_too() -> None:
    rows = list(csv.DictReader(io.StringIO(energy_csv.render(energy()))))
    by_group = {name: [row for row in rows if row["group"] == name] for name in {row["group"] for row in rows}}
    assert set(by_group) == {
        "layer",
        "total",
        "comparisons",
        "curve",
        "early_exit",
        "rate",
        "latency",
        "tables",
        "neurobench",
        "memory",
        *FIGURE_GROUPS,
    }
    first, expected = by_group["comparisons"][0], energy().comparisons[0]
    assert len(by_group["comparisons"]) == len(energy().comparisons)
    assert (float(first["value_pJ"]), float(first["other_value_pJ"])) == (expected.own_value, expected.value)
    assert (first["other"], first["winner"], first["at_every_end"]) == ("ANN twin", expected.winner, expected.at_every_end)
    times = {row["component"]: row for row in by_group["latency"]}
    assert (float(times["step"]["low"]), times["step"]["unit"]) == (energy().latency.step.low, "ns")
    assert (float(times["throughput"]["high"]), times["throughput"]["unit"]) == (energy().latency.throughput_high, "1/s")
    assert all(source in times["inference"]["source"] for source in energy().latency.sources)
    metrics = {row["component"]: (float(row["value"]), row["unit"]) for row in by_group["neurobench"]}
    assert metrics["footprint"] == (energy().neurobench.footprint, "byte")
    assert metrics["effective_macs"] == (energy().neurobench.effective_macs, "1/inference")
    assert {row["component"] for row in by_group["memory"]} == {"weight_reads", "state_reads", "state_writes", "sum_accesses"}
    assert float(by_group["rate"][0]["value"]) == energy().spikes_per_synapse


def test_every_group_of_figures_is_found_by_its_name_and_titled_with_its_process() -> None:
    groups = energy().groups()
    assert [group.name for group in groups] == list(FIGURE_GROUPS)
    assert [figure for group in groups for figure in group.figures] == [
        figure for name, field in EnergyReport.model_fields.items() if field.annotation == tuple[EnergyFigure, ...]
        for figure in getattr(energy(), name)
    ], "a field with figures that is in no group would be shown nowhere"  # fmt: skip
    assert [group.title for group in groups if "(45 nm)" in group.title] == [group.title for group in groups[1:4]]
    assert [group.name for group in energy().model_copy(update={"teacher": ()}).groups()] == [
        "figures", "cmos", "baselines", "other_chips",
    ]  # fmt: skip


def test_a_time_that_rests_on_a_source_of_its_own_cites_it_in_every_form(tmp_path: Path) -> None:
    """In the published table times and energies have the same source, so nothing would be missed there."""
    latency = energy().latency.model_copy(update={"sources": ("Stopwatch, 2026",)})
    timed = report().model_copy(update={"energy": energy().model_copy(update={"latency": latency})})
    number = timed.energy.sources()["Stopwatch, 2026"]
    assert number == len(timed.energy.sources())
    assert f'href="#source-{number}"' in html.render_energy(timed)
    write_report(timed, tmp_path / "report.json")
    shown = invoke("--report", tmp_path / "report.json").output
    assert f"has neither [{number}]" in " ".join(shown.split())
    assert f"[{number}] Stopwatch, 2026" in shown


def test_a_bar_knows_a_part_by_its_operation_and_not_by_its_title() -> None:
    layer = max(energy().layers, key=lambda item: item.value)
    renamed = layer.model_copy(update={"parts": tuple(part.model_copy(update={"component": "?"}) for part in layer.parts)})
    assert plots_energy.parts_of(renamed) == plots_energy.parts_of(layer)
    assert {"synaptic", "active", "inactive", "messages", "hops"} <= set(plots_energy.parts_shown(energy()))
    assert "other" not in plots_energy.parts_shown(energy())


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command_line, ["energy", *map(str, arguments)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("energy") / "report.json"
    write_report(report(), path)
    return path


def test_the_command_shows_writes_and_charges_again(file: Path, tmp_path: Path) -> None:
    shown = invoke("--report", file)
    assert shown.exit_code == 0
    for text in ("the ANN twin", "knee", "Early exit", "NeuroBench", "Horowitz", "lif1", "SENECA", energy().table_digest[:12]):
        assert text in shown.output, text
    text = " ".join(shown.output.split())
    numbers = " ".join(f"[{energy().sources()[source]}]" for source in energy().latency.sources)
    assert f"{energy().latency.reason} {numbers}" in text
    assert f"Time, {energy().latency.terms}: " in text
    assert json.loads(invoke("--report", file, "--format", "json").output) == energy().model_dump(mode="json")
    assert invoke("--report", file, "--format", "csv").output == energy_csv.render(energy())
    written = invoke("--report", file, "--format", "html", "-o", tmp_path / "energy.html")
    assert written.output == f"{tmp_path / 'energy.html'}\n"
    assert (tmp_path / "energy.html").read_text("utf-8") == html.render_energy(report())
    mine = Path(plots_energy.__file__).parents[1] / "energy" / "tables" / "loihi1.toml"
    (tmp_path / "mine.toml").write_text(
        mine.read_text("utf-8").replace("value = 23.6", "value = 30.0").replace('name = "loihi1"', 'name = "mine"')
    )
    again = json.loads(invoke("--report", file, "--table", tmp_path / "mine.toml", "--format", "json").output)
    synops = energy().figures[0].count
    assert again["total"] - energy().total == pytest.approx(6.4 * synops)
    assert again["operations"] == energy().model_dump(mode="json")["operations"]
    assert again["table_digest"] != energy().table_digest


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_on_a_terminal_no_line_is_wider_than_it_and_no_figure_is_lost(
    width: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy_table, "terminal_width", lambda: width)
    shown = invoke("--report", file).output
    assert max(map(len, shown.splitlines())) <= width
    text = "".join(shown.split())
    for figure in energy().figures:
        if figure.value is not None and width >= 80:
            assert formatting.energy_range(figure.value, figure.low, figure.high) in shown
    for sentence in (*energy().verdict, *energy().limits):
        assert "".join(sentence.split()) in text
    for group in energy().groups():
        assert "".join(group.title.split()[:2]) in text
    assert width < 80 or shown.count(formatting.energy_range(energy().total, energy().total_low, energy().total_high)) >= 2


def test_what_is_written_to_a_file_or_a_pipe_is_not_broken(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = invoke("--report", file).output
    assert all(any(sentence in line for line in piped.splitlines()) for sentence in energy().limits)
    monkeypatch.setattr(energy_table, "terminal_width", lambda: 60)
    invoke("--report", file, "-o", tmp_path / "energy.txt")
    assert (tmp_path / "energy.txt").read_text("utf-8") == piped


@pytest.mark.parametrize("width", [None, 100])
def test_no_text_of_a_report_steers_the_terminal(width: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;pwn\x07\x1b[31m\u202e"

    def poisoned(node: object, key: str = "") -> object:
        if isinstance(node, dict):
            return {name: poisoned(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [poisoned(value, key) for value in node]
        fixed = {"winner", "at_every_end", "subject", "opponent", "precision", "layer", "source"}
        return f"{node}{evil}" if isinstance(node, str) and (key not in fixed or key == "source") else node

    plain = energy().model_copy(update={"operations": None}).model_dump(mode="json")
    energy_table.print_energy(EnergyReport.model_validate(poisoned(plain)), width)
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert r"\x1b" in shown


def test_every_table_that_a_figure_comes_from_is_named_with_its_digest(file: Path) -> None:
    digests = {table.name: table.digest for table in energy().tables}
    assert digests == {name: load_table(name).digest for name in ("loihi1", "cmos45", "neuromorphic_chips")}
    rows = [row for row in csv.DictReader(io.StringIO(energy_csv.render(energy()))) if row["group"] == "tables"]
    assert {row["component"]: row["source"] for row in rows} == digests
    for text in (invoke("--report", file).output, html.render_energy(report())):
        assert all(digest in text for digest in digests.values())


def test_a_table_of_ones_own_is_named_with_its_file_and_takes_no_word_for_the_published_one(file: Path, tmp_path: Path) -> None:
    published = (Path(plots_energy.__file__).parents[1] / "energy" / "tables" / "loihi1.toml").read_text("utf-8")
    (tmp_path / "lab.toml").write_text(
        published.replace('name = "loihi1"', 'name = "lab"').replace("value = 23.6", "value = 24.0")
    )
    again = json.loads(invoke("--report", file, "--table", tmp_path / "lab.toml", "--format", "json").output)
    assert (again["table"], again["table_file"], again["tables"][0]["file"]) == ("lab", "lab.toml", "lab.toml")
    assert "no energy per operation is published" not in again["label"]
    assert "(file lab.toml)" in again["label"]
    assert "which belong to Loihi 1; the network is quantised for Loihi 2" in again["label"]
    assert not any("these are Loihi 1's figures" in limit for limit in again["limits"])
    assert "table lab (file lab.toml)" in invoke("--report", file, "--table", tmp_path / "lab.toml").output


def test_where_nothing_that_happens_has_a_figure_there_is_none(file: Path, tmp_path: Path) -> None:
    published = (Path(plots_energy.__file__).parents[1] / "energy" / "tables" / "loihi1.toml").read_text("utf-8")
    head, _, rest = published.partition("[coefficients.synaptic_operation]")
    one = "[coefficients.hop_north_south]" + rest.partition("[coefficients.")[0]
    assert [figure.count for figure in energy().figures if figure.operation == "hop_north_south"] == [0], (
        "priced, and none happens"
    )
    head = head.replace('name = "loihi1"', 'name = "lab"')
    (tmp_path / "lab.toml").write_text(head + one)
    again = json.loads(invoke("--report", file, "--table", tmp_path / "lab.toml", "--format", "json").output)
    assert again["total"] is None
    assert {layer["value"] for layer in again["layers"]} == {None}
    assert not any(line.startswith("Another chip") for line in again["verdict"])
    (tmp_path / "lab.toml").write_text(head + "[coefficients.synaptic_operation]" + rest.partition("[coefficients.")[0])
    again = json.loads(invoke("--report", file, "--table", tmp_path / "lab.toml", "--format", "json").output)
    (line,) = [line for line in again["verdict"] if line.startswith("Another chip")]
    assert "without what has no figure: active neuron updates, inactive neuron updates, packets" in line


def test_a_report_is_taken_as_it_is_or_not_at_all(file: Path, tmp_path: Path) -> None:
    for more in (("--run", tmp_path), ("--set", "model.steps=4"), ("--config", tmp_path / "c.toml")):
        found = invoke("--report", file, *more)
        assert found.exit_code == 2
        assert "goes with none of" in found.output


class _StartedError(Exception):
    """The pipeline was started."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, where a pipeline that is started says so and does nothing."""

    def started(*_: object, **__: object) -> int:
        raise _StartedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline_run, "carry_out", started)
    return tmp_path


def test_nothing_is_trained_where_there_are_no_settings_and_no_run(empty: Path) -> None:
    for arguments in ((), ("--run", empty / "nope"), ("--set", "model.steps=4")):
        assert "SNX028" in str(invoke(*arguments).exception)
        assert list(empty.iterdir()) == []
    (empty / "snn-export.toml").write_text("")
    assert "SNX028" in str(invoke("--run", empty / "nope").exception), "a folder that was named is one of a run"
    assert isinstance(invoke().exception, _StartedError)
    assert isinstance(invoke("--config", empty / "snn-export.toml").exception, _StartedError)


def test_a_run_is_gone_on_with_even_without_settings(empty: Path) -> None:
    step = empty / "mine" / "teacher"
    step.mkdir(parents=True)
    (step / "step.json").write_text(json.dumps({"key": "k", "summary": "", "files": {}, "seconds": 1.0}))
    assert isinstance(invoke("--run", empty / "mine").exception, _StartedError)


def test_a_table_that_cannot_be_used_is_told_before_anything_runs(empty: Path) -> None:
    (empty / "snn-export.toml").write_text('[energy]\ntable = "lab.toml"\n')
    assert "SNX323" in str(invoke().exception)
    run = CliRunner().invoke(command_line, ["run"])
    assert "SNX323" in str(run.exception), "nor trained"
    (empty / "snn-export.toml").write_text("")
    assert "SNX322" in str(invoke("--table", "nowhere").exception)


def test_the_command_lists_the_tables_and_refuses_what_it_cannot_charge(file: Path, tmp_path: Path) -> None:
    listed = invoke("--tables")
    assert [line.split()[0] for line in listed.output.splitlines()[1:4]] == ["cmos45", "loihi1", "neuromorphic_chips"]
    assert [item["name"] for item in json.loads(invoke("--tables", "--format", "json").output)] == [
        "cmos45", "loihi1", "neuromorphic_chips",
    ]  # fmt: skip
    for table, code in (("cmos45", "SNX470"), ("nowhere", "SNX322"), ("none.toml", "SNX323")):
        failed = invoke("--report", file, "--table", table)
        assert code in str(failed.exception), table
    bare = report().model_copy(update={"energy": energy().model_copy(update={"operations": None})})
    write_report(bare, tmp_path / "bare.json")
    assert "SNX471" in str(invoke("--report", tmp_path / "bare.json", "--table", "loihi1").exception)
    write_report(report().model_copy(update={"energy": None}), tmp_path / "none.json")
    assert "SNX502" in str(invoke("--report", tmp_path / "none.json").exception)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    require_chromium()
    with chromium() as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_chromium_shows_the_page_without_a_fault(width: int, scheme: str, browser: Chromium, tmp_path: Path) -> None:
    (tmp_path / "energy.html").write_text(html.render_energy(report()), encoding="utf-8")
    browser.show(tmp_path / "energy.html", width, scheme=scheme)
    browser.ask(rules.OPEN_ALL)
    assert browser.ask("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert browser.ask(rules.BEYOND_THE_EDGE) == []
    assert browser.ask(rules.LABELS_IN_TROUBLE) == []
    checked, faint = browser.ask(rules.LOW_CONTRAST, rules.LEAST_CONTRAST)
    assert checked > 300
    assert faint == []
    assert browser.ask(rules.UNREACHABLE_SCROLLERS) == []
    assert browser.complaints() == []
    assert browser.requests() == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "below"), [(390, True), (1400, False)])
def test_on_a_phone_every_energy_stands_under_its_name(width: int, below: bool, browser: Chromium, tmp_path: Path) -> None:
    (tmp_path / "energy.html").write_text(html.render_energy(report()), encoding="utf-8")
    browser.show(tmp_path / "energy.html", width, scheme="light")
    places = browser.ask(
        "return [...document.querySelectorAll('.below, .beside')].filter(e => e.getClientRects().length)"
        ".map(e => [e.className.includes('below'), e.getBoundingClientRect().right])"
    )
    figures = [figure for group in energy().groups() if not group.orientation for figure in group.figures]
    assert len(places) >= len(figures) + len(energy().layers) + 1
    assert {shown for shown, _ in places} == {below}
    assert all(right <= width for _, right in places)


@pytest.mark.browser
def test_in_print_the_page_stays_within_the_paper(browser: Chromium, tmp_path: Path) -> None:
    (tmp_path / "energy.html").write_text(html.render_energy(report()), encoding="utf-8")
    browser.show(tmp_path / "energy.html", rules.A4_WITHIN_MARGINS, scheme="dark", medium="print")
    assert browser.ask("return document.documentElement.scrollWidth") <= rules.A4_WITHIN_MARGINS
    assert browser.ask(rules.LOW_CONTRAST, rules.LEAST_CONTRAST)[1] == []

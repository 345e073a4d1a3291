from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.config import Loaded, load_config, to_toml
from snn_export.config_schema import BackendConfig, Config, GatesConfig, ModelConfig, ProjectConfig, VerifyConfig, field_at
from snn_export.config_schema import settings as all_settings
from snn_export.models.diagnostics import UserError
from snn_export.toml_lines import line_of_keys


def load(tmp_path: Path, text: str, overrides: dict[str, str] | None = None, **environ: str) -> Loaded:
    path = tmp_path / "snn-export.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides, environ)


def findings(tmp_path: Path, text: str, overrides: dict[str, str] | None = None, **environ: str) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, overrides, **environ)
    assert caught.value.exit_code == 2
    return [(found.code, found.where) for found in caught.value.diagnostics]


def test_without_a_file_the_defaults_hold_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_config(None, environ={}, allow_missing=True)
    assert loaded.config == Config()
    assert loaded.file is None
    assert set(loaded.origin.values()) == {"default"}
    with pytest.raises(UserError) as caught:
        load_config(None, environ={})
    assert (caught.value.code, "snn-export init" in caught.value.diagnostics[0].fix) == ("SNX020", True)
    with pytest.raises(UserError, match="SNX020"):
        load_config(Path("named.toml"), environ={}, allow_missing=True)


def test_what_the_issue_promises_is_the_default() -> None:
    config = Config()
    assert (config.model.steps, config.model.dv, config.quantize.target, config.verify.reference) == (
        8,
        1024,
        "loihi2",
        "student",
    )
    assert config.verify.backends == {
        "loihi": BackendConfig(required=True, samples=0),
        "lava": BackendConfig(required=True, samples=128, time_limit=300),
    }
    assert config.gates.exact == (("loihi", "lava"),)


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    text = "[model]\nsteps = 2\ndv = 7\nthreshold = 2\n"
    loaded = load(tmp_path, text, {"model.steps": "4"}, SNN_EXPORT_MODEL__STEPS="3", SNN_EXPORT_MODEL__DV="8")
    assert (loaded.config.model.steps, loaded.config.model.dv, loaded.config.model.threshold) == (4, 8, 2.0)
    assert loaded.config.model.student_width == 16
    assert {key: loaded.origin[f"model.{key}"] for key in ("steps", "dv", "threshold", "student_width")} == {
        "steps": "flag",
        "dv": "environment SNN_EXPORT_MODEL__DV",
        "threshold": "snn-export.toml:4",
        "student_width": "default",
    }


def test_every_setting_has_an_origin_and_can_be_set_from_the_environment(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    assert list(loaded.origin) == [".".join(path) for path, _ in all_settings(loaded.config)]
    values = {"required": "false", "samples": "3", "time_limit": "2.5"}
    environ = {f"SNN_EXPORT_VERIFY__BACKENDS__LAVA__{key.upper()}": value for key, value in values.items()}
    changed = load(tmp_path, "", SNN_EXPORT_TRAINING__BATCH_SIZE="none", SNN_EXPORT_PROJECT__NAME="123", **environ).config
    assert changed.verify.backends["lava"] == BackendConfig(required=False, samples=3, time_limit=2.5)
    assert (changed.project.name, changed.training.batch_size) == ("123", None)


def test_a_partial_backend_table_keeps_the_other_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, "[verify]\nbackends.lava = {required = false}\n[verify.backends.loihi]\nsamples = 5\n")
    assert loaded.config.verify.backends == {
        "loihi": BackendConfig(samples=5),
        "lava": BackendConfig(required=False, samples=128),
    }
    assert loaded.origin["verify.backends.lava.required"] == "snn-export.toml:2"
    assert loaded.origin["verify.backends.lava.samples"] == "default"


def test_all_mistakes_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """# a comment
[modle]
x = 1
[model]
stepss = 8
dv = 5000
[training]
threads = "all"
dv = 3
[verify.backends.laav]
[verify.backends.lava]
required = 1
"""
    where = "snn-export.toml:"
    assert findings(tmp_path, text, {"model.stps": "1"}, SNN_EXPORT_MODEL__STEP="4") == [
        ("SNX022", f"{where}2"),
        ("SNX022", f"{where}5"),
        ("SNX023", f"{where}6"),
        ("SNX023", f"{where}8"),
        ("SNX022", f"{where}9"),
        ("SNX025", f"{where}10"),
        ("SNX023", f"{where}12"),
        ("SNX024", "environment SNN_EXPORT_MODEL__STEP"),
        ("SNX022", "flag"),
    ]


def test_suggestions_name_the_closest_key_or_the_table_it_belongs_in(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, "[model]\nstepss = 8\n[training]\ndv = 3\n[verify.backends.laav]\n", SNN_EXPORT_MODEL__STEP="4")
    steps, dv, lava, variable = [found.fix for found in caught.value.diagnostics]
    assert "did you mean steps?" in steps
    assert "did you mean dv in [model]?" in dv
    assert "did you mean lava?" in lava
    assert "did you mean SNN_EXPORT_MODEL__STEPS?" in variable


@pytest.mark.parametrize(
    ("text", "given", "allowed"),
    [
        ("[model]\nsteps = 0", "0", "a whole number, 1 or more"),
        ("[model]\nsteps = 8.0", "8.0", "a whole number, 1 or more"),
        ('[model]\nsteps = "8"', '"8"', "a whole number, 1 or more"),
        ("[model]\nsteps = true", "true", "a whole number, 1 or more"),
        ("[model]\ndv = -1", "-1", "a whole number, 0 to 4095"),
        ("[model]\nthreshold = nan", "nan", "a number, above 0"),
        ("[model]\nthreshold = inf", "inf", "a number, above 0"),
        ("[data]\nvalidation = 1", "1", "a number, above 0, below 1"),
        ('[quantize]\ntarget = "loihi3"', '"loihi3"', 'one of "loihi1" or "loihi2"'),
        ('[gates]\nexact = ["loihi", "lava"]', '["loihi", "lava"]', "a list of pairs of names"),
        ("[project]\nname = 1979-05-27", "a date", "text, not empty"),
        ('[project]\noutput = ""', '""', "text, not empty"),
        ("model = 3", "3", "a table"),
        ("[verify]\nbackends = []", "[]", "a table"),
    ],
)
def test_a_wrong_value_is_repeated_with_what_is_allowed(tmp_path: Path, text: str, given: str, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    (found,) = caught.value.diagnostics
    assert (found.code, found.where) == ("SNX023", f"snn-export.toml:{text.count(chr(10)) + 1}")
    assert found.what.endswith(f" cannot be {given}")
    assert found.why == f"it must be {allowed}"


def test_pairs_that_prove_nothing_are_refused(tmp_path: Path) -> None:
    assert findings(tmp_path, '[gates]\nexact = [["loihi", "netx"], ["lava", "lava"]]') == [("SNX026", "snn-export.toml:2")] * 2
    assert load(tmp_path, "[gates]\nexact = []").config.gates.exact == ()
    for always_run in ("reference", "student"):
        assert findings(tmp_path, f'[gates]\nexact = [["{always_run}", "loihi"]]') == [("SNX026", "snn-export.toml:2")]
        assert findings(tmp_path, f"[verify.backends.{always_run}]\nsamples = 3")[0][0] == "SNX025"


def test_a_gate_for_a_rung_that_is_not_run_is_noticed_before_anything_runs(tmp_path: Path) -> None:
    assert findings(tmp_path, "[gates.targets.lva]\noverflows = 1") == [("SNX026", "snn-export.toml:1")]
    for name in ("lava", "loihi", "quantised", "folded", "lava_float"):
        assert name in load(tmp_path, f"[gates.targets.{name}]\noverflows = 1").config.gates.targets


@pytest.mark.parametrize(
    ("text", "line"), [("[model]\nsteps = \n", 2), ("[model\n", 1), ("x = 1\n\nx = 2\n", 3), ('a = """\n\n', 3)]
)
def test_broken_toml_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    (found,) = findings(tmp_path, text)
    assert found[0] == "SNX021"
    assert found[1].startswith(f"snn-export.toml:{line}")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff\xfe[model]")
    for bad in (path, tmp_path):
        with pytest.raises(UserError, match="SNX020"):
            load_config(bad, environ={})


def test_variables_with_a_meaning_of_their_own_are_left_alone(tmp_path: Path) -> None:
    own = ("BENCHMARK_DATA", "ENVS", "SHARED", "REQUIRE_LAVA", "REQUIRE_NETX", "LAVA_PYTHON", "MY_BACKEND_PYTHON")
    assert load(tmp_path, "", **{f"SNN_EXPORT_{name}": "x" for name in own}, OTHER="x").config == Config()
    assert findings(tmp_path, "", SNN_EXPORT_MODEL="x", SNN_EXPORT_VERIFY__BACKENDS__LAVA="{}") == [
        ("SNX024", "environment SNN_EXPORT_MODEL"),
        ("SNX024", "environment SNN_EXPORT_VERIFY__BACKENDS__LAVA"),
    ]


def test_a_flag_cannot_smuggle_in_more_than_a_value(tmp_path: Path) -> None:
    assert findings(tmp_path, "", {"model.steps": "4\ndv = 3"}) == [("SNX023", "flag")]


def test_a_flag_for_a_whole_table_is_told_apart_from_an_unknown_key(tmp_path: Path) -> None:
    for key in ("verify.backends", "verify.backends.lava", "model"):
        with pytest.raises(UserError) as caught:
            load(tmp_path, "", {key: "{}"})
        assert caught.value.diagnostics[0].what == f"{key} is a table and has no value"


def test_settings_cannot_be_changed_after_loading(tmp_path: Path) -> None:
    config = load(tmp_path, "").config
    with pytest.raises(ValueError, match="frozen"):
        config.model.steps = 9  # type: ignore[misc]


def test_the_written_file_is_commented_and_reads_back_equal(tmp_path: Path) -> None:
    text = to_toml(Config())
    assert load(tmp_path, text).config == Config()
    for path, _ in all_settings(Config()):
        info = field_at(path)
        assert info is not None
        assert info.description, f"{path} needs a description: it is the comment in the file"
        assert f"# {info.description}" in text


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(name=TEXT, threshold=st.floats(1e-300, 1e300), width=st.none() | st.integers(1, 10**9), backend=TEXT)
def test_any_settings_survive_being_written(name: str, threshold: float, width: int | None, backend: str) -> None:
    config = Config(
        project=ProjectConfig(name=name),
        model=ModelConfig(threshold=threshold, teacher_width=width),
        verify=VerifyConfig(backends={backend: BackendConfig()}),
        gates=GatesConfig(exact=((name, backend),), student_accuracy=96.5),
    )
    assert Config.model_validate(tomllib.loads(to_toml(config))) == config


def test_lines_are_found_through_everything_toml_allows() -> None:
    text = '''a = "x # no comment" # comment [b]
"quoted.key" = 1
[ t . "u v" ]   # header
list = [ "]", # comment ]
  [1, 2],
]
long = """
fake = 1
""\\" still"""
raw = \'\'\'
[fake]
\'\'\'
x.y = {z = 1}
[[many]]
k = 1
[[many]]
k = 2
'''
    tomllib.loads(text)
    assert line_of_keys(text) == {
        ("a",): 1,
        ("quoted.key",): 2,
        ("t",): 3,
        ("t", "u v"): 3,
        ("t", "u v", "list"): 4,
        ("t", "u v", "long"): 7,
        ("t", "u v", "raw"): 10,
        ("t", "u v", "x"): 13,
        ("t", "u v", "x", "y"): 13,
        ("many",): 14,
        ("many", "k"): 15,
    }

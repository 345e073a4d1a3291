"""Loss terms by name: those of this program, and those of third parties."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.training import plug_ins
from snn_export.training.composing import compose, parse_terms
from snn_export.training.loop import fit
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms import registry
from snn_export.training.terms.registry import TERMS, load_term, term_names
from tests.conftest import snn_export

HINGE = """
from dataclasses import dataclass
from typing import ClassVar
from snn_export.training.term import LossTerm

@dataclass(frozen=True)
class Hinge(LossTerm):
    margin: float
    power: int = 1
    name: ClassVar[str] = "hinge"

    def __post_init__(self):
        if self.power > 2:
            raise ValueError("beyond a square nothing is published")

    def __call__(self, outputs):
        right = outputs.logits.gather(1, outputs.labels[:, None])
        others = (self.margin - right + outputs.logits).clamp(min=0) ** self.power
        return others.mean()
"""


def plug_in(monkeypatch: pytest.MonkeyPatch, folder: Path, **sources: str) -> None:
    """Register the class Hinge of one module per name, as an installed package would."""
    points = []
    for name, source in sources.items():
        module = f"terms_{folder.name}_{name}".replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        points.append(EntryPoint(name, f"{module}:Hinge", registry.GROUP))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plug_ins, "entry_points", lambda group: points if group == registry.GROUP else [])


def findings(lines: tuple[str, ...]) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as caught:
        compose("mine", "bptt", parse_terms(lines))
    return [(item.code, item.where) for item in caught.value.diagnostics]


def test_a_third_partys_term_is_composed_and_teaches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, hinge=HINGE)
    assert term_names() == (*TERMS, "hinge")
    recipe = compose("mine", "bptt", parse_terms(("cross_entropy", "hinge weight=0.5 margin=2")))
    assert repr(recipe.terms[1].term) == "Hinge(margin=2.0, power=1)"
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    x = (rng.normal(size=(96, 6)) + 2 * labels[:, None]).astype(np.float32)
    samples = Samples(x, labels)
    student = build_student("dense", seed=0, input_shape=(6,), classes=2, steps=4, width=4)
    result = fit(student, samples, samples, recipe, TrainingSettings(epochs=8, batch_size=16, learning_rate=0.05))
    assert result.history[-1].loss < 0.7 * result.history[0].loss
    assert result.best.validation_accuracy > 0.9


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("hinge", ("SNX344", "terms.hinge.margin")),
        ("hinge margin=2 pover=2", ("SNX344", "terms.hinge.pover")),
        ("hinge margin=wide", ("SNX344", "terms.hinge.margin")),
        ("hinge margin=2 power=3", ("SNX345", "terms.hinge")),
        ("hing", ("SNX344", "terms.hing")),
    ],
)
def test_what_cannot_be_made_of_it_is_refused_with_its_place(
    line: str, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plug_in(monkeypatch, tmp_path, hinge=HINGE)
    assert findings(("cross_entropy", line)) == [found]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import package_that_does_not_exist", "package_that_does_not_exist"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("x = 1", "Hinge"),
        ("Hinge = 3", "not a class"),
        (HINGE.replace("(LossTerm)", ""), "not a class derived from LossTerm"),
        (HINGE.replace("@dataclass(frozen=True)", ""), "no dataclass"),
        (HINGE.replace("@dataclass(frozen=True)", "@dataclass"), "frozen"),
        (HINGE.replace("margin: float", "weight: float"), "'weight'"),
        (
            HINGE.replace("margin: float", "margin: InitVar[float]").replace("import dataclass", "import InitVar, dataclass"),
            "InitVar",
        ),
        (HINGE.replace("    def __call__", "    needs = {'teacher'}\n\n    def __call__"), "Needs"),
        (
            HINGE.replace("power: int = 1", "power: int = field(default_factory=lambda: 1 // 0)").replace(
                "import dataclass", "import dataclass, field"
            ),
            "ZeroDivisionError",
        ),
        ("import sys; sys.exit('buy a licence')", "buy a licence"),
        (HINGE + "\nclass Derived(Hinge):\n    width = 3\nHinge = Derived", "no dataclass"),
        (HINGE.replace('"hinge"', '"other"'), "'other'"),
        (HINGE.replace("__call__", "compute"), "__call__"),
        (HINGE.replace("power: int", "power: 'Unknown'"), "Unknown"),
    ],
)
def test_a_broken_one_is_listed_with_its_error_and_refused_and_breaks_no_other(
    source: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plug_in(monkeypatch, tmp_path, hinge=source)
    with pytest.raises(UserError, match="SNX346") as caught:
        load_term("hinge")
    assert words in caught.value.diagnostics[0].what
    place = caught.value.diagnostics[0].where
    assert findings(("hinge", "cros_entropy")) == [("SNX346", place), ("SNX344", "terms.cros_entropy")]
    assert compose("mine", "bptt", parse_terms(("cross_entropy",))).terms


@pytest.mark.parametrize("refusal", ["assert self.power < 3", "1 / (self.power - 3)", "{}[self.power]", "raise ValueError('no')"])
def test_a_term_may_refuse_a_value_in_any_way(refusal: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(
        monkeypatch, tmp_path, hinge=HINGE.replace("def __post_init__(self):", f"def __post_init__(self):\n        {refusal}")
    )
    assert findings(("hinge margin=2 power=3",)) == [("SNX345", "terms.hinge")]


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [("Any", "x", True), ("Literal['a', 'b']", "a", True), ("Literal['a', 'b']", "c", False), ("tuple[int, ...]", "4", False)],
)
def test_parameters_of_any_kind_are_checked_as_far_as_can_be(
    kind: str, given: str, taken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = HINGE.replace("import ClassVar", "import Any, ClassVar, Literal").replace("margin: float", f"margin: {kind}")
    plug_in(monkeypatch, tmp_path, hinge=source)
    if taken:
        assert compose("mine", "bptt", parse_terms((f"hinge margin={given}",))).terms
    else:
        assert findings((f"hinge margin={given}",)) == [("SNX344", "terms.hinge.margin")]


def test_what_a_repr_hides_still_tells_two_runs_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = "    def __repr__(self):\n        return 'Hinge'\n\n    def __call__"
    plug_in(monkeypatch, tmp_path, hinge=HINGE.replace("    def __call__", shown))
    one, other = (compose("mine", "bptt", parse_terms((f"hinge margin={value}",))).describe() for value in (1, 2))
    assert one != other


def test_a_loss_that_is_no_number_per_batch_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, hinge=HINGE.replace("others.mean()", "others.mean(dim=1)"))
    recipe = compose("mine", "bptt", parse_terms(("cross_entropy", "hinge margin=2")))
    samples = Samples(np.zeros((8, 6), np.float32), np.arange(8) % 2)
    student = build_student("dense", input_shape=(6,), classes=2, steps=2, width=4)
    with pytest.raises(UserError, match=r"tensor of shape \(8,\)") as caught:
        fit(student, samples, samples, recipe, TrainingSettings(epochs=1, batch_size=8))
    assert caught.value.code == "SNX358"


def test_a_third_party_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, cross_entropy=HINGE)
    assert load_term("cross_entropy").__module__ == "snn_export.training.terms.logits"
    assert term_names() == tuple(TERMS)


def test_the_list_shows_them_and_what_has_to_be_said(tmp_path: Path) -> None:
    record = tmp_path / "site" / "hinges-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: hinges\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(f"[{registry.GROUP}]\nhinge = hinges:Hinge\nodd = odd:Hinge\nlost = nowhere:Lost\n")
    odd = HINGE.replace("margin: float", "margin: float = field(default=float('inf'))").replace(
        "power: int = 1", "power: int = 1\n    path: Path = Path('x')"
    )
    (record.parent / "hinges.py").write_text(HINGE)
    (record.parent / "odd.py").write_text(
        "from dataclasses import field\nfrom pathlib import Path\n" + odd.replace('"hinge"', '"odd"')
    )
    done = snn_export("recipes", "composed", cwd=tmp_path, PYTHONPATH=str(record.parent))
    assert done.returncode == 0, done.stderr
    assert "margin=(required) power=1" in done.stdout
    assert "SNX346" in done.stdout
    listed = snn_export("recipes", "composed", "--format", "json", cwd=tmp_path, PYTHONPATH=str(record.parent))
    assert json.loads(listed.stdout)["odd"] == {"margin": "inf", "power": 1, "path": "x"}, listed.stderr


def test_listing_terms_imports_none_of_them() -> None:
    code = (
        "import sys; from snn_export.training.terms import registry; registry.term_names(); assert 'torch' not in sys.modules;"
        "assert not [name for name in sys.modules if name.startswith('snn_export.training.term') and 'terms' not in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""Loss terms by name: those of this program, and those of third parties."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
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
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])


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
        (HINGE.replace("(frozen=True)", "(frozen=True, repr=False)"), "repr"),
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


def test_a_third_party_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, cross_entropy=HINGE)
    assert load_term("cross_entropy").__module__ == "snn_export.training.terms.logits"
    assert term_names() == tuple(TERMS)


def test_the_list_shows_them_and_what_has_to_be_said(tmp_path: Path) -> None:
    record = tmp_path / "site" / "hinges-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: hinges\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(f"[{registry.GROUP}]\nhinge = hinges:Hinge\nlost = nowhere:Lost\n")
    (record.parent / "hinges.py").write_text(HINGE)
    done = snn_export("recipes", "composed", cwd=tmp_path, PYTHONPATH=str(record.parent))
    assert done.returncode == 0, done.stderr
    assert "margin=(required) power=1" in done.stdout
    assert "SNX346" in done.stdout


def test_listing_terms_imports_none_of_them() -> None:
    code = (
        "import sys; from snn_export.training.terms import registry; registry.term_names(); assert 'torch' not in sys.modules;"
        "assert not [name for name in sys.modules if name.startswith('snn_export.training.term') and 'terms' not in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

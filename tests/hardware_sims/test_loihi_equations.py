"""The 32-bit form of the equations misses no function and no operation."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

from snn_export.hardware_sims.loihi import equations
from snn_export.models import arithmetic


def reached(name: str) -> set[str]:
    """Functions of ``models/arithmetic.py`` that a function calls, directly or not, itself included."""
    defined = {node.name: node for node in ast.parse(inspect.getsource(arithmetic)).body if isinstance(node, ast.FunctionDef)}
    found, left = set(), {name}
    while left:
        function = left.pop()
        found.add(function)
        names = {node.id for node in ast.walk(defined[function]) if isinstance(node, ast.Name)}
        left |= (names & set(defined)) - found
    return found


@pytest.mark.parametrize("step", ["loihi_step", "loihi_step_subtract"])
def test_every_function_of_a_step_has_its_narrow_form(step: str) -> None:
    """One that is not listed would run in 64 bits inside a step of 32, unnoticed but for its time."""
    called = reached(step)
    assert {"loihi_integrate", "decay_toward_zero", "wrap_current", "saturate_membrane"} <= called
    assert called <= set(equations.INTEGER_EQUATIONS)


def made(monkeypatch: pytest.MonkeyPatch, body: str) -> ModuleType:
    source = f"def f(x, y):\n{body}"
    monkeypatch.setattr(equations.inspect, "getsource", lambda module: source)
    return equations.narrowed(ModuleType("some"), ("f",))


@pytest.mark.parametrize(
    ("body", "expected"), [("    return x * y", 0), ("    return -x", -(1 << 31)), ("    return ~x + y", -1)]
)
def test_every_operation_is_cut(monkeypatch: pytest.MonkeyPatch, body: str, expected: int) -> None:
    module = made(monkeypatch, body)
    seen: list[int] = []

    def cut(value: int) -> int:
        seen.append(((value + (1 << 31)) % (1 << 32)) - (1 << 31))
        return seen[-1]

    module.__dict__["_int32"] = cut
    assert module.f(1 << 31, 1 << 31) == expected
    assert len(seen) == sum(body.count(sign) for sign in "*-~+")


def test_assignments_that_would_stay_wide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="line 2"):
        made(monkeypatch, "    x += y\n    return x")

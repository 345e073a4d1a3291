"""The integer equations of ``models/arithmetic.py`` as numba compiles them, in 64 bits and cut to 32.

Numba promotes every integer operation to 64 bits, which halves what a vector unit does at once. :func:`narrowed` takes the
source of the same functions and wraps each of their operations into ``int32(...)``; LLVM then sees 32-bit arithmetic
throughout. Nothing is written twice: change an equation, and both forms change. They are equal where every intermediate
value fits 32 bits. A bound of the synaptic sum alone does not give that, because u wraps once per step only and may grow from
step to step: ``program.py`` bounds u itself and chooses the width by it. ``tests/models/test_arithmetic.py`` compares them.
"""

from __future__ import annotations
import __future__

import ast
import inspect
from types import ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from snn_export.models import arithmetic
from snn_export.models.arithmetic import FULL_CURRENT_DECAY

INTEGER_EQUATIONS = (
    "decay_toward_zero",
    "wrap_current",
    "saturate_membrane",
    "fires",
    "reset_to_zero",
    "reset_by_subtraction",
    "current_overflows",
    "membrane_overflows",
    "loihi_current",
    "loihi_membrane",
    "loihi_integrate",
    "loihi_step",
    "loihi_step_subtract",
)


class _Narrow(ast.NodeTransformer):
    """Wraps every arithmetic operation into a cast; the methods' names are ast's."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return ast.Call(ast.Name("_int32", ast.Load()), [node], [])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node if isinstance(node.op, ast.Not) else ast.Call(ast.Name("_int32", ast.Load()), [node], [])

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        raise TypeError(f"line {node.lineno}: an assignment such as += would stay in 64 bits; write x = x + y")


def narrowed(module: ModuleType, names: tuple[str, ...]) -> ModuleType:
    """A module with the named functions of ``module``, each operation cut to 32 bits."""
    tree = ast.parse(inspect.getsource(module))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    tree = ast.fix_missing_locations(_Narrow().visit(tree))
    made = ModuleType(f"{module.__name__}_32_bit")
    made.__dict__.update({**vars(module), "_int32": np.int32})
    code = compile(tree, f"<{made.__name__}>", "exec", flags=__future__.annotations.compiler_flag)
    exec(code, made.__dict__)  # noqa: S102  our own source, read above
    return made


narrow = narrowed(arithmetic, INTEGER_EQUATIONS)
for _name in INTEGER_EQUATIONS:
    register_jitable(getattr(arithmetic, _name))
    register_jitable(getattr(narrow, _name))


def _refuse_outside_kernels() -> Any:
    raise TypeError("kernels call this compiled; elsewhere call models/arithmetic.py")


def step_to_zero(u: Any, v: Any, synaptic_sum: Any, bias: Any, du: Any, dv: Any, threshold: Any) -> Any:
    """``arithmetic.loihi_step`` in the width of ``v``, for kernels only."""
    return _refuse_outside_kernels()


def step_by_subtraction(u: Any, v: Any, synaptic_sum: Any, bias: Any, du: Any, dv: Any, threshold: Any) -> Any:
    """``arithmetic.loihi_step_subtract`` in the width of ``v``, for kernels only."""
    return _refuse_outside_kernels()


def step_without_filter(v: Any, a: Any, bias: Any, dv: Any, threshold: Any) -> Any:
    """(v, spike) of a neuron with du = 4095, reset to zero, whose u and v are proven to stay in 24 bits, for kernels only.

    Such a neuron keeps nothing of its current, so there is no u to carry: any number of 24 bits may stand for it.
    """
    return _refuse_outside_kernels()


@overload(step_to_zero)
def _step_to_zero(u, v, synaptic_sum, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
    chosen = narrow.loihi_step if v == types.int32 else arithmetic.loihi_step

    def step(u, v, synaptic_sum, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
        return chosen(u, v, synaptic_sum, bias, du, dv, threshold)

    return step


@overload(step_by_subtraction)
def _step_by_subtraction(u, v, synaptic_sum, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
    chosen = narrow.loihi_step_subtract if v == types.int32 else arithmetic.loihi_step_subtract

    def step(u, v, synaptic_sum, bias, du, dv, threshold):  # type: ignore[no-untyped-def]
        return chosen(u, v, synaptic_sum, bias, du, dv, threshold)

    return step


@overload(step_without_filter)
def _step_without_filter(v, a, bias, dv, threshold):  # type: ignore[no-untyped-def]
    return _narrow_without_filter if v == types.int32 else _wide_without_filter


def _narrow_without_filter(v, a, bias, dv, threshold):  # type: ignore[no-untyped-def]
    membrane = narrow.loihi_membrane(v, dv, narrow.loihi_current(v, FULL_CURRENT_DECAY, a), bias)
    spike = narrow.fires(membrane, threshold)
    return narrow.reset_to_zero(membrane, spike), spike


def _wide_without_filter(v, a, bias, dv, threshold):  # type: ignore[no-untyped-def]
    membrane = arithmetic.loihi_membrane(v, dv, arithmetic.loihi_current(v, FULL_CURRENT_DECAY, a), bias)
    spike = arithmetic.fires(membrane, threshold)
    return arithmetic.reset_to_zero(membrane, spike), spike

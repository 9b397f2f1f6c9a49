"""Plain variables: what a forked step leaves that the fast path can go on with.

A trajectory need not leave the fast path for good at its first `solve`: the interpreter reports its immutable, small
variables, and the next step is evaluated on them if it asks for nothing else. Its interpreter is made only for a step
that does. That is sound where no step so far can have changed what an operator or a builtin does: see `is_tame`.

`encode` runs in the interpreter, the rest here; the report of a hostile step can at most lie about its own variables.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

OPAQUE = object()  # stands for a variable whose value stayed in the interpreter
MAX_NAMES, MAX_INT, MAX_CHARS, MAX_ITEMS = 2000, 1 << 1024, 2000, 64

TAME_MODULES = frozenset(
    {
        *("cmath", "collections", "decimal", "fractions", "functools", "itertools"),
        *("math", "numpy", "scipy", "statistics", "sympy"),
    }
)
UNTAME_NAMES = frozenset(
    {
        *(
            "breakpoint",
            "builtins",
            "compile",
            "delattr",
            "eval",
            "exec",
            "exit",
            "getattr",
            "globals",
            "help",
            "input",
        ),
        *("locals", "modules", "object", "open", "os", "quit", "setattr", "super", "sys", "type", "vars"),
    }
)
UNTAME_NODES = (
    *(ast.AsyncFor, ast.AsyncFunctionDef, ast.AsyncWith, ast.Await, ast.ClassDef, ast.Delete, ast.Global),
    *(ast.Nonlocal, ast.With, ast.Yield, ast.YieldFrom),
)


def parse_silently(code: str) -> ast.Module:
    """The tree; a warning is an error, not a line on this process's stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ast.parse(code)


def compile_silently(tree: ast.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(tree, "<step>", "exec", dont_inherit=True)


@lru_cache(maxsize=4096)
def is_tame(code: str) -> bool:
    """Whether a step can change nothing but its own variables and the objects they name.

    It imports mathematics only, stores to names and to items of names only, and names nothing that reaches further:
    no attribute is set, no underscore begins a name, no code is made from text.
    """
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_tame(node) for node in nodes)


def _is_tame(node: ast.AST) -> bool:
    if isinstance(node, UNTAME_NODES):
        return False
    if isinstance(node, ast.Import):
        return all(alias.name in TAME_MODULES and _is_tame_name(alias.asname or "") for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        names = [name for alias in node.names for name in (alias.name, alias.asname or "")]
        return not node.level and node.module in TAME_MODULES and all(map(_is_tame_name, names))
    if isinstance(node, ast.Name):
        return _is_tame_name(node.id)
    if isinstance(node, ast.FunctionDef):
        return _is_tame_name(node.name)
    if isinstance(node, ast.Attribute):
        return type(node.ctx) is ast.Load and _is_tame_name(node.attr)
    if isinstance(node, ast.Subscript):
        return type(node.ctx) is ast.Load or type(node.value) in (ast.Name, ast.Subscript)
    return True


def _is_tame_name(name: str) -> bool:
    return not name.startswith("_") and name not in UNTAME_NAMES


def encode(namespace: Mapping[str, object]) -> dict[str, Any] | None:
    """Variables as JSON: values under a tag of their type, null for what is not plain; None for too many names."""
    names = [name for name in namespace if not name.startswith("__")]
    if len(names) > MAX_NAMES:
        return None
    return {name: _encode(namespace[name], MAX_ITEMS) for name in names}


def _encode(value: object, room: int) -> Any:
    kind = type(value)
    if value is Fraction:
        return ["class"]
    if kind in (bool, float):
        return ["is", value]
    if kind is int:
        return ["is", value] if -MAX_INT < value < MAX_INT else None  # type: ignore[operator]
    if kind is str:
        return ["is", value] if len(value) <= MAX_CHARS and value.isascii() else None  # type: ignore
    if kind is Fraction:
        parts = (_encode(value.numerator, 0), _encode(value.denominator, 0))  # type: ignore[attr-defined]
        return ["fraction", *(part[1] for part in parts)] if all(parts) else None
    if kind is tuple and len(value) < room:  # type: ignore[arg-type]
        items = [_encode(item, room // 4) for item in value]  # type: ignore[attr-defined]
        return ["tuple", *items] if None not in items else None
    return None


def decode(report: Mapping[str, Any]) -> dict[str, object]:
    """Variables from a report; whatever is not as `encode` writes it is opaque."""
    decoded = {name: _decode(value) for name, value in report.items()}
    return {name: value if _encode(value, MAX_ITEMS) == report[name] else OPAQUE for name, value in decoded.items()}


def _decode(value: Any) -> object:
    match value:
        case ["class"]:
            return Fraction
        case ["is", bool() | int() | float() | str() as plain]:
            return plain
        case ["fraction", int() as numerator, int() as denominator] if denominator > 0:
            return Fraction(numerator, denominator)
        case ["tuple", *items]:
            decoded = tuple([_decode(item) for item in items])
            return OPAQUE if OPAQUE in decoded else decoded
    return OPAQUE

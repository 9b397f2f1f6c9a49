"""Loops over whole numbers on the fast path, run by CPython itself and not walked.

A loop that only assigns sums, differences, products, quotients and remainders of small integers to names can do nothing
else. It is written anew with two checks put in: every turn takes its operations from what is left, and every number
assigned must be small. Whatever else happens (an error, a large number, too many turns) leaves no trace, and the loop
is walked.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

LARGE = 1 << 64  # from here on a number's operations are weighed
MIN_TURNS = 16  # fewer are walked before they are compiled
MAX_CACHED = 256
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}
COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
JUMPS = {ast.Break: "break", ast.Continue: "continue", ast.Pass: "pass"}


class NotCounting(Exception):
    """The loop does something else."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A compiled loop over `__items`, and the names that it reads or assigns."""

    code: CodeType
    names: frozenset[str]

    def run(self, items: range, variables: dict[str, object], operations: int) -> int | None:
        """Run the loop on `variables`, which it changes; return the operations left, or None with nothing changed."""
        known = {name: value for name, value in variables.items() if name in self.names}
        if not all(type(value) is int and -LARGE < value < LARGE for value in known.values()):
            return None
        given = {"__builtins__": {}, "__range": range, "__large": LARGE, "__items": items, "__left": operations}
        namespace: dict[str, object] = given | known
        try:
            exec(self.code, namespace)
        except Exception:
            return None
        variables |= {name: value for name, value in namespace.items() if name in self.names}
        return namespace["__left"]  # type: ignore[return-value]


@lru_cache(maxsize=MAX_CACHED)
def compile_loop(node: ast.For) -> Loop | None:
    """Return the loop, over `__items` in place of what it runs over; None where it does anything else than count."""
    writer = _Writer()
    try:
        writer.loop(node, "__items", "")
        return Loop(compile("\n".join(writer.lines), "<loop>", "exec", optimize=0), frozenset(writer.names))
    except (NotCounting, SyntaxError, RecursionError, MemoryError):  # nested deeper than a line may begin
        return None


class _Writer:
    """Writes a loop anew; raises NotCounting at what does not count. No name in it begins with two underscores."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: set[str] = set()
        self._num_operations = 0

    def block(self, statements: Sequence[ast.stmt], indent: str) -> None:
        for statement in statements:
            self.statement(statement, indent)

    def statement(self, node: ast.stmt, indent: str) -> None:
        self._num_operations += 1
        match node:
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)) if len(targets) == len(values) > 1:
                self.store(targets, f"= {', '.join(map(self.number, values))}", indent)
            case ast.Assign([target], value):
                self.store([target], f"= {self.number(value)}", indent)
            case ast.AugAssign(target, op, value) if type(op) in OPERATORS:
                self.store([target], f"{OPERATORS[type(op)]}= {self.number(value)}", indent)
            case ast.If(test, body, orelse):
                self.lines.append(f"{indent}if {self.test(test)}:")
                self.block(body, indent + " ")
                if orelse:
                    self.lines.append(f"{indent}else:")
                    self.block(orelse, indent + " ")
            case ast.For(_, ast.Call(ast.Name("range"), bounds, [])):
                self.loop(node, f"__range({', '.join(map(self.number, bounds))})", indent)
            case ast.While(test):
                self.turn(f"while {self.test(test)}:", "", node, indent)
            case _ if type(node) in JUMPS:
                self.lines.append(indent + JUMPS[type(node)])
            case _:
                raise NotCounting

    def loop(self, node: ast.For, items: str, indent: str) -> None:
        name = self.name(node.target)
        self.turn(f"for {name} in {items}:", name, node, indent)

    def turn(self, head: str, target: str, node: ast.For | ast.While, indent: str) -> None:
        """Write a loop each of whose turns takes about what walking it would, and gives `target` a value."""
        if node.orelse:
            raise NotCounting
        before, place = self._num_operations, len(self.lines)
        self.block(node.body, indent + " ")
        cost = self._num_operations - before + 2  # and its test
        small = f"; assert -__large < {target} < __large" if target else ""
        self.lines[place:place] = [indent + head, f"{indent} __left -= {cost}; assert __left >= 0{small}"]

    def store(self, targets: Sequence[ast.expr], rest: str, indent: str) -> None:
        names = [self.name(target) for target in targets]
        small = "".join(f"; assert -__large < {name} < __large" for name in names)
        self.lines.append(f"{indent}{', '.join(names)} {rest}{small}")

    def name(self, node: ast.expr) -> str:
        if type(node) is not ast.Name or node.id.startswith("__") or node.id == "range":
            raise NotCounting
        self.names.add(node.id)
        return node.id

    def number(self, node: ast.expr) -> str:
        """An integer, if the names in it are."""
        self._num_operations += 1
        match node:
            case ast.Constant(value) if type(value) is int and value < LARGE:
                return str(value)
            case ast.BinOp(left, op, right) if type(op) in OPERATORS:
                return f"({self.number(left)} {OPERATORS[type(op)]} {self.number(right)})"
            case ast.UnaryOp(ast.USub(), operand):
                return f"(-{self.number(operand)})"
        return self.name(node)

    def test(self, node: ast.expr) -> str:
        match node:
            case ast.Compare(left, ops, comparators) if all(type(op) in COMPARISONS for op in ops):
                pairs = zip(ops, comparators, strict=True)
                rest = [f"{COMPARISONS[type(op)]} {self.number(comparator)}" for op, comparator in pairs]
                self._num_operations += 1
                return f"({' '.join([self.number(left), *rest])})"
            case ast.BoolOp(op, values):
                self._num_operations += 1
                return f"({(' or ' if type(op) is ast.Or else ' and ').join(map(self.test, values))})"
            case ast.UnaryOp(ast.Not(), operand):
                self._num_operations += 1
                return f"(not {self.test(operand)})"
        return self.number(node)

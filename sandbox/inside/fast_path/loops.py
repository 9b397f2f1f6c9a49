"""Compiles loops over small integers, so that CPython runs them instead of the fast path's slower walk.

A loop qualifies if it only assigns sums, differences, products, quotients and remainders of integers to names. It is
written again as source text with two checks: each turn takes its cost from the remaining operations, and each assigned
number must be small. If a check or the loop itself fails, no variable changes, and the fast path walks the loop with
the operations that are left.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from keyword import iskeyword
from types import CodeType

LARGE = 1 << 64  # the fast path charges extra for operations on numbers from here on
MIN_TURNS = 16  # for fewer turns, walking is faster than compiling
MAX_BITS = 512  # of any intermediate result
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}
COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
JUMPS = {ast.Break: "break", ast.Continue: "continue", ast.Pass: "pass"}


class NotCounting(Exception):
    """The loop does something other than count, so it cannot be compiled."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A compiled loop over `__items`, and the names that it reads or assigns."""

    code: CodeType
    names: frozenset[str]

    def run(self, items: range, variables: dict[str, object], operations: int) -> tuple[bool, int]:
        """Run the loop on `variables`; return whether it ended well, and the operations left.

        If it did not end well, `variables` is unchanged.
        """
        known = {name: variables[name] for name in self.names if name in variables}
        if not all(type(value) is int and -LARGE < value < LARGE for value in known.values()):
            return False, operations
        given = {"__builtins__": {}, "__range": range, "__large": LARGE, "__items": items, "__left": operations}
        namespace: dict[str, object] = given | known
        try:
            exec(self.code, namespace)
            variables |= {name: value for name, value in namespace.items() if name in self.names}
            ended = True
        except Exception:
            ended = False
        return ended, namespace["__left"]  # type: ignore[return-value]


def compile_loop(node: ast.For) -> Loop | None:
    """Compile a loop so that it iterates over `__items`; None if it does anything but count."""
    writer = _Writer()
    try:
        writer.loop(node, "__items", "")
        return Loop(compile("\n".join(writer.lines), "<loop>", "exec", optimize=0), frozenset(writer.names))
    except (NotCounting, SyntaxError, RecursionError, MemoryError):  # CPython limits how deep code may be nested
        return None


class _Writer:
    """Writes a loop as source text; raises NotCounting if it does anything but count.

    No name of the step may begin with two underscores, because the added checks use such names.
    """

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
                before = self._num_operations
                self.turn(f"while {self.test(test)}:", "", node, indent, before)
            case _ if type(node) in JUMPS:
                self.lines.append(indent + JUMPS[type(node)])
            case _:
                raise NotCounting

    def loop(self, node: ast.For, items: str, indent: str) -> None:
        name = self.name(node.target)
        self.turn(f"for {name} in {items}:", name, node, indent, self._num_operations)

    def turn(self, head: str, target: str, node: ast.For | ast.While, indent: str, before: int) -> None:
        """Write a loop whose turns each cost about as many operations as walking them would.

        `target` is the loop's variable, empty for `while`; `before` the operation count before the loop's test.
        """
        if node.orelse:
            raise NotCounting
        place = len(self.lines)
        self.block(node.body, indent + " ")
        cost = self._num_operations - before + 2
        small = f"; assert -__large < {target} < __large" if target else ""
        self.lines[place:place] = [indent + head, f"{indent} __left -= {cost}; assert __left >= 0{small}"]

    def store(self, targets: Sequence[ast.expr], rest: str, indent: str) -> None:
        names = [self.name(target) for target in targets]
        small = "".join(f"; assert -__large < {name} < __large" for name in names)
        self.lines.append(f"{indent}{', '.join(names)} {rest}{small}")

    def name(self, node: ast.expr) -> str:
        if type(node) is not ast.Name or node.id.startswith("__") or node.id == "range" or iskeyword(node.id):
            raise NotCounting  # Python normalises names, so one in other letters can become a keyword here
        self.names.add(node.id)
        return node.id

    def number(self, node: ast.expr) -> str:
        """Write an expression that is an integer if all its names are."""
        if _num_bits(node) > MAX_BITS:
            raise NotCounting
        return self._number(node)

    def _number(self, node: ast.expr) -> str:
        self._num_operations += 1
        match node:
            case ast.Constant(value) if type(value) is int and value < LARGE:
                return str(value)
            case ast.BinOp(left, op, right) if type(op) in OPERATORS:
                return f"({self._number(left)} {OPERATORS[type(op)]} {self._number(right)})"
            case ast.UnaryOp(ast.USub(), operand):
                return f"(-{self._number(operand)})"
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


def _num_bits(node: ast.expr) -> int:
    """The largest number of bits that the result and its intermediate results can have."""
    match node:
        case ast.BinOp(left, op, right):
            bits = _num_bits(left), _num_bits(right)
            return sum(bits) if type(op) is ast.Mult else max(bits) + 1
        case ast.UnaryOp(_, operand):
            return _num_bits(operand)
    return LARGE.bit_length()

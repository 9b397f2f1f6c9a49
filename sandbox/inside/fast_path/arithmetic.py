"""The fast path: evaluates a step in the caller's process if that is safe and gives what CPython would give.

Section 3.2's code-augmented steps are mostly sums over named quantities and loops over numbers. The fast path walks the
syntax tree of such a step and applies Python's own operators to immutable values of bounded size. It looks up, calls
and iterates over nothing but what is listed here. Time and memory are bounded by the constants below.

A step is eligible only if verdict, output, error and variables are certain to be CPython's. Any other step raises
NotEligible and runs in a forked interpreter. tests/sandbox/inside/test_arithmetic.py compares the two.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rstar.protocols import Verdict
from sandbox.inside.errors import describe_error
from sandbox.inside.fast_path.bounded import (
    BINARY,
    COMPARISONS,
    FUNCTIONS,
    IN_PLACE,
    SAFE_FORMAT,
    UNARY,
    NotEligible,
    Value,
    binary,
    bounded,
    make_fraction,
    weight,
)
from sandbox.inside.fast_path.loops import LARGE, MIN_TURNS, Loop, compile_loop
from sandbox.inside.fast_path.plain import OPAQUE, compile_silently, parse_silently

MAX_OPERATIONS = 20_000  # a fork takes as long as a few thousand operations
FORMAT_COST = 4  # a format may print hundreds of digits
MAX_CODE_CHARS = 2000  # also keeps the nesting below the limit of CPython's compiler
MAX_CACHED, MAX_CACHED_CHARS = 256, 300  # a tree takes about 350 bytes per character, so 25 MB for a full cache
BUILTIN_NAMES = frozenset(dir(builtins))

Variables = Mapping[str, object]  # each a Value, the class Fraction if it was imported, or OPAQUE


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an eligible step. `variables` is a new mapping."""

    verdict: Verdict
    output: str
    error: str
    variables: dict[str, object]


def run_arithmetic(code: str, variables: Variables, *, max_output_bytes: int) -> Outcome:
    """Run one step on `variables`, which stay unchanged; raises NotEligible if the result is not certain."""
    run = _Run(dict(variables), max_output_bytes)
    verdict, text, output = Verdict.OK, "", ""
    try:
        statements = _parse(code)
        run.block(statements)
        output = run.output() or run.echo(statements)
    except (NotEligible, RecursionError, MemoryError):
        raise NotEligible from None
    except Exception as error:
        if run.at.lineno != run.at.end_lineno:
            raise NotEligible from None  # it is not certain which of the lines CPython would name
        verdict, text = Verdict.EXCEPTION, describe_error(type(error).__name__, str(error), run.at.lineno, code)
        output = run.output()
    if len(output) > max_output_bytes:
        raise NotEligible
    return Outcome(verdict, output.rstrip("\n"), text, run.variables)


def _parse(code: str) -> Sequence[ast.stmt]:
    return _parse_short(code) if len(code) <= MAX_CACHED_CHARS else _parse_any(code)


def _parse_any(code: str) -> Sequence[ast.stmt]:
    if len(code) > MAX_CODE_CHARS or "\\" in code:  # an escape may stand for an unprintable character
        raise NotEligible
    try:
        tree = parse_silently(code)
        _check_statements(tree.body, in_loop=False)
        compile_silently(tree)  # CPython rejects some trees even if the code is never reached
    except (SyntaxError, ValueError, MemoryError, RecursionError, Warning):
        raise NotEligible from None
    return tree.body


_parse_short = lru_cache(maxsize=MAX_CACHED)(_parse_any)


def _check_statements(statements: Sequence[ast.stmt], *, in_loop: bool) -> None:
    """Raise NotEligible for statements outside the list, before any work is done."""
    for statement in statements:
        kind = type(statement)
        if kind not in _STATEMENTS or (kind in (ast.Break, ast.Continue) and not in_loop):
            raise NotEligible
        loop = kind in (ast.For, ast.While)
        if loop and statement.orelse:  # type: ignore[attr-defined]
            raise NotEligible
        for part in ("body", "orelse"):
            _check_statements(getattr(statement, part, ()), in_loop=in_loop or loop)


class _Run:
    """One step in progress. Methods raise what CPython would raise, or NotEligible."""

    __slots__ = ("at", "last", "loops", "max_output_bytes", "operations_left", "printed", "printed_bytes", "variables")

    def __init__(self, variables: dict[str, object], max_output_bytes: int) -> None:
        self.variables = variables
        self.at: ast.stmt | ast.expr  # the node whose line CPython would name in an error
        self.printed: list[str] = []
        self.printed_bytes = 0
        self.max_output_bytes = max_output_bytes
        self.operations_left = MAX_OPERATIONS
        self.loops: dict[ast.For, Loop | None] = {}  # compiled loops; None if a loop cannot be compiled
        self.last: Value | None = None  # value of the last expression statement

    def output(self) -> str:
        return "".join(self.printed)

    def echo(self, statements: Sequence[ast.stmt]) -> str:
        """The repr of the last statement's value if that is an expression, as the prompt prints it."""
        if not statements or type(statements[-1]) is not ast.Expr or self.last is None:
            return ""
        self.weigh(self.last)
        return repr(self.last)

    def block(self, statements: Sequence[ast.stmt]) -> ast.stmt | None:
        """Execute statements; return the `break` or `continue` that ended the block, if any."""
        for statement in statements:
            self.at = statement
            self.spend(1)
            if (jump := _STATEMENTS[type(statement)](self, statement)) is not None:
                return jump
        return None

    def branch(self, node: ast.If) -> ast.stmt | None:
        self.at = node.test
        return self.block(node.body if self.value(node.test) else node.orelse)

    def for_loop(self, node: ast.For) -> None:
        self.at = node.iter
        items = self.items(node.iter)
        if type(items) is range and items[MIN_TURNS - 1 :] and self.is_counted(node, items):
            return
        for item in items:
            self.spend(1)
            self.store(node.target, item)
            if type(self.block(node.body)) is ast.Break:
                break

    def is_counted(self, node: ast.For, items: range) -> bool:
        """Run the loop compiled, if that is possible; return whether it was."""
        if node not in self.loops:
            self.loops[node] = compile_loop(node)
        loop, ended = self.loops[node], False
        if loop:
            ended, self.operations_left = loop.run(items, self.variables, self.operations_left)
        return ended

    def while_loop(self, node: ast.While) -> None:
        while True:
            self.at = node.test
            if not self.value(node.test) or type(self.block(node.body)) is ast.Break:
                break

    def items(self, node: ast.expr) -> range | tuple | str:
        """What a loop iterates over: a range, a tuple or a string."""
        if type(node) is ast.Call and type(node.func) is ast.Name and node.func.id == "range":
            bounds = [self.value(argument) for argument in node.args]
            if "range" in self.variables or node.keywords or any(type(bound) is not int for bound in bounds):
                raise NotEligible
            return range(*bounds)  # type: ignore[arg-type]
        value = self.value(node)
        if type(value) not in (tuple, str):
            raise NotEligible
        return value  # type: ignore[return-value]

    def spend(self, operations: int) -> None:
        self.operations_left -= operations
        if self.operations_left < 0:
            raise NotEligible

    def check(self, node: ast.Assert) -> None:
        if not self.value(node.test):
            raise AssertionError(*([] if node.msg is None else [self.value(node.msg)]))

    def assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        self.spend(len(node.targets))
        for target in node.targets:
            self.store(target, value)

    def augment(self, node: ast.AugAssign) -> None:
        if type(node.target) is not ast.Name:
            raise NotEligible
        left, right = self.name(node.target), self.value(node.value)
        self.weigh(left, right)
        self.store(node.target, self.weighed(binary(node.op, left, right, IN_PLACE)))

    def expression(self, node: ast.Expr) -> None:
        call = node.value
        if type(call) is ast.Call and type(call.func) is ast.Name and call.func.id == "print":
            self.print(call)
            self.last = None
        else:
            self.last = self.value(call)

    def import_fraction(self, node: ast.ImportFrom) -> None:
        if node.module != "fractions" or node.level:
            raise NotEligible
        self.spend(len(node.names))
        for alias in node.names:
            if alias.name != "Fraction" or (alias.asname or "").startswith("__"):
                raise NotEligible
            self.variables[alias.asname or "Fraction"] = Fraction

    def print(self, call: ast.Call) -> None:
        if "print" in self.variables or call.keywords:
            raise NotEligible
        self.printed.append(" ".join([str(self.weighed(self.value(argument))) for argument in call.args]) + "\n")
        self.printed_bytes += len(self.printed[-1])
        if self.printed_bytes > self.max_output_bytes:
            raise NotEligible

    def store(self, target: ast.expr, value: Value) -> None:
        if type(target) is ast.Name and not target.id.startswith("__"):
            self.variables[target.id] = value
        elif type(target) is ast.Tuple and type(value) is tuple and len(target.elts) == len(value):
            if any(type(element) is ast.Starred for element in target.elts):
                raise NotEligible
            self.spend(len(value))
            for element, item in zip(target.elts, value, strict=True):
                self.store(element, item)
        else:
            raise NotEligible

    def value(self, node: ast.expr) -> Value:
        evaluate = _EXPRESSIONS.get(type(node))
        self.operations_left -= 1
        if evaluate is None or self.operations_left < 0:
            raise NotEligible
        return evaluate(self, node)

    def weigh(self, *values: Value) -> None:
        """Spend extra operations for large values."""
        for value in values:
            kind = type(value)
            if kind is not float and (kind is not int or not -LARGE < value < LARGE):  # type: ignore[operator]
                self.spend(weight(value))

    def weighed(self, value: Value) -> Value:
        self.weigh(value)
        return value

    def constant(self, node: ast.Constant) -> Value:
        if type(node.value) is str and not node.value.isascii():
            raise NotEligible
        return bounded(node.value)

    def name(self, node: ast.Name) -> Value:
        value = self.variables.get(node.id)
        if value is None:
            if node.id in BUILTIN_NAMES or node.id.startswith("__"):
                raise NotEligible
            raise NameError(f"name '{node.id}' is not defined")
        if value is Fraction or value is OPAQUE:
            raise NotEligible
        return value  # type: ignore[return-value]

    def binary(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        self.weigh(left, right)
        return self.weighed(binary(node.op, left, right, BINARY))

    def unary(self, node: ast.UnaryOp) -> Value:
        apply = UNARY.get(type(node.op))
        if apply is None:
            raise NotEligible
        return bounded(apply(self.weighed(self.value(node.operand))))

    def compare(self, node: ast.Compare) -> Value:
        left, result = self.value(node.left), True
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            apply, right = COMPARISONS.get(type(op)), self.value(comparator)
            if apply is None:
                raise NotEligible
            self.weigh(left, right)
            result = apply(left, right)
            if not result:
                break
            left = right
        return result

    def boolean(self, node: ast.BoolOp) -> Value:
        stop = type(node.op) is ast.Or
        for operand in node.values:
            value = self.value(operand)
            if bool(value) is stop:
                break
        return value

    def conditional(self, node: ast.IfExp) -> Value:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def tuple(self, node: ast.Tuple) -> Value:
        return self.weighed(bounded(tuple([self.value(element) for element in node.elts])))

    def formatted(self, node: ast.JoinedStr) -> Value:
        return bounded("".join([str(self.value(part)) for part in node.values]))

    def format_field(self, node: ast.FormattedValue) -> Value:
        spec = ""
        if node.format_spec is not None:
            parts = getattr(node.format_spec, "values", ())
            if len(parts) != 1 or type(parts[0]) is not ast.Constant or not SAFE_FORMAT.fullmatch(parts[0].value):
                raise NotEligible
            spec = parts[0].value
            self.spend(FORMAT_COST)
        value = self.weighed(self.value(node.value))
        if node.conversion == ord("r"):
            value = repr(value)
        elif node.conversion == ord("s"):
            value = str(value)
        elif node.conversion != -1:
            raise NotEligible
        return format(value, spec)

    def call(self, node: ast.Call) -> Value:
        if type(node.func) is not ast.Name or node.keywords:
            raise NotEligible
        name = node.func.id
        function = FUNCTIONS.get(name)
        if name in self.variables:
            function = make_fraction if self.variables[name] is Fraction else None
        elif function is None and name not in BUILTIN_NAMES and not name.startswith("__"):
            raise NameError(f"name '{name}' is not defined")
        if function is None:
            raise NotEligible
        arguments = [self.value(argument) for argument in node.args]
        self.weigh(*arguments)
        return self.weighed(bounded(function(*arguments)))


_STATEMENTS = {
    ast.Assign: _Run.assign,
    ast.AugAssign: _Run.augment,
    ast.Assert: _Run.check,
    ast.Expr: _Run.expression,
    ast.ImportFrom: _Run.import_fraction,
    ast.If: _Run.branch,
    ast.For: _Run.for_loop,
    ast.While: _Run.while_loop,
    ast.Break: lambda run, node: node,
    ast.Continue: lambda run, node: node,
    ast.Pass: lambda run, node: None,
}
_EXPRESSIONS = {
    ast.Constant: _Run.constant,
    ast.Name: _Run.name,
    ast.BinOp: _Run.binary,
    ast.UnaryOp: _Run.unary,
    ast.Compare: _Run.compare,
    ast.BoolOp: _Run.boolean,
    ast.IfExp: _Run.conditional,
    ast.Tuple: _Run.tuple,
    ast.JoinedStr: _Run.formatted,
    ast.FormattedValue: _Run.format_field,
    ast.Call: _Run.call,
}

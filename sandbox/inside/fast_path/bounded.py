"""The values of the fast path: immutable, of bounded size, and combined by Python's own operators.

Every function here takes and returns such values within microseconds, or raises NotEligible. Errors of Python's
operators (ZeroDivisionError, TypeError, ...) pass through, because their type and message are the step's error.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MAX_INT = 1 << 4096
MAX_FRACTION = 1 << 1024  # the time of a gcd grows with the square of the length
MAX_STR_CHARS = 2000
MAX_TUPLE_ITEMS = 64  # including nested ones
MAX_TUPLE_DEPTH = 8
MAX_DIGITS = 300  # second argument of round()
SAFE_FORMAT = re.compile(r"[<>^=]?[+-]?0?\d{0,2},?(\.\d{1,2})?[dfeg%s]?")

Value = int | float | str | Fraction | tuple  # bool is an int


class NotEligible(Exception):
    """The step must run in a forked interpreter."""


def bounded(value: object) -> Value:
    """Return `value` if it is small and of a listed immutable type. Complex numbers, None and subclasses are not."""
    kind = type(value)
    if kind is int:
        small = -MAX_INT < value < MAX_INT  # type: ignore[operator]
    elif kind is float or kind is bool:
        small = value == value  # not NaN, whose equality in a tuple depends on object identity
    elif kind is str:
        small = len(value) <= MAX_STR_CHARS  # type: ignore[arg-type]
    elif kind is Fraction:
        small = -MAX_FRACTION < value.numerator < MAX_FRACTION and value.denominator < MAX_FRACTION  # type: ignore
    else:
        small = kind is tuple and _num_items(value, MAX_TUPLE_DEPTH) <= MAX_TUPLE_ITEMS
    if not small:
        raise NotEligible
    return value  # type: ignore[return-value]


def _num_items(value: object, depth: int) -> int:
    if type(value) is not tuple:
        return 1
    if depth == 0:
        raise NotEligible
    return 1 + sum(_num_items(item, depth - 1) for item in value)


def weight(value: Value) -> int:
    """The cost of an operation on `value`, in small operations of about a microsecond. It grows with the size."""
    kind = type(value)
    if kind is int:
        return 1 + value.bit_length() // 200  # type: ignore[union-attr]
    if kind is str:
        return 1 + len(value) // 100  # type: ignore[arg-type]
    if kind is Fraction:
        return 5 + (value.numerator.bit_length() + value.denominator.bit_length()) // 50  # type: ignore[union-attr]
    return 1 + sum(map(weight, value)) if kind is tuple else 1  # type: ignore[arg-type]


def binary(op: ast.operator, left: Value, right: Value, table: Mapping[type, Callable]) -> Value:
    kind = type(op)
    apply = table.get(kind)
    if apply is None:
        raise NotEligible
    if kind is ast.Pow:
        _check_power(left, right)
    elif kind is ast.Mult:
        _check_repetition(left, right)
        _check_repetition(right, left)
    elif kind is ast.Mod and type(left) is str:
        raise NotEligible  # old-style formatting
    return bounded(apply(left, right))


def _check_power(base: Value, exponent: Value) -> None:
    """Raise NotEligible for a large power: an integer power has about |exponent| times the bits of its base."""
    if type(base) in (float, str, tuple) or type(exponent) in (float, str, tuple):
        return  # gives a float or raises TypeError
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())  # type: ignore[union-attr]
    if bits * abs(exponent) > MAX_INT.bit_length():  # type: ignore[operator, arg-type]
        raise NotEligible


def _check_repetition(sequence: Value, times: Value) -> None:
    if type(sequence) in (str, tuple) and type(times) in (int, bool):
        bound = MAX_STR_CHARS if type(sequence) is str else MAX_TUPLE_ITEMS
        if len(sequence) * times > bound:  # type: ignore[arg-type, operator]
            raise NotEligible


def make_fraction(*arguments: Value) -> Fraction:
    for argument in arguments:
        if type(argument) is str and ("e" in argument.lower() or len(argument) > 100):
            raise NotEligible  # Fraction("1e999999999") would compute that power
    return Fraction(*arguments)  # type: ignore[arg-type]


def _round(*arguments: Value) -> Value:
    if not 1 <= len(arguments) <= 2:
        raise NotEligible
    if any(type(digits) is not int or abs(digits) > MAX_DIGITS for digits in arguments[1:]):  # type: ignore[arg-type]
        raise NotEligible  # round(1, -10**9) would compute 10**10**9
    return round(*arguments)  # type: ignore[arg-type, call-overload]


def _sum(value: Value) -> Value:
    """`sum` with bounded intermediate results."""
    kinds = set(map(type, value)) if type(value) is tuple else set()
    if Fraction not in kinds:
        return sum(value)  # type: ignore[arg-type]
    if float in kinds:
        raise NotEligible  # the rounding of `sum` depends on the version of Python
    total: Value = 0
    for item in value:  # type: ignore[union-attr]
        total = bounded(total + item)  # type: ignore[operator]
    return total


def _of_one(function: Callable[[Value], object]) -> Callable[..., object]:
    def call(*arguments: Value) -> object:
        if len(arguments) != 1:
            raise NotEligible
        return function(arguments[0])

    return call


BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
IN_PLACE = {  # gives the same values, but error messages say `+=`
    ast.Add: operator.iadd,
    ast.Sub: operator.isub,
    ast.Mult: operator.imul,
    ast.Div: operator.itruediv,
    ast.FloorDiv: operator.ifloordiv,
    ast.Mod: operator.imod,
    ast.Pow: operator.ipow,
}
UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_}
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., object]] = {
    "abs": _of_one(abs),
    "float": _of_one(float),
    "int": _of_one(int),
    "len": _of_one(len),
    "max": max,
    "min": min,
    "round": _round,
    "str": _of_one(str),
    "sum": _of_one(_sum),
}

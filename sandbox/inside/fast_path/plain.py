"""Plain variables: the small, immutable variables of a forked step, with which the fast path can continue.

A trajectory can return to the fast path after a step such as a `solve`. The interpreter reports its plain variables,
and the fast path evaluates the next step if it uses no others. This is sound only if no step so far can have changed
what an operator or a builtin does; `is_tame` checks that.

`encode` runs in the interpreter, everything else in the caller's process. A hostile step can only report false values
of its own variables.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

OPAQUE = object()  # stands for a variable whose value is only in the interpreter
MAX_NAMES, MAX_INT, MAX_CHARS, MAX_ITEMS = 2000, 1 << 1024, 2000, 64

MAX_NAME_CHARS, MAX_DEPTH = 100, 8
MAX_REPORT_CHARS = 1 << 17  # of all variables together; the rest are opaque
MAX_TAME_CHARS = 4000  # longer steps are never tame

_words = str.split
TAME_BUILTINS = frozenset(
    _words("""abs all any bool complex dict divmod enumerate filter float frozenset int isinstance len list map max min
    pow print range reversed round set slice sorted sum tuple zip ArithmeticError AssertionError Exception IndexError
    KeyError OverflowError RuntimeError StopIteration TypeError ValueError ZeroDivisionError""")
)
_SYMPY = """Abs Add And E Eq FiniteSet Float Ge Gt I Integer Integers Interval Le Lt Matrix Max Min Mod Mul N Naturals
    Ne Or Poly Pow Product Rational Reals S Sum Symbol Union acos apart asin atan binomial cancel ceiling collect cos
    diff divisors expand factor factorial factorint fibonacci floor gcd igcd ilcm integrate isprime lcm limit linsolve
    ln log nextprime nonlinsolve nsimplify oo pi prime primefactors primerange radsimp root roots sign simplify sin
    solve solveset sqrt summation symbols tan together totient trigsimp zoo"""
_MATH = """ceil comb copysign cosh degrees dist e erf exp fabs fmod fsum gamma hypot inf isclose isfinite isinf isnan
    isqrt log10 log1p log2 modf nan perm phase polar pow prod radians rect sinh tanh tau trunc"""
_OTHER = """Counter Decimal Fraction accumulate chain combinations combinations_with_replacement count cycle defaultdict
    deque groupby harmonic_mean islice mean median mode pairwise permutations product pstdev pvariance reduce repeat
    starmap stdev takewhile variance zip_longest"""
TAME_MODULES = frozenset(_words("cmath collections decimal fractions functools itertools math statistics sympy"))
TAME_MEMBERS = frozenset(_words(f"{_SYMPY} {_MATH} {_OTHER}"))  # functions, classes and constants; no modules
TAME_ATTRIBUTES = TAME_MEMBERS | frozenset(
    _words("""add all_coeffs append appendleft as_numer_denom bit_length clear coeff conjugate copy degree denominator
    det difference discard elements evalf extend get imag index insert intersection inv is_integer items keys lhs
    limit_denominator most_common n numerator p pop popleft q real remove reverse rhs setdefault sort subs total union
    update values""")
)
TAME_NODES = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Break, ast.Continue, ast.Pass),
    *(ast.Import, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Lambda),
    *(ast.Try, ast.ExceptHandler, ast.Raise, ast.Assert, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp),
    *(ast.operator, ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context, ast.comprehension, ast.ListComp, ast.SetComp),
    *(ast.DictComp, ast.GeneratorExp, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Slice, ast.Subscript, ast.Attribute),
    *(ast.Call, ast.keyword, ast.Name, ast.Constant, ast.Starred, ast.NamedExpr, ast.JoinedStr, ast.FormattedValue),
)
STEP = "<step>"  # the file name of a step's code
SILENT = ("ignore", None, Warning, re.compile(re.escape(STEP)), 0)  # in the format of `warnings.filters`
_NAMING = frozenset({"Symbol", "symbols"})
# sympy evaluates strings. These characters allow no call and no access to an attribute.
_UNCALLABLE = re.compile(r"[A-Za-z0-9_ ,:;+*/^=<>!?$-]*")
_BUILTINS = frozenset(dir(builtins))


def parse_silently(code: str) -> ast.Module:
    """Parse a step's code; the compiler's warnings are not printed."""
    _keep_silent()
    return ast.parse(code, STEP)


def compile_silently(tree: ast.Module) -> None:
    _keep_silent()
    compile(tree, STEP, "exec", dont_inherit=True)


def _keep_silent() -> None:
    """Ignore warnings about steps from now on. All threads share the filters, so they are never changed back."""
    if SILENT not in warnings.filters:
        warnings.filterwarnings("ignore", module=re.escape(STEP))


@lru_cache(maxsize=256)
def _is_tame_code(code: str) -> bool:
    try:
        tree = parse_silently(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        return False
    nodes = list(ast.walk(tree))
    shown = {id(part) for node in nodes for part in _shown(node)}
    names = {id(part) for node in nodes for part in _names_of_symbols(node)}
    return all(_is_tame(node, id(node) in shown, id(node) in names) for node in nodes)


def is_tame(code: str) -> bool:
    """Whether a step can change nothing but its own variables and the objects they refer to.

    All its syntax, builtins, imports and attributes must be listed. Attributes are listed by name, because the type of
    their object is not known. The step must set no attribute and use no name with a leading underscore. Its strings may
    only be printed text and names of symbols, because sympy evaluates strings, with access to all builtins.
    """
    return len(code) <= MAX_TAME_CHARS and _is_tame_code(code)


def _shown(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes whose strings are printed, or are statements by themselves such as docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        for argument in node.args:
            yield argument
            if isinstance(argument, ast.JoinedStr):
                for part in argument.values:
                    yield part
                    if isinstance(part, ast.FormattedValue) and isinstance(part.format_spec, ast.JoinedStr):
                        yield part.format_spec
                        yield from part.format_spec.values


def _names_of_symbols(node: ast.AST) -> list[ast.expr]:
    if not isinstance(node, ast.Call):
        return []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return node.args if name in _NAMING else []


def _is_tame(node: ast.AST, shown: bool, is_symbol: bool) -> bool:
    if not isinstance(node, TAME_NODES):
        return False
    match node:
        case ast.Import():
            return all(alias.name in TAME_MODULES and _is_tame_new(alias.asname or alias.name) for alias in node.names)
        case ast.ImportFrom():
            members = all(alias.name in TAME_MEMBERS for alias in node.names)
            return not node.level and node.module in TAME_MODULES and members
        case ast.alias(asname=str(name)) | ast.arg(arg=name):
            return _is_tame_new(name)
        case ast.FunctionDef():
            return _is_tame_new(node.name) and not node.decorator_list
        case ast.ExceptHandler():
            return node.name is None  # the message is a string of any text
        case ast.Name():
            return _is_tame_name(node.id) if type(node.ctx) is ast.Load else _is_tame_new(node.id)
        case ast.keyword():
            return node.arg is None or not node.arg.startswith("_")
        case ast.Attribute():
            return type(node.ctx) is ast.Load and node.attr in TAME_ATTRIBUTES
        case ast.Subscript():
            return type(node.ctx) is ast.Load or type(node.value) in (ast.Name, ast.Subscript)
        case ast.JoinedStr() | ast.FormattedValue():
            return shown
        case ast.Constant(value=str(text)):
            return "__" not in text and (shown or (is_symbol and _UNCALLABLE.fullmatch(text) is not None))
        case ast.Constant():
            return type(node.value) is not bytes
    return True


def _is_tame_name(name: str) -> bool:
    return not name.startswith("_") and (name not in _BUILTINS or name in TAME_BUILTINS)


def _is_tame_new(name: str) -> bool:
    return not name.startswith("_") and name not in _BUILTINS and name not in _NAMING


class _Room:
    """The space left in a report."""

    def __init__(self) -> None:
        self.chars, self.items = MAX_REPORT_CHARS, 0

    def take(self, chars: int) -> bool:
        self.items -= 1
        self.chars -= chars
        return self.items >= 0 and self.chars >= 0


def encode(namespace: Mapping[str, object]) -> dict[str, Any] | None:
    """The variables as JSON: each value with a tag of its type, or null if it is not plain or does not fit.

    Returns None if there are too many names, or a name is no string or too long.
    """
    if len(namespace) > MAX_NAMES or not _are_names(namespace):
        return None
    room = _Room()
    return {name: _encode_one(value, room) for name, value in namespace.items() if not name.startswith("__")}


def _are_names(names: Iterable[object]) -> bool:
    return all(type(name) is str and len(name) <= MAX_NAME_CHARS for name in names)


def _encode_one(value: object, room: _Room) -> Any:
    room.items = MAX_ITEMS
    return _encode(value, room, MAX_DEPTH)


def _encode(value: object, room: _Room, depth: int) -> Any:
    kind = type(value)
    if value is Fraction:
        return ["class"]
    if kind in (bool, float):  # not NaN, whose equality in a tuple depends on object identity
        return ["is", value] if value == value and room.take(30) else None
    if kind is int:
        return ["is", value] if _is_small(value) and room.take(10 + value.bit_length() // 3) else None  # type: ignore
    if kind is str:
        fits = len(value) <= MAX_CHARS and value.isascii() and room.take(10 + len(value))  # type: ignore
        return ["is", value] if fits else None
    if kind is Fraction:
        parts = [value.numerator, value.denominator]  # type: ignore[attr-defined]
        fits = all(map(_is_small, parts)) and room.take(20 + sum(part.bit_length() for part in parts) // 3)
        return ["fraction", *parts] if fits else None
    if kind is tuple and depth and room.take(10):
        encoded: list[Any] = ["tuple"]
        for item in value:  # type: ignore[attr-defined]
            encoded.append(_encode(item, room, depth - 1))
            if encoded[-1] is None:
                return None
        return encoded
    return None


def _is_small(number: object) -> bool:
    return type(number) is int and -MAX_INT < number < MAX_INT


def decode(report: object) -> dict[str, object] | None:
    """The variables of a report. A value that `encode` would not write is OPAQUE. None if it is not a report."""
    if type(report) is not dict or len(report) > MAX_NAMES or not _are_names(report):
        return None
    room = _Room()
    return {name: _checked(value, room) for name, value in report.items()}


def _checked(value: Any, room: _Room) -> object:
    decoded = _decode(value, MAX_DEPTH)
    return decoded if decoded is not OPAQUE and _encode_one(decoded, room) == value else OPAQUE


def _decode(value: Any, depth: int) -> object:
    match value:
        case ["class"]:
            return Fraction
        case ["is", bool() | int() | float() | str() as plain]:
            return plain
        case ["fraction", numerator, denominator] if _is_small(numerator) and _is_small(denominator):
            return Fraction(numerator, denominator) if denominator > 0 else OPAQUE
        case ["tuple", *items] if depth and len(items) < MAX_ITEMS:
            decoded = []
            for item in items:
                decoded.append(_decode(item, depth - 1))
                if decoded[-1] is OPAQUE:
                    return OPAQUE
            return tuple(decoded)
    return OPAQUE

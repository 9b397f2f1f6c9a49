"""The fast path gives what CPython gives, or raises NotEligible."""

from __future__ import annotations

import ast
import contextlib
import io
import time
import warnings
from contextlib import redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar.protocols import Verdict
from sandbox.checkpoint import imports_warm_modules
from sandbox.inside.errors import describe_error
from sandbox.inside.fast_path.arithmetic import MAX_CACHED, NotEligible, Outcome, _parse_short, run_arithmetic

BOUND = 100_000


def by_cpython(code: str, variables: dict[str, object]) -> Outcome:
    """Run the step as `sandbox.inside.interpreter` does."""
    namespace = dict(variables)
    printed, verdict, error, echo = io.StringIO(), Verdict.OK, "", ""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and type(tree.body[-1]) is ast.Expr else None
    try:
        with redirect_stdout(printed):
            exec(compile(tree, "<step>", "exec"), namespace)
            value = eval(compile(ast.Expression(last.value), "<step>", "eval"), namespace) if last else None
            echo = "" if value is None else repr(value)
    except Exception as exception:
        verdict, trace = Verdict.EXCEPTION, exception.__traceback__
        line = None
        while trace:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "<step>" else line
            trace = trace.tb_next
        error = describe_error(type(exception).__name__, str(exception), line, code)
    del namespace["__builtins__"]
    namespace.pop("__doc__", None) if "__doc__" not in variables else None
    return Outcome(verdict, (printed.getvalue() or echo).rstrip("\n"), error, namespace)


NAMES = ["a", "b", "tom"]
literals = st.one_of(
    st.integers(-50, 50).map(str),
    st.integers(0, 2**200).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["True", "False", "'word'", "''", "0", "0.0", "1e308", "Fraction(1, 3)", "Fraction(0)", "(1, 2)"]),
    *[st.sampled_from(NAMES)] * 3,
    st.sampled_from([*NAMES * 5, "missing"]),
)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = ["+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", ">", "and", "or"]
    calls = ["abs", "int", "float", "str", "len", "sum", "round", "Fraction"]
    return st.one_of(
        st.tuples(inner, st.sampled_from(operators), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["-", "+", "not "]), inner).map(lambda t: f"({t[0]}{t[1]})"),
        st.tuples(st.sampled_from(calls), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(st.sampled_from(["min", "max", "round", "Fraction"]), inner, inner).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]}, {t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} < {t[1]} <= {t[2]})"),
        st.tuples(inner, st.sampled_from(["", ":.2f", ":5d", ":,", ":>8", "!r", ":+.3e"])).map(
            lambda t: 'f"is {{{}{}}}"'.format(*t) if '"' not in t[0] else t[0]
        ),
    )


expressions = st.recursive(literals, compound, max_leaves=6)
statements = st.one_of(
    st.tuples(st.sampled_from(NAMES), expressions).map(lambda t: f"{t[0]} = {t[1]}"),
    st.tuples(st.sampled_from(NAMES), st.sampled_from("+-*/%"), expressions).map(lambda t: f"{t[0]} {t[1]}= {t[2]}"),
    st.tuples(expressions, expressions).map(lambda t: f"a, b = {t[0]}, {t[1]}"),
    expressions.map(lambda e: f"a = b = {e}"),
    expressions.map(lambda e: f"print({e})"),
    expressions,
    st.tuples(expressions, expressions).map(lambda t: f"print({t[0]}, {t[1]})"),
    expressions.map(lambda e: f"assert {e}"),
    st.tuples(expressions, expressions).map(lambda t: f"assert {t[0]}, {t[1]}"),
    st.just("# only words"),
)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.lists(inner, min_size=1, max_size=3).map(lambda lines: "\n".join(lines).replace("\n", "\n    "))
    ranges = st.tuples(st.integers(-3, 4), st.integers(-3, 9), st.sampled_from([1, 2, -1, 0]))
    loops = st.one_of(
        ranges.map(lambda r: "for i in range({}, {}, {}):".format(*r)),
        st.sampled_from(
            ["for a, b in ((1, 2), (3, 4)):", "for b in 'xyz':", "for i in range(tom):", "for i in (a, b):"]
        ),
        expressions.map(lambda e: f"i = 0\nwhile i < 5 and {e}:\n    i += 1"),
    )
    jumps = st.tuples(expressions, st.sampled_from(["break", "continue"])).map(lambda t: f"if {t[0]}:\n        {t[1]}")
    return st.one_of(
        st.tuples(expressions, block).map(lambda t: f"if {t[0]}:\n    {t[1]}"),
        st.tuples(expressions, block, block).map(lambda t: f"if {t[0]}:\n    {t[1]}\nelse:\n    {t[2]}"),
        st.tuples(loops, block).map(lambda t: f"{t[0]}\n    {t[1]}"),
        st.tuples(loops, block, jumps, block).map(lambda t: "{}\n    {}\n    {}\n    {}".format(*t)),
    )


programs = st.lists(st.recursive(statements, nested, max_leaves=5), min_size=1, max_size=4).map("\n".join)
endings = st.one_of(st.just("pass"), expressions, expressions.map(lambda e: f"print({e})"))


@settings(max_examples=600, deadline=None)
@given(programs, st.booleans(), endings)
def test_eligible_steps_give_what_cpython_gives(program: str, with_fraction: bool, ending: str) -> None:
    prefix = "a, b, tom = 5, 0.5, 12\n" + "from fractions import Fraction\ntom = Fraction(7, 2)\n" * with_fraction
    code = prefix + program + "\n" + ending
    assert_as_cpython(code)


def assert_as_cpython(code: str) -> None:
    """Verdict, output, error and variables are CPython's, or the step is not eligible."""
    try:
        outcome = run_arithmetic(code, {}, max_output_bytes=BOUND)
    except NotEligible:
        return
    expected = by_cpython(code, {})
    assert (outcome.verdict, outcome.output, outcome.error) == (expected.verdict, expected.output, expected.error)
    assert repr(outcome.variables) == repr(expected.variables)
    assert [type(value) for value in outcome.variables.values()] == [type(v) for v in expected.variables.values()]


@pytest.mark.parametrize(
    ("code", "output", "error"),
    [
        ("# Tom sells 12\ntom = tom - 12", "", ""),
        ("tom += 1\nprint(tom, tom / 4)", "35 8.75", ""),
        ("tom // 5\ntom % 5", "4", ""),
        ("from fractions import Fraction as F\nF(1, 3) + F(1, 6)", "Fraction(1, 2)", ""),
        ("x, (y, z) = 1, (2, 3)\nprint(f'{x + y:.1f} of {z}')", "3.0 of 3", ""),
        ("n = 0\nfor i in range(1, 400):\n    if (tom + i) % 7 == 0:\n        n += i\nprint(n)", "11229", ""),
        ("while tom % 5:\n    tom -= 1\n    if tom < 3:\n        break\ntom", "30", ""),
        (
            "for i in range(3):\n    x = 6 // (2 - i)",
            "",
            "ZeroDivisionError: integer division or modulo by zero (line 2: x = 6 // (2 - i))",
        ),
        ("if tom / 0:\n    x = 1", "", "ZeroDivisionError: division by zero (line 1: if tom / 0:)"),
        ("tom / 0", "", "ZeroDivisionError: division by zero (line 1: tom / 0)"),
        ("\nx = ann + 1", "", "NameError: name 'ann' is not defined (line 2: x = ann + 1)"),
        ("i = 1\nwhile 1 / i:\n    i -= 1\n    i", "", "ZeroDivisionError: division by zero (line 2: while 1 / i:)"),
        ("print(tom)\ntom\n1 / 0", "34", "ZeroDivisionError: division by zero (line 3: 1 / 0)"),
        ("for i in range(3):\n    i", "", ""),
        ("tom\nif tom:\n    tom", "", ""),
        ("tom\nprint(1)\ntom", "1", ""),
        ("assert tom % 2 == 0\ntom = tom // 2\ntom", "17", ""),
        ("assert tom % 5 == 0\ntom = tom // 5", "", "AssertionError (line 1: assert tom % 5 == 0)"),
        ("assert tom < 0, f'{tom} left'", "", "AssertionError: 34 left (line 1: assert tom < 0, f'{tom} left')"),
        ("tom += 'x'", "", "TypeError: unsupported operand type(s) for +=: 'int' and 'str' (line 1: tom += 'x')"),
    ],
)
def test_a_typical_step_takes_the_fast_path(code: str, output: str, error: str) -> None:
    outcome = run_arithmetic(code, {"tom": 34}, max_output_bytes=BOUND)
    assert (outcome.output, outcome.error) == (output, error)


@pytest.mark.parametrize(
    "code",
    [
        "import math",
        "x = [1]",
        "for i in (1, 2): pass\nelse: x = 1",
        "while True: pass",
        "for i in range(10**9): pass",
        "for i in range(0.5): pass",
        "range = 3\nfor i in range(2): pass",
        "for i in range(9):\n    x = [i]",
        "break",
        "if 1: continue",
        "x = 3 ** 600\nfor i in range(2000): y = x * x % 7",
        "for i in range(999): print('a' * 900)",
        "x = y.z",
        "x = (lambda: 1)()",
        "x = abs",
        "x = __name__",
        "print = 3\nprint(1)",
        "max = 3\nmax(1, 2)",
        "print(1, sep='')",
        "print(*(1, 2))",
        "7 ** 10**9",
        "x = 1 << 9",
        "'a' * 10**9",
        "(1,) * 10**9",
        "round(1, -10**9)",
        "from fractions import Fraction\nFraction('1e999999999')",
        "from fractions import Fraction\nFraction(7) ** 10**9",
        "f'{1:999999999d}'",
        "'%999999999d' % 1",
        "(-8) ** 0.5",
        "x = 2 ** 4000\nx = x * x",
        "t = (1, 1)\n" + "t = (t, t)\n" * 40,
        "x: int = 3",
        "__builtins__ = 3",
        "x = 'caf\N{LATIN SMALL LETTER E WITH ACUTE}'",
        "def f(:",
        "1 / (1 -\n1)",
        "eval('1')",
        "-" * 1900 + "1",
        "if 0:\n    x = (yield)",
        "x = 1 or (yield)",
        "if 0:\n    x = await y",
        "if 0:\n    from __future__ import braces",
        "x = 1 or f(a=1, a=2)",
        "x = 1 or (lambda a, a: 1)",
        "if 0:\n    *a, *b = 1, 2",
        "for i in range(0):\n    __debug__ = 1",
    ],
)
def test_an_uncertain_step_is_not_eligible(code: str) -> None:
    with pytest.raises(NotEligible):
        run_arithmetic(code, {}, max_output_bytes=BOUND)


def test_a_step_with_too_much_output_is_not_eligible() -> None:
    with pytest.raises(NotEligible):
        run_arithmetic("print('a' * 1000)", {}, max_output_bytes=999)


def test_the_given_variables_are_not_changed() -> None:
    variables = {"x": 1}
    run_arithmetic("x = 2", variables, max_output_bytes=BOUND)
    assert variables == {"x": 1}


def test_compiler_warnings_change_no_result_and_are_never_printed(recwarn: pytest.WarningsRecorder) -> None:
    filters = None
    for code in ("x = 1 or (1 is 1)", "x = 1if 1 else 2", "x = 1 or 1()"):
        with contextlib.suppress(NotEligible):
            assert run_arithmetic(code, {}, max_output_bytes=BOUND).variables == {"x": 1}
        filters = filters or list(warnings.filters)
    assert not recwarn.list
    assert filters == warnings.filters  # all threads share them


def test_long_codes_are_not_cached() -> None:
    _parse_short.cache_clear()
    for number in range(2 * MAX_CACHED):
        run_arithmetic(f"x = {number}", {}, max_output_bytes=BOUND)
        run_arithmetic(f"x = {number} {'+ 1' * 200}", {}, max_output_bytes=BOUND)
    assert _parse_short.cache_info().currsize == MAX_CACHED


@pytest.mark.parametrize("blank", ["\n", " ", "\t", "\f", "\r\n", "import ", "from"])
def test_searching_for_imports_takes_linear_time(blank: str) -> None:
    start = time.process_time()
    assert not imports_warm_modules(blank * 100_000 + "x")
    assert time.process_time() - start < 0.5
    assert imports_warm_modules("\n \n  import math, numpy as np")


def test_the_description_of_an_error_is_bounded() -> None:
    assert len(describe_error("E" * 10**6, "m" * 10**6, 1, "x" * 10**6)) < 1500


FRACTION = "from fractions import Fraction as F\n"
REPEAT = "for i in range(9000):\n    "
BIG = f"{FRACTION}a = F(2**1000 + 1, 3**600 + 1)\nb = F(3**630 + 2, 2**1000 + 3)\n{REPEAT}"
STRINGS = "t = ('a' * 1990,) * 62\n"
BOMBS = [
    "a = 2**2000 * 2**2000\nt = (a,) * 62\nfor i in range(9700):\n    t",
    f"{STRINGS}{REPEAT}t",
    f"{FRACTION}t = ()\nfor i in range(30):\n    t = t + (F(1, 2**1000 + 2 * i + 1),)\nu = ()\nfor x in t:\n"
    "    u = u + (-x,)\nw = t + u\nfor i in range(780):\n    s = sum(w)",
    f"{FRACTION}t = ()\nfor i in range(60):\n    t = t + (F(1, 2**1000 + 2 * i + 1),)\n"
    "for i in range(2000):\n    s = len(str(max(t) < 1))",
    f"{STRINGS}print({'t,' * 900})",
    f"{STRINGS}x = f'{'{t}' * 600}'",
    f"{STRINGS}u = ()\nfor i in range(62):\n    u = u + ('aa' * 995,)\n{REPEAT}t == u",
    *[BIG + operation for operation in ("a + b", "a // b", "a < b", "a + 0.5", "-a", "round(a, 9)", "(a, b) < (b, a)")],
    *[REPEAT + part * 190 for part in ("pass;", "(1,)*60;", "0;", "i=3;")],
    REPEAT + "a = " * 480 + "1",
    f"t = (1,) * 60\n{REPEAT}{'a,' * 60} = t",
    f"{REPEAT}from fractions import {', '.join(['Fraction'] * 190)}",
    f"x = 1e308\n{REPEAT}f'{{x:99.99f}}'",
    f"a = '9' * 1200\n{REPEAT}int(a)",
    f"a = 'ab' * 990\n{REPEAT}max(a)",
    f"a = 3**2500\nb = 3**1300\n{REPEAT}a // b",
]


@pytest.mark.parametrize("code", BOMBS, ids=range(len(BOMBS)))
def test_every_step_ends_soon(code: str) -> None:
    start = time.process_time()
    with pytest.raises(NotEligible):
        run_arithmetic(code, {}, max_output_bytes=BOUND)
    assert time.process_time() - start < 0.5

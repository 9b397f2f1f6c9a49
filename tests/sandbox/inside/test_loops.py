"""Compiled loops give what CPython gives, or change nothing."""

from __future__ import annotations

import ast
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar.protocols import Verdict
from sandbox.inside.fast_path.arithmetic import NotEligible, run_arithmetic
from sandbox.inside.fast_path.loops import LARGE, compile_loop
from tests.sandbox.inside.test_arithmetic import BOUND, assert_as_cpython, by_cpython

NAMES = ["a", "b", "count", "i"]
numbers = st.recursive(
    st.one_of(st.integers(0, 9).map(str), st.sampled_from([str(LARGE - 1), *NAMES * 4, "missing"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda n: f"(-{n})"),
    ),
    max_leaves=4,
)
tests = st.recursive(
    st.tuples(numbers, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers).map(" ".join),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda t: f"({''.join(t)})"),
        inner.map(lambda t: f"(not {t})"),
        numbers,
        st.tuples(numbers, numbers, numbers).map(lambda t: f"({t[0]} < {t[1]} <= {t[2]})"),
    ),
    max_leaves=3,
)
statements = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "+", "-", "*", "//", "%"]), numbers).map(
        lambda t: f"{t[0]} {t[1]}= {t[2]}"
    ),
    st.tuples(numbers, numbers).map(lambda t: f"a, b = {t[0]}, {t[1]}"),
    st.tuples(tests, st.sampled_from(["break", "continue", "pass"])).map(lambda t: f"if {t[0]}:\n    {t[1]}"),
)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.lists(inner, min_size=1, max_size=3).map(lambda lines: "\n".join(lines).replace("\n", "\n    "))
    return st.one_of(
        st.tuples(tests, block).map(lambda t: f"if {t[0]}:\n    {t[1]}"),
        st.tuples(tests, block, block).map(lambda t: f"if {t[0]}:\n    {t[1]}\nelse:\n    {t[2]}"),
        st.tuples(st.integers(-2, 5), block).map(lambda t: f"for k in range({t[0]}):\n    {t[1]}"),
        st.tuples(tests, block).map(lambda t: f"k = 0\nwhile k < 4 and {t[0]}:\n    k += 1\n    {t[1]}"),
    )


bodies = st.lists(st.recursive(statements, nested, max_leaves=4), min_size=1, max_size=3).map("\n".join)


def loop_of(code: str) -> ast.For:
    (loop,) = ast.parse(code).body
    assert isinstance(loop, ast.For)
    return loop


@settings(max_examples=400, deadline=None)
@given(bodies, st.integers(-3, 3), st.integers(16, 40), st.sampled_from([1, 2, -1]), st.sampled_from(["7", "2.5"]))
def test_compiled_loops_give_what_cpython_gives(body: str, first: int, turns: int, step: int, given_b: str) -> None:
    loop = f"for i in range({first}, {first + turns * step}, {step}):\n    " + body.replace("\n", "\n    ")
    assert compile_loop(loop_of(loop)), "all these loops only count"
    assert_as_cpython(f"a, b, count = 3, {given_b}, 0\n{loop}\nprint(a, b, count, i)")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("n = 10 // (20 - i)", "ZeroDivisionError: integer division or modulo by zero (line 2: n = 10 // (20 - i))"),
        ("n += missing", "NameError: name 'missing' is not defined (line 2: n += missing)"),
    ],
)
def test_an_error_has_its_line_and_the_variables_before_it(body: str, error: str) -> None:
    code = f"for i in range(30):\n    {body}"
    assert compile_loop(loop_of(code))
    outcome = run_arithmetic(code, {"n": 1}, max_output_bytes=BOUND)
    assert (outcome.verdict, outcome.error) == (Verdict.EXCEPTION, error)
    assert outcome.variables == by_cpython(code, {"n": 1}).variables


def test_loops_with_large_numbers_are_walked() -> None:
    code = "for i in range(100):\n    n = n * 2\nprint(n)"
    assert run_arithmetic(code, {"n": 1}, max_output_bytes=BOUND).output == str(2**100)


@pytest.mark.parametrize(
    "body",
    ["print(i)", "n = n / 2", "n = n ** 2", "n = [i]", "n = f(i)", "n = i if i else 1", "n = True", "__n = i",
     "n = 0.5", "n = x.y", "n = (i, i)", "a = b = i", "range = i", "for j in (1, 2):\n        n = j",
     "n: int = i", "n @= 2", "n = i < 2", "for j in range(2):\n        n = j\n    else:\n        n = 1",
     "n = i\n    assert n", "del n"],
)  # fmt: skip
def test_loops_that_do_more_than_count_are_not_compiled(body: str) -> None:
    assert compile_loop(loop_of(f"for i in range(30):\n    {body}")) is None


def test_a_variable_named_range_is_not_eligible() -> None:
    loop = "for i in range(20):\n    for j in range(2):\n        n = n + j"
    assert compile_loop(loop_of(loop))
    with pytest.raises(NotEligible):
        run_arithmetic("range = 3\n" + loop, {"n": 1}, max_output_bytes=BOUND)


def test_a_loop_may_have_a_range_longer_than_len_can_return() -> None:
    code = "for i in range(10**20):\n    if i == 3:\n        break\nprint(i)"
    assert run_arithmetic(code, {}, max_output_bytes=BOUND).output == "3"


def test_a_keyword_in_other_letters_is_a_name() -> None:
    code = "𝐧𝐨𝐭 = 5\nfor i in range(20):\n    n = 𝐧𝐨𝐭 + i\nprint(n)"
    assert run_arithmetic(code, {}, max_output_bytes=BOUND).output == by_cpython(code, {}).output == "24"


LONG = " * ".join(["a"] * 7)
TURNS = "for i in range(1, 1000000000000):\n    "


@pytest.mark.parametrize(
    "body",
    ["pass", "while 1:\n        pass", f"while {LONG} <= {LONG} <= {LONG} <= {LONG}:\n        pass",
     "for j in range(999999999):\n        n = j", f"n = {' + '.join(['a'] * 90)} - {' - '.join(['a'] * 89)}",
     "if i == 6000:\n        n = 1 // 0", "n = " + "(" * 60 + "i" + " % 7)" * 60,
     *["\n".join(" " * 4 * depth + f"for k{depth} in range(16):" for depth in range(1, 10)).strip()
       + f"\n{' ' * 40}while {LONG} <= {LONG}:\n{' ' * 44}pass"]],
)  # fmt: skip
def test_every_loop_ends_soon(body: str) -> None:
    assert compile_loop(loop_of(TURNS + body))
    start = time.process_time()
    with pytest.raises(NotEligible):
        run_arithmetic("a = 18446744073709551615\n" + TURNS + body, {}, max_output_bytes=BOUND)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    "number", ["*".join(["a"] * 9), "(a * a * a * a * a) * (a * a * a * a)", "a * (a + a * a * a * a * a * a * a)"]
)
def test_long_products_are_walked(number: str) -> None:
    assert compile_loop(loop_of(f"for i in range(30):\n    n = {number}")) is None
    assert compile_loop(loop_of(f"for i in range(30):\n    while {number}:\n        pass")) is None

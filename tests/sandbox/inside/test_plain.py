"""Which variables a forked step leaves for the fast path, and which steps are tame."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from fractions import Fraction
from types import ModuleType

import pytest

from rstar.protocols import Verdict
from sandbox.inside.fast_path.plain import OPAQUE, TAME_ATTRIBUTES, TAME_MODULES, decode, encode, is_tame
from sandbox.pool import FORK_SECONDS, STEP_SECONDS, Sandbox
from sandbox.providers import open_sandbox

SOLVE = "from sympy import symbols, solve\nx = symbols('x')\nroot = solve(x**2 - 5*x + 6, x)[0]\ntotal = 40"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox("local", workers=1) as opened:
        yield opened


async def run(sandbox: Sandbox, *codes: str) -> list[tuple[str, bool]]:
    """Each step's output and whether it took the fast path."""
    checkpoint, results = None, []
    for code in codes:
        before = sandbox.metrics()["fast_path"]
        execution = await sandbox.run(checkpoint, code)
        assert execution.verdict is Verdict.OK, execution
        results.append((execution.output, sandbox.metrics()["fast_path"] > before))
        checkpoint = execution.checkpoint
    return results


async def test_the_fast_path_continues_after_a_solve(sandbox: Sandbox) -> None:
    steps = await run(sandbox, "n = 2", SOLVE, "total = total + n", "print(total)", "print(root + total)", "print(n)")
    assert steps[1:] == [("", False), ("", True), ("42", True), ("44", False), ("2", True)]
    metrics = sandbox.metrics()
    assert (metrics["checkpoint_revivals"], metrics["steps_again"]) == (0, 3)  # `n = 2`; two fast steps for `root`


async def test_only_a_few_of_many_fast_steps_run_again(sandbox: Sandbox) -> None:
    checkpoint = None
    for n in range(60):
        checkpoint = (await sandbox.run(checkpoint, f"n = {n}")).checkpoint
    before = sandbox.metrics()
    for _ in range(3):
        assert (await sandbox.run(checkpoint, "[n]")).output == "[59]"
    after = sandbox.metrics()
    assert after["checkpoint_revivals"] == 1, "the first step restored the interpreter for the others"
    assert after["checkpoint_hits"] - before["checkpoint_hits"] == 2
    assert after["steps_again"] <= 3 * FORK_SECONDS / STEP_SECONDS


@pytest.mark.parametrize(
    "code",
    [
        "import math\nx = [1]\nx[0] = math.sqrt(4)",
        "def f(n):\n    return n + 1\ny = f(2)",
        "def area(r):\n    'Of it (flat).'\n    return 3.14 * r**2\nprint(f'It is {area(2):.2f} (about).')",
        "from collections import Counter\nc = Counter([1, 2, 2]).most_common(1)[0][0]",
        "try:\n    y = 1 / 0\nexcept ZeroDivisionError:\n    y = None",
        SOLVE,
    ],
)
def test_mathematics_is_tame(code: str) -> None:
    assert is_tame(code)


@pytest.mark.parametrize(
    "code",
    [
        "import builtins\nbuiltins.sum = max",
        "from fractions import Fraction\nFraction.__add__ = max",
        "from fractions import Fraction\nFraction.numerator = 3",
        "setattr(int, 'x', 1)",
        "exec('1')",
        "globals()['x'] = 1",
        "__builtins__['sum'] = max",
        "().__class__",
        "import sys",
        "from sympy.core import sympify as s",
        "import sympy\nsympy.sys.stdout = None",
        "import math as _m",
        "class A: pass",
        "f()[0] = 1",
        "def f(:",
        "del x",
        "g = (i for i in (1,))\ng.gi_frame.f_builtins",
        "match 3:\n    case __builtins__:\n        pass",
        "match 3:\n    case sum:\n        pass",
        "try:\n    1 / 0\nexcept ZeroDivisionError as __builtins__:\n    pass",
        "import fractions\nfractions.operator.attrgetter('a')",
        "from fractions import operator",
        "from statistics import sys as s",
        "from functools import update_wrapper",
        "import functools\nfunctools.update_wrapper(max, min)",
        "import sympy\nsympy.sympify(\"__import__('builtins')\")",
        "from sympy import S\nS('exec(1)')",
        "from sympy import S\nS(str((1,))[0])",
        "from sympy import S\nS(f'{(1,)}')",
        "from sympy import S\nprint(S(f'{(1,)}'))",
        "from sympy import S as print",
        "from sympy import *",
        "print = max",
        "def print(x): pass",
        "x = chr(40)",
        "x = 'a'.format",
        "x = b'a'",
        "def f(__builtins__): pass",
        "import numpy",
        "x = 1\n" * 3000,
    ],
)
def test_a_step_that_reaches_beyond_its_variables_is_not_tame(code: str) -> None:
    assert not is_tame(code)


async def test_changes_by_a_step_that_is_not_tame_hold_for_its_children(sandbox: Sandbox) -> None:
    steps = await run(sandbox, "import builtins\nbuiltins.sum = max\na = 3", "print(sum((1, 2)))", "print(a)")
    assert [output for output, _ in steps] == ["", "2", "3"]
    assert not any(fast for _, fast in steps)


def test_plain_variables_are_decoded_unchanged_and_the_rest_is_opaque() -> None:
    plain = {
        "a": 3, "b": True, "c": 0.5, "d": "word", "e": Fraction(1, 3), "f": (1, (2.0, "x")), "Fraction": Fraction,
        "g": 2**1000, "h": float("inf"),
    }  # fmt: skip
    opaque = {"i": [1], "j": 2**2000, "k": "caf\u00e9", "m": "x" * 3000, "n": (1, [2]), "o": None, "p": abs, "q": 1j}
    found = decode(json.loads(json.dumps(encode(plain | opaque | {"__name__": "__main__"}))))
    assert found is not None
    assert {name: value for name, value in found.items() if value is not OPAQUE} == plain
    assert {name for name, value in found.items() if value is OPAQUE} == set(opaque)
    assert [type(found[name]) for name in plain] == [type(value) for value in plain.values()]


@pytest.mark.parametrize(
    "forged",
    [["is", "\ud800"], ["is", 2**9999], ["is", None], ["is"], ["fraction", 1, 0], ["fraction", 2, 4], ["tuple", 1], 7,
     ["tuple", *[["is", 1]] * 999], {"is": 1}, "is", ["class", 1]],
)  # fmt: skip
def test_a_malformed_value_in_a_report_is_opaque(forged: object) -> None:
    assert decode({"x": forged}) == {"x": OPAQUE}


def test_a_report_is_bounded() -> None:
    shared: object = ("a" * 1900,) * 7
    for _ in range(6):
        shared = (shared,) * 15
    assert encode({"x": shared, "y": 1}) == {"x": None, "y": ["is", 1]}
    many = encode({f"x{i}": "a" * 1900 for i in range(1000)})
    assert many is not None
    assert len(json.dumps(many)) < 200_000
    assert many["x0"] is not None
    assert many["x999"] is None
    assert encode({"x" * 1000: 1}) is None
    assert encode({3: 1}) is None  # type: ignore[dict-item]
    assert encode({f"x{i}": 1 for i in range(9999)}) is None


def test_decoding_is_bounded() -> None:
    nested: object = ["is", 1]
    for _ in range(5000):
        nested = ["tuple", nested]
    assert decode({"x": nested, "y": ["fraction", 2**5000, 3]}) == {"x": OPAQUE, "y": OPAQUE}
    found = decode({f"x{i}": ["is", "a" * 1900] for i in range(1000)})
    assert found is not None
    assert sum(value is not OPAQUE for value in found.values()) < 100
    for report in ([], 3, {"x" * 1000: ["is", 1]}, {f"x{i}": ["is", 1] for i in range(9999)}):
        assert decode(report) is None


def test_tame_attributes_reach_no_further_module() -> None:
    waiting = [importlib.import_module(name) for name in sorted(TAME_MODULES)]
    reached = {module.__name__ for module in waiting}
    while waiting:
        module = waiting.pop()
        found = [getattr(module, name, None) for name in sorted(TAME_ATTRIBUTES)]
        new = {each.__name__: each for each in found if isinstance(each, ModuleType) and each.__name__ not in reached}
        reached |= set(new)
        waiting += new.values()
    assert reached <= TAME_MODULES | {"sympy.core.evalf"}  # the listed name stands for the method


@pytest.mark.parametrize(
    "code",
    [
        "from sympy import S\nS('setattr')",
        "from sympy import nsimplify\nnsimplify('exec')",
        "from sympy import S as symbols\nsymbols('exec')",
        "from sympy import S\nsymbols = S\nsymbols('exec')",
        "name = 'exec'",
    ],
)
def test_a_step_with_a_string_that_sympy_could_evaluate_is_not_tame(code: str) -> None:
    assert not is_tame(code)


def test_names_of_symbols_are_tame() -> None:
    assert is_tame(
        "import sympy\nfrom sympy import symbols, solve\nx, y = symbols('x y', real=True)\nz = sympy.Symbol('z')"
    )

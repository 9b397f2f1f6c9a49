"""The judge compares exactly where it can, and otherwise with Math-Verify under hard time limits."""

import asyncio
import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.mathematics.grading.comparing import compare, readable
from domains.mathematics.grading.judge import MathJudge
from domains.mathematics.grading.verify_pool import JudgeError

SHARED = os.environ.get("RSTAR_SHARED_DATA")

EXACT_EQUAL = [
    ("16", "16.0"),
    ("007", "7"),
    ("+5", "5"),
    ("1,234", "1234"),
    (r"\$1,234.50", "1234.5"),
    ("32,\\! 349", "32349"),
    ("7/2", r"\frac{7}{2}"),
    ("7/2", "3.5"),
    ("-3/4", r"-\dfrac34"),
    ("3 1/2", r"3\frac{1}{2}"),
    ("(12, 30)", r"\left(12,30\right)"),
    ("(7/2, 3)", "(3.5, 3.0)"),
    ("(Fraction(7, 2), 3)", "(3.5, 3)"),
    ("2, 1", "1, 2"),
    ("1 and 2", r"\{2, 1\}"),
    ("x = 5", "5"),
    ("x=2, y=3", "(2, 3)"),
    (r"$\boxed{46}$", "46."),
    ("1e-05", "0.00001"),
    ("0.30000000000000004", "0.3"),
    ("16.666666666666668", "50/3"),
    ("0.333333", "1/3"),
    (r"0.\overline{3}", "1/3"),
    ("50%", "0.5"),
    (r"50\%", "50"),
    ("90^\\circ", "90"),
    (r"\text{Even}", "even"),
    (r"\text{(C)}", "C"),
]

EXACT_DIFFERENT = [
    ("16", "17"),
    ("1,234", "1, 234"),
    ("1,2", "12"),
    ("12 30", "42"),
    ("(12, 30)", "(30, 12)"),
    ("(1, 2)", r"\{1, 2\}"),
    ("(1, 2)", "1, 2"),
    ("(1, 2)", "[1, 2]"),
    ("x=3, y=2", "(2, 3)"),
    ("-2, -2", "-2"),
    ("1, 1, 3", "1, 3, 3"),
    (r"\sqrt{2}, \sqrt{2}", r"\sqrt{2}"),
    ("5", "5.001"),
    ("12 30, 5", "42, 5"),
    ("16.67", "50/3"),
    ("0.3333", "1/3"),
    ("7425000.5", "7425000"),
    ("100000000000000000000000000001", "100000000000000000000000000002"),
    ("1e29", "100000000000000000000000000001"),
    ("0.5%", "0.5"),
    ("1101_2", "1101_{3}"),
    (r"0.\overline{3}", "0"),
    ("a + 3z = 0", "0"),
    ("1 = 1", "2 = 2"),
    ("listen", "silent"),
    ("no solution", "0"),
    ("5 apples and 6 pears", "5"),
    ("5 apples and 6 pears", "6"),
    ("", ""),
    ("", "0"),
]

ALGEBRA_EQUAL = [
    (r"\frac{\sqrt{2}}{2}", "sqrt(2)/2"),
    (r"2\pi", "2*pi"),
    ("x^2 + 2x + 1", "(x+1)**2"),
    (r"y=-\frac{1}{2}x+\frac{3}{4}", "2x+4y-3=0"),
    (r"I_{\max}=\frac{q}{\sqrt{2}}", r"\frac{q\sqrt{2}}{2}"),
    (r"x \in [-2, 7]", r"-2 \le x \le 7"),
    ("(1/2, x)", "(0.5, x)"),
    (r"10\text{ units}", "10"),
    ("7 dollars", "7"),
    ("The answer is 5", "5"),
]

ALGEBRA_DIFFERENT = [
    ("x = 5", "y = 5"),
    (r"x \neq 3", "x = 3"),
    ("[1, 2)", "[1, 2]"),
    ("10^{100}+1", "10^{100}"),
    ("10^{-8}", "10^{-9}"),
    (r"\pm 5", "5"),
    ("3x", "3"),
    ("x > 5", r"x \ge 5"),
]


@pytest.fixture(scope="module")
def judge():
    judge = MathJudge(num_workers=1)
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def hasty():
    judge = MathJudge(timeout_s=0.25, num_workers=1)
    yield judge
    judge.close()


@pytest.mark.parametrize(("a", "b"), EXACT_EQUAL)
def test_equal_answers_are_found_without_a_worker(a, b):
    assert compare(a, b) is True and compare(b, a) is True


@pytest.mark.parametrize(("a", "b"), EXACT_DIFFERENT)
def test_different_answers_are_found_without_a_worker(a, b):
    assert compare(a, b) is False and compare(b, a) is False


@pytest.mark.parametrize(("a", "b"), ALGEBRA_EQUAL)
async def test_algebra_finds_them_equal_in_either_order(judge, a, b):
    assert await judge.equivalent(a, b)
    assert compare(a, b) == compare(b, a)[::-1]


@pytest.mark.parametrize(("a", "b"), ALGEBRA_DIFFERENT)
async def test_algebra_finds_them_different(judge, a, b):
    assert not await judge.equivalent(a, b)


async def test_no_worker_starts_before_it_is_needed():
    async with MathJudge() as judge:
        assert await judge.equivalent("16", "16.0") and judge.readable(["7/2"]) == [True]
        assert judge.counts.num_started == 0


async def test_a_comparison_that_times_out_twice_is_undecided_and_the_next_one_works():
    async with MathJudge(timeout_s=0.5, num_workers=1) as judge:
        started = time.monotonic()
        assert await judge.equivalent("9^{9^{9^{9}}}", "9^{9^{9^{8}}}") is None
        assert time.monotonic() - started < 40
        assert judge.counts.num_timeouts == 1 and judge.counts.num_started == 2
        assert await judge.equivalent("9^{9^{9^{9}}}", "9^{9^{9^{8}}}") is None  # cached
        assert judge.counts.num_requests == 1
        assert await judge.equivalent(r"\sqrt{8}", r"2\sqrt{2}")
        assert judge.counts.num_started == 3


async def test_no_verdict_is_lost_if_a_worker_is_killed():
    async with MathJudge(num_workers=1) as judge:
        assert await judge.equivalent(r"\sqrt{8}", r"2\sqrt{2}")
        (worker,) = judge._pool._workers
        os.kill(worker._process.pid, signal.SIGKILL)
        assert await judge.equivalent(r"\sqrt{12}", r"2\sqrt{3}")
        assert (judge.counts.num_crashes, judge.counts.num_timeouts, judge.counts.num_started) == (0, 0, 2)


async def test_leaving_the_context_ends_the_workers():
    async with MathJudge(num_workers=1) as judge:
        await judge.equivalent(r"\sqrt{8}", r"2\sqrt{2}")
        (worker,) = judge._pool._workers
    assert worker._process.poll() is not None


async def test_closing_during_a_comparison_raises_and_does_not_hang():
    judge = MathJudge(timeout_s=30, num_workers=1)
    comparison = asyncio.create_task(judge.equivalent("9^{9^{9^{9}}}", "9^{9^{9^{8}}}"))
    while judge.counts.num_started == 0:
        await asyncio.sleep(0.05)
    judge.close()
    with pytest.raises(JudgeError, match="closed"):
        await comparison


def test_any_thread_and_event_loop_may_use_the_judge(judge):
    verdicts = []
    pairs = [(rf"\sqrt{{{n * n * 2}}}", rf"{n}\sqrt{{2}}") for n in range(2, 6)]
    threads = [
        threading.Thread(target=lambda p=pair: verdicts.append(asyncio.run(judge.equivalent(*p)))) for pair in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 4


async def test_a_pair_is_compared_once_whatever_its_order_and_the_cache_is_bounded():
    async with MathJudge(num_workers=1, cache_size=1) as judge:
        for pair in [(r"\sqrt{8}", r"2\sqrt{2}"), (r"2\sqrt{2}", r"\sqrt{8}")]:
            assert await judge.equivalent(*pair)
        assert judge.counts.num_requests == 1
        await judge.equivalent(r"\sqrt{12}", r"2\sqrt{3}")
        await judge.equivalent(r"\sqrt{8}", r"2\sqrt{2}")
        assert judge.counts.num_requests == 3


STRANGE = [
    *("{" * 3000, r"\frac{" * 300 + "x" + "}" * 300, "(" * 2000 + "x" + ")" * 2000, r"\boxed{" * 2000, r"\left", "$$"),
    *("\ud800", "\x00\n", "٣", "9" * 100_000, "5" + "%" * 390, "1e999", "1/0", "a_" * 3000 + "=", "\\\\" * 4000),
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda s: ascii(s[:12]))
async def test_a_strange_string_equals_nothing_and_raises_nothing(hasty, strange):
    assert not await hasty.equivalent(strange, "x + 1")
    hasty.readable([strange])


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.,/%-+ ()[]{}\\$=xab_^;\n\ud800é", max_size=30), st.text(max_size=10))
def test_the_exact_comparison_never_raises_and_does_not_depend_on_the_order(a, b):
    for pair in ((a, b), (a, a[::-1]), (a, a)):
        forward, backward = compare(*pair), compare(*reversed(pair))
        assert forward == (backward if isinstance(backward, bool) else backward[::-1])
    readable(a)


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_fractions_are_equal_exactly_when_their_values_are(a, b):
    for other in (a, b):
        assert compare(str(a), rf"\frac{{{other.numerator}}}{{{other.denominator}}}") is (a == other)


@pytest.mark.parametrize("truth", ["72", "1,000", "(12, 30)", r"\frac{n(n+1)}{2}", r"f(x)=2x", r"\text{odd}", "8\\%"])
async def test_a_ground_truth_that_can_be_compared_is_readable(judge, truth):
    assert judge.readable([truth]) == [True]


@pytest.mark.parametrize("truth", ["", "  ", "?!", r"\frac{", "12 30", "f(x)=ax+b,wherebisanarbitraryinteger", "1/0"])
async def test_a_ground_truth_that_cannot_be_compared_is_not_readable(judge, truth):
    assert judge.readable([truth]) == [False]


@pytest.mark.skipif(not SHARED, reason="RSTAR_SHARED_DATA is not set")
async def test_labelled_pairs_show_no_false_positive_and_nine_in_ten_agree():
    lines = gzip.decompress((Path(SHARED) / "answer_pairs.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    async with MathJudge() as judge:
        verdicts = await asyncio.gather(*(judge.equivalent(str(r["gold"]), str(r["prediction"])) for r in rows))
    assert [r["id"] for r, v in zip(rows, verdicts, strict=True) if v and not r["equal"]] == []
    assert sum(r["equal"] == v for r, v in zip(rows, verdicts, strict=True)) >= 0.9 * len(rows)

"""The judge of mathematics: whether two final answers are the same.

Implements `rstar.protocols.Judge`. The paper only says that an answer matches the ground truth (Section 3.2).
Numbers, tuples and lists of numbers, and words are compared exactly, without Math-Verify. So are the cases that
Math-Verify is known to get wrong. It compares all others, in worker processes. The rules:

- "12 30" (what Python prints for two values) is not the sum 42. A list counts repetitions: "2,2" is not "2".
- (1,2) is a pair or an open interval, but neither the set {1,2} nor the list "1,2". "x=2, y=3" is (2,3), in that order.
- "x=5" is 5, but other equations are not values: "a+3z=0" is not 0, and "1=1" is not "2=2".
- 50% is 0.5 and 50, but 0.5% is not 0.5.
- A word is not the product of its letters: "listen" is not "silent". A sentence with several numbers is not a number.
- 1101_2 is not 1101_3, and 0.\\overline{3} is not 0.

The judge does not know the question. So "B" and the text of option B, 3.04 and 3.04 million, and 0.6 and 0.6049 are
different answers.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from domains.mathematics.grading.comparing import compare, readable
from domains.mathematics.grading.verify_pool import VerifyCounts, VerifyPool


class MathJudge:
    """Compares answers. An async context manager that ends its worker processes on exit.

    Workers start when they are first needed. Any thread and event loop may use the judge. A comparison that takes more
    than `timeout_s` seconds of CPU time, or kills its worker, is tried once more, with no other retry at the same time.
    If that fails too, it is undecided. Raises `JudgeError` if the workers cannot run, and never because of an answer.
    """

    def __init__(self, *, timeout_s: float = 3.0, num_workers: int = 2, cache_size: int = 100_000) -> None:
        self._pool = VerifyPool(timeout_s=timeout_s, num_workers=num_workers)
        self._cache: OrderedDict[tuple[str, ...], bool | None] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()

    @property
    def counts(self) -> VerifyCounts:
        """How many requests went to Math-Verify, and how many of them timed out or killed a worker."""
        return self._pool.counts

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Return whether the answer is the same as the ground truth."""
        return await self.equivalent(answer, truth)

    async def equivalent(self, answer: str, other: str) -> bool | None:
        """Return whether two answers are the same, whatever their order; None if undecided."""
        key = (answer, other) if answer <= other else (other, answer)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        verdict: bool | tuple[str, str] | None = compare(*key)
        if isinstance(verdict, tuple):
            verdict = await asyncio.wrap_future(self._pool.submit("equal", *verdict))
        with self._lock:
            self._cache[key] = verdict
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return verdict

    def readable(self, truths: Sequence[str]) -> list[bool]:
        """Return for each ground truth whether answers can be compared with it. Blocks."""
        verdicts = [readable(truth) for truth in truths]
        results = [self._pool.submit("parseable", text) if isinstance(text, str) else text for text in verdicts]
        return [result if isinstance(result, bool) else result.result() is True for result in results]

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

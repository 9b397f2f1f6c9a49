"""The judge: whether two final answers are the same.

Stands behind `rstar.protocols.Judge`; the paper only says that an answer matches the ground truth (Section 3.2).
Numbers, tuples and lists of numbers, and words are compared here, exactly; everything else by Math-Verify in worker
processes, after the cases that it is known to get wrong have been refused:

- "12 30" (what Python prints for two values) is not the sum 42, and "2,2" is not "2": a list counts repetitions;
- (1,2) is a pair or an open interval, never the set {1,2} nor the list "1,2"; "x=2, y=3" is (2,3), in that order;
- "x=5" is 5, but an equation is no value: "a+3z=0" is not 0, and "1=1" is not "2=2";
- 50% is 0.5 and 50; 0.5% is not 0.5;
- a word is not the product of its letters ("listen" is not "silent"), and sentences with several numbers are no number;
- 1101_2 is not 1101_3, and 0.\\overline{3} is not 0.

It does not know what was asked: "B" and the option's text, 3.04 and 3.04 million, 0.6 and 0.6049 are different answers.
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
    """Compares answers; an async context manager that ends its worker processes when left.

    No worker starts before one is needed. It may be used from any thread and any event loop. A comparison that takes
    more than `timeout_s` seconds of CPU, or kills its worker, is asked again alone. After that it is undecided, and
    counted. Raises `JudgeError` where the workers themselves cannot run; no string makes it raise.
    """

    def __init__(self, *, timeout_s: float = 3.0, num_workers: int = 2, cache_size: int = 100_000) -> None:
        self._pool = VerifyPool(timeout_s=timeout_s, num_workers=num_workers)
        self._cache: OrderedDict[tuple[str, ...], bool | None] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()

    @property
    def counts(self) -> VerifyCounts:
        """How many questions went to Math-Verify, and how many of them timed out or killed a worker."""
        return self._pool.counts

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Return whether the answer is the same as the ground truth."""
        return await self.equivalent(answer, truth)

    async def equivalent(self, answer: str, other: str) -> bool | None:
        """Return whether the two are the same answer, None where undecided; the order does not matter."""
        key = (answer, other) if answer <= other else (other, answer)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        compared: bool | tuple[str, str] | None = compare(*key)
        if isinstance(compared, tuple):
            compared = await asyncio.wrap_future(self._pool.submit("equal", *compared))
        with self._lock:
            self._cache[key] = compared
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return compared

    def parseable_all(self, truths: Sequence[str]) -> list[bool]:
        """Say of each ground truth whether an answer can be compared with it at all. Blocks: for importers."""
        questions = [readable(truth) for truth in truths]
        asked = [self._pool.submit("parseable", q) if isinstance(q, str) else q for q in questions]
        return [a if isinstance(a, bool) else a.result() is True for a in asked]

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

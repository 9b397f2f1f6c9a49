"""Engines that answer by a hash of what they are asked, at once or in simulated time: the same trees whoever asks.

A trajectory is some code steps, a last one, and an answer; one candidate in fourteen does not run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b

from domains.mathematics.steps import END_OF_ANSWER, END_OF_CODE, StepKind, kind_of
from rstar.protocols import Execution, Proposal, Verdict

MEAN_STEPS = 5
LIMIT = 2048.0  # tokens of a candidate


async def at_once() -> None:
    """Let every other tree go on first: all of them are in flight."""
    await asyncio.sleep(0)


class Scripted:
    """Policy, executor, scorer and judge; `num_expansions` counts what the policy was asked."""

    def __init__(self) -> None:
        self.num_expansions = 0
        self._checkpoints = 0

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        self.num_expansions += 1
        await at_once()
        return proposals(prefix, num_candidates, seed)

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        await at_once()
        return self.executed(code)

    def executed(self, code: str) -> Execution:
        if number(code) % 14 == 0:
            return Execution(Verdict.EXCEPTION, error="NameError: name 'total' is not defined (line 3)", seconds=0.004)
        self._checkpoints += 1
        output = f"{number(code) % 5}\n" if "print" in code else ""
        return Execution(Verdict.OK, output, checkpoint=f"state-{self._checkpoints}", seconds=0.004)

    async def release(self, checkpoint: str) -> None:
        pass

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        await at_once()
        return scores(candidates)

    async def equivalent(self, answer: str, other: str) -> bool:
        return False

    correct = equivalent


def proposals(prefix: Sequence[str], num_candidates: int, seed: int) -> list[Proposal]:
    """Steps of about 40 tokens; longer trajectories end more often."""
    if prefix and kind_of(prefix[-1]) is StepKind.LAST_CODE:
        value = prefix[-1].rpartition("<output>")[2].partition("<")[0]
        text = f"\n<answer>From the result, we can see that the answer is \\boxed{{{value}}}.\n{END_OF_ANSWER}"
        return [Proposal(text, 24, -3.5, 200)] * num_candidates
    start = "" if prefix else "<code>"
    return [_step(start, len(prefix), seed + 7919 * at) for at in range(num_candidates)]


def _step(start: str, depth: int, draw: int) -> Proposal:
    if draw % 97 < 97 * depth // (2 * MEAN_STEPS):
        text = f"{start}\n# Now print the final answer {draw % 1009}\nprint(total_{draw % 1009})\n{END_OF_CODE}"
        return Proposal(text, 20, -2.0 - draw % 100 / 100, 200)
    text = (
        f"{start}\n# Step {depth}: calculate how many apples are left in basket {draw % 1009} after the sale\n"
        f"left_{draw % 1009} = apples_{draw % 1013} - sold_{draw % 1019} * {draw % 89}\n<end_of_step>"
    )
    return Proposal(text, 40, -9.0 - draw % 1000 / 1000, 200)


def scores(candidates: Sequence[str]) -> list[float]:
    return [number(text) % 2001 / 1000 - 1 for text in candidates]


def number(*parts: object) -> int:
    digest = blake2b(repr(parts).encode(), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


class Latencies:
    """Times of a GPU server and a sandbox, in seconds; a hash of the request, so that no scheduler is luckier.

    A candidate's tokens are log-normal (median 45, sigma 0.7), and a share of `runaways` goes on to 2048; a request
    lasts as long as its longest candidate, at 20 ms a token, and 50 ms for the prompt. Scoring a group: log-normal,
    median 40 ms. A step of code: log-normal, median 8 ms, one in 200 runs into the limit of 2 s.
    """

    def __init__(self, runaways: float) -> None:
        self._runaways = runaways

    def propose(self, seed: int, num_candidates: int) -> float:
        rng = random.Random(seed)
        tokens = [
            2048.0 if rng.random() < self._runaways else rng.lognormvariate(3.8, 0.7) for _ in range(num_candidates)
        ]
        return 0.05 + 0.02 * min(2048.0, max(tokens))

    def score(self, *asked: object) -> float:
        return random.Random(number(*asked)).lognormvariate(-3.2, 0.4)

    def run(self, *asked: object) -> float:
        rng = random.Random(number(*asked))
        return 2.0 if rng.random() < 1 / 200 else min(2.0, rng.lognormvariate(-4.8, 0.9))


Pause = Callable[[str, float], Awaitable[None]]  # kind of request, seconds of one slot


class Simulated(Scripted):
    """The same answers, after the time that `pause` takes for them."""

    def __init__(self, pause: Pause, runaways: float) -> None:
        super().__init__()
        self._pause = pause
        self._latencies = Latencies(runaways)

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        self.num_expansions += 1
        await self._pause("propose", self._latencies.propose(seed, num_candidates))
        return proposals(prefix, num_candidates, seed)

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        await self._pause("run", self._latencies.run(code))
        return self.executed(code)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        await self._pause("score", self._latencies.score(question, prefix, candidates))
        return scores(candidates)

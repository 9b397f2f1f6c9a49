"""Scripted engines: their answers are hashes of the requests, so every scheduler gets the same trees.

`Scripted` answers at once, `Simulated` after simulated time. A trajectory has some steps of code, a last one, and an
answer; one step in fourteen fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b

from domains.mathematics.steps import END_OF_ANSWER, END_OF_CODE, StepKind, kind_of
from rstar.protocols import Execution, Proposal, Verdict

MEAN_STEPS = 5
MAX_TOKENS = 2048.0  # of a candidate


async def other_trees() -> None:
    """Let the other trees go on first, so that all of them are in flight."""
    await asyncio.sleep(0)


class Scripted:
    """Policy, executor, scorer and judge; `num_expansions` counts the requests to the policy."""

    def __init__(self) -> None:
        self.num_expansions = 0
        self._num_checkpoints = 0

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        self.num_expansions += 1
        await other_trees()
        return proposals(prefix, num_candidates, seed)

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        await other_trees()
        return self.execution(code)

    def execution(self, code: str) -> Execution:
        if number(code) % 14 == 0:
            return Execution(Verdict.EXCEPTION, error="NameError: name 'total' is not defined (line 3)", seconds=0.004)
        self._num_checkpoints += 1
        output = f"{number(code) % 5}\n" if "print" in code else ""
        return Execution(Verdict.OK, output, checkpoint=f"state-{self._num_checkpoints}", seconds=0.004)

    async def release(self, checkpoint: str) -> None:
        pass

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        await other_trees()
        return scores(candidates)

    async def equivalent(self, answer: str, other: str) -> bool:
        return False

    correct = equivalent


def proposals(prefix: Sequence[str], num_candidates: int, seed: int) -> list[Proposal]:
    """Return steps of about 40 tokens. The longer the prefix, the more often the next step is the last one."""
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
    """Return a hash of the parts that is the same in every process."""
    digest = blake2b(repr(parts).encode(), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


class Latencies:
    """Times of a GPU server and a sandbox, in seconds. A hash of the request decides them, not the scheduler.

    The tokens of a candidate are log-normal (median 45, sigma 0.7), except for a share of `runaways` with 2048 tokens.
    A request lasts as long as its longest candidate, at 20 ms a token, plus 50 ms for the prompt. Scoring the
    candidates of a node is log-normal with median 40 ms. A step of code is log-normal with median 8 ms; one in 200
    reaches the limit of 2 s.
    """

    def __init__(self, runaways: float) -> None:
        self._runaways = runaways

    def propose(self, seed: int, num_candidates: int) -> float:
        rng = random.Random(seed)
        tokens = [
            MAX_TOKENS if rng.random() < self._runaways else rng.lognormvariate(3.8, 0.7) for _ in range(num_candidates)
        ]
        return 0.05 + 0.02 * min(MAX_TOKENS, max(tokens))

    def score(self, *request: object) -> float:
        return random.Random(number(*request)).lognormvariate(-3.2, 0.4)

    def run(self, *request: object) -> float:
        rng = random.Random(number(*request))
        return 2.0 if rng.random() < 1 / 200 else min(2.0, rng.lognormvariate(-4.8, 0.9))


Pause = Callable[[str, float], Awaitable[None]]  # the kind of request, and the seconds that it takes one slot


class Simulated(Scripted):
    """The same engines, which answer after the time that `pause` takes."""

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
        return self.execution(code)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        await self._pause("score", self._latencies.score(question, prefix, candidates))
        return scores(candidates)

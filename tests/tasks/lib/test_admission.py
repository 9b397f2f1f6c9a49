"""Tokens in flight stay within the capacity, and requests are served in their order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar.protocols import Proposal
from tasks.lib.admission import AdmittedPolicy, TokenGate


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 99))
def test_no_more_than_the_capacity_is_taken_and_the_order_is_kept(sizes: list[int], seed: int) -> None:
    gate, rng, order = TokenGate(40), random.Random(seed), []

    async def visit(number: int, tokens: int) -> None:
        async with gate.take(tokens):
            order.append(number)
            assert 0 < gate.num_taken <= 40
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)

    async def visit_all() -> None:
        await asyncio.gather(*(visit(number, tokens) for number, tokens in enumerate(sizes)))

    asyncio.run(visit_all())
    assert order == list(range(len(sizes)))
    assert gate.num_taken == 0


@pytest.mark.parametrize("acquired_first", [False, True])
async def test_a_request_that_is_cancelled_while_it_waits_takes_nothing(acquired_first: bool) -> None:
    gate, release = TokenGate(10), asyncio.Event()

    async def visit(tokens: int) -> None:
        async with gate.take(tokens):
            await release.wait()

    first, second, third = (asyncio.create_task(visit(tokens)) for tokens in (8, 8, 2))
    await asyncio.sleep(0)
    if acquired_first:
        release.set()
        await asyncio.sleep(0)  # the first has released its tokens; the others have acquired theirs but not run
        assert gate.num_taken == 10
    second.cancel()
    release.set()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert gate.num_taken == 0


async def test_more_requests_are_in_flight_once_steps_have_proved_short() -> None:
    class ShortSteps:
        num_in_flight = max_in_flight = 0

        async def propose(
            self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
        ) -> list[Proposal]:
            self.num_in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
            await asyncio.sleep(0)
            self.num_in_flight -= 1
            return [Proposal("x", num_tokens=4, prompt_tokens=100)] * num_candidates

    short = ShortSteps()
    policy = AdmittedPolicy(short, 3 * (100 + 4 * 64))

    async def request(count: int) -> None:
        await asyncio.gather(*(policy.propose("q" * 300, [], num_candidates=4, seed=i) for i in range(count)))

    await request(20)
    assert short.max_in_flight == 3
    await request(200)
    short.max_in_flight = 0
    await request(20)
    assert 6 <= short.max_in_flight <= 9

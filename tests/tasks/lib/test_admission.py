"""Tokens in flight stay within the capacity; whoever comes first goes in first."""

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
def test_no_more_than_the_capacity_is_inside_and_the_order_is_kept(sizes: list[int], seed: int) -> None:
    gate, rng, entered = TokenGate(40), random.Random(seed), []

    async def visit(number: int, tokens: int) -> None:
        async with gate.taken(tokens):
            entered.append(number)
            assert 0 < gate.inside <= 40
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(visit(number, tokens) for number, tokens in enumerate(sizes)))

    asyncio.run(all_of_them())
    assert entered == list(range(len(sizes)))
    assert gate.inside == 0


@pytest.mark.parametrize("let_in_first", [False, True])
async def test_who_is_cancelled_at_the_gate_takes_nothing(let_in_first: bool) -> None:
    gate, release = TokenGate(10), asyncio.Event()

    async def visit(tokens: int) -> None:
        async with gate.taken(tokens):
            await release.wait()

    first, second, third = (asyncio.create_task(visit(tokens)) for tokens in (8, 8, 2))
    await asyncio.sleep(0)
    if let_in_first:
        release.set()
        await asyncio.sleep(0)  # the first has left, the others are let in and have not run yet
        assert gate.inside == 10
    second.cancel()
    release.set()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert gate.inside == 0


async def test_an_admitted_policy_asks_for_more_at_once_where_steps_prove_short() -> None:
    class Short:
        inside = most = 0

        async def propose(
            self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
        ) -> list[Proposal]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
            return [Proposal("x", num_tokens=4, prompt_tokens=100)] * num_candidates

    short = Short()
    policy = AdmittedPolicy(short, 3 * (100 + 4 * 64))

    async def ask(count: int) -> None:
        await asyncio.gather(*(policy.propose("q" * 300, [], num_candidates=4, seed=i) for i in range(count)))

    await ask(20)
    assert short.most == 3
    await ask(200)
    short.most = 0
    await ask(20)
    assert 6 <= short.most <= 9

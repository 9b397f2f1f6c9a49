"""Who takes turns in the sandbox: each item, with all that it starts."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Sequence

from domains.mathematics.domain import DOMAIN
from rstar.protocols import Execution, Problem, Proposal, Verdict
from rstar.search import SearchSettings, search
from sandbox.fair import sharing
from tasks.lib.concurrency import map_concurrently


class Engines:
    """Writes and runs steps; remembers as whom the steps of each problem ran."""

    def __init__(self) -> None:
        self.sharers: defaultdict[str, list[Hashable]] = defaultdict(list)

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        await asyncio.sleep(0)
        start = "" if prefix else "<code>"
        return [Proposal(f"{start}\n# {i}\n{question} = {seed + i}\n<end_of_step>") for i in range(num_candidates)]

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        self.sharers[code.split()[2]].append(sharing.get())
        return Execution(Verdict.OK, checkpoint=f"{checkpoint}.")

    async def release(self, checkpoint: str) -> None: ...

    async def equivalent(self, answer: str, other: str) -> bool:
        return False

    correct = equivalent


async def test_all_steps_of_a_problem_s_trees_run_as_one() -> None:
    engines, settings = Engines(), SearchSettings(num_rollouts=3, num_candidates=2, max_depth=3)

    async def one(name: str) -> None:
        for seed in range(2):
            problem, given = Problem(name, name, "1"), {"policy": engines, "executor": engines, "judge": engines}
            await search(problem, steps=DOMAIN, **given, scorer=None, settings=settings, seed=seed)

    await map_concurrently(one, "ab", limit=2)
    groups = [set(sharers) for sharers in engines.sharers.values()]
    assert [len(group) for group in groups] == [1, 1]
    assert min(map(len, engines.sharers.values())) > 4
    assert not groups[0] & groups[1] and None not in groups[0] | groups[1]
    assert sharing.get() is None


async def test_a_call_within_an_item_takes_the_item_s_turns() -> None:
    async def look(_: int) -> Hashable:
        return sharing.get()

    async def one(_: int) -> list[Hashable]:
        return await map_concurrently(look, range(3), limit=3)

    first, second = await map_concurrently(one, range(2), limit=2)
    assert len(set(first)) == len(set(second)) == 1 and first[0] is not second[0]

"""The items of map_concurrently share the sandbox fairly, each with all that it starts."""

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
    """Policy, executor and judge in one. Remembers the sharing group in which the steps of each problem ran."""

    def __init__(self) -> None:
        self.groups: defaultdict[str, list[Hashable]] = defaultdict(list)

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        await asyncio.sleep(0)
        start = "" if prefix else "<code>"
        return [Proposal(f"{start}\n# {i}\n{question} = {seed + i}\n<end_of_step>") for i in range(num_candidates)]

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        self.groups[code.split()[2]].append(sharing.get())
        return Execution(Verdict.OK, checkpoint=f"{checkpoint}.")

    async def release(self, checkpoint: str) -> None: ...

    async def equivalent(self, answer: str, other: str) -> bool:
        return False

    correct = equivalent


async def test_all_steps_of_the_trees_of_a_problem_are_in_one_group() -> None:
    engines, settings = Engines(), SearchSettings(num_rollouts=3, num_candidates=2, max_depth=3)

    async def search_twice(name: str) -> None:
        arguments = {"steps": DOMAIN, "policy": engines, "executor": engines, "judge": engines, "settings": settings}
        for seed in range(2):
            await search(Problem(name, name, "1"), **arguments, seed=seed)

    await map_concurrently(search_twice, "ab", limit=2)
    groups = [set(of_problem) for of_problem in engines.groups.values()]
    assert [len(group) for group in groups] == [1, 1]
    assert min(map(len, engines.groups.values())) > 4
    assert not groups[0] & groups[1] and None not in groups[0] | groups[1]
    assert sharing.get() is None


async def test_a_nested_call_is_in_the_group_of_its_item() -> None:
    async def group(_: int) -> Hashable:
        return sharing.get()

    async def nested(_: int) -> list[Hashable]:
        return await map_concurrently(group, range(3), limit=3)

    first, second = await map_concurrently(nested, range(2), limit=2)
    assert len(set(first)) == len(set(second)) == 1 and first[0] is not second[0]

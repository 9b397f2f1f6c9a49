"""What bench/engine_bench.py and bench/gpu_bench.py search, and the lockstep search that they compare with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from miniature.problems import generate
from rstar.annotation import Annotation
from rstar.protocols import Policy, Problem, Proposal, StepScorer
from rstar.search import SearchSettings
from rstar.tree import Node, Tree

SETTINGS = SearchSettings(num_rollouts=8, num_candidates=4, annotation=Annotation.PPM)
LEVELS = {"gsm": 1, "math": 2, "olympiad": 2}  # the share of each level

Ask = Callable[[], Awaitable[Any]]


def held_out(num_problems: int, seed: int) -> list[Problem]:
    """Return held-out problems of all levels, mixed."""
    counts = {level: num_problems * share // sum(LEVELS.values()) for level, share in LEVELS.items()}
    counts["math"] += num_problems - sum(counts.values())
    problems = [generated.problem for generated in generate(counts, seed=seed, split="test")]
    return sorted(problems, key=lambda problem: problem.id)


def num_equal(trees: Sequence[Tree], others: Sequence[Tree]) -> int:
    """Count the trees with the same nodes, visits and values."""
    return sum(_nodes(tree) == _nodes(other) for tree, other in zip(trees, others, strict=True))


def _nodes(tree: Tree) -> list[tuple[Any, ...]]:
    return [(node.text, node.visits, node.value_sum, node.num_samples) for node in tree.nodes]


class Barriers:
    """Holds requests until every tree waits; then all of one kind start and return together.

    The paper's code works like this. No tree starts a rollout before all trees have finished the one before.
    """

    def __init__(self, num_trees: int) -> None:
        self._num_trees = num_trees
        self._held: dict[tuple[int, str], list[tuple[Ask, asyncio.Future[Any]]]] = {}
        self._batch: asyncio.Task[None] | None = None

    async def hold(self, rollout: int, kind: str, ask: Ask) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._held.setdefault((rollout, kind), []).append((ask, answer))
        self._release()
        return await answer

    def leave(self) -> None:
        """Note that a tree is finished."""
        self._num_trees -= 1
        self._release()

    def _release(self) -> None:
        if not self._batch and self._held and sum(map(len, self._held.values())) == self._num_trees:
            rollout = min(number for number, _ in self._held)
            kind = "score" if (rollout, "score") in self._held else "propose"
            self._batch = asyncio.create_task(self._serve(self._held.pop((rollout, kind))))

    async def _serve(self, batch: list[tuple[Ask, asyncio.Future[Any]]]) -> None:
        results = await asyncio.gather(*(ask() for ask, _ in batch), return_exceptions=True)
        self._batch = None
        for (_, answer), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)


@dataclass(slots=True)
class LockstepEngines:
    """Policy and scorer of one tree. Their requests wait at the barriers."""

    barriers: Barriers
    policy: Policy
    scorer: StepScorer
    rollout: int = 0

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        ask = partial(self.policy.propose, question, prefix, num_candidates=num_candidates, seed=seed)
        return await self.barriers.hold(self.rollout, "propose", ask)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        ask = partial(self.scorer.score, question, prefix, candidates)
        return await self.barriers.hold(self.rollout, "score", ask)

    def on_rollout(self, tree: Tree, end: Node) -> None:
        self.rollout += 1


async def search_in_lockstep(
    search_one: Callable[[int, LockstepEngines], Awaitable[Tree]],
    num_trees: int,
    policy: Policy,
    scorer: StepScorer,
    *,
    in_flight: int,
) -> list[Tree]:
    """Search trees in batches of `in_flight`, each to its end before the next begins.

    `search_one` gets the tree's number and its engines, and must pass on their `on_rollout`.
    """

    async def one(number: int, barriers: Barriers) -> Tree:
        tree = await search_one(number, LockstepEngines(barriers, policy, scorer))
        barriers.leave()
        return tree

    trees: list[Tree] = []
    for at in range(0, num_trees, in_flight):
        batch = range(num_trees)[at : at + in_flight]
        barriers = Barriers(len(batch))
        trees += await asyncio.gather(*(one(number, barriers) for number in batch))
    return trees

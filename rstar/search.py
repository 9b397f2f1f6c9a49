"""Monte Carlo tree search over code-augmented steps: one coroutine a tree.

Section 3.2. One rollout is one descent from the root: propose, execute, merge and score candidates at an unexpanded
node, enter the open child with the largest UCT, until the rollout ends; there is no random playout.
Raises InfrastructureError where the policy, scorer or sandbox died; wrong answers and failing code are results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from domains.mathematics.steps import StepReader, read_step
from rstar.annotation import DEAD_END_VALUE, Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.growth import Growth, Offspring, cancel
from rstar.protocols import Executor, Judge, Policy, Problem, StepScorer
from rstar.selection import select
from rstar.tree import Node, Tree, close_upwards
from rstar.virtual_loss import VirtualLoss


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a recipe sets (Section 4.1, "Data generation"); `exploration` is UCT's c.

    With more than one of `rollouts_in_flight` a tree's rollouts overlap, kept apart by virtual losses: other trees
    than one after the other, but the same ones each time.
    """

    num_rollouts: int
    num_candidates: int
    max_depth: int = 16
    exploration: float = 2.0
    annotation: Annotation = Annotation.TERMINAL
    rollouts_in_flight: int = 1


async def search(
    problem: Problem,
    *,
    policy: Policy,
    executor: Executor,
    judge: Judge,
    scorer: StepScorer | None = None,
    settings: SearchSettings,
    seed: int = 0,
    tree: Tree | None = None,
    on_rollout: Callable[[Tree, Node], None] | None = None,
    read_step: StepReader = read_step,
) -> Tree:
    """Search for `settings.num_rollouts` rollouts, or until the root is closed.

    Args:
        tree: continue this tree (it keeps its own seed) with as many rollouts more.
        on_rollout: called after each rollout with the tree and the node where it ended.
        read_step: the step format; the one of `domains.mathematics.steps` unless told otherwise.
    """
    tree = tree or Tree.start(problem, seed)
    checkpoints = Checkpoints(executor)
    growth = Growth(
        tree, policy, checkpoints, Equivalence(judge), scorer, settings.annotation, settings.num_candidates,
        settings.max_depth, read_step,
    )  # fmt: skip
    run = _Search(growth, settings.exploration)
    first = tree.num_rollouts
    numbers = iter(range(first, first + settings.num_rollouts))
    at_once = settings.rollouts_in_flight
    try:
        async with aclosing(run.overlapping(numbers, at_once) if at_once > 1 else run.in_turn(numbers)) as ends:
            async for end in ends:
                if on_rollout:
                    on_rollout(tree, end)
    finally:
        await checkpoints.release_all(tree.nodes)
    return tree


@dataclass(slots=True)
class _Rollout:
    """A rollout under way: the nodes it has entered, the last of which is being expanded."""

    number: int
    path: list[Node]
    expansion: asyncio.Task[list[Offspring]] | None = None


@dataclass(slots=True)
class _Search:
    """One tree's rollouts."""

    growth: Growth
    exploration: float

    @property
    def root(self) -> Node:
        return self.growth.tree.root

    async def in_turn(self, numbers: Iterator[int]) -> AsyncGenerator[Node, None]:
        """Rollouts one after the other; yields the node where each ended."""
        for number in numbers:
            if self.root.closed:
                return
            yield await self.rollout(number)

    async def rollout(self, number: int) -> Node:
        """One descent from the root; returns the node where it ended."""
        node = self.root
        while True:
            if not node.expanded:
                offspring = await self.growth.offspring(node)
                ended = self._settle(node, offspring, number)
                await self.growth.release_spent(node)
                if ended:
                    return node
            node = select(node, exploration=self.exploration)

    async def overlapping(self, numbers: Iterator[int], at_once: int) -> AsyncGenerator[Node, None]:
        """Up to `at_once` rollouts at a time; yields the node where each ended.

        Expansions are asked for at once but join the tree in the order in which they were begun, whichever is
        answered first: so the tree hangs on the seed alone.
        """
        losses, line = VirtualLoss(), deque[_Rollout]()
        try:
            while True:
                while len(line) < at_once and losses.admits(self.root):
                    if (number := next(numbers, None)) is None:
                        break
                    line.append(self._advance(_Rollout(number, []), losses))
                if not line:
                    return
                rollout = line[0]
                assert rollout.expansion is not None
                offspring = await rollout.expansion
                line.popleft()
                node = rollout.path[-1]
                ended = self._settle(node, offspring, rollout.number)
                losses.unblock(node)
                await self.growth.release_spent(node)
                if ended:
                    losses.take_back(rollout.path)
                    yield node
                else:
                    line.append(self._advance(rollout, losses))
        finally:
            await cancel([rollout.expansion for rollout in line if rollout.expansion is not None])

    def _advance(self, rollout: _Rollout, losses: VirtualLoss) -> _Rollout:
        """Go down to the next node that is not expanded, and ask for its candidates."""
        node = losses.select(rollout.path[-1], exploration=self.exploration) if rollout.path else self.root
        while True:
            rollout.path.append(node)
            losses.enter(node)
            if not node.expanded:
                break
            node = losses.select(node, exploration=self.exploration)
        losses.block(node)
        rollout.expansion = asyncio.create_task(self.growth.offspring(node))
        return rollout

    def _settle(self, node: Node, offspring: Sequence[Offspring], rollout: int) -> bool:
        """Add and back up what an expansion gave; says whether the rollout ended here."""
        growth = self.growth
        growth.add(node, offspring, rollout)
        terminals = [child for child in node.children if child.terminal]
        for child in terminals:
            self._close(child, growth.annotation.terminal_value(correct=child.correct, score=child.ppm_score))
        if not node.children:
            node.dead_end = True
            self._close(node, DEAD_END_VALUE)
        if terminals or node.dead_end:
            node.ended = rollout
            return True
        return False

    def _close(self, node: Node, value: float) -> None:
        """Back up a terminal or a dead end, once, and close whatever it leaves without an open child."""
        above: Node | None = node
        while above is not None:
            above.visits += 1
            above.value_sum += value
            above = above.parent
        node.closed = True
        close_upwards(node.parent)

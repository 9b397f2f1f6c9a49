"""Monte Carlo tree search over code-augmented steps: one coroutine a tree.

Section 3.2. One rollout is one descent from the root: propose, execute, merge and score candidates at an unexpanded
node, enter the open child with the largest UCT, until the rollout ends; there is no random playout.
Raises InfrastructureError where the policy, scorer or sandbox died; wrong answers and failing code are results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from rstar.annotation import DEAD_END_VALUE, Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.expansion import Candidate, Expander
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.selection import InFlight, select
from rstar.tree import Node, Tree, close_upwards


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a recipe sets (Section 4.1, "Data generation"); `exploration` is UCT's c.

    With more than one of `rollouts_in_flight` the rollouts of a tree overlap, kept apart by virtual losses. That gives
    other trees than one rollout after the other, but the same ones each time.
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
    steps: StepFormat,
    policy: Policy,
    executor: Executor,
    judge: Judge,
    scorer: StepScorer | None = None,
    settings: SearchSettings,
    seed: int = 0,
    tree: Tree | None = None,
    on_rollout: Callable[[Tree, Node], None] | None = None,
) -> Tree:
    """Search for `settings.num_rollouts` rollouts, or until the root is closed.

    Args:
        tree: continue this tree (it keeps its own seed) with as many rollouts more.
        on_rollout: called after each rollout with the tree and the node where it ended.
    """
    tree = tree or Tree.start(problem, seed)
    checkpoints = Checkpoints(executor, steps)
    expander = Expander(
        tree, policy, checkpoints, Equivalence(judge), scorer, steps, settings.annotation, settings.num_candidates,
        settings.max_depth,
    )  # fmt: skip
    first = tree.num_rollouts
    numbers = iter(range(first, first + settings.num_rollouts))
    searching = _Search(expander, settings.exploration, settings.rollouts_in_flight)
    try:
        async with aclosing(searching.rollouts(numbers)) as ends:
            async for end in ends:
                if on_rollout:
                    on_rollout(tree, end)
    finally:
        await checkpoints.release_all(tree.nodes)
    return tree


async def cancel(tasks: Sequence[asyncio.Task[list[Candidate]]]) -> None:
    """End expansions that nobody waits for any more, and see them end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Rollout:
    """A rollout in flight: the nodes it has entered, the last of which is being expanded."""

    number: int
    path: list[Node]
    expansion: Awaitable[list[Candidate]]


@dataclass(slots=True)
class _Search:
    """One tree's rollouts."""

    expander: Expander
    exploration: float
    at_once: int  # rollouts
    in_flight: InFlight = field(default_factory=InFlight)

    async def rollouts(self, numbers: Iterator[int]) -> AsyncGenerator[Node, None]:
        """Run the rollouts; yield the node where each ended.

        Expansions are asked for at once but join the tree in the order in which they were begun, whichever is
        answered first: so the tree depends on the seed alone.
        """
        root = self.expander.tree.root
        line: deque[_Rollout] = deque()
        try:
            while True:
                while len(line) < self.at_once and self.in_flight.admits(root):
                    if (number := next(numbers, None)) is None:
                        break
                    line.append(self._descend(number, [root]))
                if not line:
                    return
                rollout = line[0]
                candidates = await rollout.expansion
                line.popleft()
                node = rollout.path[-1]
                ended = self._settle(node, candidates, rollout.number)
                self.in_flight.end(rollout.path)
                await self.expander.release_spent(node, candidates)
                if ended:
                    yield node
                else:
                    line.append(self._descend(rollout.number, rollout.path))
        finally:
            await cancel([one.expansion for one in line if isinstance(one.expansion, asyncio.Task)])

    def _descend(self, number: int, path: list[Node]) -> _Rollout:
        """Go down from the end of `path` to the next node that is not expanded, and ask for its candidates."""
        while path[-1].expanded:
            path.append(select(path[-1], self.in_flight, exploration=self.exploration))
        self.in_flight.start(path)
        expansion = self.expander.candidates(path[-1])
        # A single rollout is awaited as it is: tasks would be 3 % of the search's CPU time.
        return _Rollout(number, path, expansion if self.at_once == 1 else asyncio.create_task(expansion))

    def _settle(self, node: Node, candidates: Sequence[Candidate], rollout: int) -> bool:
        """Add and back up what an expansion gave; says whether the rollout ended here."""
        self.expander.add(node, candidates, rollout)
        annotation = self.expander.annotation
        terminals = [child for child in node.children if child.terminal]
        for child in terminals:
            self._close(child, annotation.terminal_value(correct=child.correct, score=child.ppm_score))
        if not node.children:
            node.dead_end = True
            self._close(node, DEAD_END_VALUE)
        if terminals or node.dead_end:
            node.ended = rollout
            return True
        return False

    def _close(self, node: Node, value: float | None) -> None:
        """Back up a terminal or a dead end, once, and close whatever it leaves without an open child.

        None: an undecided terminal, which is no visit and has no value.
        """
        above: Node | None = node if value is not None else None
        while above is not None:
            above.visits += 1
            above.value_sum += value or 0.0
            above = above.parent
        node.closed = True
        close_upwards(node.parent)

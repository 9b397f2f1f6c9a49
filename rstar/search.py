"""Monte Carlo tree search over code-augmented steps: one coroutine for each tree.

Section 3.2. A rollout is one descent from the root. At an unexpanded node the policy proposes candidate steps, which
are run, merged and scored; then the rollout enters the open child with the largest UCT, and so on until it ends. There
is no random playout.
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
    """The parameters of a search (Section 4.1, "Data generation"); `exploration` is the constant c of UCT.

    If `rollouts_in_flight` is above 1, the rollouts of a tree overlap and virtual losses keep them apart. The tree is
    then another one than with sequential rollouts, but equal seeds still give equal trees.
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
    """Run `settings.num_rollouts` rollouts, or fewer if the root is closed earlier.

    Raises InfrastructureError if the policy, scorer, sandbox or judge died. Wrong answers and failing code are results.

    Args:
        tree: continue this tree with `settings.num_rollouts` more rollouts. It keeps its own seed.
        on_rollout: called after each rollout with the tree and the node where the rollout ended.
    """
    tree = tree or Tree.start(problem, seed)
    checkpoints = Checkpoints(executor, steps)
    expander = Expander(
        tree, policy, checkpoints, Equivalence(judge), scorer, steps, settings.annotation, settings.num_candidates,
        settings.max_depth,
    )  # fmt: skip
    first = tree.num_rollouts
    numbers = iter(range(first, first + settings.num_rollouts))
    tree_search = _TreeSearch(expander, settings.exploration, settings.rollouts_in_flight)
    try:
        async with aclosing(tree_search.rollouts(numbers)) as ends:
            async for end in ends:
                if on_rollout:
                    on_rollout(tree, end)
    finally:
        await checkpoints.release_all(tree.nodes)
    return tree


async def cancel(tasks: Sequence[asyncio.Task[list[Candidate]]]) -> None:
    """Cancel expansions and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Rollout:
    """A rollout in flight: the nodes that it has entered, the last of which is being expanded."""

    number: int
    path: list[Node]
    expansion: Awaitable[list[Candidate]]


@dataclass(slots=True)
class _TreeSearch:
    """The rollouts of one tree."""

    expander: Expander
    exploration: float
    max_in_flight: int
    in_flight: InFlight = field(default_factory=InFlight)

    async def rollouts(self, numbers: Iterator[int]) -> AsyncGenerator[Node, None]:
        """Run the rollouts; yield the node where each one ended.

        Expansions run concurrently but are added to the tree in the order in which they started, whichever finishes
        first. So the tree depends on the seed alone.
        """
        root = self.expander.tree.root
        queue: deque[_Rollout] = deque()
        try:
            while True:
                while len(queue) < self.max_in_flight and self.in_flight.is_open(root):
                    if (number := next(numbers, None)) is None:
                        break
                    queue.append(self._descend(number, [root]))
                if not queue:
                    return
                rollout = queue[0]  # stays in the queue while awaited, so that it is cancelled on failure
                candidates = await rollout.expansion
                queue.popleft()
                node = rollout.path[-1]
                ended = self._add_and_back_up(node, candidates, rollout.number)
                if self.max_in_flight > 1:
                    self.in_flight.end(rollout.path)
                await self.expander.release_unneeded(node, candidates)
                if ended:
                    yield node
                else:
                    queue.append(self._descend(rollout.number, rollout.path))
        finally:
            await cancel([rollout.expansion for rollout in queue if isinstance(rollout.expansion, asyncio.Task)])

    def _descend(self, number: int, path: list[Node]) -> _Rollout:
        """Go from the end of `path` down to the next unexpanded node and start its expansion."""
        while path[-1].expanded:
            path.append(select(path[-1], self.in_flight, exploration=self.exploration))
        if self.max_in_flight > 1:  # alone, a rollout has nobody to keep away
            self.in_flight.start(path)
        expansion = self.expander.candidates(path[-1])
        # A single rollout needs no task: tasks would take 3 % of the search's CPU time.
        return _Rollout(number, path, expansion if self.max_in_flight == 1 else asyncio.create_task(expansion))

    def _add_and_back_up(self, node: Node, candidates: Sequence[Candidate], rollout: int) -> bool:
        """Add the candidates of `node`, back up what has ended, and return whether the rollout ended here."""
        self.expander.add(node, candidates, rollout)
        annotation = self.expander.annotation
        terminals = [child for child in node.children if child.terminal]
        for child in terminals:
            self._back_up(child, annotation.terminal_value(correct=child.correct, score=child.ppm_score))
        if not node.children:
            node.dead_end = True
            self._back_up(node, DEAD_END_VALUE)
        if terminals or node.dead_end:
            node.ended = rollout
            return True
        return False

    def _back_up(self, node: Node, value: float | None) -> None:
        """Back up a terminal or a dead end, once, and close it and every ancestor left without an open child.

        An undecided terminal has the value None: it is closed, but adds no visit and no value.
        """
        ancestor: Node | None = node if value is not None else None
        while ancestor is not None:
            ancestor.visits += 1
            ancestor.value_sum += value or 0.0
            ancestor = ancestor.parent
        node.closed = True
        close_upwards(node.parent)

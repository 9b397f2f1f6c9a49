"""Monte Carlo tree search over code-augmented steps: one coroutine a tree.

Section 3.2. One rollout is one descent from the root: propose, execute, merge and score candidates at an unexpanded
node, enter the open child with the largest UCT, until the rollout ends; there is no random playout.
Raises InfrastructureError where the policy, scorer or sandbox died; wrong answers and failing code are results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from rstar.annotation import DEAD_END_VALUE, Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.expansion import Candidate, distinct, execute, merge_answers
from rstar.protocols import Executor, Judge, Policy, Problem, StepScorer
from rstar.selection import select
from rstar.steps import StepKind, StepReader, read_step, render
from rstar.tree import Node, Tree, close_upwards


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What a recipe sets (Section 4.1, "Data generation"); `exploration` is UCT's c."""

    num_rollouts: int
    num_candidates: int
    max_depth: int = 16
    exploration: float = 2.0
    annotation: Annotation = Annotation.TERMINAL


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
        read_step: the step format; the one of `rstar.steps` unless told otherwise.
    """
    tree = tree or Tree.start(problem, seed)
    run = _Search(tree, policy, Checkpoints(executor), Equivalence(judge), scorer, settings, read_step)
    first = tree.num_rollouts
    try:
        for rollout in range(first, first + settings.num_rollouts):
            if tree.root.closed:
                break
            end = await run.rollout(rollout)
            if on_rollout:
                on_rollout(tree, end)
    finally:
        await run.checkpoints.release_all(tree.nodes)
    return tree


def expansion_seed(tree_seed: int, question: str, prefix: list[str]) -> int:
    """A hash of (tree seed, question, prefix), so that no expansion depends on when another was answered."""
    digest = blake2b(digest_size=8)
    for part in (str(tree_seed), question, *prefix):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") >> 1  # fits a signed 64-bit column


@dataclass(slots=True)
class _Search:
    """One tree and what it is searched with."""

    tree: Tree
    policy: Policy
    checkpoints: Checkpoints
    answers: Equivalence
    scorer: StepScorer | None
    settings: SearchSettings
    read_step: StepReader

    def __post_init__(self) -> None:
        if self.settings.annotation.needs_scorer and self.scorer is None:
            raise ValueError(f"annotation {self.settings.annotation.value!r} needs a scorer")

    async def rollout(self, rollout: int) -> Node:
        """One descent from the root; returns the node where it ended."""
        node = self.tree.root
        while True:
            if not node.expanded:
                made_terminal = await self._expand(node, rollout)
                if not node.children:
                    self._dead_end(node)
                if made_terminal or node.dead_end:
                    node.ended = rollout
                    return node
            node = select(node, exploration=self.settings.exploration)

    async def _expand(self, node: Node, rollout: int) -> bool:
        """Propose, execute, merge, score and back up; says whether a terminal child was made."""
        if self._at_max_depth(node):
            return False
        prefix = node.prefix()
        candidates = await self._propose(node, prefix)
        await execute(candidates, node, self.checkpoints)
        candidates = await merge_answers(candidates, self.answers)
        scores = await self._score(prefix, [candidate for candidate in candidates if candidate.valid])
        corrects = [await self._correct(candidate) for candidate in candidates]
        for candidate, correct in zip(candidates, corrects, strict=True):
            self._add(node, candidate, scores.get(candidate.index), correct, rollout)
        node.expanded = True
        for child in node.children:
            if child.terminal:
                value = self.settings.annotation.terminal_value(correct=child.correct, score=child.ppm_score)
                self._close(child, value)
        await self._release_spent(node)
        return any(child.terminal for child in node.children)

    async def _propose(self, node: Node, prefix: list[str]) -> list[Candidate]:
        question = self.tree.problem.question
        proposals = await self.policy.propose(
            question,
            prefix,
            num_candidates=self.settings.num_candidates,
            seed=expansion_seed(self.tree.seed, question, prefix),
        )
        return distinct(proposals, previous=node.kind, read_step=self.read_step)

    async def _score(self, prefix: list[str], candidates: list[Candidate]) -> dict[int, float]:
        """The PPM's scores by candidate index; siblings go in one request."""
        if self.scorer is None or not self.settings.annotation.needs_scorer or not candidates:
            return {}
        steps = [render(candidate.proposal.text, candidate.execution.output) for candidate in candidates]
        scores = await self.scorer.score(self.tree.problem.question, prefix, steps)
        return {candidate.index: score for candidate, score in zip(candidates, scores, strict=True)}

    async def _correct(self, candidate: Candidate) -> bool | None:
        if candidate.answer is None or not self.settings.annotation.sees_truth:
            return None
        return await self.answers(candidate.answer, self.tree.problem.answer)

    def _add(self, parent: Node, candidate: Candidate, score: float | None, correct: bool | None, rollout: int) -> None:
        visits, value_sum = 0, 0.0
        if candidate.valid and candidate.answer is None:
            visits, value_sum = self.settings.annotation.initial_value(score)
        self.tree.add(
            parent,
            visits=visits,
            value_sum=value_sum,
            ppm_score=score,
            correct=correct,
            rollout=rollout,
            **candidate.node_fields(),
        )

    def _dead_end(self, node: Node) -> None:
        node.dead_end = True
        self._close(node, DEAD_END_VALUE)

    def _close(self, node: Node, value: float) -> None:
        """Back up a terminal or a dead end, once, and close whatever it leaves without an open child."""
        above: Node | None = node
        while above is not None:
            above.visits += 1
            above.value_sum += value
            above = above.parent
        node.closed = True
        close_upwards(node.parent)

    async def _release_spent(self, node: Node) -> None:
        """Give back what no step will continue: each node is expanded once, and only below the maximum depth."""
        leaves = (child for child in node.children if child.kind is StepKind.LAST_CODE or self._at_max_depth(child))
        await self.checkpoints.release([node, *leaves])

    def _at_max_depth(self, node: Node) -> bool:
        return node.depth >= self.settings.max_depth

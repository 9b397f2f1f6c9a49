"""Growing a tree: the candidates of a node, run, merged, scored and judged, and how they become its children.

Section 3.2, code-augmented CoT; shared by the tree search and the beam search. Asking changes nothing in the tree but
the times it took, so that several nodes can be asked about at once; adding is one step without an await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter

from domains.mathematics.steps import StepKind, StepReader, render
from rstar.annotation import Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.expansion import Candidate, distinct, execute, merge_answers
from rstar.protocols import Policy, StepScorer
from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Offspring:
    """A distinct candidate with what the PPM and the judge say of it; None where they were not asked."""

    candidate: Candidate
    score: float | None
    correct: bool | None


def expansion_seed(tree_seed: int, question: str, prefix: Sequence[str]) -> int:
    """A hash of (tree seed, question, prefix), so that no expansion depends on when another was answered."""
    digest = blake2b(digest_size=8)
    for part in (str(tree_seed), question, *prefix):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") >> 1  # fits a signed 64-bit column


@dataclass(slots=True)
class Growth:
    """One tree and what it is grown with; `num_candidates` are sampled a node, none at depth `max_depth`."""

    tree: Tree
    policy: Policy
    checkpoints: Checkpoints
    answers: Equivalence
    scorer: StepScorer | None
    annotation: Annotation
    num_candidates: int
    max_depth: int
    read_step: StepReader

    def __post_init__(self) -> None:
        if self.annotation.needs_scorer and self.scorer is None:
            raise ValueError(f"annotation {self.annotation.value!r} needs a scorer")

    async def offspring(self, node: Node) -> list[Offspring]:
        """Propose, execute, merge, score and judge the candidates below `node`; none at the maximum depth."""
        if self.at_max_depth(node):
            return []
        prefix = node.prefix()
        asked = perf_counter()
        candidates = await self._propose(node, prefix)
        proposed = perf_counter()
        await execute(candidates, node, self.checkpoints)
        executed = perf_counter()
        candidates = await merge_answers(candidates, self.answers)
        merged = perf_counter()
        scores = await self._score(prefix, [candidate for candidate in candidates if candidate.valid])
        node.policy_seconds, node.sandbox_seconds = proposed - asked, executed - proposed
        node.scorer_seconds = perf_counter() - merged
        return [Offspring(one, scores.get(one.index), await self._correct(one)) for one in candidates]

    def add(self, node: Node, offspring: Sequence[Offspring], rollout: int) -> None:
        """Make nodes of the candidates, invalid ones included, with the values that the annotation starts them at."""
        for one in offspring:
            visits, value_sum = 0, 0.0
            if one.candidate.valid and one.candidate.answer is None:
                visits, value_sum = self.annotation.initial_value(one.score)
            self.tree.add(
                node,
                visits=visits,
                value_sum=value_sum,
                ppm_score=one.score,
                correct=one.correct,
                rollout=rollout,
                **one.candidate.node_fields(),
            )
        node.expanded = not self.at_max_depth(node)

    async def release_spent(self, node: Node) -> None:
        """Give back what no step will continue: each node is expanded once, and only below the maximum depth."""
        leaves = (child for child in node.children if child.kind is StepKind.LAST_CODE or self.at_max_depth(child))
        await self.checkpoints.release([node, *leaves])

    def at_max_depth(self, node: Node) -> bool:
        return node.depth >= self.max_depth

    async def _propose(self, node: Node, prefix: list[str]) -> list[Candidate]:
        question = self.tree.problem.question
        proposals = await self.policy.propose(
            question,
            prefix,
            num_candidates=self.num_candidates,
            seed=expansion_seed(self.tree.seed, question, prefix),
        )
        return distinct(proposals, previous=node.kind, read_step=self.read_step)

    async def _score(self, prefix: list[str], candidates: list[Candidate]) -> dict[int, float]:
        """The PPM's scores by candidate index; siblings go in one request."""
        if self.scorer is None or not self.annotation.needs_scorer or not candidates:
            return {}
        steps = [render(candidate.proposal.text, candidate.execution.output) for candidate in candidates]
        scores = await self.scorer.score(self.tree.problem.question, prefix, steps)
        return {candidate.index: score for candidate, score in zip(candidates, scores, strict=True)}

    async def _correct(self, candidate: Candidate) -> bool | None:
        if candidate.answer is None or not self.annotation.sees_truth:
            return None
        return await self.answers(candidate.answer, self.tree.problem.answer)


async def cancel(tasks: Sequence[asyncio.Task[list[Offspring]]]) -> None:
    """End expansions that nobody waits for any more, and see them end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

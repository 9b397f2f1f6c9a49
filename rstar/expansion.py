"""Expansion: the candidate steps below a node, run, merged, scored and judged, and how they become its children.

Section 3.2, "Code-augmented CoT": only steps whose code runs become children; the others are kept as data. The tree
search and the beam search share this. Asking for candidates changes nothing in the tree but timings, so several nodes
can be expanded at once. Adding the candidates to the tree is one step without an await.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter
from typing import Any

from rstar.annotation import Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.protocols import Execution, Policy, Proposal, Step, StepFormat, StepScorer, Verdict
from rstar.tree import Node, Tree

_NOT_RUN = Execution(Verdict.OK)  # a step without code: there is nothing to run


@dataclass(slots=True)
class Candidate:
    """A distinct candidate step and the samples that it stands for."""

    index: int  # of its first sample
    proposal: Proposal
    step: Step
    execution: Execution
    num_samples: int
    sampled_tokens: int
    rendered: str  # the text, until the code has run
    score: float | None = None  # the PPM's; None: not asked
    correct: bool | None = None  # None: not judged, or undecided

    @property
    def valid(self) -> bool:
        return self.execution.verdict is Verdict.OK

    @property
    def answer(self) -> str | None:
        """The final answer of a valid terminal."""
        return self.step.answer if self.valid else None

    def absorb(self, other: Candidate) -> None:
        """Stand for the samples of an equal candidate too."""
        self.num_samples += other.num_samples
        self.sampled_tokens += other.sampled_tokens


def expansion_seed(tree_seed: int, question: str, prefix: Sequence[str]) -> int:
    """Hash (tree seed, question, prefix), so that no expansion depends on when another was answered."""
    digest = blake2b(digest_size=8)
    for part in (str(tree_seed), question, *prefix):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") >> 1  # fits a signed 64-bit column


@dataclass(slots=True)
class Expander:
    """Expands the nodes of one tree: `num_candidates` samples a node, none at depth `max_depth`."""

    tree: Tree
    policy: Policy
    checkpoints: Checkpoints
    equivalence: Equivalence
    scorer: StepScorer | None
    steps: StepFormat
    annotation: Annotation
    num_candidates: int
    max_depth: int

    def __post_init__(self) -> None:
        if self.annotation.needs_scorer and self.scorer is None:
            raise ValueError(f"annotation {self.annotation.value!r} needs a scorer")

    async def candidates(self, node: Node) -> list[Candidate]:
        """Propose, execute, merge, score and judge the candidates below `node`; none at the maximum depth."""
        if self.at_max_depth(node):
            return []
        prefix = node.prefix()
        asked = perf_counter()
        candidates = await self._propose(prefix)
        proposed = perf_counter()
        await self._execute(candidates, node)
        executed = perf_counter()
        candidates = await merge_answers(candidates, self.equivalence)
        merged = perf_counter()
        await self._score(prefix, [candidate for candidate in candidates if candidate.valid])
        node.policy_seconds, node.sandbox_seconds = proposed - asked, executed - proposed
        node.scorer_seconds = perf_counter() - merged
        if self.annotation.sees_truth:
            for candidate in candidates:
                if candidate.answer is not None:
                    candidate.correct = await self.equivalence.correct(candidate.answer, self.tree.problem.answer)
        return candidates

    def add(self, node: Node, candidates: Sequence[Candidate], rollout: int) -> None:
        """Make nodes of the candidates, invalid ones included, with the values that the annotation starts them at."""
        for candidate in candidates:
            visits, value_sum = 0, 0.0
            if candidate.valid and candidate.step.answer is None:
                visits, value_sum = self.annotation.initial_value(candidate.score)
            self.tree.add(node, visits=visits, value_sum=value_sum, rollout=rollout, **self._fields(candidate))
        node.expanded = not self.at_max_depth(node)

    async def release_spent(self, node: Node, candidates: Sequence[Candidate]) -> None:
        """Give back what no step will continue: each node is expanded once, and only below the maximum depth."""
        final = {candidate.index for candidate in candidates if not candidate.step.continues}
        spent = (child for child in node.children if child.index in final or self.at_max_depth(child))
        await self.checkpoints.release([node, *spent])

    def at_max_depth(self, node: Node) -> bool:
        return node.depth >= self.max_depth

    async def _propose(self, prefix: list[str]) -> list[Candidate]:
        question = self.tree.problem.question
        proposals = await self.policy.propose(
            question,
            prefix,
            num_candidates=self.num_candidates,
            seed=expansion_seed(self.tree.seed, question, prefix),
        )
        return distinct(proposals, prefix=prefix, steps=self.steps)

    async def _score(self, prefix: list[str], candidates: Sequence[Candidate]) -> None:
        """Set the PPM's scores; siblings go in one request."""
        if self.scorer is None or not self.annotation.needs_scorer or not candidates:
            return
        rendered = [candidate.rendered for candidate in candidates]
        scores = await self.scorer.score(self.tree.problem.question, prefix, rendered)
        for candidate, score in zip(candidates, scores, strict=True):
            candidate.score = score

    async def _execute(self, candidates: Sequence[Candidate], parent: Node) -> None:
        """Run the code of all candidates at once, each in the state that `parent` left."""
        to_run = [candidate for candidate in candidates if candidate.step.code]
        if to_run:
            executions = await self.checkpoints.run_below(parent, [candidate.step.code for candidate in to_run])
            for candidate, execution in zip(to_run, executions, strict=True):
                candidate.execution = execution
                if candidate.valid:
                    candidate.rendered = self.steps.render(candidate.proposal.text, execution.output)

    @staticmethod
    def _fields(candidate: Candidate) -> dict[str, Any]:
        proposal, execution = candidate.proposal, candidate.execution
        return {
            "index": candidate.index,
            "text": proposal.text,
            "rendered": candidate.rendered,
            "output": execution.output,
            "kind": candidate.step.kind,
            "verdict": execution.verdict,
            "error": execution.error,
            "answer": candidate.answer,
            "correct": candidate.correct,
            "ppm_score": candidate.score,
            "closed": not candidate.valid,
            "num_samples": candidate.num_samples,
            "num_tokens": proposal.num_tokens,
            "sampled_tokens": candidate.sampled_tokens,
            "prompt_tokens": proposal.prompt_tokens,
            "cached_tokens": proposal.cached_tokens,
            "logprob": proposal.logprob,
            "seconds": execution.seconds,
            "checkpoint": execution.checkpoint,
        }


def distinct(proposals: Sequence[Proposal], *, prefix: Sequence[str], steps: StepFormat) -> list[Candidate]:
    """Return candidates in sampling order, one for all samples whose texts are equal but for white space."""
    candidates: dict[str, Candidate] = {}
    for index, proposal in enumerate(proposals):
        key = steps.normalized(proposal.text)
        if key in candidates:
            candidates[key].num_samples += 1
            candidates[key].sampled_tokens += proposal.num_tokens
            continue
        step = steps.read(proposal.text, prefix)
        execution = Execution(Verdict.MALFORMED, error=step.malformed) if step.malformed else _NOT_RUN
        candidates[key] = Candidate(index, proposal, step, execution, 1, proposal.num_tokens, proposal.text)
    return list(candidates.values())


async def merge_answers(candidates: Sequence[Candidate], equivalence: Equivalence) -> list[Candidate]:
    """Return the candidates, one for all valid terminals with the same final answer."""
    terminals = [candidate for candidate in candidates if candidate.answer is not None]
    labels = await equivalence.classes([candidate.answer or "" for candidate in terminals])
    absorbed: set[int] = set()
    for candidate, label in zip(terminals, labels, strict=True):
        if terminals[label] is not candidate:
            terminals[label].absorb(candidate)
            absorbed.add(candidate.index)
    return [candidate for candidate in candidates if candidate.index not in absorbed]

"""Expansion of a node: its candidate steps are sampled, run, merged, scored and judged, then added to the tree.

Section 3.2, "Code-augmented CoT": only steps whose code runs become children; the others are kept as data. Tree search
and beam search share this module. `Expander.candidates` changes only timings in the tree, so several nodes can be
expanded at once. `Expander.add` does not await, so no other coroutine sees a half-expanded node.
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

_NO_CODE = Execution(Verdict.OK)  # of a step that has no code to run


@dataclass(slots=True)
class Candidate:
    """A candidate step, which stands for all samples that are equal to it."""

    index: int  # position of its first sample
    proposal: Proposal
    step: Step
    execution: Execution
    num_samples: int
    sampled_tokens: int
    rendered: str  # the text as sampled until the code has run
    score: float | None = None  # by the PPM; None if it was not asked
    correct: bool | None = None  # None if not judged or undecided

    @property
    def valid(self) -> bool:
        """Whether the step is well-formed and its code ran."""
        return self.execution.verdict is Verdict.OK

    @property
    def answer(self) -> str | None:
        """The final answer of a valid terminal; None for any other candidate."""
        return self.step.answer if self.execution.verdict is Verdict.OK else None

    def merge(self, other: Candidate) -> None:
        """Add the samples of an equal candidate to this one."""
        self.num_samples += other.num_samples
        self.sampled_tokens += other.sampled_tokens


def expansion_seed(tree_seed: int, question: str, prefix: Sequence[str]) -> int:
    """Return the seed of an expansion: a hash of the tree's seed, the question and the prefix.

    The seed does not depend on the order of expansions, so the tree does not depend on which request returns first.
    """
    digest = blake2b(digest_size=8)
    for part in (str(tree_seed), question, *prefix):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") >> 1  # fits a signed 64-bit column


@dataclass(slots=True)
class Expander:
    """Expands the nodes of one tree: `num_candidates` samples for each node above `max_depth`."""

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
        """Sample the candidates below `node`, then run, merge, score and judge them.

        Returns none at the maximum depth. Raises InfrastructureError.
        """
        if self.at_max_depth(node):
            return []
        prefix = node.prefix()
        started = perf_counter()
        candidates = await self._propose(prefix)
        proposed = perf_counter()
        await self._execute(candidates, node)
        executed = perf_counter()
        candidates = await merge_answers(candidates, self.equivalence)
        merged = perf_counter()
        await self._score(prefix, [candidate for candidate in candidates if candidate.valid])
        node.policy_seconds, node.sandbox_seconds = proposed - started, executed - proposed
        node.scorer_seconds = perf_counter() - merged
        if self.annotation.sees_truth:
            for candidate in candidates:
                if candidate.step.answer is not None and candidate.valid:
                    answer, truth = candidate.step.answer, self.tree.problem.answer
                    candidate.correct = await self.equivalence.correct(answer, truth)
        return candidates

    def add(self, node: Node, candidates: Sequence[Candidate], rollout: int) -> None:
        """Add the candidates to the tree, invalid ones included, with the annotation's initial values."""
        for candidate in candidates:
            visits, value_sum = 0, 0.0
            if candidate.step.answer is None and candidate.valid:
                visits, value_sum = self.annotation.initial_value(candidate.score)
            self.tree.add(node, visits=visits, value_sum=value_sum, rollout=rollout, **self._fields(candidate))
        node.expanded = not self.at_max_depth(node)

    async def release_unneeded(self, node: Node, candidates: Sequence[Candidate]) -> None:
        """Release the checkpoints that no step will continue, after `node` has been expanded.

        These are the checkpoint of `node` itself, which is never expanded again, and those of children that are at the
        maximum depth or whose step ends the code.
        """
        final = {candidate.index for candidate in candidates if not candidate.step.continues}
        unneeded = (child for child in node.children if child.index in final or self.at_max_depth(child))
        await self.checkpoints.release([node, *unneeded])

    def at_max_depth(self, node: Node) -> bool:
        """Return whether `node` may not be expanded because of its depth."""
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
        """Set the PPM's scores of siblings, in one request."""
        if self.scorer is None or not self.annotation.needs_scorer or not candidates:
            return
        rendered = [candidate.rendered for candidate in candidates]
        scores = await self.scorer.score(self.tree.problem.question, prefix, rendered)
        for candidate, score in zip(candidates, scores, strict=True):
            candidate.score = score

    async def _execute(self, candidates: Sequence[Candidate], parent: Node) -> None:
        """Run the code of all candidates at once."""
        to_run = [candidate for candidate in candidates if candidate.step.code and not candidate.step.malformed]
        if to_run:
            executions = await self.checkpoints.run_after(parent, [candidate.step.code for candidate in to_run])
            for candidate, execution in zip(to_run, executions, strict=True):
                candidate.execution = execution
                if execution.verdict is Verdict.OK:
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
    """Merge samples whose texts differ in white space only; the candidates keep the sampling order."""
    candidates: dict[str, Candidate] = {}
    for index, proposal in enumerate(proposals):
        key = steps.normalized(proposal.text)
        if key in candidates:
            candidates[key].num_samples += 1
            candidates[key].sampled_tokens += proposal.num_tokens
            continue
        step = steps.read(proposal.text, prefix)
        execution = Execution(Verdict.MALFORMED, error=step.malformed) if step.malformed else _NO_CODE
        candidates[key] = Candidate(index, proposal, step, execution, 1, proposal.num_tokens, proposal.text)
    return list(candidates.values())


async def merge_answers(candidates: Sequence[Candidate], equivalence: Equivalence) -> list[Candidate]:
    """Merge valid terminals that have the same final answer; the candidates keep the sampling order."""
    terminals = [candidate for candidate in candidates if candidate.step.answer is not None and candidate.valid]
    labels = await equivalence.classes([candidate.step.answer or "" for candidate in terminals])
    duplicates: set[int] = set()
    for candidate, label in zip(terminals, labels, strict=True):
        if terminals[label] is not candidate:
            terminals[label].merge(candidate)
            duplicates.add(candidate.index)
    return [candidate for candidate in candidates if candidate.index not in duplicates]

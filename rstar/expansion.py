"""The candidates of one expansion: read, executed, and merged where they are equal.

Section 3.2, "Code-augmented CoT": only steps whose code runs are kept; here the others are kept as data, not as
children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domains.mathematics.steps import Step, StepKind, StepReader, normalized
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.protocols import Execution, Proposal, Verdict
from rstar.tree import Node

_NOT_RUN = Execution(Verdict.OK)  # an answer is prose: there is nothing to run


@dataclass(slots=True)
class Candidate:
    """A distinct candidate step and the samples that it stands for."""

    index: int  # of its first sample
    proposal: Proposal
    step: Step
    execution: Execution
    num_samples: int
    sampled_tokens: int

    @property
    def valid(self) -> bool:
        return self.execution.verdict is Verdict.OK

    @property
    def answer(self) -> str | None:
        return self.step.answer

    def absorb(self, other: Candidate) -> None:
        self.num_samples += other.num_samples
        self.sampled_tokens += other.sampled_tokens

    def node_fields(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "text": self.proposal.text,
            "output": self.execution.output,
            "kind": self.step.kind,
            "verdict": self.execution.verdict,
            "error": self.execution.error,
            "answer": self.answer,
            "closed": not self.valid,
            "num_samples": self.num_samples,
            "num_tokens": self.proposal.num_tokens,
            "sampled_tokens": self.sampled_tokens,
            "prompt_tokens": self.proposal.prompt_tokens,
            "cached_tokens": self.proposal.cached_tokens,
            "logprob": self.proposal.logprob,
            "seconds": self.execution.seconds,
            "checkpoint": self.execution.checkpoint,
        }


def distinct(proposals: Sequence[Proposal], *, previous: StepKind | None, read_step: StepReader) -> list[Candidate]:
    """Candidates in sampling order, one for all samples whose texts are equal but for white space."""
    candidates: dict[str, Candidate] = {}
    for index, proposal in enumerate(proposals):
        key = normalized(proposal.text)
        if key in candidates:
            candidates[key].num_samples += 1
            candidates[key].sampled_tokens += proposal.num_tokens
            continue
        step = read_step(proposal.text, previous)
        execution = Execution(Verdict.MALFORMED, error=step.malformed) if step.malformed else _NOT_RUN
        candidates[key] = Candidate(index, proposal, step, execution, 1, proposal.num_tokens)
    return list(candidates.values())


async def execute(candidates: Sequence[Candidate], parent: Node, checkpoints: Checkpoints) -> None:
    """Run the code of all candidates at once, each in the state that `parent` left."""
    to_run = [candidate for candidate in candidates if candidate.valid and candidate.answer is None]
    if to_run:
        executions = await checkpoints.run_below(parent, [candidate.step.code for candidate in to_run])
        for candidate, execution in zip(to_run, executions, strict=True):
            candidate.execution = execution


async def merge_answers(candidates: Sequence[Candidate], equivalence: Equivalence) -> list[Candidate]:
    """The candidates, one for all terminal ones with the same final answer."""
    terminals = [candidate for candidate in candidates if candidate.answer is not None]
    labels = await equivalence.classes([candidate.answer or "" for candidate in terminals])
    absorbed: set[int] = set()
    for candidate, label in zip(terminals, labels, strict=True):
        if terminals[label] is not candidate:
            terminals[label].absorb(candidate)
            absorbed.add(candidate.index)
    return [candidate for candidate in candidates if candidate.index not in absorbed]

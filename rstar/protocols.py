"""What the search is given and never imports: step format, policy, step scorer, executor and judge.

`domains.protocol.Domain` has the rest of what a kind of task is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class InfrastructureError(Exception):
    """Something the search depends on died; retrying may help. Wrong answers and failing code are never this."""


class PolicyError(InfrastructureError):
    """The policy's engine could not answer."""


class ScorerError(InfrastructureError):
    """The PPM's engine could not answer."""


class SandboxLost(InfrastructureError):
    """The sandbox died, as opposed to the code inside it failing."""


class StoreError(InfrastructureError):
    """A table could not be read or written."""


class UserError(Exception):
    """A mistake of the user's: one line that says what, where and what to do."""


class Verdict(StrEnum):
    """What became of a candidate step: results, not errors (Section 3.2, code-augmented CoT)."""

    OK = "ok"
    EXCEPTION = "exception"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    FORBIDDEN = "forbidden"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its ground-truth answer."""

    id: str
    question: str
    answer: str
    level: str = ""  # difficulty, in the source's own words
    source: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One candidate step, exactly as the policy generated it, stop marker included."""

    text: str
    num_tokens: int = 0
    logprob: float = 0.0  # sum over the generated tokens, nats
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of those, found in the engine's prefix cache; 0 where it does not tell


@dataclass(frozen=True, slots=True)
class Execution:
    """The sandbox's verdict on one step."""

    verdict: Verdict
    output: str = ""
    error: str = ""  # exception type, message and line; empty unless the code failed
    checkpoint: str | None = None  # where the next step continues; None unless the verdict is ok
    seconds: float = 0.0
    memory_bytes: int = 0  # the largest its process was, shared pages included; 0 where it had none of its own


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate as the search reads it; `malformed` says why it is not a step, and is empty where it is one."""

    kind: str | None  # the domain's own name of the kind of step; None where it has none
    code: str = ""  # what the executor runs; empty: nothing, as in a malformed step
    answer: str | None = None  # of a terminal step
    continues: bool = True  # whether the code of a later step may continue from the state that this one leaves
    malformed: str = ""


class StepFormat(Protocol):
    """How a step is read and rendered (Section 3.2, code-augmented CoT)."""

    def read(self, text: str, prefix: Sequence[str]) -> Step:
        """Read a candidate that follows the rendered steps of `prefix`."""
        ...

    def render(self, text: str, output: str) -> str:
        """Return the step as later prompts show it, with what its code printed where the format shows that."""
        ...

    def code_of(self, text: str) -> str:
        """Return the code of a step."""
        ...

    def normalized(self, text: str) -> str:
        """Return a text that is equal for steps that differ in white space only."""
        ...


class Policy(Protocol):
    """Writes candidate next steps."""

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Return `num_candidates` steps that continue the rendered steps of `prefix`; equal seeds, equal steps."""
        ...


class StepScorer(Protocol):
    """The process preference model."""

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """Return one score in [-1, 1] for each rendered candidate that continues `prefix`."""
        ...


class Executor(Protocol):
    """Runs a step's code in the state that its prefix left."""

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        """Run `code` after the step that returned `checkpoint` (None: a fresh interpreter).

        Raises SandboxLost where the sandbox itself died.
        """
        ...

    async def release(self, checkpoint: str) -> None:
        """Give back a checkpoint that will not be continued."""
        ...


class Judge(Protocol):
    """Says whether a final answer is right, and whether two are the same."""

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Return True (right), False (wrong), or None where it could not be decided."""
        ...

    async def equivalent(self, answer: str, other: str) -> bool | None:
        """Return whether two answers are the same; None where it could not be decided."""
        ...

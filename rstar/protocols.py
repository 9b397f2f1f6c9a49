"""What the search is given and never imports: policy, step scorer, executor and judge."""

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
    level: str = "gsm"  # gsm | math | olympiad, or a source's own
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
    """Says whether two final answers are the same."""

    async def equivalent(self, answer: str, other: str) -> bool: ...

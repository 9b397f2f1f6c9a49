"""The interfaces of what a search needs: step format, policy, scorer, executor and judge; their values and errors.

`domains.protocol.Domain` extends `StepFormat` to all that makes up a kind of task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class InfrastructureError(Exception):
    """An engine, the sandbox, the judge or the store failed; a retry may help.

    A wrong answer or failing code is a result, never this error.
    """


class PolicyError(InfrastructureError):
    """The policy's engine could not answer."""


class ScorerError(InfrastructureError):
    """The PPM's engine could not answer."""


class SandboxLost(InfrastructureError):
    """The sandbox itself died; failing code inside it is a verdict."""


class StoreError(InfrastructureError):
    """A table could not be read or written."""


class UserError(Exception):
    """A mistake of the user. The message is one line that says what is wrong, where, and what to do."""


class Verdict(StrEnum):
    """The outcome of running a candidate step (Section 3.2, code-augmented CoT). Only OK makes a step valid."""

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
    level: str = ""  # of difficulty, as the source names it
    source: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One sampled step, exactly as the policy generated it, including the stop marker."""

    text: str
    num_tokens: int = 0
    logprob: float = 0.0  # sum over the generated tokens, in nats
    prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens from the engine's prefix cache; 0 if it does not report them


@dataclass(frozen=True, slots=True)
class Execution:
    """The result of running one step."""

    verdict: Verdict
    output: str = ""  # what the code printed
    error: str = ""  # exception type, message and line; empty unless the code failed
    checkpoint: str | None = None  # names the state from which the next step continues; None unless the verdict is OK
    seconds: float = 0.0
    memory_bytes: int = 0  # peak of the step's process, including shared pages; 0 if it had no process of its own


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate as parsed by the step format."""

    kind: str | None  # named by the domain; None if the text fits no kind
    code: str = ""  # what the executor runs; empty if there is nothing to run
    answer: str | None = None  # of a terminal step
    continues: bool = True  # whether later steps may run code in the state that this one leaves
    malformed: str = ""  # why the text is not a step; empty if it is one


class StepFormat(Protocol):
    """How steps are read, rendered and compared (Section 3.2, code-augmented CoT)."""

    def read(self, text: str, prefix: Sequence[str]) -> Step:
        """Read a candidate that follows the rendered steps of `prefix`."""
        ...

    def render(self, text: str, output: str) -> str:
        """Return the step as later prompts show it: with its output, if the format shows that."""
        ...

    def code_of(self, text: str) -> str:
        """Return the code of a step."""
        ...

    def normalized(self, text: str) -> str:
        """Return a form of the text that is equal for steps that differ in white space only."""
        ...


class Policy(Protocol):
    """The model that writes candidate steps."""

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Sample `num_candidates` steps that continue the rendered steps of `prefix`.

        Equal arguments give equal steps. Raises PolicyError.
        """
        ...


class StepScorer(Protocol):
    """The process preference model."""

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """Return one score in [-1, 1] for each rendered candidate that continues `prefix`. Raises ScorerError."""
        ...


class Executor(Protocol):
    """Runs the code of a step in the state that its prefix left."""

    async def run(self, checkpoint: str | None, code: str) -> Execution:
        """Run `code` in the state of `checkpoint`, or in a fresh interpreter if that is None.

        Raises SandboxLost if the sandbox itself died.
        """
        ...

    async def release(self, checkpoint: str) -> None:
        """Release a checkpoint that no step will continue."""
        ...


class Judge(Protocol):
    """Decides whether a final answer is correct and whether two are the same."""

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Return whether an answer is correct; None if that could not be decided."""
        ...

    async def equivalent(self, answer: str, other: str) -> bool | None:
        """Return whether two answers are the same; None if that could not be decided."""
        ...

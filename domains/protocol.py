"""What a domain is made of; everything outside it works for any domain.

`rstar.protocols.StepFormat` is the part that the search needs. The rest is for engines, training and people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from rstar.protocols import Executor, Judge, StepFormat

Part = Literal["code", "output", "answer"]


class Domain(StepFormat, Protocol):
    """A kind of task: mathematics, or programs that must pass their tests."""

    @property
    def name(self) -> str:
        """The name in the recipe."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The markers that end a step: an engine stops generating at the first."""
        ...

    @property
    def boundary(self) -> re.Pattern[str]:
        """Matches the empty string wherever no token may reach across: at the ends of steps and outputs."""
        ...

    def prompt(self, question: str) -> str:
        """Return the zero-shot prompt after SFT: the same bytes in training, search and scoring."""
        ...

    def few_shot_prompt(self, question: str) -> str:
        """Return the prompt of a model that has not been fine-tuned on the step format."""
        ...

    def split(self, response: str) -> list[str]:
        """Split a whole response into rendered steps, whose concatenation is the response byte for byte."""
        ...

    def output_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character spans that the executor wrote, not the policy: they stay out of the SFT loss."""
        ...

    def with_stop(self, text: str) -> str:
        """Return a finished step whose server kept back the marker at which it stopped, with that marker."""
        ...

    def parts(self, steps: Iterable[str]) -> Iterator[tuple[Part, str]]:
        """Yield what rendered steps consist of, without their markers, for people to read."""
        ...

    def final_answer(self, text: str) -> str | None:
        """Return the final answer that a solution's text states; None where it states none."""
        ...

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Say of each ground truth whether an answer can be compared with it at all. Blocks."""
        ...

    def judge(self, executor: Executor) -> AbstractAsyncContextManager[Judge]:
        """Open the judge of answers; one that has to run code runs it in `executor`."""
        ...

"""The interface of a domain. All code outside of a domain works with any domain.

`rstar.protocols.StepFormat` is the part that the search needs. Engines, training and reports need the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from rstar.protocols import Executor, Judge, StepFormat

Part = Literal["code", "output", "answer"]


class Domain(StepFormat, Protocol):
    """A kind of task, such as mathematics, or programs that must pass unit tests."""

    @property
    def name(self) -> str:
        """Name of the domain in recipes."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Markers that end a step. An engine stops generating at the first one."""
        ...

    @property
    def boundary(self) -> re.Pattern[str]:
        """Pattern that matches the empty string where a token must end: at the ends of steps and outputs."""
        ...

    def prompt(self, question: str) -> str:
        """Return the zero-shot prompt of a fine-tuned policy: the same bytes in training, search and scoring."""
        ...

    def few_shot_prompt(self, question: str) -> str:
        """Return the prompt of a model that has not been fine-tuned on the step format."""
        ...

    def split(self, response: str) -> list[str]:
        """Split a whole response into rendered steps, which join to the response byte for byte."""
        ...

    def output_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the character spans of outputs, which the executor wrote: they are left out of the SFT loss."""
        ...

    def with_stop(self, text: str) -> str:
        """Add the end marker to a finished step, for engines that do not return the stop string."""
        ...

    def parts(self, steps: Iterable[str]) -> Iterator[tuple[Part, str]]:
        """Yield the parts of rendered steps without markers, for display."""
        ...

    def ground_truth(self, field: str) -> str:
        """Return the final answer that the answer field of a problem set's row states."""
        ...

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Return for each ground truth whether answers can be compared with it. Blocks."""
        ...

    def judge(self, executor: Executor) -> AbstractAsyncContextManager[Judge]:
        """Open the judge of answers. If it has to run code, it does so in `executor`."""
        ...

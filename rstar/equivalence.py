"""Which answers are right and which are the same: the judge, asked once a pair and never about equal strings.

Appendix A.2 of the paper leaves the grader open. Here it is whatever is behind the Judge protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from rstar.protocols import Judge


class Equivalence:
    """A judge that remembers; one a tree, so that it does not grow."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._known: dict[tuple[str, str], bool | None] = {}
        self._judged: dict[tuple[str, str], bool | None] = {}

    async def __call__(self, answer: str, other: str) -> bool | None:
        """Whether the two are the same; None where the judge could not decide."""
        if answer.strip() == other.strip():
            return True
        pair = (answer, other)
        if pair not in self._known:
            self._known[pair] = await self._judge.equivalent(answer, other)
        return self._known[pair]

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Whether the answer is right; None where the judge could not decide."""
        if answer.strip() == truth.strip():
            return True
        pair = (answer, truth)
        if pair not in self._judged:
            self._judged[pair] = await self._judge.correct(answer, truth)
        return self._judged[pair]

    async def classes(self, answers: Sequence[str]) -> list[int]:
        """For each answer the position of the first one that is the same; what is undecided is not merged."""
        firsts: list[int] = []
        labels: list[int] = []
        for at, answer in enumerate(answers):
            label = at
            for first in firsts:
                if await self(answer, answers[first]):
                    label = first
                    break
            if label == at:
                firsts.append(at)
            labels.append(label)
        return labels

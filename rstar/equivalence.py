"""Equivalence of answers: which are correct and which are the same, as the judge decides.

Appendix A.2 of the paper leaves the grader open. Here it is any `rstar.protocols.Judge`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rstar.protocols import Judge


class Equivalence:
    """A judge with a cache. It is never asked about equal strings.

    The cache is never emptied: use one for each tree.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._equivalent: dict[tuple[str, str], bool | None] = {}
        self._correct: dict[tuple[str, str], bool | None] = {}

    async def __call__(self, answer: str, other: str) -> bool | None:
        """Return whether two answers are the same; None if the judge could not decide."""
        if answer.strip() == other.strip():
            return True
        pair = (answer, other)
        if pair not in self._equivalent:
            self._equivalent[pair] = await self._judge.equivalent(answer, other)
        return self._equivalent[pair]

    async def correct(self, answer: str, truth: str) -> bool | None:
        """Return whether an answer is correct; None if the judge could not decide."""
        if answer.strip() == truth.strip():
            return True
        pair = (answer, truth)
        if pair not in self._correct:
            self._correct[pair] = await self._judge.correct(answer, truth)
        return self._correct[pair]

    async def classes(self, answers: Sequence[str]) -> list[int]:
        """Return for each answer the index of the first answer that is the same.

        An undecided comparison merges nothing.
        """
        firsts: list[int] = []
        labels: list[int] = []
        for index, answer in enumerate(answers):
            label = index
            for first in firsts:
                if await self(answer, answers[first]):
                    label = first
                    break
            if label == index:
                firsts.append(index)
            labels.append(label)
        return labels

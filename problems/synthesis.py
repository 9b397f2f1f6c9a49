"""The label of a synthesised problem: the answer that most of its solvers agree on.

Section 4.1: a new problem is solved ten times and kept if at least three of the ten answers agree. The caller solves
the problem and compares the count with its threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rstar.equivalence import Equivalence
from rstar.protocols import Judge


async def majority(answers: Sequence[str | None], judge: Judge) -> tuple[str | None, int]:
    """Return the most frequent answer and its count; (None, 0) where no solver gave one.

    Equivalent answers count as one; of equally frequent ones the first wins. A comparison that the judge cannot decide
    counts as different.
    """
    given = [answer for answer in answers if answer is not None]
    if not given:
        return None, 0
    classes = await Equivalence(judge).classes(given)
    first, count = Counter(classes).most_common(1)[0]
    return given[first], count

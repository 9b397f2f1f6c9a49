"""The levels of the generated problems: one row each."""

from __future__ import annotations

from dataclasses import dataclass

from rstar.protocols import UserError

EASY = ("gain", "lose", "times", "share", "rate", "spend")
HARD = (*EASY, "share", "drop", "rise", "rest", "deal")  # `share` twice: few quantities can be shared evenly
EVEN = ("solo", "duo", "reversed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How the problems of a level are drawn. An entry that stands several times in a tuple is drawn as much more often.

    `solo` and `duo` are the kinds of sentences in stories of one person and of two.
    """

    name: str
    min_operations: int
    max_operations: int
    styles: tuple[str, ...]
    solo: tuple[str, ...]
    duo: tuple[str, ...]
    num_distractors: tuple[int, ...]
    share_with_cut: float  # of the solo stories: how many end in a division that may leave a fraction


LEVELS = {
    level.name: level
    for level in (
        Level(
            name="gsm",
            min_operations=1,
            max_operations=3,
            styles=EVEN,
            solo=EASY,
            duo=EASY,
            num_distractors=(0, 0, 1),
            share_with_cut=0.0,
        ),
        Level(
            name="math",
            min_operations=3,
            max_operations=5,
            styles=EVEN,
            solo=HARD,
            duo=HARD,
            num_distractors=(0, 1),
            share_with_cut=0.25,
        ),
        Level(
            name="olympiad",
            min_operations=5,
            max_operations=8,
            styles=("solo", "solo", "duo", "duo", "reversed"),
            solo=(*HARD, *("deal",) * 19),
            duo=(*HARD, *("deal",) * 39),
            num_distractors=(0, 1, 2),
            share_with_cut=0.25,
        ),
    )
}


def find_level(name: str) -> Level:
    """Return the level of that name; raises UserError for an unknown one."""
    if name not in LEVELS:
        raise UserError(f"problems: unknown level {name!r}; allowed: {', '.join(LEVELS)}")
    return LEVELS[name]

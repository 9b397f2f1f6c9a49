"""One section of a report: a title, a table of ready-made text, and charts.

The HTML page, the Markdown file and the terminal all show the same sections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

Ask = Callable[[str], pl.DataFrame]  # name of a query of the store -> its answer

LEVELS = ("all", "gsm", "math", "olympiad")


@dataclass(frozen=True, slots=True)
class Section:
    """A title, a sentence, a table of ready-made text, and charts (SVG, for the page only)."""

    id: str
    title: str
    lead: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    charts: tuple[str, ...] = ()
    note: str = ""
    missing: str = ""
    num_text_columns: int = 1  # the first columns hold words, the others numbers


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def count(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def rounds_of(frame: pl.DataFrame) -> list[int]:
    return frame["round"].unique().sort().to_list()


def levels_of(frame: pl.DataFrame) -> Sequence[str]:
    """The levels there are, the paper's first and in its order."""
    there = frame["level"].unique(maintain_order=True).to_list()
    return [*(level for level in LEVELS if level in there), *(level for level in there if level not in LEVELS)]


def round_names(rounds: Sequence[int]) -> list[str]:
    return ["base" if number == 0 else f"round {number}" for number in rounds]

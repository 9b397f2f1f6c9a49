"""What a report is made of: sections, each a table of ready-made text and perhaps a chart.

The HTML page, the Markdown file and the terminal all show the same sections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

Ask = Callable[[str], pl.DataFrame]  # name of a question in store/questions -> its answer

THIS_RUN = "this run"


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or the bars of one colour. None is a gap. A source other than this run is drawn dashed."""

    name: str
    values: Sequence[float | None]
    colour: int = 0
    source: str = THIS_RUN


@dataclass(frozen=True, slots=True)
class Chart:
    """The data of one chart: each series has one value for each entry of `xs`."""

    title: str
    xs: Sequence[str]
    series: Sequence[Series]
    kind: Literal["lines", "bars", "stacked bars"] = "lines"
    unit: str = " %"
    top: float | None = None  # the y axis runs from 0 to here; None: to the largest value


@dataclass(frozen=True, slots=True)
class Section:
    """A title, a sentence, a table, and a chart for the HTML page; or a sentence about what is missing."""

    id: str
    title: str
    lead: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    chart: Chart | None = None
    note: str = ""
    missing: str = ""
    num_text_columns: int = 1  # the first columns hold words, the others numbers


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} %"


def count(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def rounds_of(frame: pl.DataFrame) -> list[int]:
    return frame["round"].unique().sort().to_list()


def levels_of(frame: pl.DataFrame) -> list[str]:
    """The levels of a frame: `all` first, then by name, `synthetic` last."""
    return sorted(frame["level"].unique(), key=lambda level: (level != "all", level == "synthetic", level))


def round_names(rounds: Sequence[int]) -> list[str]:
    return ["base" if number == 0 else f"round {number}" for number in rounds]

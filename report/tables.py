"""The report's tables for the terminal, made of the same sections as the page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from report.accuracy import METRICS, coverage, pass_at_1, ppm_pairs, systems
from report.section import Section
from report.sections import all_sections
from store import questions
from store.catalog import open_catalog


def to_table(section: Section) -> Table:
    """One section as a Rich table; without data, a table with the sentence about what is missing."""
    table = Table(title=section.title, caption=section.note or None, title_justify="left", caption_justify="left")
    if section.missing:
        table.add_column("Nothing to show yet", no_wrap=False)
        table.add_row(Text(section.missing))
        return table
    for place, name in enumerate(section.header):
        table.add_column(name, justify="left" if place < section.num_text_columns else "right")
    for row in section.rows:
        # Text keeps Rich from reading a question's [brackets] as markup.
        table.add_row(*(Text(cell) for cell in row))
    return table


def round_table(run_root: str | Path, round: int) -> Table:
    """What one round achieved: coverage, policy, system and PPM beside the paper's figures."""
    with open_catalog(run_root) as con:
        sections = [section(partial(questions.run, con)) for section in (coverage, pass_at_1, systems, ppm_pairs)]
    table = Table(title=f"Round {round}", title_justify="left")
    table.add_column("Measure")
    for name in ("This run", "Paper"):
        table.add_column(name, justify="right")
    for section in sections:
        for row in section.rows:
            # The section on systems repeats the policy, which has a section of its own.
            if row[0].split()[0] == str(round) and row[1] != METRICS["pass@1"]:
                for measure in _measures(section, row):
                    table.add_row(*measure)
    if not table.row_count:
        table.add_row("nothing measured yet", "–", "–")
    return table


def final_tables(run_root: str | Path) -> list[Table]:
    """Every section of the report, for the end of a run."""
    with open_catalog(run_root) as con:
        return [to_table(section) for section in all_sections(partial(questions.run, con))]


def _measures(section: Section, row: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Each percentage of a row: its name, this run's value and the paper's."""
    cells = dict(zip(section.header, row, strict=True))
    method = " ".join(cells[name] for name in ("Method", "Trajectories") if name in cells)
    for name, value in cells.items():
        if value.endswith("%") and not name.endswith("paper"):
            theirs = cells.get(f"{name}, paper", cells.get("MATH, paper", "–") if name == "all" else "–")
            yield " · ".join(part for part in (section.title, method, name) if part), value, theirs

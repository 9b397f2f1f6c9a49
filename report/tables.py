"""The report's tables for the terminal.

The same sections as the page's, so the three never disagree.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from report.learning import METRICS, coverage, pass_at_1, ppm_pairs, systems
from report.section import Section
from report.sections import all_sections
from store import questions as queries
from store.catalog import open_catalog


def to_table(section: Section) -> Table:
    """One section as a Rich table; a section without data is a table with its one sentence."""
    table = Table(title=section.title, caption=section.note or None, title_justify="left", caption_justify="left")
    if section.missing:
        table.add_column("Nothing to show yet", no_wrap=False)
        table.add_row(Text(section.missing))
        return table
    for place, name in enumerate(section.header):
        table.add_column(name, justify="left" if place < section.num_text_columns else "right")
    for row in section.rows:
        # Text, so that a question with [brackets] is not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    return table


def round_table(run_root: str | Path, round: int) -> Table:
    """What one round reached: coverage, policy, system and PPM in two columns beside the paper's."""
    with open_catalog(run_root) as con:
        sections = [make(partial(queries.run, con)) for make in (coverage, pass_at_1, systems, ppm_pairs)]
    table = Table(title=f"Round {round}", title_justify="left")
    table.add_column("Measure")
    for name in ("This run", "Paper"):
        table.add_column(name, justify="right")
    for section in sections:
        for row in section.rows:
            # The policy's own row stands in its section already.
            if row[0].split()[0] == str(round) and row[1] != METRICS["pass@1"]:
                _add_measures(table, section, row)
    if not table.row_count:
        table.add_row("nothing measured yet", "–", "–")
    return table


def final_tables(run_root: str | Path) -> list[Table]:
    """Every section of the report, for the end of a run."""
    with open_catalog(run_root) as con:
        return [to_table(section) for section in all_sections(partial(queries.run, con))]


def _add_measures(table: Table, section: Section, row: tuple[str, ...]) -> None:
    cells = dict(zip(section.header, row, strict=True))
    method = " ".join(cells[name] for name in ("Method", "Trajectories") if name in cells)
    for name, value in cells.items():
        if value.endswith("%") and not name.endswith("paper"):
            theirs = cells.get(f"{name}, paper", cells.get("MATH, paper", "–") if name == "all" else "–")
            table.add_row(" · ".join(part for part in (section.title, method, name) if part), value, theirs)

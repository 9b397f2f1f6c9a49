"""All sections of a report in their order, and the figures at its top.

Everything comes from the store's questions. A section without data says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from report.accuracy import coverage, pass_at_1, ppm_pairs, systems, wrong_steps
from report.costs import cost, engines, sandbox, tokens, waits
from report.difficulty import buckets, unsolved
from report.section import Ask, Section, count, percent


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure for the top of the page, and a detail to read it by."""

    label: str
    value: str
    detail: str


def all_sections(ask: Ask) -> list[Section]:
    on_accuracy = (coverage, pass_at_1, systems, ppm_pairs, wrong_steps)
    on_costs = (cost, engines, waits, sandbox, tokens)
    return [section(ask) for section in (*on_accuracy, *on_costs, buckets, unsolved)]


def headlines(ask: Ask) -> list[Headline]:
    """The last value of each measure that has one, with its first value as the detail."""
    overall = pl.col("level") == "all"
    system = ask("accuracy").filter(overall, metric="system")
    measures = [
        _change("Coverage", ask("coverage").filter(overall), "coverage"),
        _change("Policy pass@1", ask("pass_at_1").filter(overall), "accuracy"),
        _change("System", system.filter(pl.col("num_trajectories") == pl.col("num_trajectories").max()), "accuracy"),
        _change("PPM pairs", ask("ppm_pairs"), "accuracy"),
    ]
    found = [headline for headline in measures if headline]
    spent = ask("cost")
    if not spent.is_empty():
        minutes, num_tokens = sum(spent["seconds"].to_list()) / 60, spent["num_tokens"].sum()
        found.append(Headline("Time", f"{minutes:.1f} min", f"{count(num_tokens)} tokens, all rounds"))
    return found


def _change(label: str, frame: pl.DataFrame, column: str) -> Headline | None:
    if frame.is_empty():
        return None
    first, last = frame.row(0, named=True), frame.row(-1, named=True)
    where = f"round {last['round']}"
    if first["round"] != last["round"]:
        start = "base" if first["round"] == 0 else f"round {first['round']}"
        where += f", from {percent(first[column])} ({start})"
    return Headline(label, percent(last[column]), where)

"""All sections of a report in order, and its headlines.

Made from the store's queries. A section without data says what is missing; no number is made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from report.learning import coverage, pass_at_1, ppm_pairs, systems, wrong_steps
from report.searching import buckets, cost, engines, sandbox, tokens, unsolved, waits
from report.section import Ask, Section, count, percent


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure for the top of the page, with what it is to be compared with."""

    label: str
    value: str
    detail: str


def all_sections(ask: Ask) -> list[Section]:
    learning = (coverage, pass_at_1, systems, ppm_pairs, wrong_steps)
    makers = (*learning, cost, engines, waits, sandbox, tokens, buckets, unsolved)
    return [make(ask) for make in makers]


def headlines(ask: Ask) -> list[Headline]:
    """First and last figure of what is known; nothing for what is not."""
    overall = pl.col("level") == "all"
    accuracy = ask("accuracy").filter(overall)
    system = accuracy.filter(metric="system", num_trajectories=_most(accuracy))
    found = [
        _change("Coverage", ask("coverage").filter(overall), "coverage"),
        _change("Policy pass@1", ask("pass_at_1").filter(overall), "accuracy"),
        _change("System", system, "accuracy"),
        _change("PPM pairs", ask("ppm_pairs"), "accuracy"),
    ]
    spent = ask("cost")
    if not spent.is_empty():
        seconds, num_tokens = (sum(spent[name].to_list()) for name in ("seconds", "num_tokens"))
        found.append(Headline("Time", f"{seconds / 60:.1f} min", f"{count(num_tokens)} tokens, all rounds"))
    return [headline for headline in found if headline]


def _change(label: str, frame: pl.DataFrame, column: str) -> Headline | None:
    if frame.is_empty():
        return None
    first, last = frame.row(0, named=True), frame.row(-1, named=True)
    where = f"round {last['round']}"
    if first["round"] != last["round"]:
        start = "base" if first["round"] == 0 else f"round {first['round']}"
        where += f", from {percent(first[column])} ({start})"
    return Headline(label, percent(last[column]), where)


def _most(accuracy: pl.DataFrame) -> int:
    """The largest number of trajectories that the system was evaluated with."""
    numbers = accuracy.filter(metric="system")["num_trajectories"].to_list()
    return max(numbers, default=0)

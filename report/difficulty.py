"""Sections on the problems: how difficult each round found them, and which ones nobody solved.

Section 4.1 looks at the unsolved ones.
"""

from __future__ import annotations

import polars as pl

from report.section import Ask, Chart, Section, Series, round_names

MAX_UNSOLVED = 50
MAX_QUESTION_LENGTH = 220  # characters
_NO_TREES = "No search trees yet: the first round's search makes them."


def buckets(ask: Ask) -> Section:
    title = "Easy, medium, hard"
    lead = "Problems by what the round's search found: only right answers (easy), some (medium), or none (hard)."
    frame = ask("buckets")
    if frame.is_empty():
        return Section("buckets", title, lead, missing=_NO_TREES)
    kinds = ("easy", "medium", "hard")
    rows = [(str(r["round"]), r["level"], *(str(r[kind]) for kind in kinds)) for r in frame.to_dicts()]
    sums = frame.group_by("round", maintain_order=True).agg(pl.col(kinds).sum())
    bars = [Series(kind, sums[kind].to_list(), colour) for kind, colour in zip(kinds, (2, 4, 1), strict=True)]
    names = round_names(sums["round"].to_list())
    chart = Chart("Problems by bucket and round", names, bars, "stacked bars", unit="")
    header = ("Round", "Level", "Easy", "Medium", "Hard")
    return Section("buckets", title, lead, header, tuple(rows), chart, num_text_columns=2)


def unsolved(ask: Ask) -> Section:
    title = "Unsolved problems"
    lead = (
        "Problems that the last round did not solve; those whose answers agree most come first. In a set of real "
        "problems the label is often wrong."
    )
    if ask("coverage").is_empty():
        return Section("unsolved", title, lead, missing=_NO_TREES)
    frame = ask("unsolved")
    if frame.is_empty():
        return Section("unsolved", title, lead, missing="None: the last round solved every problem it searched.")
    rows = [
        (
            r["problem_id"][:12],
            r["level"],
            _shortened(r["question"]),
            r["labelled_answer"] or "–",
            r["majority_answer"] or "no answer",
            f"{r['num_votes']} of {r['num_answers']}",
        )
        for r in frame.head(MAX_UNSOLVED).to_dicts()
    ]
    header = ("Problem", "Level", "Question", "Labelled answer", "Majority answer", "Votes")
    note = "The paper's authors inspected 20 such problems; 19 had wrong labels."
    if frame.height > MAX_UNSOLVED:
        note = f"The first {MAX_UNSOLVED} of {frame.height}; `rstar sql unsolved` shows all. {note}"
    return Section("unsolved", title, lead, header, tuple(rows), note=note, num_text_columns=5)


def _shortened(text: str | None) -> str:
    text = " ".join((text or "–").split())
    return text if len(text) <= MAX_QUESTION_LENGTH else text[: MAX_QUESTION_LENGTH - 1] + "…"

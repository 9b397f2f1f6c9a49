"""Example search trees, to open step by step on the page.

Section 3.2: each node has its visit count N, its Q-value and the sandbox's verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import polars as pl

MAX_NODES = 400  # of one tree; more would make the page slow


@dataclass(slots=True)
class Step:
    """A node as the page shows it. `state` sets the colour: right, wrong, undecided, failed, dead-end or open."""

    headline: str
    text: str
    output: str
    error: str
    visits: int
    q: float
    ppm_score: float | None
    verdict: str
    state: str
    num_samples: int
    on_right_path: bool = False
    children: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Example:
    """One tree of one problem."""

    level: str
    question: str
    labelled_answer: str
    round: int
    problem_id: str
    num_nodes: int
    root: Step


def examples(frame: pl.DataFrame) -> list[Example]:
    """Build the trees from the rows of the question `example_trees`, which are sorted by tree and node."""
    trees = groupby(frame.to_dicts(), key=lambda row: (row["problem_id"], row["tree"]))
    return [_example(list(rows)) for _, rows in trees]


def _example(rows: list[dict[str, Any]]) -> Example:
    first = rows[0]
    steps: dict[int, Step] = {}
    for row in rows[:MAX_NODES]:
        steps[row["id"]] = step = _step(row)
        if row["parent"] in steps:
            steps[row["parent"]].children.append(step)
    root = steps[first["id"]]
    _mark_right_path(root)
    return Example(
        first["level"],
        first["question"] or "",
        first["labelled_answer"] or "",
        first["round"],
        first["problem_id"],
        len(rows),
        root,
    )


def _step(row: Mapping[str, Any]) -> Step:
    return Step(
        headline=_headline(row),
        text=row["text"].strip(),
        output=row["output"].strip(),
        error=row["error"],
        visits=row["visits"],
        q=row["q"],
        ppm_score=row["ppm_score"],
        verdict=row["verdict"],
        state=_state(row),
        num_samples=row["num_samples"],
    )


def _headline(row: Mapping[str, Any]) -> str:
    """The step's comment, or its answer, or its first line."""
    if row["parent"] is None:
        return "Question"
    if row["terminal"]:
        return f"Answer {row['answer']}"
    lines = [line.strip() for line in row["text"].splitlines() if line.strip() and not line.strip().startswith("<")]
    comment = next((line for line in lines if line.startswith("#")), lines[0] if lines else row["kind"])
    return str(comment).lstrip("# ")[:120]


def _state(row: Mapping[str, Any]) -> str:
    if row["verdict"] != "ok":
        return "failed"
    if row["terminal"]:
        return {True: "right", False: "wrong", None: "undecided"}[row["correct"]]
    return "dead-end" if row["dead_end"] else "open"


def _mark_right_path(step: Step) -> bool:
    """Mark the steps that lead to a right answer: the page shows them open. Trees are shallow enough to recurse."""
    below = [_mark_right_path(child) for child in step.children]
    step.on_right_path = step.state == "right" or any(below)
    return step.on_right_path

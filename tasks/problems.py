"""The problems of a run, generated or read from a file, and their rows.

Section 4.1 and Appendix A. Synthetic problems are added in each round (tasks/synthesis.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import task

from domains.registry import find_domain
from miniature.problems import GeneratedProblem, generate
from problems.sources.json_lines import import_problems
from rstar.protocols import Problem, UserError
from store import files, shards
from store.layout import Run
from tasks.lib.progress import Stage
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed


@dataclass(frozen=True, slots=True)
class ProblemSource:
    """Where the problems of a split come from: the generator, or a file."""

    by_level: Mapping[str, int]  # number of problems to generate of each level, if there is no file
    file: str | None = None
    level: str | None = None  # of rows in the file that name none
    max_problems: int | None = None  # from the file
    domain: str = "mathematics"


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=3600,
    retry_condition_fn=infrastructure_failed,
)  # fmt: skip
async def prepare_problems(root: str, split: str, source: ProblemSource, seed: int) -> int:
    """Write the problems of a split, unless they exist, and return their number."""
    url = Run(root).problems(split)
    if not files.exists(url):
        left_out = Run(root).path("problems", f"{split}.left-out.txt")
        if source.file:
            rows = imported_rows(source, left_out)
        else:
            rows = generated_rows(source.by_level, seed=seed, split=split)
        if files.exists(left_out):
            num_left_out = len(files.read_bytes(left_out).splitlines())
            stage = Stage(f"{split} problems", 0, len(rows))
            await stage.reach(len(rows), note=f"{num_left_out} rows left out, named in problems/{split}.left-out.txt")
        if not rows:
            raise UserError(f"no {split} problems: {source.file or dict(source.by_level)} has none that can be used")
        shards.write_rows(url, "problems", rows)
    return len(shards.read_rows(url, "problems"))


def generated_rows(by_level: Mapping[str, int], *, seed: int, split: str) -> list[dict[str, Any]]:
    """Generate problems; return their rows."""
    return [generated_row(generated) for generated in generate(by_level, seed=seed, split=split)]


def generated_row(generated: GeneratedProblem) -> dict[str, Any]:
    """Return the row of a generated problem."""
    return problem_row(generated.problem) | {
        "structure": generated.structure,
        "truth_steps": json.dumps(generated.truth),
    }


def problem_row(problem: Problem) -> dict[str, Any]:
    """Return the row of a problem of which nothing else is known."""
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "level": problem.level,
        "source": problem.source,
        "synthetic": False,
        "structure": None,
        "truth_steps": None,
    }


def imported_rows(source: ProblemSource, left_out: str) -> list[dict[str, Any]]:
    """Return the usable rows of a file: JSON Lines, or the Parquet file that `rstar import` writes.

    The file `left_out` names the others, by file and line.
    """
    assert source.file is not None
    if source.file.endswith(".parquet"):
        return shards.read_rows(source.file, "problems")[: source.max_problems]
    imported = import_problems(source.file, domain=find_domain(source.domain), level=source.level)
    if imported.errors:
        files.write_bytes(left_out, "".join(f"{error}\n" for error in imported.errors).encode())
    return [problem_row(problem) for problem in imported.problems[: source.max_problems]]

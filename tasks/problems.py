"""Problems: made by the built-in families or imported, and read back for a round.

Section 4.1 and Appendix A: a run's training and test problems; synthetic ones join them round by round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import task

from miniature.families.generator import FamilyProblem, generate
from rstar.protocols import Problem, UserError
from store import files, shards
from store.layout import Run
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed


@dataclass(frozen=True, slots=True)
class ProblemSource:
    """One split: counts by level for the families, or a file of real problems."""

    by_level: Mapping[str, int]
    file: str | None = None
    level: str | None = None
    max_problems: int | None = None


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=3600,
    retry_condition_fn=infrastructure_failed,
)  # fmt: skip
async def prepare_problems(root: str, split: str, source: ProblemSource, seed: int) -> int:
    """Write the problems of one split; return how many. What is there already stays."""
    url = Run(root).problems(split)
    if not files.exists(url):
        left_out = Run(root).path("problems", f"{split}.left-out.txt")
        rows = imported_rows(source, left_out) if source.file else family_rows(source.by_level, seed=seed, split=split)
        if files.exists(left_out):
            num_left_out = len(files.read_bytes(left_out).splitlines())
            stage = Stage(f"{split} problems", 0, len(rows))
            await stage.reach(len(rows), note=f"{num_left_out} rows left out, named in problems/{split}.left-out.txt")
        if not rows:
            raise UserError(f"no {split} problems: {source.file or dict(source.by_level)} holds none that can be used")
        shards.write_rows(url, "problems", rows)
    return len(shards.read_rows(url, "problems"))


def family_rows(by_level: Mapping[str, int], *, seed: int, split: str) -> list[dict[str, Any]]:
    return [family_row(made) for made in generate(by_level, seed=seed, split=split)]


def family_row(made: FamilyProblem, *, synthetic: bool = False, answer: str | None = None) -> dict[str, Any]:
    """Return the row of a generated problem; a synthetic one keeps the answer that its solvers agreed on."""
    return problem_row(made.problem, answer=answer) | {
        "synthetic": synthetic,
        "structure": made.structure,
        "truth_steps": json.dumps(made.truth),
    }


def problem_row(problem: Problem, *, answer: str | None = None) -> dict[str, Any]:
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer if answer is None else answer,
        "level": problem.level,
        "source": problem.source,
        "synthetic": False,
        "structure": None,
        "truth_steps": None,
    }


def imported_rows(source: ProblemSource, left_out: str) -> list[dict[str, Any]]:
    """Return the good rows of a file of real problems: JSON Lines, or what `rstar import` made of it.

    The bad ones are named in the file `left_out`, by file and line.
    """
    assert source.file is not None
    if source.file.endswith(".parquet"):
        return shards.read_rows(source.file, "problems")[: source.max_problems]
    from problems.sources.importing import import_problems

    imported = import_problems(source.file, level=source.level)
    if imported.errors:
        files.write_bytes(left_out, "".join(f"{error}\n" for error in imported.errors).encode())
    return [problem_row(problem) for problem in imported.problems[: source.max_problems]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Problems by id, with what else is known of them."""

    problems: dict[str, Problem]
    truths: dict[str, list[dict[str, str]]]  # of the built-in families
    synthetic: frozenset[str]


def read_problems(run: Run, *names: str) -> Asked:
    """Read problem files of a run; of two rows with one id the first stands."""
    problems: dict[str, Problem] = {}
    truths: dict[str, list[dict[str, str]]] = {}
    synthetic = set()
    for name in names:
        for row in shards.read_rows(run.problems(name), "problems"):
            if row["id"] in problems:
                continue
            problems[row["id"]] = Problem(row["id"], row["question"], row["answer"], row["level"], row["source"])
            if row["truth_steps"]:
                truths[row["id"]] = json.loads(row["truth_steps"])
            if row["synthetic"]:
                synthetic.add(row["id"])
    return Asked(problems, truths, frozenset(synthetic))


def round_problems(run: Run, round: int) -> Asked:
    """Read what round `round` searches: the training problems, and those synthesised up to now."""
    made = (synthetic_name(number) for number in range(1, round + 1))
    return read_problems(run, "train", *(name for name in made if files.exists(run.problems(name))))


def synthetic_name(round: int) -> str:
    return f"synthetic-round={round}"


def shard_problems(run: Run, round: int, shard: int, num_shards: int) -> list[Problem]:
    """Cut the round's problems by id; ids are hashes, so that shards are alike."""
    problems = round_problems(run, round).problems
    return [problems[id] for id in sorted(problems)[shard::num_shards]]

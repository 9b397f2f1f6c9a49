"""The problems of a run, of a round and of a shard."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rstar.protocols import Problem
from store import files, shards
from store.layout import Run


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems by id, and what else is known about them."""

    problems: dict[str, Problem]
    truths: dict[str, list[dict[str, str]]]  # true quantities by problem id, for problems of the miniature world
    synthetic: frozenset[str]  # ids of synthetic problems


def read_problems(run: Run, *names: str) -> ProblemSet:
    """Read the problem files `names` of a run. Of rows with the same id the first one counts."""
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
    return ProblemSet(problems, truths, frozenset(synthetic))


def round_problems(run: Run, round: int) -> ProblemSet:
    """Read the problems that a round searches: the training problems and all that were synthesised up to this round."""
    synthetic = (synthetic_name(number) for number in range(1, round + 1))
    return read_problems(run, "train", *(name for name in synthetic if files.exists(run.problems(name))))


def synthetic_name(round: int) -> str:
    """Return the name of the problem file of a round's synthesis."""
    return f"synthetic-round={round}"


def shard_problems(run: Run, round: int, shard: int, num_shards: int) -> list[Problem]:
    """Return the problems of a shard. They are divided by id, which is a hash, so shards are alike."""
    problems = round_problems(run, round).problems
    return [problems[id] for id in sorted(problems)[shard::num_shards]]

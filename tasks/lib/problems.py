"""The problems of a run, read back: those of a round, and those of a shard."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rstar.protocols import Problem
from store import files, shards
from store.layout import Run


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems by id, with what else is known of them."""

    problems: dict[str, Problem]
    truths: dict[str, list[dict[str, str]]]  # of the miniature world
    synthetic: frozenset[str]


def read_problems(run: Run, *names: str) -> ProblemSet:
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
    return ProblemSet(problems, truths, frozenset(synthetic))


def round_problems(run: Run, round: int) -> ProblemSet:
    """Read what round `round` searches: the training problems, and those synthesised up to now."""
    made = (synthetic_name(number) for number in range(1, round + 1))
    return read_problems(run, "train", *(name for name in made if files.exists(run.problems(name))))


def synthetic_name(round: int) -> str:
    return f"synthetic-round={round}"


def shard_problems(run: Run, round: int, shard: int, num_shards: int) -> list[Problem]:
    """Cut the round's problems by id; ids are hashes, so that shards are alike."""
    problems = round_problems(run, round).problems
    return [problems[id] for id in sorted(problems)[shard::num_shards]]

"""Evaluation on held-out problems: the policy alone, majority voting, deep thinking, and the PPM's ranking.

Section 4 (Tables 3 to 6): System 1 is the policy's greedy trajectory, System 2 the search with the PPM; majority
voting over as many tokens says what the search is worth beside plain sampling.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from prefect import task

from domains.registry import find_domain
from problems.synthesis import majority
from rstar.inference.beam import BeamSettings, beam_search
from rstar.inference.best_of_n import scored
from rstar.inference.thinking import ScoredTrajectory, think
from rstar.protocols import Problem
from rstar.search import SearchSettings
from store import shards
from store.layout import Run
from tasks.heldout_pairs import heldout_pairs, score_pairs
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines, Models, Sandbox, opened, opened_scorer
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import read_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.system_1 import sample, sample_many, sample_tokens
from tasks.lib.trees import tree_seed

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Examination:
    """How a round's models are examined."""

    settings: SearchSettings
    seed: int
    top_k: int | None = None  # trajectories with a weighted vote; None: all
    majority: bool = True
    methods: tuple[str, ...] = ()  # further ones beside the search: names of METHODS
    beam_width: int = 4  # of the method `beam`
    num_system: int | None = None  # problems that the whole system is asked; None: all
    heldout_pairs: bool = False  # ranked by the PPM
    max_in_flight: int = 64


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="evaluation-{round}",
)  # fmt: skip
async def evaluate(
    root: str, round: int, *, models: Models, sandbox: Sandbox, exam: Examination, recipe: str
) -> dict[str, int]:
    """Examine the models of a round on the test problems; round 0 is the base model."""
    run = Run(root)
    if (done := finished(run, round, "evaluation", run.evaluations(round))) is not None:
        return done
    with Phase(run, round, "evaluation", recipe=recipe) as phase:
        problems = list(read_problems(run, "test").problems.values())
        rows = await examine(problems, round, models=models, sandbox=sandbox, exam=exam)
        if models.ppm and exam.heldout_pairs:
            rows += await examine_ppm(run, models)
        common = {"run": run.name, "round": round, "recipe": recipe}
        shards.write_rows(run.evaluations(round), "evaluations", [common | row for row in rows])
        phase.num_tokens = sum(row["num_tokens"] for row in rows if row["metric"] in SAMPLED)
        phase.counts = {"problems": len(problems), "attempts": len(rows)}
    return phase.counts


SAMPLED = ("pass@1", "system", "majority", "best_of_n", "beam")  # each token is counted once


async def examine(
    problems: list[Problem], round: int, *, models: Models, sandbox: Sandbox, exam: Examination
) -> list[Row]:
    """Ask every problem of the policy alone and, where there is a PPM, of the whole system."""
    depth = exam.settings.max_depth
    for_system = sorted(problems, key=lambda problem: problem.id)[: exam.num_system] if models.ppm else []
    stage = Stage("evaluation", round, len(problems) + len(for_system))

    async def system_1(problem: Problem) -> list[Row]:
        start = time.monotonic()
        got = await sample(problem, engines, max_depth=depth, seed=exam.seed)
        await stage.advance(note="System 1")
        return [_row(problem, "pass@1", models.policy_print, got.answer, got.correct, got.num_tokens, start=start)]

    async def system_2(problem: Problem) -> list[Row]:
        rows = await think_about(problem, engines, models, exam)
        if exam.majority:
            rows.append(await vote(problem, engines, models, exam, budget=rows[0]["num_tokens"]))
        rows += [await METHODS[name](problem, engines, models, exam) for name in exam.methods]
        await stage.advance(note="System 2")
        return rows

    async with opened(models.sampled(0.0).without_ppm(), sandbox) as engines:
        rows = await map_concurrently(system_1, problems, limit=exam.max_in_flight)
    if for_system:
        async with opened(models, sandbox) as engines:
            rows += await map_concurrently(system_2, for_system, limit=exam.max_in_flight)
    return [row for of_problem in rows for row in of_problem]


async def think_about(problem: Problem, engines: Engines, models: Models, exam: Examination) -> list[Row]:
    """Search with the PPM, and answer by its best score; two votes over the same trajectories beside it."""
    start = time.monotonic()
    seed = tree_seed(exam.seed, problem.id, 0)
    unlabelled = replace(problem, answer="")
    conclusion, trajectories, tree = await think(
        unlabelled, **engines.for_search(), settings=exam.settings, seed=seed, top_k=exam.top_k
    )
    score = max((trajectory.score for trajectory in trajectories), default=None)
    answers = {
        "system": conclusion.best,
        "system_majority": conclusion.majority,
        "system_weighted": conclusion.weighted_majority,
    }
    rows = []
    for metric, answer in answers.items():
        correct = answer is not None and await engines.judge.correct(answer, problem.answer) is True
        row = _row(problem, metric, models.fingerprint, answer, correct, tree.num_tokens, start=start)
        rows.append(row | {"num_trajectories": exam.settings.num_rollouts, "score": score})
    return rows


async def vote(problem: Problem, engines: Engines, models: Models, exam: Examination, *, budget: int) -> Row:
    """Take the majority of as many samples as `budget` tokens pay for."""
    start = time.monotonic()
    depth = exam.settings.max_depth
    samples = await sample_tokens(problem, engines, budget, max_depth=depth, seed=exam.seed + 1)
    answer, _ = await majority([each.answer for each in samples], engines.judge)
    correct = answer is not None and await engines.judge.correct(answer, problem.answer) is True
    num_tokens = sum(each.num_tokens for each in samples)
    row = _row(problem, "majority", models.policy_print, answer, correct, num_tokens, start=start)
    return row | {"num_trajectories": exam.settings.num_rollouts}


async def best_of_n(problem: Problem, engines: Engines, models: Models, exam: Examination) -> Row:
    """Draw as many trajectories as the search has rollouts, and answer by the PPM's best score of a last step."""
    assert engines.scorer is not None
    start = time.monotonic()
    count, depth = exam.settings.num_rollouts, exam.settings.max_depth
    samples = await sample_many(problem, engines, count, max_depth=depth, seed=exam.seed + 2)  # not majority's
    trajectories = await scored(problem.question, samples, engines.scorer)
    best = max(trajectories, key=lambda trajectory: trajectory.score, default=None)
    num_tokens = sum(each.num_tokens for each in samples)
    return await _answered(problem, "best_of_n", engines, models, best, num_tokens, count, start=start)


async def beam(problem: Problem, engines: Engines, models: Models, exam: Examination) -> Row:
    """Search with a beam instead of a tree."""
    start = time.monotonic()
    settings = BeamSettings(exam.beam_width, exam.settings.num_candidates, exam.settings.max_depth)
    seed = tree_seed(exam.seed, problem.id, 0)
    unlabelled = replace(problem, answer="")
    _, trajectories, tree = await beam_search(unlabelled, **engines.for_search(), settings=settings, seed=seed)
    best = max(trajectories, key=lambda trajectory: trajectory.score, default=None)
    return await _answered(problem, "beam", engines, models, best, tree.num_tokens, exam.beam_width, start=start)


METHODS = {"best_of_n": best_of_n, "beam": beam}


async def _answered(
    problem: Problem, metric: str, engines: Engines, models: Models, best: ScoredTrajectory | None, num_tokens: int,
    num_trajectories: int, *, start: float,
) -> Row:  # fmt: skip
    """Grade the trajectory with the best score."""
    answer = best.answer if best else None
    correct = answer is not None and await engines.judge.correct(answer, problem.answer) is True
    row = _row(problem, metric, models.fingerprint, answer, correct, num_tokens, start=start)
    return row | {"num_trajectories": num_trajectories, "score": best.score if best else None}


async def examine_ppm(run: Run, models: Models) -> list[Row]:
    """Ask the PPM which step of each held-out pair is the better one."""
    levels = {problem.id: problem.level for problem in read_problems(run, "test").problems.values()}
    pairs = shards.read_rows(heldout_pairs(run), "pairs")
    start = time.monotonic()
    domain = find_domain(models.domain)
    async with opened_scorer(models, domain) as scorer:
        assert scorer is not None
        margins = await score_pairs(pairs, scorer, domain)
    rows = []
    for number, (pair, margin) in enumerate(zip(pairs, margins, strict=True)):
        problem = Problem(pair["problem_id"], "", "", levels[pair["problem_id"]])
        row = _row(problem, "ppm_pairs", models.ppm_print, None, margin > 0, 0, start=start)
        rows.append(row | {"sample": number, "score": margin})
    return rows


def _row(
    problem: Problem, metric: str, model: str, answer: str | None, correct: bool, num_tokens: int, *, start: float
) -> Row:
    return {
        "metric": metric,
        "num_trajectories": 1,
        "problem_id": problem.id,
        "sample": 0,
        "level": problem.level,
        "model": model,
        "answer": answer,
        "correct": correct,
        "score": None,
        "num_tokens": num_tokens,
        "seconds": time.monotonic() - start,
    }

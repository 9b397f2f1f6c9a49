"""Evaluation on held-out problems: the policy alone, majority voting, deep thinking, and the PPM's ranking of pairs.

Section 4 (Tables 3 to 6). System 1 is the policy's greedy trajectory, System 2 the search with the PPM. Majority voting
with as many tokens shows what the search gains over plain sampling.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from prefect import task

from domains.registry import find_domain
from problems.synthesis import majority
from rstar.inference.beam import BeamSettings, beam_search
from rstar.inference.best_of_n import score_samples
from rstar.inference.thinking import ScoredTrajectory, best_scored, think
from rstar.protocols import Problem
from rstar.search import SearchSettings
from store import shards
from store.layout import Run
from tasks.heldout_pairs import heldout_pairs, score_pairs
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines, Models, SandboxSettings, open_engines, open_scorer
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import read_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.system_1 import sample, sample_many, sample_tokens
from tasks.lib.trees import tree_seed

Row = dict[str, Any]
TOKEN_METRICS = ("pass@1", "system", "majority", "best_of_n", "beam")  # metrics whose trajectories no other one shares


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How the models of a round are evaluated."""

    search: SearchSettings  # of System 2
    seed: int
    top_k: int | None = None  # best scored trajectories that take part in the weighted vote; None: all
    majority: bool = True  # whether to measure majority voting
    methods: tuple[str, ...] = ()  # more methods to measure: names of METHODS
    beam_width: int = 4  # of the method `beam`
    num_system_problems: int | None = None  # problems on which System 2 is measured; None: all
    heldout_pairs: bool = False  # whether the PPM ranks the held-out pairs
    max_in_flight: int = 64  # problems at the same time


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="evaluation-{round}",
)  # fmt: skip
async def evaluate(
    root: str, round: int, *, models: Models, sandbox: SandboxSettings, settings: EvaluationSettings, recipe: str
) -> dict[str, int]:
    """Evaluate the models of a round on the test problems; round 0 is the base model."""
    run = Run(root)
    if (done := finished(run, round, "evaluation", run.evaluations(round))) is not None:
        return done
    with Phase(run, round, "evaluation", recipe=recipe) as phase:
        problems = list(read_problems(run, "test").problems.values())
        rows = await evaluate_problems(problems, round, models=models, sandbox=sandbox, settings=settings)
        if models.ppm and settings.heldout_pairs:
            rows += await evaluate_ppm(run, models)
        common = {"run": run.name, "round": round, "recipe": recipe}
        shards.write_rows(run.evaluations(round), "evaluations", [common | row for row in rows])
        phase.num_tokens = sum(row["num_tokens"] for row in rows if row["metric"] in TOKEN_METRICS)
        phase.counts = {"problems": len(problems), "attempts": len(rows)}
    return phase.counts


async def evaluate_problems(
    problems: list[Problem], round: int, *, models: Models, sandbox: SandboxSettings, settings: EvaluationSettings
) -> list[Row]:
    """Return the rows of all problems with the policy alone and, if there is a PPM, with System 2."""
    by_id = sorted(problems, key=lambda problem: problem.id)
    system_problems = by_id[: settings.num_system_problems] if models.ppm else []
    stage = Stage("evaluation", round, len(problems) + len(system_problems))

    async def system_1(problem: Problem) -> list[Row]:
        row = await pass_at_1(problem, engines, models, settings)
        await stage.advance(note="System 1")
        return [row]

    async def system_2(problem: Problem) -> list[Row]:
        rows = await deep_thinking(problem, engines, models, settings)
        if settings.majority:
            rows.append(await majority_vote(problem, engines, models, settings, budget=rows[0]["num_tokens"]))
        rows += [await METHODS[name](problem, engines, models, settings) for name in settings.methods]
        await stage.advance(note="System 2")
        return rows

    async with open_engines(models.with_temperature(0.0).without_ppm(), sandbox) as engines:
        rows = await map_concurrently(system_1, problems, limit=settings.max_in_flight)
    if system_problems:
        async with open_engines(models, sandbox) as engines:
            rows += await map_concurrently(system_2, system_problems, limit=settings.max_in_flight)
    return [row for rows_of_problem in rows for row in rows_of_problem]


async def pass_at_1(problem: Problem, engines: Engines, models: Models, settings: EvaluationSettings) -> Row:
    """Sample one trajectory from the policy, which is greedy here."""
    start = time.monotonic()
    result = await sample(problem, engines, max_depth=settings.search.max_depth, seed=settings.seed)
    return _row(
        problem, "pass@1", models.policy_fingerprint, result.answer, result.correct, result.num_tokens, start=start
    )


async def deep_thinking(problem: Problem, engines: Engines, models: Models, settings: EvaluationSettings) -> list[Row]:
    """Search with the PPM. The first row has the answer with the best score, the others those of two votes."""
    start = time.monotonic()
    seed = tree_seed(settings.seed, problem.id, 0)
    unlabelled = replace(problem, answer="")
    conclusion, trajectories, tree = await think(
        unlabelled, **engines.for_search(), settings=settings.search, seed=seed, top_k=settings.top_k
    )
    best = best_scored(trajectories)
    answers = {
        "system": conclusion.best,
        "system_majority": conclusion.majority,
        "system_weighted": conclusion.weighted_majority,
    }
    rows = []
    for metric, answer in answers.items():
        correct = await _is_correct(answer, problem, engines)
        row = _row(problem, metric, models.fingerprint, answer, correct, tree.num_tokens, start=start)
        rows.append(row | {"num_trajectories": settings.search.num_rollouts, "score": best.score if best else None})
    return rows


async def majority_vote(
    problem: Problem, engines: Engines, models: Models, settings: EvaluationSettings, *, budget: int
) -> Row:
    """Take the majority answer of samples that have `budget` tokens together."""
    start = time.monotonic()
    depth = settings.search.max_depth
    samples = await sample_tokens(problem, engines, budget, max_depth=depth, seed=settings.seed + 1)
    answer, _ = await majority([each.answer for each in samples], engines.judge)
    correct = await _is_correct(answer, problem, engines)
    num_tokens = sum(each.num_tokens for each in samples)
    row = _row(problem, "majority", models.policy_fingerprint, answer, correct, num_tokens, start=start)
    return row | {"num_trajectories": settings.search.num_rollouts}


async def best_of_n(problem: Problem, engines: Engines, models: Models, settings: EvaluationSettings) -> Row:
    """Sample as many trajectories as the search has rollouts; the PPM's score of the last step chooses the answer."""
    assert engines.scorer is not None
    start = time.monotonic()
    num_samples, depth = settings.search.num_rollouts, settings.search.max_depth
    seed = settings.seed + 2  # other samples than those of the majority vote
    samples = await sample_many(problem, engines, num_samples, max_depth=depth, seed=seed)
    best = best_scored(await score_samples(problem.question, samples, engines.scorer))
    num_tokens = sum(each.num_tokens for each in samples)
    return await _best_row(problem, "best_of_n", engines, models, best, num_tokens, num_samples, start=start)


async def beam(problem: Problem, engines: Engines, models: Models, settings: EvaluationSettings) -> Row:
    """Search with a beam; the PPM's score of the last step chooses the answer."""
    start = time.monotonic()
    beam_settings = BeamSettings(settings.beam_width, settings.search.num_candidates, settings.search.max_depth)
    seed = tree_seed(settings.seed, problem.id, 0)
    unlabelled = replace(problem, answer="")
    trajectories, tree = await beam_search(unlabelled, **engines.for_search(), settings=beam_settings, seed=seed)
    best, width = best_scored(trajectories), settings.beam_width
    return await _best_row(problem, "beam", engines, models, best, tree.num_tokens, width, start=start)


METHODS = {"best_of_n": best_of_n, "beam": beam}


async def evaluate_ppm(run: Run, models: Models) -> list[Row]:
    """Return a row for each held-out pair: whether the PPM scores the better step higher."""
    levels = {problem.id: problem.level for problem in read_problems(run, "test").problems.values()}
    pairs = shards.read_rows(heldout_pairs(run), "pairs")
    start = time.monotonic()
    domain = find_domain(models.domain)
    async with open_scorer(models, domain) as scorer:
        assert scorer is not None
        margins = await score_pairs(pairs, scorer, domain)
    rows = []
    for number, (pair, margin) in enumerate(zip(pairs, margins, strict=True)):
        problem = Problem(pair["problem_id"], "", "", levels[pair["problem_id"]])
        row = _row(problem, "ppm_pairs", models.ppm_fingerprint, None, margin > 0, 0, start=start)
        rows.append(row | {"sample": number, "score": margin})
    return rows


async def _is_correct(answer: str | None, problem: Problem, engines: Engines) -> bool:
    return answer is not None and await engines.judge.correct(answer, problem.answer) is True


async def _best_row(
    problem: Problem, metric: str, engines: Engines, models: Models, best: ScoredTrajectory | None, num_tokens: int,
    num_trajectories: int, *, start: float,
) -> Row:  # fmt: skip
    answer = best.answer if best else None
    correct = await _is_correct(answer, problem, engines)
    row = _row(problem, metric, models.fingerprint, answer, correct, num_tokens, start=start)
    return row | {"num_trajectories": num_trajectories, "score": best.score if best else None}


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

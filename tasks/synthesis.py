"""Problem synthesis: variations of solved problems, labelled by the agreement of their solvers.

Section 4.1 and Appendix A: each new problem is solved ten times, and kept if at least three answers agree. The built-in
families vary a problem by their own rules; real problems have no such rules here and give none.
"""

from __future__ import annotations

import random

from prefect import task

from miniature.problems import GeneratedProblem, vary
from problems.synthesis import majority
from rstar.protocols import Problem
from store import shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Models, Sandbox, opened
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import round_problems, synthetic_name
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.system_1 import sample_many
from tasks.problems import generated_row


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="synthesis-{round}",
)  # fmt: skip
async def synthesise(
    root: str, round: int, *, num_problems: int, num_solutions: int, min_agreeing: int, max_depth: int,
    models: Models, sandbox: Sandbox, seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Write the problems that join the training set in this round."""
    run = Run(root)
    if (done := finished(run, round, "synthesis", run.problems(synthetic_name(round)))) is not None:
        return done
    with Phase(run, round, "synthesis", recipe=recipe) as phase:
        made = variations(run, round, num_problems, seed)
        stage = Stage("synthesis", round, len(made))
        rows = []

        async def one(new: GeneratedProblem) -> None:
            samples = await sample_many(new.problem, engines, num_solutions, max_depth=max_depth, seed=seed)
            phase.num_tokens += sum(each.num_tokens for each in samples)
            answer, agreeing = await majority([each.answer for each in samples], engines.judge)
            if answer is not None and agreeing >= min_agreeing:
                rows.append(generated_row(new, synthetic=True, answer=answer))
            await stage.advance(note=f"{len(rows)} kept")

        async with opened(models, sandbox) as engines:
            await map_concurrently(one, made, limit=max(1, len(made)))
        shards.write_rows(run.problems(synthetic_name(round)), "problems", rows)
        phase.counts = {"written": len(made), "kept": len(rows)}
    return phase.counts


def variations(run: Run, round: int, num_problems: int, seed: int) -> list[GeneratedProblem]:
    """Vary problems that the round before solved."""
    known = round_problems(run, round).problems
    solved = {
        row["problem_id"] for row in shards.read_rows(run.trajectories(round - 1), "trajectories") if row["correct"]
    }
    rng = random.Random(f"{seed}-{round}")
    order = [known[id] for id in sorted(solved & known.keys())]
    rng.shuffle(order)
    made: dict[str, GeneratedProblem] = {}
    for source in order:
        if len(made) == num_problems:
            break
        new = vary_one(source, rng.getrandbits(32))
        if new is not None and new.problem.id not in known:
            made[new.problem.id] = new
    return list(made.values())


def vary_one(source: Problem, seed: int) -> GeneratedProblem | None:
    return vary(source.question, seed=seed, level=source.level)

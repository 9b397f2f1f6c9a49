"""Problem synthesis: variations of solved problems, labelled by the agreement of several solutions.

Section 4.1 and Appendix A: each new problem is solved ten times, and kept if at least three answers agree. Only
generated problems can be varied. The paper varies real ones with a strong LLM, which is not done here.
"""

from __future__ import annotations

import random
from typing import Any

from prefect import task

from miniature.problems import GeneratedProblem, vary
from problems.synthesis import majority
from store import shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Models, SandboxSettings, open_engines
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import round_problems, synthetic_name
from tasks.lib.progress import Stage
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.system_1 import sample_many
from tasks.problems import generated_row


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=24 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="synthesis-{round}",
)  # fmt: skip
async def synthesise(
    root: str, round: int, *, num_problems: int, num_solutions: int, min_agreeing: int, max_depth: int,
    models: Models, sandbox: SandboxSettings, seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Write the problems that this round adds to the training set."""
    run = Run(root)
    if (done := finished(run, round, "synthesis", run.problems(synthetic_name(round)))) is not None:
        return done
    with Phase(run, round, "synthesis", recipe=recipe) as phase:
        new_problems = variations(run, round, num_problems, seed)
        stage = Stage("synthesis", round, len(new_problems))
        rows: list[dict[str, Any]] = []

        async def solve(new: GeneratedProblem) -> None:
            samples = await sample_many(new.problem, engines, num_solutions, max_depth=max_depth, seed=seed)
            phase.num_tokens += sum(each.num_tokens for each in samples)
            answer, num_agreeing = await majority([each.answer for each in samples], engines.judge)
            if answer is not None and num_agreeing >= min_agreeing:
                rows.append(generated_row(new) | {"synthetic": True, "answer": answer})
            await stage.advance(note=f"{len(rows)} kept")

        async with open_engines(models, sandbox) as engines:
            await map_concurrently(solve, new_problems, limit=max(1, len(new_problems)))
        shards.write_rows(run.problems(synthetic_name(round)), "problems", rows)
        phase.counts = {"written": len(new_problems), "kept": len(rows)}
    return phase.counts


def variations(run: Run, round: int, num_problems: int, seed: int) -> list[GeneratedProblem]:
    """Return variations of problems that the round before solved, at most `num_problems`."""
    known = round_problems(run, round).problems
    solved = {
        row["problem_id"] for row in shards.read_rows(run.trajectories(round - 1), "trajectories") if row["correct"]
    }
    rng = random.Random(f"{seed}-{round}")
    sources = [known[id] for id in sorted(solved & known.keys())]
    rng.shuffle(sources)
    new_problems: dict[str, GeneratedProblem] = {}
    for source in sources:
        if len(new_problems) == num_problems:
            break
        new = vary(source.question, seed=rng.getrandbits(32), level=source.level)
        if new is not None and new.problem.id not in known:
            new_problems[new.problem.id] = new
    return list(new_problems.values())

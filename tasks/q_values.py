"""Q-value aggregation: the trajectories of a round with their Q-values, and the SFT set chosen from them.

Section 3.2 (Q-values), Section 3.4 (the two correct trajectories with the highest mean Q); Table 7's other choices are
written beside it, for comparison only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task

from domains.registry import find_domain
from rstar.trajectories import Trajectory, label_is_suspect, random_choice, rejection_choice, sft_choice, trajectories
from store import shards
from store.layout import Run
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import round_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.trees import Searched, searched, tree_seed
from tasks.lib.truth import has_wrong_step

COMPARISON = "comparison"  # the part of the SFT table that is not trained on
Row = dict[str, Any]


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="q-values-{round}",
)  # fmt: skip
async def aggregate_q_values(
    root: str, round: int, *, domain: str, num_per_problem: int, min_correct_synthetic: float, seed: int, recipe: str
) -> dict[str, int]:
    """Merge trees, write the round's trajectories and its SFT set."""
    run = Run(root)
    if (done := finished(run, round, "extraction", run.trajectories(round), run.sft(round))) is not None:
        return done
    with Phase(run, round, "extraction", recipe=recipe) as phase:
        asked = round_problems(run, round)
        stage = Stage("Q-values", round, len(asked.problems))
        common = {"run": run.name, "round": round, "recipe": recipe}
        found_rows: list[Row] = []
        chosen_rows: list[Row] = []
        other_rows: list[Row] = []
        for one in searched(run, round, asked.problems, find_domain(domain)):
            found = trajectories(one.tree)
            truth = asked.truths.get(one.problem.id)
            wrong = {found_one.found: has_wrong_step(truth, found_one.steps) for found_one in found}
            found_rows += [common | trajectory_row(one, each, wrong[each.found]) for each in found]
            suspect = one.problem.id in asked.synthetic and label_is_suspect(found, min_correct=min_correct_synthetic)
            verified = [] if suspect else sft_choice(found, per_problem=num_per_problem)
            draw = {"num_chosen": num_per_problem, "seed": tree_seed(seed, one.problem.id, 0)}
            chosen_rows += [common | row for row in sft_rows(one, "verified", verified, wrong)]
            other_rows += [common | row for row in sft_rows(one, "rejection", rejection_choice(found, **draw), wrong)]
            other_rows += [common | row for row in sft_rows(one, "random", random_choice(found, **draw), wrong)]
            await stage.advance()
        shards.write_rows(run.trajectories(round), "trajectories", found_rows)
        shards.write_rows(run.sft(round, COMPARISON), "sft", other_rows)
        shards.write_rows(run.sft(round), "sft", chosen_rows)
        phase.counts = {"trajectories": len(found_rows), "sft": len(chosen_rows)}
    return phase.counts


def trajectory_row(one: Searched, found: Trajectory, wrong_step: bool | None) -> Row:
    return {
        "problem_id": one.problem.id,
        "path": [one.refs[id] for id in found.node_ids],
        "steps": list(found.steps),
        "answer": found.answer,
        "correct": bool(found.correct),
        "qs": list(found.qs),
        "mean_q": found.mean_q,
        "min_q": found.min_q,
        "num_steps": len(found.steps),
        "num_tokens": found.num_tokens,
        "wrong_step": wrong_step,
    }


def sft_rows(one: Searched, choice: str, chosen: Sequence[Trajectory], wrong: dict[int, bool | None]) -> list[Row]:
    return [
        {
            "problem_id": one.problem.id,
            "question": one.problem.question,
            "response": found.text,
            "choice": choice,
            "rank": rank,
            "node": one.refs[found.found],
            "correct": bool(found.correct),
            "mean_q": found.mean_q,
            "min_q": found.min_q,
            "num_steps": len(found.steps),
            "num_tokens": found.num_tokens,
            "wrong_step": wrong[found.found],
        }
        for rank, found in enumerate(chosen)
    ]

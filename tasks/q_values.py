"""Q-value aggregation: the trajectories of a round with their Q-values, and the SFT set chosen from them.

Section 3.2 (Q-values) and Section 3.4 (the two correct trajectories with the highest mean Q). The other choices of
Table 7 are written to a file of their own and not trained on.
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
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.trees import SearchedProblem, searched_problems, tree_seed
from tasks.lib.truth import has_wrong_step

COMPARISON = "comparison"  # name of the file with the choices that are not trained on
Row = dict[str, Any]


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="q-values-{round}",
)  # fmt: skip
async def aggregate_q_values(
    root: str, round: int, *, domain: str, num_per_problem: int, min_correct_synthetic: float, seed: int, recipe: str
) -> dict[str, int]:
    """Merge the trees of each problem; write the trajectories and the SFT set of the round."""
    run = Run(root)
    if (done := finished(run, round, "extraction", run.trajectories(round), run.sft(round))) is not None:
        return done
    with Phase(run, round, "extraction", recipe=recipe) as phase:
        problem_set = round_problems(run, round)
        stage = Stage("Q-values", round, len(problem_set.problems))
        common = {"run": run.name, "round": round, "recipe": recipe}
        trajectory_rows: list[Row] = []
        sft_rows: list[Row] = []
        comparison_rows: list[Row] = []
        for searched in searched_problems(run, round, problem_set.problems, find_domain(domain)):
            id = searched.problem.id
            found = trajectories(searched.tree)
            wrong = {each.terminal_id: has_wrong_step(problem_set.truths.get(id), each.steps) for each in found}
            trajectory_rows += [common | trajectory_row(searched, each, wrong[each.terminal_id]) for each in found]
            suspect = id in problem_set.synthetic and label_is_suspect(found, min_correct=min_correct_synthetic)
            verified = [] if suspect else sft_choice(found, num_chosen=num_per_problem)
            sft_rows += [common | row for row in choice_rows(searched, "verified", verified, wrong)]
            for choice, choose in (("rejection", rejection_choice), ("random", random_choice)):
                chosen = choose(found, num_chosen=num_per_problem, seed=tree_seed(seed, id, 0))
                comparison_rows += [common | row for row in choice_rows(searched, choice, chosen, wrong)]
            await stage.advance()
        shards.write_rows(run.trajectories(round), "trajectories", trajectory_rows)
        shards.write_rows(run.sft(round, COMPARISON), "sft", comparison_rows)
        shards.write_rows(run.sft(round), "sft", sft_rows)
        phase.counts = {"trajectories": len(trajectory_rows), "sft": len(sft_rows)}
    return phase.counts


def trajectory_row(searched: SearchedProblem, trajectory: Trajectory, wrong_step: bool | None) -> Row:
    """Return a trajectory as a row."""
    return {
        "problem_id": searched.problem.id,
        "path": [searched.refs[id] for id in trajectory.node_ids],
        "steps": list(trajectory.steps),
        "answer": trajectory.answer,
        "qs": list(trajectory.qs),
        **_common_columns(trajectory),
        "wrong_step": wrong_step,
    }


def choice_rows(
    searched: SearchedProblem, choice: str, chosen: Sequence[Trajectory], wrong: dict[int, bool | None]
) -> list[Row]:
    """Return the chosen trajectories of a problem as rows. `wrong` says by terminal id which have a wrong step."""
    return [
        {
            "problem_id": searched.problem.id,
            "question": searched.problem.question,
            "response": trajectory.text,
            "choice": choice,
            "rank": rank,
            "node": searched.refs[trajectory.terminal_id],
            **_common_columns(trajectory),
            "wrong_step": wrong[trajectory.terminal_id],
        }
        for rank, trajectory in enumerate(chosen)
    ]


def _common_columns(trajectory: Trajectory) -> Row:
    return {
        "correct": trajectory.correct,
        "mean_q": trajectory.mean_q,
        "min_q": trajectory.min_q,
        "num_steps": len(trajectory.steps),
        "num_tokens": trajectory.num_tokens,
    }

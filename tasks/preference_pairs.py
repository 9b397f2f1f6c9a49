"""Preference-pair extraction: which steps and trajectories of a round's trees the Q-values prefer.

Section 3.3. All pairs are written, with their margin and edit distance; the recipe's thresholds apply in training.
"""

from __future__ import annotations

from typing import Any

from prefect import task
from rapidfuzz.distance import Levenshtein

from domains.registry import find_domain
from rstar.pairs import Pair, extract_pairs
from store import shards
from store.layout import Run
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import round_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.trees import Searched, searched


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="pairs-{round}",
)  # fmt: skip
async def extract_preference_pairs(
    root: str, round: int, *, domain: str, num_per_side: int, recipe: str
) -> dict[str, int]:
    """Write the round's preference pairs."""
    run = Run(root)
    if (done := finished(run, round, "pairs", run.pairs(round))) is not None:
        return done
    with Phase(run, round, "pairs", recipe=recipe) as phase:
        problems = round_problems(run, round).problems
        stage = Stage("pairs", round, len(problems))
        rows = []
        for one in searched(run, round, problems, find_domain(domain)):
            pairs = extract_pairs(one.tree, per_side=num_per_side)
            rows += [pair_row(one, pair, run=run.name, round=round, recipe=recipe) for pair in pairs]
            await stage.advance()
        phase.counts = {"pairs": shards.write_rows(run.pairs(round), "pairs", rows)}
    return phase.counts


def pair_row(one: Searched, pair: Pair, **columns: Any) -> dict[str, Any]:
    kind, prefix_id = pair.group
    chosen, rejected = "".join(pair.chosen), "".join(pair.rejected)
    return columns | {
        "problem_id": one.problem.id,
        "kind": kind,
        "group_id": f"{one.problem.id}/{kind}/{one.refs[prefix_id]}",
        "question": one.problem.question,
        "prefix": "".join(pair.prefix),
        "chosen": chosen,
        "rejected": rejected,
        "margin": pair.margin,
        "chosen_q": pair.chosen_q,
        "rejected_q": pair.rejected_q,
        "edit_distance": Levenshtein.distance(chosen, rejected),
        "chosen_node": one.refs[pair.chosen_id],
        "rejected_node": one.refs[pair.rejected_id],
    }

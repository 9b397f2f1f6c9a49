"""Preference-pair extraction: the pairs of a round's trees, by their Q-values.

Section 3.3. All pairs are written, with margin and edit distance. The thresholds of the recipe apply in training.
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
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.trees import SearchedProblem, searched_problems


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed, task_run_name="pairs-{round}",
)  # fmt: skip
async def extract_preference_pairs(
    root: str, round: int, *, domain: str, num_per_side: int, recipe: str
) -> dict[str, int]:
    """Write the preference pairs of a round."""
    run = Run(root)
    if (done := finished(run, round, "pairs", run.pairs(round))) is not None:
        return done
    with Phase(run, round, "pairs", recipe=recipe) as phase:
        problems = round_problems(run, round).problems
        stage = Stage("pairs", round, len(problems))
        rows = []
        for searched in searched_problems(run, round, problems, find_domain(domain)):
            pairs = extract_pairs(searched.tree, num_per_side=num_per_side)
            rows += [pair_row(searched, pair, run=run.name, round=round, recipe=recipe) for pair in pairs]
            await stage.advance()
        phase.counts = {"pairs": shards.write_rows(run.pairs(round), "pairs", rows)}
    return phase.counts


def pair_row(searched: SearchedProblem, pair: Pair, **columns: Any) -> dict[str, Any]:
    """Return a pair as a row with the given columns."""
    problem, refs = searched.problem, searched.refs
    chosen, rejected = "".join(pair.chosen), "".join(pair.rejected)
    return columns | {
        "problem_id": problem.id,
        "kind": pair.kind.value,
        "group_id": f"{problem.id}/{pair.kind.value}/{refs[pair.prefix_id]}",
        "question": problem.question,
        "prefix": "".join(pair.prefix),
        "chosen": chosen,
        "rejected": rejected,
        "margin": pair.margin,
        "chosen_q": pair.chosen_q,
        "rejected_q": pair.rejected_q,
        "edit_distance": Levenshtein.distance(chosen, rejected),
        "chosen_node": refs[pair.chosen_id],
        "rejected_node": refs[pair.rejected_id],
    }

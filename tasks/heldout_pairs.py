"""Held-out preference pairs: one fixed set on which the PPM of every round is measured.

The pairs are made once, from the trees of the first trained policy on test problems, as Table 4 of the paper fixes the
policy. For generated problems the truth says which of two steps is right, for others the Q-values do.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from prefect import task
from rapidfuzz.distance import Levenshtein

from domains.protocol import Domain
from miniature.problems import Truth
from rstar.pairs import step_pairs
from rstar.protocols import Problem, StepScorer
from rstar.search import SearchSettings, search
from rstar.tree import Node, Tree
from store import shards
from store.layout import Run
from store.schema import node_ref
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Models, SandboxSettings, open_engines
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import read_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import CACHE_POLICY, infrastructure_failed
from tasks.lib.trees import tree_seed
from tasks.lib.truth import wrong_of

Row = dict[str, Any]
MAX_PAIRS_PER_NODE = 4
TRUE_MARGIN = 2.0  # between a right step, with value 1, and a wrong one, with value -1


@task(
    persist_result=True, cache_policy=CACHE_POLICY, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed,
)  # fmt: skip
async def make_heldout_pairs(
    root: str, round: int, *, num_problems: int, settings: SearchSettings, models: Models, sandbox: SandboxSettings,
    seed: int, recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Write the pairs from the policy's trees on the first `num_problems` test problems."""
    run = Run(root)
    if (done := finished(run, round, "heldout", heldout_pairs(run))) is not None:
        return done
    with Phase(run, round, "heldout", recipe=recipe) as phase:
        problem_set = read_problems(run, "test")
        problems = [problem_set.problems[id] for id in sorted(problem_set.problems)[:num_problems]]
        stage = Stage("held-out pairs", round, len(problems))

        async def search_one(problem: Problem) -> list[Row]:
            tree = await search(problem, **engines.for_search(), settings=settings, seed=tree_seed(seed, problem.id, 0))
            phase.num_tokens += tree.num_tokens
            await stage.advance()
            common = {"run": run.name, "round": round, "recipe": recipe}
            return [common | row for row in pair_rows(tree, problem_set.truths.get(problem.id))]

        async with open_engines(models.without_ppm(), sandbox) as engines:
            rows_of_problems = await map_concurrently(search_one, problems, limit=max(1, len(problems)))
        rows = [row for rows_of_problem in rows_of_problems for row in rows_of_problem]
        shards.write_rows(heldout_pairs(run), "pairs", rows)
        phase.counts = {"problems": len(problems), "pairs": len(rows)}
    return phase.counts


def heldout_pairs(run: Run) -> str:
    """Return the path of the held-out pairs, which is not among those of the training pairs."""
    return run.path("heldout", "pairs.parquet")


def pair_rows(tree: Tree, truth: Truth | None) -> list[Row]:
    """Return the pairs of a tree as rows: by the truth if it is known, otherwise by Q-values."""
    if truth:
        return [_row(tree, *pair, TRUE_MARGIN) for node in tree.walk() for pair in true_pairs(node, truth)]
    nodes = tree.nodes
    return [
        _row(tree, nodes[pair.prefix_id], nodes[pair.chosen_id], nodes[pair.rejected_id], pair.margin)
        for pair in step_pairs(tree)
    ]


def true_pairs(node: Node, truth: Truth) -> Iterator[tuple[Node, Node, Node]]:
    """Yield (node, first right child, wrong child) if all steps before are right."""
    prefix = node.prefix()
    right: list[Node] = []
    wrong: list[Node] = []
    for child in node.children:
        verdicts = None if child.terminal else wrong_of(truth, [*prefix, child.rendered])
        if verdicts and not any(verdicts[:-1]):
            (wrong if verdicts[-1] else right).append(child)
    for rejected in wrong[:MAX_PAIRS_PER_NODE] if right else []:
        yield node, right[0], rejected


async def score_pairs(rows: list[Row], scorer: StepScorer, domain: Domain) -> list[float]:
    """Return for each pair the PPM's score of the chosen step minus that of the rejected one."""

    async def score_group(pairs: list[Row]) -> list[float]:
        steps = [pairs[0]["chosen"], *(pair["rejected"] for pair in pairs)]
        prefix = domain.split(pairs[0]["prefix"]) if pairs[0]["prefix"] else []
        chosen, *rejected = await scorer.score(pairs[0]["question"], prefix, steps)
        return [chosen - score for score in rejected]

    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row["group_id"], row["chosen"]))]
    margins = await map_concurrently(score_group, groups, limit=max(1, len(groups)))
    return [margin for margins_of_group in margins for margin in margins_of_group]


def _row(tree: Tree, node: Node, chosen: Node, rejected: Node, margin: float) -> Row:
    return {
        "problem_id": tree.problem.id,
        "kind": "step",
        "group_id": f"{tree.problem.id}/step/{node_ref(0, node.id)}",
        "question": tree.problem.question,
        "prefix": "".join(node.prefix()),
        "chosen": chosen.rendered,
        "rejected": rejected.rendered,
        "margin": margin,
        "edit_distance": Levenshtein.distance(chosen.rendered, rejected.rendered),
        "chosen_node": node_ref(0, chosen.id),
        "rejected_node": node_ref(0, rejected.id),
    }

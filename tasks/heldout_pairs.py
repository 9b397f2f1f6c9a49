"""Held-out preference pairs: a fixed set on which every round's PPM is measured.

Made once, from trees that the first trained policy grows on held-out problems: it is held, as in the paper's Table 4.
On the built-in families the truth says which of two steps is right; on other problems Q-values must.
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
from tasks.lib.engines import Models, Sandbox, opened
from tasks.lib.phases import Phase, finished
from tasks.lib.problems import read_problems
from tasks.lib.progress import Stage
from tasks.lib.retries import KEPT, infrastructure_failed
from tasks.lib.trees import tree_seed
from tasks.lib.truth import wrong_of

PER_NODE = 4  # pairs of one node at most
TRUE_MARGIN = 2.0  # right is worth 1, wrong -1


@task(
    persist_result=True, cache_policy=KEPT, retries=2, retry_delay_seconds=5, timeout_seconds=6 * 3600,
    retry_condition_fn=infrastructure_failed,
)  # fmt: skip
async def make_heldout_pairs(
    root: str, round: int, *, num_problems: int, settings: SearchSettings, models: Models, sandbox: Sandbox, seed: int,
    recipe: str,
) -> dict[str, int]:  # fmt: skip
    """Write the pairs that the policy of `round` makes on `num_problems` held-out problems."""
    run = Run(root)
    if (done := finished(run, round, "heldout", heldout_pairs(run))) is not None:
        return done
    with Phase(run, round, "heldout", recipe=recipe) as phase:
        asked = read_problems(run, "test")
        problems = [asked.problems[id] for id in sorted(asked.problems)[:num_problems]]
        stage = Stage("held-out pairs", round, len(problems))

        async def one(problem: Problem) -> list[dict[str, Any]]:
            tree = await search(problem, **engines.for_search(), settings=settings, seed=tree_seed(seed, problem.id, 0))
            phase.num_tokens += tree.num_tokens
            await stage.advance()
            common = {"run": run.name, "round": round, "recipe": recipe}
            return [common | row for row in pair_rows(tree, asked.truths.get(problem.id))]

        async with opened(models.without_ppm(), sandbox) as engines:
            found = await map_concurrently(one, problems, limit=max(1, len(problems)))
        rows = [row for of_problem in found for row in of_problem]
        shards.write_rows(heldout_pairs(run), "pairs", rows)
        phase.counts = {"problems": len(problems), "pairs": len(rows)}
    return phase.counts


def heldout_pairs(run: Run) -> str:
    """Name the file, which lies apart from the pairs that are trained on."""
    return run.path("heldout", "pairs.parquet")


def pair_rows(tree: Tree, truth: Truth | None) -> list[dict[str, Any]]:
    if truth:
        return [_row(tree, *pair, TRUE_MARGIN) for node in tree.walk() for pair in true_pairs(node, truth)]
    nodes = tree.nodes
    return [
        _row(tree, nodes[pair.prefix_id], nodes[pair.chosen_id], nodes[pair.rejected_id], pair.margin)
        for pair in step_pairs(tree)
    ]


def true_pairs(node: Node, truth: Truth) -> Iterator[tuple[Node, Node, Node]]:
    """Pair the first right child with wrong ones, where all steps before are right."""
    prefix = node.prefix()
    steps = [child for child in node.children if not child.terminal]
    verdicts = {child.id: wrong_of(truth, [*prefix, child.rendered]) for child in steps}
    known = [child for child in steps if verdicts[child.id] and not any((verdicts[child.id] or [])[:-1])]
    right = [child for child in known if not (verdicts[child.id] or [True])[-1]]
    wrong = [child for child in known if (verdicts[child.id] or [False])[-1]]
    for rejected in wrong[:PER_NODE] if right else []:
        yield node, right[0], rejected


async def score_pairs(rows: list[dict[str, Any]], scorer: StepScorer, domain: Domain) -> list[float]:
    """Return how much higher the PPM scores the better step of each pair."""

    async def one(pairs: list[dict[str, Any]]) -> list[float]:
        steps = [pairs[0]["chosen"], *(pair["rejected"] for pair in pairs)]
        prefix = domain.split(pairs[0]["prefix"]) if pairs[0]["prefix"] else []
        chosen, *rejected = await scorer.score(pairs[0]["question"], prefix, steps)
        return [chosen - score for score in rejected]

    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row["group_id"], row["chosen"]))]
    margins = await map_concurrently(one, groups, limit=max(1, len(groups)))
    return [margin for of_group in margins for margin in of_group]


def _row(tree: Tree, node: Node, chosen: Node, rejected: Node, margin: float) -> dict[str, Any]:
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

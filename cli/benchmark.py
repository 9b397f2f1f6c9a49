"""`rstar benchmark`: the accuracy of a run's last trained models on a file of problems."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cli.announce import announce
from cli.console import watching
from cli.import_ import check_rows
from domains.registry import find_domain
from flows import plans
from problems.sources.json_lines import import_problems
from tasks.evaluation import evaluate_problems


def benchmark_file(
    file: Path, root: str, overrides: Sequence[str], *, level: str | None, limit: int | None
) -> list[dict[str, object]]:
    """Return one row for each metric: accuracy, and tokens per problem."""
    recipe, models = plans.last_models(root, overrides)
    announce(recipe, models)
    imported = import_problems(file, domain=find_domain(recipe.domain), level=level)
    check_rows(file, imported)
    problems = list(imported.problems[:limit])
    round, settings = plans.last_trained_round(recipe, root), plans.evaluation_settings(recipe)
    with watching(len(recipe.rounds)):
        rows = asyncio.run(
            evaluate_problems(problems, round, models=models, sandbox=plans.sandbox(recipe), settings=settings)
        )
    by_metric = defaultdict(list)
    for row in rows:
        by_metric[row["metric"]].append(row)
    return [
        {
            "metric": metric,
            "problems": len(attempts),
            "correct": sum(row["correct"] for row in attempts),
            "accuracy %": 100.0 * sum(row["correct"] for row in attempts) / len(attempts),
            "tokens per problem": sum(row["num_tokens"] for row in attempts) / len(attempts),
        }
        for metric, attempts in by_metric.items()
    ]

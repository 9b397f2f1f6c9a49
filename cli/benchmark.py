"""`rstar benchmark`: a run's last models on a file of problems."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cli.announce import announce_models
from cli.console import watching
from cli.importing import name_bad_rows
from domains.registry import find_domain
from flows import plans
from problems.sources.json_lines import import_problems
from tasks.evaluation import examine


def benchmark_file(
    file: Path, root: str, overrides: Sequence[str] = (), *, level: str | None, limit: int | None
) -> list[dict[str, object]]:
    """Return accuracy and tokens a problem by metric."""
    recipe, models = plans.last_pair(root, overrides)
    announce_models(models)
    imported = import_problems(file, domain=find_domain(recipe.domain), level=level)
    name_bad_rows(file, imported)
    problems = list(imported.problems[:limit])
    exam = plans.examination(recipe)
    with watching(len(recipe.rounds)):
        rows = asyncio.run(
            examine(problems, plans.last_round(recipe, root), models=models, sandbox=plans.sandbox(recipe), exam=exam)
        )
    by_metric = defaultdict(list)
    for row in rows:
        by_metric[row["metric"]].append(row)
    return [
        {
            "metric": metric,
            "problems": len(of_metric),
            "correct": sum(row["correct"] for row in of_metric),
            "accuracy %": 100.0 * sum(row["correct"] for row in of_metric) / len(of_metric),
            "tokens a problem": sum(row["num_tokens"] for row in of_metric) / len(of_metric),
        }
        for metric, of_metric in by_metric.items()
    ]

"""`rstar solve` and `rstar benchmark`: a run's last policy and PPM at work on questions of the user's."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.syntax import Syntax

from flows import plans
from flows.console import console, watching
from flows.importing import name_bad_rows
from flows.recipe import Recipe
from problems.importing import import_problems, problem_id
from rstar.protocols import Problem, UserError
from rstar.search import SearchSettings
from rstar.steps import code_of, kind_of, output_spans
from rstar.thinking import Conclusion, Thought, think
from store import files
from store.layout import Run
from tasks.engines import Models, opened
from tasks.evaluation import examine


def solve_question(question: str, root: str, *, seed: int, num_rollouts: int | None) -> None:
    """Print the best trajectory's steps, code and outputs, and the answer."""
    recipe, models = last_pair(root)
    if models.ppm is None:
        raise UserError(f"{root}: its last round has no PPM, which deep thinking needs")
    settings = plans.examination(recipe).settings
    settings = replace(settings, num_rollouts=num_rollouts or settings.num_rollouts)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as bars:
        bar = bars.add_task("rollouts", total=settings.num_rollouts)
        thinking = think_once(question, recipe, models, settings, seed, lambda: bars.advance(bar))
        conclusion, thoughts = asyncio.run(thinking)
    show(conclusion, thoughts)


async def think_once(
    question: str, recipe: Recipe, models: Models, settings: SearchSettings, seed: int, advance: Callable[[], None]
) -> tuple[Conclusion, list[Thought]]:
    problem = Problem(problem_id(question), question, "")
    async with opened(models, plans.sandbox(recipe)) as engines:
        conclusion, thoughts, _ = await think(
            problem,
            **engines.for_search(),
            settings=settings,
            seed=seed,
            top_k=recipe.evaluation.top_k,
            on_rollout=lambda tree, end: advance(),
        )
    return conclusion, thoughts


def show(conclusion: Conclusion, thoughts: list[Thought]) -> None:
    if not thoughts:
        console.print("no trajectory came to an answer; try more --rollouts")
        return
    best = max(thoughts, key=lambda thought: thought.score)
    for step in best.steps:
        if (code := code_of(step).strip()) and kind_of(step) in ("code", "last_code"):
            console.print(Syntax(code, "python", background_color="default"))
        for start, end in output_spans(step):
            console.print(f"[dim]output:[/dim] {escape(step[start:end].strip())}")
    console.print(f"[bold]answer: {escape(best.answer)}[/bold]  (PPM score {best.score:.3f}, best of {len(thoughts)})")
    console.print(
        f"majority: {escape(conclusion.majority or '')}   weighted: {escape(conclusion.weighted_majority or '')}"
    )


def benchmark_file(file: Path, root: str, *, level: str | None, limit: int | None) -> list[dict[str, object]]:
    """Return accuracy and tokens a problem by metric."""
    recipe, models = last_pair(root)
    imported = import_problems(file, level=level)
    name_bad_rows(imported)
    problems = list(imported.problems[:limit])
    exam = plans.examination(recipe)
    with watching(len(recipe.rounds)):
        rows = asyncio.run(
            examine(problems, last_round(recipe, root), models=models, sandbox=plans.sandbox(recipe), exam=exam)
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


def last_pair(root: str) -> tuple[Recipe, Models]:
    recipe = plans.recipe_of(root)
    return recipe, plans.trained_models(recipe, root, last_round(recipe, root))


def last_round(recipe: Recipe, root: str) -> int:
    """Find the last round whose models are trained."""
    run = Run(root)
    for round in range(len(recipe.rounds), 0, -1):
        spec = plans.section(recipe, round)
        kinds = ("policy",) * spec.train_policy + ("ppm",) * spec.train_ppm
        if kinds and all(files.exists(f"{run.models(round, kind)}/manifest.json") for kind in kinds):
            return round
    raise UserError(f"{root}: no round of it has trained models yet; resume it with `rstar evolve`")

"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.recipe import RECIPES
from rstar.inference.budget import Budget

RECIPE_HELP = f"TOML file, or a shipped recipe: {', '.join(sorted(file.stem for file in RECIPES.glob('*.toml')))}."
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as rounds.1.num_rollouts=4. Repeatable."
    ),
]
OverridesOnce = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the run's recipe for this command only, such as engine.kind=vllm. Repeatable.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Folder of the run.  [default: runs/NAME; NAME is the recipe's name]"),
]
RUN_HELP = "Folder of a run, or its name in runs/.  [default: the newest run in runs/{}]"
Run = Annotated[str | None, typer.Option("--run", metavar="RUN", help=RUN_HELP.format(""))]
TrainedRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help=RUN_HELP.format(" with trained models"))]
BudgetOption = Annotated[
    Budget | None,
    typer.Option(
        "--budget",
        parser=Budget.read,
        metavar="BUDGET",
        help="Limit of the search for each problem: 16 (trajectories), 20000t (generated tokens) or 30s (seconds). The "
        "last rollout can exceed a limit of tokens; a limit of seconds cuts it off.  "
        "[default: evaluation.num_rollouts of the run's recipe]",
    ),
]
DefaultLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Level of the problems whose rows do not state one.")
]

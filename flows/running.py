"""An evolution from the command line: progress bars while it runs, the round's table after each round."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from flows import plans
from flows.console import announce_sandbox, console, watching
from flows.doctor import prefect_server
from flows.evolution import evolution
from flows.recipe import Recipe
from report.tables import final_tables
from rstar.protocols import UserError

NUM_TABLES = 6  # the report has the others


def evolve_here(recipe: Recipe, root: str) -> None:
    """Run the flow in this process, against PREFECT_API_URL's server or a temporary one."""
    start = time.monotonic()
    if (server := prefect_server()).advice and os.environ.get("PREFECT_API_URL"):
        raise UserError(f"PREFECT_API_URL: {server.state}; {server.advice}")
    plans.base_model(recipe)  # what is missing is better told before the search than after it
    shield_server()
    place = str(Path(root).absolute())
    console.print(f"{len(recipe.rounds)} rounds in {root}, recipe {recipe.hash}", markup=False)
    announce_sandbox(recipe.sandbox.provider, console)
    with watching(len(recipe.rounds)):
        report = asyncio.run(evolution(recipe, place))
    for table in final_tables(place)[:NUM_TABLES]:
        console.print(table)
    console.print(f"done in {(time.monotonic() - start) / 60:.1f} minutes; report: {report}", markup=False)


def shield_server() -> None:
    """Have Prefect start its temporary server in a session of its own.

    Ctrl-C goes to all processes of a terminal's foreground group; the run still has to tell the server how it ended.
    """
    from prefect.server.api import server

    started = partial(subprocess.Popen, start_new_session=True)
    server.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": started})  # type: ignore[attr-defined]

"""The `rstar` command: its subcommands and their options.

A mistake of the user ends with one line and exit code 2, a failure of an engine, sandbox or store with one line and
exit code 1. Ctrl-C during a run prints the command that resumes it.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

# Set before Prefect is imported: no telemetry, and no log between the progress bars.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 is too short on a busy machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

from cli import sandbox
from cli.console import console, errors, print_rows
from cli.options import (
    RECIPE_HELP,
    RUN_HELP,
    BudgetOption,
    DefaultLevel,
    Out,
    Overrides,
    OverridesOnce,
    Run,
    TrainedRun,
)
from cli.runs import RUNS, find_run
from flows.recipe import load_recipe
from rstar.protocols import InfrastructureError, UserError

app = typer.Typer(
    help="rStar: a small policy and a process preference model (PPM) improve each other by tree search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def demo(
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of all random choices.  [default: the recipe's run.seed]"),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the run.  [default: runs/NAME, or runs/NAME-N with --seed N; NAME is the recipe's name]",
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help=RECIPE_HELP)] = "demo",
    set: Overrides = None,
) -> None:
    """Run the demo: four rounds with tiny models on two CPU cores.

    The same command resumes a stopped demo: finished work is not repeated.
    """
    from cli.evolve import run_recipe

    overrides = [*(set or []), *([] if seed is None else [f"run.seed={seed}"])]
    name = load_recipe(recipe, overrides).run.name
    run_recipe(recipe, out or str(RUNS / (f"{name}-{seed}" if seed else name)), overrides)


@app.command()
def evolve(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)],
    out: Out = None,
    set: Overrides = None,
) -> None:
    """Run a recipe, or resume the run in --out.

    Finished work is not repeated. Ctrl-C stops the run and prints the command that resumes it.
    """
    from cli.evolve import run_recipe

    run_recipe(recipe, out, set or [])


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, plain or gzipped.")],
    out: Annotated[str, typer.Option(metavar="PARQUET", help="Parquet file to write.")],
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row and write nothing.")] = False,
    level: DefaultLevel = None,
    domain: Annotated[
        str, typer.Option(metavar="DOMAIN", help="Domain of the problems. It decides which answers can be read.")
    ] = "mathematics",
) -> None:
    """Import problems from a JSON Lines file.

    A row has the keys {problem, answer} and optionally {source, level}, or those of GSM8K: {question, answer}. Bad rows
    are named by line and left out. A recipe uses the Parquet file as problems.train_file or problems.test_file.
    """
    from cli.import_ import import_file

    print_rows(import_file(file, out, domain=domain, strict=strict, level=level), title=f"{file} -> {out}")


@app.command()
def solve(
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="The problem, in quotes.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Solve the problems of this JSON Lines file: {problem} or {problem, answer}."
        ),
    ] = None,
    run: TrainedRun = None,
    budget: BudgetOption = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the search.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the results to this JSON Lines file.")
    ] = None,
    set: OverridesOnce = None,
) -> None:
    """Solve a problem with a run's last policy and PPM.

    Prints the trajectory with the highest PPM score: its steps, the output of their code, and the answer. Ctrl-C ends
    the search and prints the best trajectory so far.
    """
    from cli.solve import solve_file, solve_question

    if (question is None) == (file is None):
        raise UserError('solve: give one question in quotes, or --file with many: rstar solve "What is 2 + 2?"')
    root = find_run(run, trained=True)
    if file is not None:
        found = solve_file(file, root, set or (), seed=seed, budget=budget, out=out)
    else:
        found = solve_question(question or "", root, set or (), seed=seed, budget=budget, out=out)
    if not found:
        raise typer.Exit(130)


@app.command()
def serve(
    run: TrainedRun = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is every IPv4 address of this machine."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 is any free one.")
    ] = 8000,
    max_in_flight: Annotated[
        int, typer.Option(metavar="N", min=1, help="Searches at the same time. Further requests get status 429.")
    ] = 8,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="Time after which a search ends with its best answer so far."),
    ] = 60.0,
    budget: BudgetOption = None,
    set: OverridesOnce = None,
) -> None:
    """Serve a run's last policy and PPM as OpenAI chat completions.

    Routes: POST /v1/chat/completions (the last user message is the problem), GET /v1/models, /health and /metrics.
    There is no authentication: listen on this machine only, or put a proxy with authentication in front.
    """
    from cli.announce import announce
    from flows import plans
    from serve.server import serve_run
    from serve.service import Limits

    root = find_run(run, trained=True)
    recipe, models = plans.thinking_models(root, set or ())
    announce(recipe, models)
    limits = Limits(max_in_flight=max_in_flight, timeout_seconds=timeout)
    serve_run(root, recipe, models, host=host, port=port, limits=limits, budget=budget, console=console)


@app.command()
def benchmark(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON Lines of {problem, answer}, in the forms of `rstar import`.")
    ],
    run: TrainedRun = None,
    level: DefaultLevel = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use only the first N problems.")] = None,
    set: OverridesOnce = None,
) -> None:
    """Evaluate a run's last trained models on a file of problems."""
    from cli.benchmark import benchmark_file

    root = find_run(run, trained=True)
    print_rows(benchmark_file(file, root, set or (), level=level, limit=limit), title=str(file))


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUN_HELP.format(""))] = None,
) -> None:
    """Write a run's report (HTML and Markdown) and print its tables."""
    from report.page import write_report
    from report.tables import final_tables

    root = find_run(run)
    for table in final_tables(root):
        console.print(table)
    console.print(write_report(root), markup=False)


@app.command(context_settings={"ignore_unknown_options": True})  # SQL may start with a comment, --
def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL, or the name of a shipped question.")],
    run: Run = None,
) -> None:
    """Query a run's tables in SQL.

    Tables: problems, nodes, trajectories, sft, pairs, evaluations, rounds. docs/tables.md describes their columns.

    Shipped questions: accuracy, buckets, cost, coverage, example_trees, pass_at_1, ppm_pairs, search_counts,
    searchers, tokens, unsolved, waits, wrong_steps.
    """
    from store import catalog
    from store import questions as queries

    statement = queries.text(query) if query in queries.names() else query
    print_rows(catalog.query(find_run(run), statement).to_dicts())


app.add_typer(sandbox.app, name="sandbox")


@app.command()
def doctor() -> None:
    """Check what this machine has, and what is missing."""
    from cli.doctor import examine

    print_rows([{"what": f.what, "found": f.state, "to do": f.advice} for f in examine()])


def main() -> None:
    """Run the command; print an expected failure as one line."""
    try:
        app()
    except (UserError, InfrastructureError) as error:
        errors.print(f"rstar: {error}", markup=False)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # store/ reports a full disk itself; Prefect's results, logs and temporary files do not.
        errors.print(f"rstar: {error}; free some space and run the same command again", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""The `rstar` command.

A user's mistake ends with one line and exit code 2, a broken machine with one line and exit code 1; Ctrl-C leaves a run
that the command it prints resumes.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

# Before Prefect is loaded: nothing calls home, and the terminal belongs to the progress bars.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 is short on a busy machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

from cli import sandbox as sandboxing
from cli.console import console, errors, print_rows
from flows.recipe import load_recipe
from rstar.inference.solving import Budget
from rstar.protocols import InfrastructureError, UserError

app = typer.Typer(help="rStar: a small policy and a process preference model teach each other mathematics.",
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)  # fmt: skip

RUNS = Path("runs")
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of the recipe, rounds from 1: rounds.1.num_rollouts=4"),
]
Asked = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE instead of what the run's recipe says, this time: engine.kind=vllm"),
]
Out = Annotated[str | None, typer.Option(help="The run's folder; runs/NAME by default.")]
OfRun = Annotated[str | None, typer.Option("--run", help="The run's folder or name; the newest in runs/ by default.")]
OfTrained = Annotated[
    str | None,
    typer.Option("--run", help="The run's folder or name; the newest in runs/ with trained models by default."),
]

AsBudget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="A problem's: 16 (trajectories), 20000t (tokens) or 30s (seconds), the last rollout to its end but for "
        "seconds; the recipe's by default.",
    ),
]


@app.command()
def demo(
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn; the recipe's by default.")] = None,
    out: Out = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a TOML file.")] = "demo",
    set: Overrides = None,
) -> None:
    """Four rounds of the whole pipeline with tiny models, on two cores without a GPU."""
    out = out or str(RUNS / (recipe if not seed else f"{recipe}-{seed}"))
    run_evolution(recipe, out, [*(set or []), *([] if seed is None else [f"run.seed={seed}"])])


@app.command()
def evolve(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (demo, smoke, gsm8k, ...) or a TOML file.")],
    out: Out = None,
    set: Overrides = None,
) -> None:
    """Run a recipe to its end; what is done already is not done again."""
    run_evolution(recipe, out, set or [])


def run_evolution(recipe: str, out: str | None, overrides: list[str]) -> None:
    from cli.evolve import evolve_here

    checked = load_recipe(recipe, overrides)
    root = out or str(RUNS / checked.run.name)
    if "://" in root:
        raise UserError(f"--out {root}: models are trained into a folder of this machine; give one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: Prefect's server is ended at the exit
    try:
        evolve_here(checked, root)
    except KeyboardInterrupt:
        errors.print(f"stopped; resume with: {resume_command(recipe, root, overrides)}", markup=False)
        raise typer.Exit(130) from None


def resume_command(recipe: str, root: str, overrides: list[str]) -> str:
    import shlex

    return shlex.join(
        ["rstar", "evolve", recipe, "--out", root, *(part for key in overrides for part in ("--set", key))]
    )


@app.command("import")
def import_(
    file: Path,
    out: Annotated[str, typer.Option(help="The Parquet file to write.")],
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row.")] = False,
    level: Annotated[str | None, typer.Option(help="Level of rows that name none.")] = None,
    domain: Annotated[str, typer.Option(help="Whose judge reads the answers.")] = "mathematics",
) -> None:
    """Bring in real problems: JSON Lines in GSM8K's form, or {problem, answer, source, level}."""
    from cli.importing import import_file

    print_rows(import_file(file, out, domain=domain, strict=strict, level=level), title=f"{file} -> {out}")


@app.command()
def solve(
    question: Annotated[str | None, typer.Argument(help="The question, in quotes.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON Lines of {problem} or {problem, answer} instead.")] = None,
    run: OfTrained = None,
    budget: AsBudget = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal answers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the results here too, JSON Lines.")] = None,
    set: Asked = None,
) -> None:
    """Think deeply about a question, or a file of them, with a run's last policy and PPM.

    Prints the trajectory that the PPM scores best: its steps, what their code printed, and the answer. Ctrl-C
    ends the search with the best so far.
    """
    from cli.solve import solve_file, solve_question

    limit = budget_of(budget)
    if (question is None) == (file is None):
        raise UserError('solve: give one question in quotes, or --file with many: rstar solve "What is 2 + 2?"')
    root = find_run(run, trained=True)
    if file is not None:
        found = solve_file(file, root, set or (), seed=seed, budget=limit, out=out)
    else:
        found = solve_question(question or "", root, set or (), seed=seed, budget=limit, out=out)
    if not found:
        raise typer.Exit(130)


@app.command()
def serve(
    run: OfTrained = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Searches at once; more are refused with 429.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds, after which the best so far is the answer.")] = 60.0,
    budget: AsBudget = None,
    set: Asked = None,
) -> None:
    """Serve a run's last policy and PPM over HTTP, in the form of OpenAI's chat completions.

    POST /v1/chat/completions (the last user message is the problem), GET /v1/models, /health and /metrics. There is no
    authentication: keep it on this machine, or behind something that has one.
    """
    from cli.announce import announce
    from flows import plans
    from serve.server import serve_run
    from serve.service import Limits

    limit, limits = budget_of(budget), Limits(max_in_flight=max_in_flight, timeout_seconds=timeout)
    root = find_run(run, trained=True)
    recipe, models = plans.thinking_pair(root, set or ())
    announce(recipe, models)
    serve_run(root, recipe, models, host=host, port=port, limits=limits, budget=limit, console=console)


@app.command()
def benchmark(
    file: Path,
    run: OfTrained = None,
    level: Annotated[str | None, typer.Option(help="Level of rows that name none.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many problems.")] = None,
    set: Asked = None,
) -> None:
    """Examine a run's last models on a file of problems."""
    from cli.benchmark import benchmark_file

    root = find_run(run, trained=True)
    print_rows(benchmark_file(file, root, set or (), level=level, limit=limit), title=str(file))


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(help="The run's folder or name; the newest in runs/ by default.")] = None,
) -> None:
    """Write a run's report, and print its tables."""
    from report.page import write_report
    from report.tables import final_tables

    root = find_run(run)
    for table in final_tables(root):
        console.print(table)
    console.print(write_report(root), markup=False)


@app.command(context_settings={"ignore_unknown_options": True})  # SQL may start with a comment, --
def sql(
    query: Annotated[str, typer.Argument(help="SQL, or the name of a shipped question.")], run: OfRun = None
) -> None:
    """Ask a run's tables: problems, nodes, trajectories, sft, pairs, evaluations, rounds.

    Shipped questions: accuracy, buckets, cost, coverage, example_trees, pass_at_1, ppm_pairs, search_counts,
    searchers, tokens, unsolved, waits, wrong_steps.
    """
    from store import catalog
    from store import questions as queries

    statement = queries.text(query) if query in queries.names() else query
    print_rows(catalog.query(find_run(run), statement).to_dicts())


app.add_typer(sandboxing.app, name="sandbox")


@app.command()
def doctor() -> None:
    """Say what of this machine can be used, and what to do about what is missing."""
    from cli.doctor import examine

    print_rows([{"what": f.what, "found": f.state, "to do": f.advice} for f in examine()])


def budget_of(text: str | None) -> Budget | None:
    return None if text is None else Budget.read(text)


def find_run(run: str | None, *, trained: bool = False) -> str:
    """Return the run asked for, by its folder or its name; or the newest one, of those with `trained` models if any."""
    if run is not None:
        if "://" in run or (Path(run) / "recipe.json").is_file():
            return run
        if (RUNS / run).is_dir():
            return str(RUNS / run)
        if not Path(run).is_dir():
            raise UserError(f"run {run}: no such folder; runs lie in {RUNS}/ unless --out said otherwise")
        return run
    runs = sorted(RUNS.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime)
    runs = [path for path in runs if any(path.parent.glob("problems/*.parquet"))] or runs  # one that could not begin
    if trained:
        runs = [path for path in runs if any(path.parent.glob("models/round=*/*/manifest.json"))] or runs
    if not runs:
        raise UserError(f"no run in {RUNS}/: start one with `rstar demo`, or name one with --run")
    return str(runs[-1].parent)


def main() -> None:
    """Run the command; failures are one line."""
    try:
        app()
    except (UserError, InfrastructureError) as error:
        errors.print(f"rstar: {error}", markup=False)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise  # a full disk may strike where no store is: Prefect's results, a log, a temporary folder
        errors.print(f"rstar: {error}; free some space and run the same command again", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

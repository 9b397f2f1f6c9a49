"""`rstar solve`: a run's last policy and PPM search for the answers to the user's problems."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress
from rich.text import Text

from cli.announce import announce
from cli.console import console, print_rows
from cli.import_ import check_rows
from domains.protocol import Domain
from domains.registry import find_domain
from flows import plans
from flows.recipe import Recipe
from problems.cleaning.duplicates import problem_id
from problems.sources.json_lines import import_problems
from report.solution import cost, summary, terminal, visible
from rstar.inference.budget import Budget
from rstar.inference.solution import Ending, Solution
from rstar.inference.solving import Solving
from rstar.protocols import Problem, UserError
from store import files
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines, Models, open_engines

Row = dict[str, Any]


@dataclass(slots=True)
class Session:
    """The searches of one command. The first Ctrl-C stops all of them; a second one ends the command."""

    engines: Engines
    recipe: Recipe
    budget: Budget
    seed: int
    stopped: bool = False
    running: list[Solving] = field(default_factory=list)

    @contextmanager
    def search(self, problem: Problem) -> Iterator[Solving]:
        """Yield a search for the block to run. The session does not keep it, because its tree can be large."""
        solving = Solving(
            problem,
            **self.engines.for_search(),
            settings=plans.inference_settings(self.recipe),
            budget=self.budget,
            seed=self.seed,
            top_k=self.recipe.evaluation.top_k,
        )
        self.running.append(solving)
        try:
            yield solving
        finally:
            self.running.remove(solving)

    def stop(self) -> None:
        self.stopped = True
        for solving in self.running:
            solving.stop()

    @contextmanager
    def stopped_by_ctrl_c(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def stop_once() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            self.stop()

        loop.add_signal_handler(signal.SIGINT, stop_once)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


@asynccontextmanager
async def open_session(recipe: Recipe, models: Models, budget: Budget | None, seed: int) -> AsyncIterator[Session]:
    async with AsyncExitStack() as stack:
        with console.status("loading the models"):
            engines = await stack.enter_async_context(open_engines(models, plans.sandbox(recipe)))
        session = Session(engines, recipe, budget or plans.budget(recipe), seed)
        with session.stopped_by_ctrl_c():
            yield session


def solve_question(
    question: str, root: str, overrides: Sequence[str], *, seed: int, budget: Budget | None, out: Path | None
) -> bool:
    """Print the best trajectory and what the search cost; return False if Ctrl-C came before any answer."""
    if not question.strip():
        raise UserError("solve: the question is empty")
    check_writable(out)
    problem = Problem(problem_id(question), question.strip(), "")
    recipe, models = plans.thinking_models(root, overrides)
    announce(recipe, models)

    async def once() -> Solution:
        async with open_session(recipe, models, budget, seed) as session:
            with session.search(problem) as solving, live_display(solving, session.engines.domain):
                return await solving.run()

    solution = asyncio.run(once())
    if failure := solution.failure:
        raise failure
    print_solution(solution, find_domain(recipe.domain))
    has_result = solution.best is not None or solution.ending is not Ending.STOPPED
    write_rows(out, [result_row(problem, solution)] if has_result else [])
    return has_result


@contextmanager
def live_display(solving: Solving, domain: Domain) -> Iterator[None]:
    """Show the best trajectory so far while the block runs, if stdout is a terminal."""

    def render() -> RenderableType:
        spent = f"{solving.num_rollouts} rollouts, {solving.num_tokens} tokens, {solving.seconds:.1f} s"
        if (best := solving.best) is None:
            return Text(f"thinking: {spent}", style="dim")
        status = Text.assemble(
            ("best so far: ", "bold"), visible(best.answer), (f"  PPM score {best.score:.3f}; {spent}", "dim")
        )
        return Group(terminal(best.steps, domain, colour=True), status)

    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=render, console=console, transient=True, refresh_per_second=4):
        yield


HINTS = {
    Ending.STOPPED: "",
    Ending.CLOSED: "; try another --seed, or word the question like the problems that the models were trained on",
    Ending.BUDGET: "; try a larger --budget",
}


def print_solution(solution: Solution, domain: Domain) -> None:
    if (best := solution.best) is None:
        hint = HINTS[solution.ending]
        if solution.prompt_tokens and not solution.num_tokens and solution.ending is Ending.CLOSED:
            hint = f": the problem has {solution.prompt_tokens} tokens, which leave no room in the model's context"
        console.print(f"no trajectory reached an answer{hint}", markup=False)
    else:
        console.print(terminal(best.steps, domain, colour=console.is_terminal))
        console.print(Text.assemble((f"answer: {visible(best.answer)}", "bold"), f"   PPM score {best.score:.3f}"))
        if other := solution.runner_up:
            console.print(f"runner-up: {visible(other.answer)}   PPM score {other.score:.3f}", markup=False)
        votes = f"majority vote: {solution.majority}   weighted by PPM score: {solution.weighted_majority}"
        console.print(visible(votes), markup=False)
    console.print(cost(solution), style="dim", markup=False)


def solve_file(
    file: Path, root: str, overrides: Sequence[str], *, seed: int, budget: Budget | None, out: Path | None
) -> bool:
    """Print a table with one row for each problem; return False if Ctrl-C came before any answer."""
    check_writable(out)
    recipe, models = plans.thinking_models(root, overrides)
    imported = import_problems(file, domain=find_domain(recipe.domain), needs_answer=False)
    check_rows(file, imported)
    announce(recipe, models)
    rows: dict[str, Row] = {}
    try:
        stopped = asyncio.run(solve_all(imported.problems, rows, recipe, models, budget, seed))
    finally:
        in_order = [rows[problem.id] for problem in imported.problems if problem.id in rows]
        write_rows(out, in_order)
    if in_order:
        print_rows([table_row(row) for row in in_order], title=str(file))
    graded = [row["correct"] for row in in_order if "correct" in row]
    if graded:
        console.print(f"{sum(graded)} of {len(graded)} answers are right", markup=False)
    if len(in_order) < len(imported.problems):
        console.print(f"stopped: {len(imported.problems) - len(in_order)} problems are left", markup=False)
    return not stopped or any(row["answer"] is not None for row in in_order)


async def solve_all(
    problems: Sequence[Problem], rows: dict[str, Row], recipe: Recipe, models: Models, budget: Budget | None, seed: int
) -> bool:
    """Add a row for each problem to `rows`, by the problem's id; return whether Ctrl-C stopped it.

    With a budget of seconds, problems are solved one at a time, so that none takes the time of another.
    """
    async with open_session(recipe, models, budget, seed) as session:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as bars:
            bar = bars.add_task("problems", total=len(problems))

            async def one(problem: Problem) -> None:
                if session.stopped:
                    return
                with session.search(problem) as solving:
                    solution = await solving.run()
                del solving  # frees its tree
                if solution.failure and not session.stopped:
                    raise solution.failure
                row = result_row(problem, solution)
                if problem.answer:
                    best, judge = solution.best, session.engines.judge
                    correct = best is not None and await judge.correct(best.answer, problem.answer) is True
                    row |= {"truth": problem.answer, "correct": correct}
                if solution.best is not None or not session.stopped:
                    rows[problem.id] = row
                bars.advance(bar)

            await map_concurrently(one, problems, limit=1 if session.budget.seconds else recipe.search.max_in_flight)
        return session.stopped


def result_row(problem: Problem, solution: Solution) -> Row:
    steps = list(solution.best.steps) if solution.best else []
    return {"problem": problem.question, **summary(solution), "steps": steps}


def table_row(row: Row) -> Row:
    columns = ("answer", "truth", "correct", "score", "rollouts", "tokens", "seconds")
    question = " ".join(row["problem"].split())
    shown = {"problem": question if len(question) <= 25 else question[:22] + "..."}
    return shown | {name: row.get(name) for name in columns}


def check_writable(out: Path | None) -> None:
    """Raise UserError before the search if `out` cannot be written after it."""
    if out is None or is_special(out):
        return
    if out.is_dir() or not (folder := out.resolve().parent).is_dir():
        raise UserError(f"--out {out}: not a file in an existing folder; name one")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: its folder is not writable; name a file in another one")


def is_special(out: Path) -> bool:
    """Whether it is a pipe or a device, which must be written and not replaced."""
    return out.exists() and not out.is_file() and not out.is_dir()


def write_rows(out: Path | None, rows: Sequence[Row]) -> None:
    """Replace the content of `out` with the rows. Without rows, earlier results stay."""
    if out is None or not rows:
        return
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(errors="backslashreplace")
    if is_special(out):
        out.write_bytes(data)
    else:
        files.write_bytes(str(out.resolve()), data)

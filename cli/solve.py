"""`rstar solve`: a run's last policy and PPM think about the user's questions."""

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
from cli.importing import name_bad_rows
from domains.protocol import Domain
from domains.registry import find_domain
from flows import plans
from flows.recipe import Recipe
from problems.cleaning.duplicates import problem_id
from problems.sources.json_lines import import_problems
from report.solution import cost, summary, terminal, visible
from rstar.inference.solving import Budget, Ending, Solution, Solving
from rstar.protocols import Problem, UserError
from store import files
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import Engines, Models, opened

Row = dict[str, Any]


@dataclass(slots=True)
class Session:
    """The searches of one command. Ctrl-C stops them all with what they have; a second one ends the command."""

    engines: Engines
    recipe: Recipe
    budget: Budget
    seed: int
    stopped: bool = False
    under_way: list[Solving] = field(default_factory=list)

    @contextmanager
    def search(self, problem: Problem) -> Iterator[Solving]:
        """A search to run in the block; its tree is not held any longer."""
        solving = Solving(
            problem,
            **self.engines.for_search(),
            settings=plans.examination(self.recipe).settings,
            budget=self.budget,
            seed=self.seed,
            top_k=self.recipe.evaluation.top_k,
        )
        self.under_way.append(solving)
        try:
            yield solving
        finally:
            self.under_way.remove(solving)

    def stop(self) -> None:
        self.stopped = True
        for solving in self.under_way:
            solving.stop()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
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
async def opened_session(recipe: Recipe, models: Models, budget: Budget | None, seed: int) -> AsyncIterator[Session]:
    async with AsyncExitStack() as stack:
        with console.status("loading the models"):
            engines = await stack.enter_async_context(opened(models, plans.sandbox(recipe)))
        session = Session(engines, recipe, budget or plans.budget(recipe), seed)
        with session.interruptible():
            yield session


def solve_question(
    question: str, root: str, overrides: Sequence[str] = (), *, seed: int, budget: Budget | None, out: Path | None
) -> bool:
    """Print the best trajectory and what it took; False where Ctrl-C came before there was one."""
    if not question.strip():
        raise UserError("solve: the question is empty")
    check_writable(out)
    problem = Problem(problem_id(question), question.strip(), "")
    recipe, models = plans.thinking_pair(root, overrides)
    announce(recipe, models)

    async def once() -> Solution:
        async with opened_session(recipe, models, budget, seed) as session:
            with session.search(problem) as solving, shown_live(solving, session.engines.domain):
                return await solving.run()

    solution = asyncio.run(once())
    if failure := solution.failure:
        raise failure
    show(solution, find_domain(recipe.domain))
    ended = solution.best is not None or solution.ending is not Ending.STOPPED
    write_rows(out, [row_of(problem, solution)] if ended else [])
    return ended


@contextmanager
def shown_live(solving: Solving, domain: Domain) -> Iterator[None]:
    """Show the best trajectory while it changes, where there is a terminal to show it in."""

    def now() -> RenderableType:
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
    with Live(get_renderable=now, console=console, transient=True, refresh_per_second=4):
        yield


HINTS = {
    Ending.STOPPED: "",
    Ending.CLOSED: "; try another --seed, or put it as the problems are put that these models learnt from",
}


def show(solution: Solution, domain: Domain) -> None:
    if (best := solution.best) is None:
        hint = HINTS.get(solution.ending, "; try a larger --budget")
        if solution.prompt_tokens and not solution.num_tokens and solution.ending is Ending.CLOSED:
            hint = f": the problem has {solution.prompt_tokens} tokens, which leave no room in the model's context"
        console.print(f"no trajectory reached an answer{hint}", markup=False)
    else:
        console.print(terminal(best.steps, domain, colour=console.is_terminal))
        console.print(Text.assemble((f"answer: {visible(best.answer)}", "bold"), f"   PPM score {best.score:.3f}"))
        if other := solution.runner_up:
            console.print(f"runner-up: {visible(other.answer)}   PPM score {other.score:.3f}", markup=False)
        votes = f"majority: {solution.majority}   weighted by score: {solution.weighted_majority}"
        console.print(visible(votes), markup=False)
    console.print(cost(solution), style="dim", markup=False)


def solve_file(
    file: Path, root: str, overrides: Sequence[str] = (), *, seed: int, budget: Budget | None, out: Path | None
) -> bool:
    """Print a table, a row a problem, and write it; Ctrl-C as in `solve_question`."""
    check_writable(out)
    recipe, models = plans.thinking_pair(root, overrides)
    imported = import_problems(file, domain=find_domain(recipe.domain), needs_answer=False)
    name_bad_rows(file, imported)
    announce(recipe, models)
    rows: dict[str, Row] = {}
    try:
        stopped = asyncio.run(solve_all(imported.problems, rows, recipe, models, budget, seed))
    finally:
        in_order = [rows[problem.id] for problem in imported.problems if problem.id in rows]
        write_rows(out, in_order)
    if in_order:
        print_rows([brief(row) for row in in_order], title=str(file))
    graded = [row["correct"] for row in in_order if "correct" in row]
    if graded:
        console.print(f"{sum(graded)} of {len(graded)} answers are right", markup=False)
    if len(in_order) < len(imported.problems):
        console.print(f"stopped: {len(imported.problems) - len(in_order)} problems are left", markup=False)
    return not stopped or any(row["answer"] is not None for row in in_order)


async def solve_all(
    problems: Sequence[Problem], rows: dict[str, Row], recipe: Recipe, models: Models, budget: Budget | None, seed: int
) -> bool:
    """Fill in a row a problem by its id; say whether Ctrl-C cut it short. A budget of seconds is for one at a time."""
    async with opened_session(recipe, models, budget, seed) as session:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as bars:
            bar = bars.add_task("problems", total=len(problems))

            async def one(problem: Problem) -> None:
                if session.stopped:
                    return
                with session.search(problem) as solving:
                    solution = await solving.run()
                del solving  # and its tree
                if solution.failure and not session.stopped:
                    raise solution.failure
                row = row_of(problem, solution)
                if problem.answer:
                    best = solution.best
                    judge = session.engines.judge
                    right = best is not None and await judge.correct(best.answer, problem.answer) is True
                    row |= {"truth": problem.answer, "correct": right}
                if solution.best is not None or not session.stopped:
                    rows[problem.id] = row
                bars.advance(bar)

            await map_concurrently(one, problems, limit=1 if session.budget.seconds else recipe.search.max_in_flight)
        return session.stopped


def row_of(problem: Problem, solution: Solution) -> Row:
    steps = list(solution.best.steps) if solution.best else []
    return {"problem": problem.question, **summary(solution), "steps": steps}


def brief(row: Row) -> Row:
    columns = ("answer", "truth", "correct", "score", "rollouts", "tokens", "seconds")
    question = " ".join(row["problem"].split())
    shown = {"problem": question if len(question) <= 25 else question[:22] + "..."}
    return shown | {name: row.get(name) for name in columns}


def check_writable(out: Path | None) -> None:
    """Refuse a place that cannot be written before anything is searched."""
    if out is None or special(out):
        return
    if out.is_dir() or not (folder := out.resolve().parent).is_dir():
        raise UserError(f"--out {out}: it is a folder, or in none that exists; name a file")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: its folder cannot be written; choose another")


def special(out: Path) -> bool:
    """Whether it is a pipe or a device, which must not be replaced."""
    return out.exists() and not out.is_file() and not out.is_dir()


def write_rows(out: Path | None, rows: Sequence[Row]) -> None:
    """Replace `out` by the rows; without any, what an earlier command wrote there stays."""
    if out is None or not rows:
        return
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(errors="backslashreplace")
    if special(out):
        out.write_bytes(data)
    else:
        files.write_bytes(str(out.resolve()), data)

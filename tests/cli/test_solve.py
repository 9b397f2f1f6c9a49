"""`rstar solve`: Ctrl-C during the search, the exit code, and the rendering of a trajectory."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from rich.console import Console

from cli import main as cli
from cli import solve as solving
from domains.mathematics.domain import DOMAIN
from domains.mathematics.grading.judge import MathJudge
from flows.recipe import load_recipe
from miniature.writer import BootstrapPolicy
from report.solution import markdown
from rstar.inference.budget import Budget
from rstar.protocols import Policy, PolicyError, Problem, Proposal, UserError
from sandbox.providers import open_sandbox
from tasks.lib.engines import Engines, Models

QUESTION = "Tom has 34 apples. Tom finds 12 apples. How many apples does Tom have now?"
STEPS = (
    "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>",
    "\n# Tom finds 12 apples.\ntom = tom + 12\n<end_of_step>",
    "\n# Now print the final answer\nprint(tom)\n<end_of_code>\n<output>46<end_of_output>",
    "\n<answer>From the result, the answer is \\boxed{46}.\n<end_of_answer>",
)


class Shorter:
    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        return [1.0 / (1 + len(candidate)) for candidate in candidates]


class PressesCtrlC:
    """The bootstrap policy. The user presses Ctrl-C during its `calls`-th request."""

    def __init__(self, calls: int) -> None:
        self.policy, self.calls = BootstrapPolicy(), calls

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        self.calls -= 1
        if self.calls == 0:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        return await self.policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the command prints. Its run is a recipe without models."""
    printed = io.StringIO()
    recipe = load_recipe("smoke", ["evaluation.num_candidates=4"])
    for place in ("cli.solve.console", "cli.console.console"):
        monkeypatch.setattr(place, Console(file=printed, width=120, highlight=False))
    monkeypatch.setattr("flows.plans.thinking_models", lambda root, overrides: (recipe, Models("rules", "scripted")))
    return printed


def unwrapped(screen: io.StringIO) -> str:
    return " ".join(screen.getvalue().split())


def press_ctrl_c_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    open_with(PressesCtrlC(calls), monkeypatch)


def open_with(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def open_engines(models: Models, sandbox: object) -> AsyncIterator[Engines]:
        async with open_sandbox("local") as executor, MathJudge() as judge:
            yield Engines(DOMAIN, policy, Shorter(), executor, judge)

    monkeypatch.setattr(solving, "open_engines", open_engines)


def solve(tmp_path: Path, question: str | None = QUESTION, *, budget: str | None = None, **options: object) -> int:
    limit = Budget.read(budget) if budget else None
    try:
        cli.solve(question, run=str(tmp_path), budget=limit, **options)  # type: ignore[arg-type]
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def test_ctrl_c_gives_the_best_so_far(tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    press_ctrl_c_after(5, monkeypatch)
    assert solve(tmp_path, budget="99") == 0
    printed = screen.getvalue()
    assert "answer: 46" in printed and "\\boxed{46}" in printed and printed.strip().endswith("stopped")


def test_a_problem_longer_than_the_context_is_named(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRoom:
        async def propose(self, *arguments: object, num_candidates: int, seed: int) -> Sequence[Proposal]:
            return [Proposal("", prompt_tokens=3620)] * num_candidates

    open_with(NoRoom(), monkeypatch)
    assert solve(tmp_path, budget="2") == 0
    assert "the problem has 3620 tokens, which leave no room in the model's context" in unwrapped(screen)


def test_ctrl_c_before_the_first_answer_ends_with_130(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    press_ctrl_c_after(2, monkeypatch)
    assert solve(tmp_path, budget="99") == 130
    assert "no trajectory reached an answer" in screen.getvalue()


class Silent:
    async def propose(self, *arguments: object, **settings: object) -> Sequence[Proposal]:
        await asyncio.Event().wait()
        return []


def test_an_engine_that_never_answers_is_an_error_and_not_a_used_up_budget(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(Silent(), monkeypatch)
    with pytest.raises(PolicyError, match="gave no answer"):
        solve(tmp_path, budget="0.2s")
    assert "--budget" not in screen.getvalue()
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"problem": QUESTION}))
    with pytest.raises(PolicyError, match="gave no answer"):
        solve(tmp_path, None, file=file, budget="0.2s")


@pytest.mark.parametrize(("calls", "num_rows", "code"), [(8, 1, 0), (2, 0, 130)])
def test_ctrl_c_in_a_file_keeps_the_rows_that_have_an_answer(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch, calls: int, num_rows: int, code: int
) -> None:
    press_ctrl_c_after(calls, monkeypatch)
    file, out = tmp_path / "questions.jsonl", tmp_path / "found.jsonl"
    questions = [QUESTION, *(QUESTION.replace("34", str(number)) for number in (41, 42, 43))]
    file.write_text("".join(json.dumps({"problem": question}) + "\n" for question in questions))
    out.write_text(earlier := '{"answer": "earlier"}\n')
    assert solve(tmp_path, None, file=file, out=out, budget="60s") == code
    assert (out.read_text() == earlier) == (num_rows == 0)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["found.jsonl", "questions.jsonl"]
    rows = [json.loads(line) for line in out.read_text().splitlines() if line not in earlier]
    assert len(rows) == num_rows and all(row["answer"] for row in rows)
    assert f"stopped: {4 - num_rows} problems are left" in screen.getvalue()


@pytest.mark.parametrize("error", [UserError("no such model"), KeyboardInterrupt()])
def test_earlier_results_are_kept_if_the_models_do_not_load(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    @asynccontextmanager
    async def open_engines(models: Models, sandbox: object) -> AsyncIterator[Engines]:
        raise error
        yield

    monkeypatch.setattr(solving, "open_engines", open_engines)
    file, out = tmp_path / "questions.jsonl", tmp_path / "found.jsonl"
    file.write_text(json.dumps({"problem": QUESTION}))
    out.write_text("earlier")
    with pytest.raises(type(error)):
        solve(tmp_path, None, file=file, out=out)
    assert out.read_text() == "earlier"


def test_a_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    solving.check_writable(pipe)
    solving.write_rows(pipe, [{"answer": "46"}])
    assert json.loads(os.read(reading, 100)) == {"answer": "46"} and pipe.is_fifo()
    os.close(reading)


async def test_a_session_keeps_no_finished_search(
    tmp_path: Path, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_with(BootstrapPolicy(), monkeypatch)
    recipe = load_recipe("smoke", ["evaluation.num_candidates=4"])
    async with solving.open_session(recipe, Models("rules", "scripted"), Budget(1), 0) as session:
        with session.search(Problem("p", QUESTION, "")) as search:
            assert session.running == [search]
            await search.run()
        assert session.running == []


def test_the_parts_of_a_trajectory_have_no_markers() -> None:
    assert list(DOMAIN.parts(STEPS)) == [
        ("code", "# Tom has 34 apples.\ntom = 34"),
        ("code", "# Tom finds 12 apples.\ntom = tom + 12"),
        ("code", "# Now print the final answer\nprint(tom)"),
        ("output", "46"),
        ("answer", "From the result, the answer is \\boxed{46}."),
    ]


def test_markdown_is_one_program_its_output_and_the_boxed_answer() -> None:
    text = markdown(STEPS, DOMAIN)
    assert text.startswith("```python\n# Tom has 34 apples.\ntom = 34\n\n# Tom finds 12 apples.")
    assert text.endswith("Output:\n\n```\n46\n```\n\nFrom the result, the answer is \\boxed{46}.")


def test_a_fence_in_the_code_does_not_end_the_block() -> None:
    text = markdown(["<code>\nx = '```'\n<end_of_step>"], DOMAIN)
    assert text == "````python\nx = '```'\n````"

"""A solution for the terminal, in Markdown and in JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.text import Text

from domains.protocol import Domain
from rstar.inference.solution import Ending, Solution
from rstar.inference.thinking import ScoredTrajectory

ENDINGS = {Ending.CLOSED: ", tree exhausted", Ending.STOPPED: ", stopped"}

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # except tab and line feed


def visible(text: str) -> str:
    r"""Replace control characters by escapes such as \x1b. A step may have printed them, and a terminal would obey."""
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def terminal(steps: Sequence[str], domain: Domain, *, colour: bool) -> RenderableType:
    """Render steps for a terminal: code with syntax colours, or plain text."""
    lines: list[RenderableType] = []
    for kind, part in domain.parts(steps):
        text = visible(part)
        if kind == "code":
            lines.append(Syntax(text, "python", background_color="default", word_wrap=True) if colour else Text(text))
        else:
            lines.append(Text.assemble(("output: ", "dim"), text) if kind == "output" else Text(text))
    return Group(*lines)


def markdown(steps: Sequence[str], domain: Domain) -> str:
    """Return steps as one block of code, its output, and the sentence with the answer."""
    parts = list(domain.parts(steps))
    program = "\n\n".join(text for kind, text in parts if kind == "code")
    blocks = [_fenced(program, "python")] if program else []
    blocks += [f"Output:\n\n{_fenced(text)}" for kind, text in parts if kind == "output" and text]
    return "\n\n".join([*blocks, *(text for kind, text in parts if kind == "answer")])


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def cost(solution: Solution) -> str:
    """Return one line with the cost of a solution and, unless its budget ended it, the reason."""
    rollouts = f"{solution.num_rollouts} rollout{'s' if solution.num_rollouts != 1 else ''}"
    return (
        f"{rollouts}, {solution.num_trajectories} with an answer, {solution.num_tokens} tokens, "
        f"{solution.seconds:.1f} s{ENDINGS.get(solution.ending, '')}"
    )


def summary(solution: Solution) -> dict[str, Any]:
    """Return everything except the steps as JSON values."""
    return {
        "answer": solution.best.answer if solution.best else None,
        "score": solution.best.score if solution.best else None,
        "runner_up": _brief(solution.runner_up),
        "majority": solution.majority,
        "weighted_majority": solution.weighted_majority,
        "trajectories": solution.num_trajectories,
        "rollouts": solution.num_rollouts,
        "tokens": solution.num_tokens,
        "seconds": round(solution.seconds, 3),
        "ending": solution.ending.value,
    }


def _brief(trajectory: ScoredTrajectory | None) -> dict[str, Any] | None:
    return trajectory and {"answer": trajectory.answer, "score": trajectory.score}

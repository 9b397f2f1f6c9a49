"""How the writer, the families and the base's text write code-augmented steps (Section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from domains.mathematics import steps as fmt


def write_step(comment: str, code: str, *, first: bool = False, last: bool = False) -> str:
    marker = fmt.END_OF_CODE if last else fmt.END_OF_STEP
    return f"{fmt.CODE if first else ''}\n# {comment}\n{code}\n{marker}"


def write_answer(answer: str) -> str:
    return f"\n{fmt.ANSWER}The answer is \\boxed{{{answer}}}.\n{fmt.END_OF_ANSWER}"


def write_solution(steps: Sequence[tuple[str, str]], output: str) -> list[str]:
    """Return the rendered steps of a whole response: each (comment, code), the output of the last, and the answer."""
    end = len(steps) - 1
    texts = [write_step(*step, first=i == 0, last=i == end) for i, step in enumerate(steps)]
    return [*texts[:-1], fmt.render(texts[-1], output), write_answer(output)]

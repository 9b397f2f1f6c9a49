"""The reference implementation's published SFT examples, a JSON list of {query, response}, as rendered steps.

Section 3.2's code-augmented steps ; joined, the steps are the response byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.mathematics.steps import StepKind, answer_of, kind_of, parse_response
from problems.sources.importing import problem_id
from rstar.protocols import Problem, UserError


@dataclass(frozen=True, slots=True)
class ReferenceExample:
    """A solved problem; its answer is that of its last step, which nobody checked."""

    problem: Problem
    steps: tuple[str, ...]


def import_reference_sft(path: str | Path, *, level: str = "math") -> list[ReferenceExample]:
    """Read the examples; raises UserError, with the example's number, at the first that is not a whole trajectory."""
    path = Path(path)
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a JSON list of {{query, response}}")
    return [_example(row, f"{path}: example {number}", level) for number, row in enumerate(rows, start=1)]


def _example(row: Any, where: str, level: str) -> ReferenceExample:
    texts = (row.get("query"), row.get("response")) if isinstance(row, dict) else (None, None)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(f"{where} has no query or no response")
    question, response = map(str, texts)
    steps = tuple(parse_response(response))
    answer = answer_of(steps[-1])
    if kind_of(steps[-1]) is not StepKind.ANSWER or answer is None or None in map(kind_of, steps):
        raise UserError(f"{where} does not end in <answer>...\\boxed{{}}...<end_of_answer>")
    return ReferenceExample(Problem(problem_id(question), question.strip(), answer, level, "reference"), steps)

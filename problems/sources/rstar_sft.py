"""The reference implementation's published SFT examples: a JSON list of {query, response}, read as rendered steps.

Section 3.2 (code-augmented CoT). The steps of an example, joined, are its response byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domains.protocol import Domain
from problems.cleaning.duplicates import problem_id
from rstar.protocols import Problem, UserError


@dataclass(frozen=True, slots=True)
class ReferenceExample:
    """A solved problem. Its answer is that of its last step, which nobody checked."""

    problem: Problem
    steps: tuple[str, ...]


def import_reference_sft(path: str | Path, *, domain: Domain, level: str = "math") -> list[ReferenceExample]:
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
    return [_example(row, f"{path}: example {number}", domain, level) for number, row in enumerate(rows, start=1)]


def _example(row: Any, where: str, domain: Domain, level: str) -> ReferenceExample:
    texts = (row.get("query"), row.get("response")) if isinstance(row, dict) else (None, None)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(f"{where} has no query or no response")
    question, response = map(str, texts)
    steps = domain.split(response)
    answer = domain.final_answer(steps[-1])
    if answer is None or [part for part, _ in domain.parts(steps[-1:])] != ["answer"]:
        raise UserError(f"{where} does not end in a step with a final answer")
    problem = Problem(problem_id(question), question.strip(), answer, level, "reference")
    return ReferenceExample(problem, tuple(steps))

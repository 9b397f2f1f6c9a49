"""What a public form of a problem set is made of: how one of its rows is recognised and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domains.protocol import Domain

Row = Mapping[str, Any]


class BadRow(Exception):
    """Why a row cannot be a problem: (kind, reason)."""


@dataclass(frozen=True, slots=True)
class RawProblem:
    """A row as its form reads it. `answer` is None where the row has none; level, source and id are the row's own."""

    question: str
    answer: str | None
    level: object = None
    source: object = None
    given_id: object = None


@dataclass(frozen=True, slots=True)
class Form:
    """One public form. `read` raises BadRow; it asks the domain for the answer that a worked solution states."""

    default_level: str
    recognises: Callable[[Row], bool]
    read: Callable[[Row, Domain], RawProblem]


def question_text(value: object) -> str:
    """Return the text of a question; raises BadRow where there is none."""
    if not isinstance(value, str) or not value.strip():
        raise BadRow("empty problem", 'no problem text (expected "problem", or "question" in GSM8K\'s form)')
    return value


def answer_text(value: object) -> str | None:
    """Return an answer as text, None where the row has none; raises BadRow where it is neither text nor a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return value
    raise BadRow("no answer", f"no answer (expected text, got {shortened(json.dumps(value))})")


def shortened(text: str) -> str:
    """Return the text as an error message quotes it."""
    return repr(text if len(text) <= 60 else text[:57] + "...")

"""The plain form: {problem, answer, source, level, id}, of which the first two are required."""

from __future__ import annotations

from domains.protocol import Domain
from problems.sources.form import Form, RawProblem, Row, answer_text, question_text


def recognises(_: Row) -> bool:
    """Take every row: this form is the last, and its errors say what the row lacks."""
    return True


def read(row: Row, domain: Domain) -> RawProblem:
    question = question_text(row.get("problem"))
    answer = answer_text(row.get("answer"))
    if answer is not None:
        answer = domain.ground_truth(answer)
    return RawProblem(question, answer, row.get("level"), row.get("source"), row.get("id"))


FORM = Form("math", recognises, read)

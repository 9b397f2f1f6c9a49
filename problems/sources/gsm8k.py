"""GSM8K's form: {question, answer}, where the answer is a worked solution that ends with "#### final"."""

from __future__ import annotations

from domains.protocol import Domain
from problems.sources.form import BadRow, Form, RawProblem, Row, answer_text, question_text


def recognises(row: Row) -> bool:
    return "question" in row and "problem" not in row


def read(row: Row, _domain: Domain) -> RawProblem:
    question = question_text(row["question"])
    answer = answer_text(row.get("answer"))
    if answer is not None:
        _, mark, answer = answer.rpartition("####")
        if not mark:
            raise BadRow("no answer", 'no answer (expected a last line "#### final" in GSM8K\'s form)')
    return RawProblem(question, answer, row.get("level"), row.get("source"), row.get("id"))


FORM = Form("gsm", recognises, read)

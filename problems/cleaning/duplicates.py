"""A problem's id, and the refusal of a second problem with the same one.

Section 4.1 (the problem set). The id is a hash of the normalised question, so the same problem from two sources has
one id. Problems that differ only in their wording or in letter case are not found.
"""

from __future__ import annotations

import hashlib
import unicodedata

from rstar.protocols import Problem


class DuplicateProblem(Exception):
    """Says which earlier line has the same problem or the same given id."""


def problem_id(question: str) -> str:
    """Return the hash of the question in Unicode's composed form, with each run of white space as one blank."""
    text = " ".join(unicodedata.normalize("NFC", question).split())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class SeenProblems:
    """The problems of one file and their lines, by problem id; no two are the same."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, Problem]] = {}
        self._given_ids: dict[object, int] = {}

    def add(self, line: int, problem: Problem, given_id: object) -> None:
        """Add the problem of a line; raises DuplicateProblem.

        `given_id` is the id that the row itself has. It must be unique in the file as well, unless it is neither text
        nor a whole number.
        """
        if problem.id in self.found:
            first, known = self.found[problem.id]
            other = "" if known.answer == problem.answer else f", with the answer {known.answer!r} there"
            raise DuplicateProblem(f"duplicate id {problem.id}: the same problem as line {first}{other}")
        if isinstance(given_id, str | int) and self._given_ids.setdefault(given_id, line) != line:
            raise DuplicateProblem(f"duplicate id {given_id!r}: first used at line {self._given_ids[given_id]}")
        self.found[problem.id] = line, problem

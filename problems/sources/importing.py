"""Importers: problems with a final answer from JSON Lines, each good row kept, each bad one named.

Section 4.1 (the problem set). Two forms are read, plain or gzipped, and may be mixed: GSM8K's {question, answer with
"#### final"} and {problem, answer, source, level, id}. A problem's id is the hash of its normalised question, so that
the same problem from two sources is one problem.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from domains.mathematics.grading.judge import MathJudge
from rstar.protocols import Problem, UserError

Progress = Callable[[int, float], None]  # rows read, share of the file read
PROGRESS_ROWS = 500
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that was left out: where it is and why. `kind` is one of the names that `ImportResult.counts` counts."""

    path: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The problems of a file, in its order, and what was left out; `num_rows` counts both."""

    problems: tuple[Problem, ...]
    errors: tuple[RowError, ...]
    num_rows: int

    @property
    def counts(self) -> Counter[str]:
        """How many rows were left out, by kind."""
        return Counter(error.kind for error in self.errors)


class _BadRow(Exception):
    """Why a row cannot be a problem: (kind, reason)."""


def problem_id(question: str) -> str:
    """The hash of the question in Unicode's composed form, with every run of white space as one blank."""
    text = " ".join(unicodedata.normalize("NFC", question).split())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def import_problems(
    path: str | Path,
    *,
    strict: bool = False,
    level: str | None = None,
    source: str | None = None,
    needs_answer: bool = True,
    judge: MathJudge | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Read the problems of a JSON Lines file.

    `level` is for rows without one (default: "gsm" in GSM8K's form, "math" in the plain form), `source` likewise
    (default: the file's name). Unless `needs_answer`, a row without an answer is a problem with the answer "".
    `judge` reads the ground truths that are no plain number; one is made where none is given. Raises UserError where
    the file cannot be read or holds no rows and, if `strict`, at the first bad row.
    """
    path = Path(path)
    reading = _Reading(path, level, source or path.name.split(".")[0], needs_answer)
    num_rows = 0
    for num_rows, (line, content, share) in enumerate(_lines(path), start=1):
        reading.add(line, content)
        if progress and num_rows % PROGRESS_ROWS == 0:
            progress(num_rows, share)
    if num_rows == 0:
        raise UserError(f"{path}: the file holds no rows; expected one JSON object a line")
    reading.leave_out_unparseable(judge)
    errors = sorted(reading.errors, key=lambda error: error.line)
    if strict and errors:
        raise UserError(f"{errors[0]} (strict: stopped at the first bad row)")
    if progress:
        progress(num_rows, 1.0)
    return ImportResult(tuple(problem for _, problem in reading.found.values()), tuple(errors), num_rows)


class _Reading:
    """The good rows found so far, by problem id, and the bad ones."""

    def __init__(self, path: Path, level: str | None, source: str, needs_answer: bool) -> None:
        self.found: dict[str, tuple[int, Problem]] = {}
        self.errors: list[RowError] = []
        self._path, self._level, self._source, self._needs_answer = path, level, source, needs_answer
        self._given_ids: dict[object, int] = {}

    def add(self, line: int, content: bytes) -> None:
        try:
            row = _row(content)
            problem = _problem(row, self._level, self._source, self._needs_answer)
            self._refuse_duplicate(row.get("id"), problem, line)
        except _BadRow as bad:
            self._leave_out(line, *bad.args)
        else:
            self.found[problem.id] = line, problem

    def _refuse_duplicate(self, given: object, problem: Problem, line: int) -> None:
        if problem.id in self.found:
            first, known = self.found[problem.id]
            other = "" if known.answer == problem.answer else f", with the answer {known.answer!r} there"
            raise _BadRow("duplicate", f"duplicate id {problem.id}: the same problem as line {first}{other}")
        if isinstance(given, str | int) and self._given_ids.setdefault(given, line) != line:
            raise _BadRow("duplicate", f"duplicate id {given!r}: first used at line {self._given_ids[given]}")

    def leave_out_unparseable(self, judge: MathJudge | None) -> None:
        """Take out the problems whose ground truth no answer could be compared with."""
        own = judge or MathJudge()
        try:
            answered = [(line, problem) for line, problem in self.found.values() if problem.answer]
            verdicts = own.parseable_all([problem.answer for _, problem in answered])
        finally:
            if judge is None:
                own.close()
        for (line, problem), good in zip(answered, verdicts, strict=True):
            if not good:
                del self.found[problem.id]
                self._leave_out(line, "unparseable answer", f"the ground truth {_short(problem.answer)} cannot be read")

    def _leave_out(self, line: int, kind: str, reason: str) -> None:
        self.errors.append(RowError(str(self._path), line, kind, reason))


def _row(content: bytes) -> dict[str, Any]:
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _BadRow("not JSON", "not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _BadRow("not JSON", f"not JSON ({str(error) or 'nested too deeply'})") from None
    if not isinstance(row, dict):
        raise _BadRow("not JSON", f"not a JSON object but {_short(json.dumps(row))}")
    return row


def _problem(row: dict[str, Any], level: str | None, source: str, needs_answer: bool) -> Problem:
    gsm8k = "problem" not in row and "question" in row
    question = row.get("question" if gsm8k else "problem")
    if not isinstance(question, str) or not question.strip():
        raise _BadRow("empty problem", 'no problem text (expected "problem", or "question" in GSM8K\'s form)')
    given = row.get("answer")
    answer = "" if given is None and not needs_answer else _final_answer(given, gsm8k)
    try:
        return Problem(
            problem_id(question),
            question.strip(),
            answer,
            level=str(row.get("level") or level or ("gsm" if gsm8k else "math")),
            source=str(row.get("source") or source),
        )
    except UnicodeEncodeError:
        raise _BadRow("not JSON", "the problem text is not valid Unicode (a lone surrogate)") from None


def _final_answer(answer: object, gsm8k: bool) -> str:
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str):
        raise _BadRow("no answer", f"no answer (expected text, got {_short(json.dumps(answer))})")
    _, mark, final = answer.rpartition("####")
    if gsm8k and not mark:
        raise _BadRow("no answer", 'no answer (expected a last line "#### final" in GSM8K\'s form)')
    if not final.strip():
        raise _BadRow("no answer", "no answer (it is empty)")
    return final.strip()


def _lines(path: Path) -> Iterator[tuple[int, bytes, float]]:
    """The file's lines that are not blank: number, content, share of the file read so far."""
    line = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, _opened(raw, path) as file:
            for line, content in enumerate(file, start=1):
                if content.strip():
                    yield line, content, raw.tell() / size
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; put one there (JSON Lines), or name another") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file, it breaks off after line {line} ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _opened(raw: BinaryIO, path: Path) -> BinaryIO:
    zipped = raw.read(2) == _GZIP
    raw.seek(0)
    if path.suffix == ".gz" and not zipped and path.stat().st_size:
        raise gzip.BadGzipFile("it does not start as one")
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

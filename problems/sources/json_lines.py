"""Problems from a JSON Lines file, plain or gzipped: good rows are kept, and each bad row is named with its reason.

Section 4.1 (the problem set). A file may mix the forms in FORMS.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from domains.protocol import Domain
from problems.cleaning.duplicates import DuplicateProblem, SeenProblems, problem_id
from problems.sources import gsm8k, plain
from problems.sources.form import BadRow, Row, shortened
from rstar.protocols import Problem, UserError

FORMS = (gsm8k.FORM, plain.FORM)  # the first that recognises a row reads it; plain, the last, recognises every row
Progress = Callable[[int, float], None]  # rows read, share of the file read
PROGRESS_ROWS = 500
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that was left out: where it is and why. `ImportResult.counts` counts the kinds."""

    path: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The problems of a file, in its order, and the rows that were left out; `num_rows` counts both."""

    problems: tuple[Problem, ...]
    errors: tuple[RowError, ...]
    num_rows: int

    @property
    def counts(self) -> Counter[str]:
        """How many rows were left out, by kind."""
        return Counter(error.kind for error in self.errors)


def import_problems(
    path: str | Path,
    *,
    domain: Domain,
    strict: bool = False,
    level: str | None = None,
    needs_answer: bool = True,
    progress: Progress | None = None,
) -> ImportResult:
    """Read the problems of a JSON Lines file.

    Rows without a level get `level`, or else the default of their form. Rows without a source get the file's name.
    A row without an answer is an error, or, unless `needs_answer`, a problem with the answer "". The domain says which
    ground truths can be read. Raises UserError where the file cannot be read or has no rows and, if `strict`, at the
    first bad row.
    """
    path = Path(path)
    reading = _Reading(path, domain, level, needs_answer)
    num_rows = 0
    for num_rows, (line, content, share) in enumerate(_lines(path), start=1):
        reading.add(line, content)
        if progress and num_rows % PROGRESS_ROWS == 0:
            progress(num_rows, share)
    if num_rows == 0:
        raise UserError(f"{path}: the file holds no rows; expected one JSON object a line")
    reading.leave_out_unreadable()
    errors = sorted(reading.errors, key=lambda error: error.line)
    if strict and errors:
        raise UserError(f"{errors[0]} (strict: stopped at the first bad row)")
    if progress:
        progress(num_rows, 1.0)
    return ImportResult(tuple(problem for _, problem in reading.seen.found.values()), tuple(errors), num_rows)


class _Reading:
    """The good and bad rows found so far."""

    def __init__(self, path: Path, domain: Domain, level: str | None, needs_answer: bool) -> None:
        self.seen = SeenProblems()
        self.errors: list[RowError] = []
        self._path, self._domain, self._level, self._needs_answer = path, domain, level, needs_answer
        self._source = path.name.split(".")[0]

    def add(self, line: int, content: bytes) -> None:
        try:
            problem, given_id = self._problem(_row(content))
            self.seen.add(line, problem, given_id)
        except BadRow as bad:
            self._leave_out(line, *bad.args)
        except DuplicateProblem as duplicate:
            self._leave_out(line, "duplicate", str(duplicate))

    def _problem(self, row: Row) -> tuple[Problem, object]:
        """Return the problem of a row, and the row's own id."""
        form = next(form for form in FORMS if form.recognises(row))
        raw = form.read(row, self._domain)
        answer = "" if raw.answer is None and not self._needs_answer else _stated(raw.answer)
        level = str(raw.level or self._level or form.default_level)
        source = str(raw.source or self._source)
        try:
            id = problem_id(raw.question)
        except UnicodeEncodeError:
            raise BadRow("not JSON", "the problem text is not valid Unicode (a lone surrogate)") from None
        return Problem(id, raw.question.strip(), answer, level, source), raw.given_id

    def leave_out_unreadable(self) -> None:
        """Take out the problems whose ground truth cannot be compared with any answer."""
        answered = [(line, problem) for line, problem in self.seen.found.values() if problem.answer]
        verdicts = self._domain.readable([problem.answer for _, problem in answered])
        for (line, problem), readable in zip(answered, verdicts, strict=True):
            if not readable:
                del self.seen.found[problem.id]
                reason = f"the ground truth {shortened(problem.answer)} cannot be read"
                self._leave_out(line, "unparseable answer", reason)

    def _leave_out(self, line: int, kind: str, reason: str) -> None:
        self.errors.append(RowError(str(self._path), line, kind, reason))


def _row(content: bytes) -> Row:
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadRow("not JSON", "not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadRow("not JSON", f"not JSON ({str(error) or 'nested too deeply'})") from None
    if not isinstance(row, dict):
        raise BadRow("not JSON", f"not a JSON object but {shortened(json.dumps(row))}")
    return row


def _stated(answer: str | None) -> str:
    """Return the answer without white space around it; raises BadRow where nothing is left."""
    if answer is None:
        raise BadRow("no answer", "no answer (expected text, got 'null')")
    if not answer.strip():
        raise BadRow("no answer", "no answer (it is empty)")
    return answer.strip()


def _lines(path: Path) -> Iterator[tuple[int, bytes, float]]:
    """Yield each line that is not blank: its number, its content, and the share of the file read so far."""
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
    """Return the file's text as bytes; its first two bytes, not its name, say whether it is gzipped."""
    zipped = raw.read(2) == _GZIP
    raw.seek(0)
    if path.suffix == ".gz" and not zipped and path.stat().st_size:
        raise gzip.BadGzipFile("it does not start as one")
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw

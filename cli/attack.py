"""`rstar sandbox attack`: read hostile code from a file, run it, and report what escaped."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.progress import track

from cli.announce import announce_sandbox
from cli.console import console, errors, print_rows
from rstar.protocols import UserError
from sandbox.attack import attack
from sandbox.limits import Limits
from sandbox.providers import open_sandbox

Write = Callable[[str], object]


def attack_with(file: Path, provider: str, limits: Limits, *, out: Path | None) -> None:
    """Run the rows of `file` and print a summary. Exits with 1 after an escape and with 130 after Ctrl-C."""
    rows, num_bad = read_rows(file)
    if not rows:
        raise UserError(f'{file}: no usable row; give lines like {{"id": "1", "code": "print(1)"}}')
    attempts: list[dict[str, Any]] = []
    stopped = False
    with opened_output(out, file) as write:
        try:
            asyncio.run(run_rows(rows, attempts, write, provider, limits))
        except KeyboardInterrupt:
            stopped = True
    num_escapes = print_attempts(attempts, file.name)
    slowest = max((attempt["recovered_seconds"] for attempt in attempts), default=None)
    console.print(
        f"{len(attempts)} of {len(rows)} rows run{', stopped' if stopped else ''}"
        f"{f', {num_bad} left out' if num_bad else ''}, {num_escapes} escapes"
        f"{'' if slowest is None else f'; the next step took {slowest:.2f} s at most'}"
    )
    if stopped or num_escapes:
        raise typer.Exit(130 if stopped else 1)


async def run_rows(
    rows: list[dict[str, str]], attempts: list[dict[str, Any]], write: Write, provider: str, limits: Limits
) -> None:
    """Append an attempt for each row, and write it at once: Ctrl-C keeps the rows that have run."""
    announce_sandbox(provider, errors)
    async with open_sandbox(provider, limits=limits, workers=1) as sandbox:
        console.print(sandbox.protections(), style="dim", markup=False)
        shown = track(rows, console=console, description="attacks", transient=True)
        async for attempt in attack(sandbox, shown, say=lambda line: console.print(line, style="dim", markup=False)):
            attempts.append(asdict(attempt))
            write(json.dumps(attempts[-1]) + "\n")


def print_attempts(attempts: list[dict[str, Any]], title: str) -> int:
    """Print the verdicts and the escapes; return the number of rows that escaped."""
    verdicts = Counter(str(attempt["verdict"]) for attempt in attempts)
    if attempts:
        print_rows([{"verdict": verdict, "rows": count} for verdict, count in verdicts.most_common()], title=title)
    escapes = [attempt for attempt in attempts if attempt["escapes"]]
    if escapes:
        print_rows([{"id": each["id"], "escapes": "; ".join(each["escapes"])} for each in escapes], title="escapes")
        console.print("other programs change files, too: repeat such a row on a machine where nothing else runs")
    return len(escapes)


@contextmanager
def opened_output(out: Path | None, source: Path) -> Iterator[Write]:
    """Yield a function that writes a line to `out` at once. The first line replaces what the file had."""
    if out is None:
        yield lambda _: None
        return
    try:
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: that is the input file; name another one")
        file, is_new = out.open("a", buffering=1), True
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); name a file in an existing folder"
        ) from None

    def write(line: str) -> None:
        nonlocal is_new
        try:
            if is_new and file.seekable():
                file.truncate(0)
            is_new = False
            file.write(line)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}); earlier rows are kept") from None

    try:
        yield write
    finally:
        with suppress(OSError):  # `write` has reported it
            file.close()


def read_rows(file: Path) -> tuple[list[dict[str, str]], int]:
    """Return the rows {id, code} of a file, and the number of lines that are none."""
    rows, num_bad = [], 0
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8-sig") as lines
        ):
            for number, line in enumerate(lines, start=1):
                try:
                    rows += [read_row(line)] if line.strip() else []
                except ValueError as error:
                    num_bad += 1
                    errors.print(f"{file}:{number}: not a row {{id, code}} ({error}); left out", markup=False)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read ({reason}); give JSON Lines, plain or gzipped") from None
    return rows, num_bad


def read_row(line: str) -> dict[str, str]:
    """Return one row. Raises ValueError with the reason if it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("not an object")
    for key, kinds in (("id", (str, int)), ("code", (str,))):
        if key not in row:
            raise ValueError(f"no '{key}'")
        if not isinstance(row[key], kinds):
            raise ValueError(f"'{key}' is {json.dumps(row[key])[:40]}, not text")
    return {"id": str(row["id"]), "code": row["code"]}

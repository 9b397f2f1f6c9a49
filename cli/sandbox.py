"""`rstar sandbox`: build the image, run a file in it, attack it, measure it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
import tokenize
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from cli.console import announce_sandbox, console, errors, print_rows, visible
from rstar.protocols import Execution, UserError, Verdict
from sandbox.limits import Limits
from sandbox.providers import PROVIDERS, open_sandbox

app = typer.Typer(help="The sandbox that the code of steps runs in.", no_args_is_help=True)
MAX_SECONDS = 3600.0
MAX_FILE_BYTES = 2**20
SHOWN_CHARS = 2000  # of each end of a step's output
Seconds = Annotated[float, typer.Option(min=0.1, max=MAX_SECONDS, help="Time limit of a step.")]
Provider = Annotated[str, typer.Option(help=f"One of: {', '.join(PROVIDERS)}.")]


def _say(line: str) -> None:
    console.print(line, style="dim", markup=False, soft_wrap=True)


@app.command()
def build(base_image: Annotated[str, typer.Option(help="The image to start from.")] = "python:3.11-slim") -> None:
    """Build the image of the Docker provider."""
    from sandbox.container import build_image

    with console.status("building"):
        image = build_image(base_image=base_image, say=_say)
    console.print(f"built {image[:19]}", markup=False)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A Python file, or - for standard input.")],
    provider: Provider = "auto",
    seconds: Seconds = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON, with all of the output.")] = False,
) -> None:
    """Run a Python file as one step: verdict, time, memory, output. Exits with 0 only where the verdict is ok."""
    code = _text(file)

    async def once() -> Execution:
        announce_sandbox(provider, errors)
        async with open_sandbox(provider, limits=Limits(seconds=seconds), workers=1) as sandbox:
            return await sandbox.run(None, code)

    told = asyncio.run(once())
    bytes_used = told.memory_bytes or None  # unknown where the step did not end by itself
    row = {"verdict": told.verdict.value, "seconds": told.seconds}
    if as_json:
        texts = {"memory_bytes": bytes_used, "output": told.output, "error": told.error}
        typer.echo(json.dumps(row | texts))
    else:
        print_rows([row | {"memory MB": bytes_used and bytes_used / 2**20}], title=file.name)
        for text in (told.output, told.error):
            if text:
                console.print(visible(shortened(text)), markup=False, soft_wrap=True)
    if told.verdict is not Verdict.OK:
        raise typer.Exit(1)


def shortened(text: str) -> str:
    """The two ends of a text that would fill the terminal."""
    if len(text) <= 2 * SHOWN_CHARS:
        return text
    left_out = len(text) - 2 * SHOWN_CHARS
    return f"{text[:SHOWN_CHARS]}\n[… {left_out:,} characters more, see --json …]\n{text[-SHOWN_CHARS:]}"


@app.command()
def attack(
    file: Annotated[Path, typer.Argument(help="JSON Lines of {id, code}, also gzipped.")],
    provider: Provider = "auto",
    out: Annotated[Path | None, typer.Option(help="Write a row a try here, JSON Lines.")] = None,
    guard: Annotated[
        bool, typer.Option(help="Python's own checks too; --no-guard tries the walls behind them.")
    ] = True,
    seconds: Seconds = 2.0,
) -> None:
    """Run rows {id, code} of hostile code, watch the host, and fail on any escape."""
    rows, left_out = _rows(file)
    if not rows:
        raise UserError(f'{file}: no row to try; give lines like {{"id": "1", "code": "print(1)"}}')
    tried: list[dict[str, Any]] = []
    stopped = False
    with _written(out, file) as write:
        try:
            asyncio.run(_attack(rows, tried, write, provider, Limits(seconds=seconds, guarded=guard)))
        except KeyboardInterrupt:
            stopped = True
    escapes = [one for one in tried if one["escapes"]]
    verdicts = Counter(str(one["verdict"]) for one in tried)
    if tried:
        print_rows([{"verdict": verdict, "rows": count} for verdict, count in verdicts.most_common()], title=file.name)
    if escapes:
        print_rows([{"id": one["id"], "escapes": "; ".join(one["escapes"])} for one in escapes], title="escapes")
    if escapes:
        console.print("other programs change files too: try such a row again where nothing else runs")
    slowest = max((one["recovered_seconds"] for one in tried), default=None)
    console.print(
        f"{len(tried)} of {len(rows)} tried{', stopped' if stopped else ''}"
        f"{f', {left_out} left out' if left_out else ''}, {len(escapes)} escapes"
        f"{'' if slowest is None else f'; the next step was answered within {slowest:.2f} s'}"
    )
    if stopped or escapes:
        raise typer.Exit(130 if stopped else 1)


async def _attack(
    rows: list[dict[str, str]],
    tried: list[dict[str, Any]],
    write: Callable[[str], object],
    provider: str,
    limits: Limits,
) -> None:
    from sandbox.attack import attack as attacked

    announce_sandbox(provider, errors)
    async with open_sandbox(provider, limits=limits, workers=1) as sandbox:
        console.print(sandbox.protections(), style="dim", markup=False)
        shown = track(rows, console=console, description="attacks", transient=True)
        async for one in attacked(sandbox, shown, say=_say):
            tried.append(asdict(one))
            write(json.dumps(tried[-1]) + "\n")


@contextmanager
def _written(out: Path | None, source: Path) -> Iterator[Callable[[str], object]]:
    """What writes lines to `out`, at once: rows that were tried are kept where the others are not.

    What was in the file goes with the first of them.
    """
    if out is None:
        yield lambda _: None
        return
    try:
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: that is the file with the rows; name another one")
        file, is_new = out.open("a", buffering=1), True
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); name a file in a folder that is there"
        ) from None

    def write(line: str) -> None:
        nonlocal is_new
        try:
            if is_new and file.seekable():
                file.truncate(0)
            is_new = False
            file.write(line)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}); the rows before are there") from None

    try:
        yield write
    finally:
        with suppress(OSError):  # said already
            file.close()


@app.command()
def bench(
    provider: Provider = "auto",
    soak: Annotated[int, typer.Option(min=0, help="Also so many executions, after which leaks would show.")] = 0,
) -> None:
    """Measure executions a second on the fixed workload."""
    try:
        from bench.sandbox_bench import measure
    except ImportError as error:
        raise UserError(f"rstar sandbox bench: {error}; call it in a clone of the repository") from None

    asyncio.run(measure(provider, soak))


def _text(file: Path) -> str:
    """A file's code, in the encoding that it names."""
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UserError(f"{file}: longer than {MAX_FILE_BYTES:,} bytes; give the code of one step")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except (OSError, UnicodeDecodeError, SyntaxError, LookupError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read ({reason}); give a Python file in UTF-8") from None


def _rows(file: Path) -> tuple[list[dict[str, str]], int]:
    """The rows {id, code} of a file, and how many of its lines are none."""
    rows, left_out = [], 0
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8-sig") as lines
        ):
            for number, line in enumerate(lines, start=1):
                try:
                    rows += [_row(line)] if line.strip() else []
                except ValueError as error:
                    left_out += 1
                    errors.print(f"{file}:{number}: not a row {{id, code}} ({error}); left out", markup=False)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read ({reason}); give JSON Lines, or gzipped ones") from None
    return rows, left_out


def _row(line: str) -> dict[str, str]:
    """One row; raises ValueError with what is wrong."""
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

"""`rstar sandbox`: build the image, run a file in it, attack it, measure it."""

from __future__ import annotations

import asyncio
import gzip
import json
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from flows.console import announce_sandbox, console, errors, print_rows, visible
from rstar.protocols import Execution, UserError, Verdict
from sandbox.limits import Limits
from sandbox.providers import PROVIDERS, open_sandbox

app = typer.Typer(help="The sandbox that the code of steps runs in.", no_args_is_help=True)
MAX_SECONDS = 3600.0
SHOWN_CHARS = 2000  # of each end of a step's output
Seconds = Annotated[float, typer.Option(min=0.1, max=MAX_SECONDS, help="Time limit of a step.")]
Provider = Annotated[str, typer.Option(help=f"One of: {', '.join(PROVIDERS)}.")]


@app.command()
def build(base_image: Annotated[str, typer.Option(help="The image to start from.")] = "python:3.11-slim") -> None:
    """Build the image of the Docker provider."""
    from sandbox.container import build_image

    with console.status("building"):
        image = build_image(base_image=base_image, say=lambda line: console.print(line, style="dim", markup=False))
    console.print(f"built {image[:19]}", markup=False)


@app.command()
def run(
    file: Path,
    provider: Provider = "auto",
    seconds: Seconds = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON, with all of the output.")] = False,
) -> None:
    """Run a Python file as one step: verdict, time, memory, output."""
    code = _text(file)

    async def once() -> Execution:
        announce_sandbox(provider, errors)
        async with open_sandbox(provider, limits=Limits(seconds=seconds), workers=1) as sandbox:
            return await sandbox.run(None, code)

    told = asyncio.run(once())
    memory = told.memory_bytes / 2**20 if told.memory_bytes else None  # unknown where the step did not end by itself
    row = {"verdict": told.verdict.value, "seconds": told.seconds, "memory MB": memory}
    if as_json:
        typer.echo(json.dumps(row | {"output": told.output, "error": told.error}))
    else:
        print_rows([row], title=str(file))
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
    file: Path,
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
        raise UserError(f"{file}: no row {{id, code}} to try")
    tried: list[dict[str, Any]] = []
    stopped = False
    with _written(out, file) as write:
        try:
            asyncio.run(_attack(rows, tried, write, provider, Limits(seconds=seconds, guarded=guard)))
        except KeyboardInterrupt:
            stopped = True
    escapes = [one for one in tried if one["escapes"]]
    verdicts = Counter(str(one["verdict"]) for one in tried)
    print_rows([{"verdict": verdict, "rows": count} for verdict, count in verdicts.most_common()], title=str(file))
    if escapes:
        print_rows([{"id": one["id"], "escapes": "; ".join(one["escapes"])} for one in escapes], title="escapes")
    slowest = max((one["recovered_seconds"] for one in tried), default=0.0)
    if escapes:
        console.print("other programs change files too: try such a row again where nothing else runs")
    console.print(
        f"{len(tried)} of {len(rows)} tried{', stopped' if stopped else ''}"
        f"{f', {left_out} left out' if left_out else ''}, {len(escapes)} escapes; "
        f"the next step was answered within {slowest:.2f} s"
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
        async for one in attacked(sandbox, shown, say=lambda line: console.print(line, style="dim", markup=False)):
            tried.append(asdict(one))
            write(json.dumps(tried[-1]) + "\n")


@contextmanager
def _written(out: Path | None, source: Path) -> Iterator[Callable[[str], object]]:
    """What writes lines to `out`, at once: rows that were tried are kept where the others are not."""
    if out is None:
        yield lambda _: None
        return
    try:
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: that is the file with the rows; name another one")
        file = out.open("w", buffering=1)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror}); name a file in a folder that is there"
        ) from None
    with file:
        yield file.write


@app.command()
def bench(
    provider: Provider = "auto",
    soak: Annotated[int, typer.Option(min=0, help="Also so many executions, after which leaks would show.")] = 0,
) -> None:
    """Measure executions a second on the fixed workload."""
    from bench.sandbox_bench import measure

    asyncio.run(measure(provider, soak))


def _text(file: Path) -> str:
    try:
        with tokenize.open(file) as opened:  # in the encoding that it names
            return opened.read()
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
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
                    row = json.loads(line)
                    rows.append({"id": str(row["id"]), "code": str(row["code"])})
                except (ValueError, KeyError, TypeError) as error:
                    left_out += 1
                    reason = f"no {error}" if isinstance(error, KeyError) else error
                    errors.print(f"{file}:{number}: not a row {{id, code}} ({reason}); left out", markup=False)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read ({reason}); give JSON Lines, or gzipped ones") from None
    return rows, left_out

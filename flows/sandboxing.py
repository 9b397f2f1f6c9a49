"""`rstar sandbox`: build the image, run a file in it, attack it, measure it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from flows.console import announce_sandbox, console, errors, print_rows
from rstar.protocols import UserError, Verdict
from sandbox.limits import Limits
from sandbox.providers import PROVIDERS, open_sandbox

app = typer.Typer(help="The sandbox that the code of steps runs in.", no_args_is_help=True)
Provider = Annotated[str, typer.Option(help=f"One of: {', '.join(PROVIDERS)}.")]


@app.command()
def build(base_image: Annotated[str, typer.Option(help="The image to start from.")] = "python:3.11-slim") -> None:
    """Build the image of the Docker provider."""
    from sandbox.container import build_image

    with console.status("building"):
        image = build_image(base_image=base_image, say=lambda line: console.print(line, style="dim", markup=False))
    console.print(f"built {image[:19]}", markup=False)


@app.command()
def run(file: Path, provider: Provider = "auto", seconds: Annotated[float, typer.Option(min=0.1)] = 5.0) -> None:
    """Run a Python file as one step: verdict, output, time."""
    code = _text(file)

    async def once() -> list[dict[str, object]]:
        announce_sandbox(provider, errors)
        async with open_sandbox(provider, limits=Limits(seconds=seconds), workers=1) as sandbox:
            told = await sandbox.run(None, code)
            return [{"verdict": told.verdict.value, "seconds": told.seconds, "memory MB": told.memory_bytes / 2**20,
                     "output": told.output, "error": told.error}]  # fmt: skip

    rows = asyncio.run(once())
    print_rows(rows, title=str(file))
    if rows[0]["verdict"] != Verdict.OK.value:
        raise typer.Exit(1)


@app.command()
def attack(
    file: Path,
    provider: Provider = "auto",
    out: Annotated[Path | None, typer.Option(help="Write a row a try here, JSON Lines.")] = None,
    guard: Annotated[
        bool, typer.Option(help="Python's own checks too; --no-guard tries the walls behind them.")
    ] = True,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a step.")] = 2.0,
) -> None:
    """Run rows {id, code} of hostile code, watch the host, and fail on any escape."""
    rows = list(_rows(file))
    tried = asyncio.run(_attack(rows, provider, Limits(seconds=seconds, guarded=guard)))
    escapes = [one for one in tried if one["escapes"]]
    if out:
        out.write_text("".join(json.dumps(one) + "\n" for one in tried))
    verdicts = Counter(str(one["verdict"]) for one in tried)
    print_rows([{"verdict": verdict, "rows": count} for verdict, count in verdicts.most_common()], title=str(file))
    if escapes:
        print_rows([{"id": one["id"], "escapes": "; ".join(one["escapes"])} for one in escapes], title="escapes")
    slowest = max((one["recovered_seconds"] for one in tried), default=0.0)
    console.print(f"{len(tried)} tried, {len(escapes)} escapes; the next step was answered within {slowest:.2f} s")
    if escapes:
        raise typer.Exit(1)


async def _attack(rows: list[dict[str, str]], provider: str, limits: Limits) -> list[dict[str, Any]]:
    from sandbox.attack import attack as attacked

    async with open_sandbox(provider, limits=limits, workers=1) as sandbox:
        console.print(sandbox.protections(), style="dim", markup=False)
        shown = track(rows, console=console, description="attacks", transient=True)
        tried = [asdict(one) async for one in attacked(sandbox, shown)]
    return tried


@app.command()
def bench(
    provider: Provider = "auto",
    soak: Annotated[int, typer.Option(help="Also so many executions, after which leaks would show.")] = 0,
) -> None:
    """Measure executions a second on the fixed workload."""
    from bench.sandbox_bench import measure

    asyncio.run(measure(provider, soak))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give a Python file") from None


def _rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    yield {"id": str(row["id"]), "code": str(row["code"])}
                except (ValueError, KeyError, TypeError):
                    errors.print(f"{file}:{number}: not a row {{id, code}}; left out", markup=False)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give JSON Lines, or gzipped ones") from None

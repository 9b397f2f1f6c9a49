"""`rstar sandbox`: build the image, run a file as a step, attack the sandbox, measure it."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tokenize
from pathlib import Path
from typing import Annotated

import typer

from cli.announce import announce_sandbox
from cli.console import console, errors, print_rows
from report.solution import visible
from rstar.protocols import Execution, UserError, Verdict
from sandbox.limits import Limits
from sandbox.providers import PROVIDERS, open_sandbox

app = typer.Typer(
    help="Build, use and test the sandbox that runs the code of steps.", no_args_is_help=True, rich_markup_mode=None
)
MAX_SECONDS = 3600.0
MAX_FILE_BYTES = 2**20
SHOWN_CHARS = 2000  # at each end of a long output
Seconds = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=MAX_SECONDS, help="Time limit of a step.")]
Provider = Annotated[
    str, typer.Option(metavar="PROVIDER", help=f"One of {', '.join(PROVIDERS)}. docs/sandbox.md compares them.")
]


@app.command()
def build(
    base_image: Annotated[str, typer.Option(metavar="IMAGE", help="Image to start from.")] = "python:3.11-slim",
) -> None:
    """Build the sandbox image for Docker."""
    from sandbox.container import build_image

    with console.status("building"):
        image = build_image(base_image=base_image, say=print_detail)
    console.print(f"built {image[:19]}", markup=False)


def print_detail(line: str) -> None:
    console.print(line, style="dim", markup=False, soft_wrap=True)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python file, or - for standard input.")],
    provider: Provider = "auto",
    seconds: Seconds = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON with the whole output.")] = False,
) -> None:
    """Run a Python file as one step.

    Prints verdict, time, memory and output. The exit code is 0 if the verdict is ok, else 1.
    """
    code = read_code(file)

    async def once() -> Execution:
        announce_sandbox(provider, errors)
        async with open_sandbox(provider, limits=Limits(seconds=seconds), workers=1) as sandbox:
            return await sandbox.run(None, code)

    execution = asyncio.run(once())
    memory_bytes = execution.memory_bytes or None  # 0: not known
    row = {"verdict": execution.verdict.value, "seconds": execution.seconds}
    if as_json:
        texts = {"memory_bytes": memory_bytes, "output": execution.output, "error": execution.error}
        typer.echo(json.dumps(row | texts))
    else:
        print_rows([row | {"memory MB": memory_bytes and memory_bytes / 2**20}], title=file.name)
        for text in (execution.output, execution.error):
            if text:
                console.print(visible(shortened(text)), markup=False, soft_wrap=True)
    if execution.verdict is not Verdict.OK:
        raise typer.Exit(1)


def read_code(file: Path) -> str:
    """Return the code of a file, decoded as its coding line says. Raises UserError if it cannot be read."""
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


def shortened(text: str) -> str:
    """Return a text that fits the terminal: a long one without its middle."""
    if len(text) <= 2 * SHOWN_CHARS:
        return text
    left_out = len(text) - 2 * SHOWN_CHARS
    return f"{text[:SHOWN_CHARS]}\n[… {left_out:,} more characters; --json prints all …]\n{text[-SHOWN_CHARS:]}"


@app.command()
def attack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines of {id, code}, plain or gzipped.")],
    provider: Provider = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result of each row to this JSON Lines file.")
    ] = None,
    no_guard: Annotated[
        bool, typer.Option("--no-guard", help="Turn off the checks in Python, to test the isolation behind them.")
    ] = False,
    seconds: Seconds = 2.0,
) -> None:
    """Run hostile code in the sandbox and watch this machine.

    Each row of FILE runs as a step. The exit code is 1 if any of them escaped.
    """
    from cli.attack import attack_with

    attack_with(file, provider, Limits(seconds=seconds, guarded=not no_guard), out=out)


@app.command()
def bench(
    provider: Provider = "auto",
    soak: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Then run about N more steps, and report memory, files and processes."),
    ] = 0,
) -> None:
    """Measure steps per second on a fixed workload.

    Works in a clone of the repository only.
    """
    try:
        from bench.sandbox_bench import measure
    except ImportError as error:
        raise UserError(f"rstar sandbox bench: {error}; run it in a clone of the repository") from None

    asyncio.run(measure(provider, soak))

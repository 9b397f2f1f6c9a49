"""The terminal: Rich bars over the tasks' progress, with counts and the time left.

One bar a stage of the round at work; a finished stage leaves one line. Prefect's own log stays quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from report.solution import visible
from tasks.lib.progress import Progress, listening

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def watching(num_rounds: int) -> Iterator[None]:
    """Show every stage that tasks report while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        ids: dict[tuple[int, str], TaskID] = {}
        finished: set[tuple[int, str]] = set()

        def show(move: Progress) -> None:
            key, label = (move.round, move.stage), f"round {move.round}/{num_rounds}  {move.stage:<15}"
            if key in finished:
                return
            if key not in ids:
                ids[key] = bars.add_task(label, total=move.total or None, note="")
            bars.update(ids[key], completed=move.done, total=move.total or None, note=move.note)
            if move.total and move.done >= move.total:
                finished.add(key)
                seconds = bars.tasks[bars.task_ids.index(ids[key])].elapsed or 0.0
                bars.remove_task(ids[key])
                console.print(f"{label} {move.done:>5} of {move.total:<5} {seconds:6.1f} s  {move.note}")

        with listening(show):
            yield


def print_rows(rows: list[dict[str, object]], title: str = "") -> None:
    """Print rows of equal keys as a table."""
    if not rows:
        console.print(f"{title}: no rows" if title else "no rows", markup=False)
        return
    table = Table(title=Text(title) if title else None)
    for name in rows[0]:
        table.add_column(Text(name))
    for row in rows:
        # Text, so that a step with [brackets] is not taken for markup.
        table.add_row(*(Text(cell(value)) for value in row.values()))
    console.print(table)


def cell(value: object) -> str:
    """Render one value: fractions with three digits, nothing for null."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))


def announce_sandbox(provider: str, say: Console) -> None:
    """Say where steps run where that is no container; why, without the advice for those who asked for Docker."""
    from sandbox.providers import choose

    chosen, reason = choose(provider)
    if chosen == "local":
        reason = reason.removeprefix("sandbox: ").partition("; start one")[0]
        because = f" ({reason}; see: rstar doctor)" if reason else " (see: rstar doctor)"
        say.print(f"steps run in the local sandbox, which does not stop an attacker{because}", markup=False)

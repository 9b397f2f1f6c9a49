"""The terminal: progress bars, tables, and the two consoles, for results and for messages.

There is one bar for each stage of the current round. A finished stage leaves one line.
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
    """Show the progress of every stage that tasks report while the block runs."""
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

        def show(progress: Progress) -> None:
            key = (progress.round, progress.stage)
            label = f"round {progress.round}/{num_rounds}  {progress.stage:<15}"
            if key in finished:
                return
            if key not in ids:
                ids[key] = bars.add_task(label, total=progress.total or None, note="")
            bars.update(ids[key], completed=progress.done, total=progress.total or None, note=progress.note)
            if progress.total and progress.done >= progress.total:
                finished.add(key)
                seconds = bars.tasks[bars.task_ids.index(ids[key])].elapsed or 0.0
                bars.remove_task(ids[key])
                counts = f"{progress.done:>5} of {progress.total:<5}"
                console.print(f"{label} {counts} {seconds:6.1f} s  {progress.note}")

        with listening(show):
            yield


def print_rows(rows: list[dict[str, object]], title: str = "") -> None:
    """Print rows, all with the same keys, as a table."""
    if not rows:
        console.print(f"{title}: no rows" if title else "no rows", markup=False)
        return
    table = Table(title=Text(title) if title else None)
    for name in rows[0]:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        # Text keeps Rich from reading [brackets] in a step as markup.
        table.add_row(*(Text(cell(value)) for value in row.values()))
    console.print(table)


def cell(value: object) -> str:
    """Return a value as text: floats with three digits, null as nothing."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))

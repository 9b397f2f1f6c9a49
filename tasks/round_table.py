"""The table of a round in Prefect's UI: its results beside the paper's."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_table_artifact

from report.tables import round_table


@task(retries=1, retry_delay_seconds=5, timeout_seconds=600, task_run_name="table-{round}")
async def show_round(root: str, round: int) -> None:
    """Create the table as an artifact of the run."""
    table = round_table(root, round)
    names = [str(column.header) for column in table.columns]
    cells_of_rows = zip(*(column.cells for column in table.columns), strict=True)
    rows = [dict(zip(names, map(str, cells), strict=True)) for cells in cells_of_rows]
    await acreate_table_artifact(rows, key=f"round-{round}", description=f"Round {round} of {root}")

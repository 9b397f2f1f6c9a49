"""The round's table in Prefect's UI: what the round reached, beside the paper's figures."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_table_artifact

from report.tables import round_table


@task(retries=1, retry_delay_seconds=5, timeout_seconds=600, task_run_name="table-{round}")
async def show_round(root: str, round: int) -> None:
    """Put the table among the run's artifacts."""
    table = round_table(root, round)
    names = [str(column.header) for column in table.columns]
    rows = [
        dict(zip(names, map(str, cells), strict=True)) for cells in zip(*(c.cells for c in table.columns), strict=True)
    ]
    await acreate_table_artifact(rows, key=f"round-{round}", description=f"Round {round} of {root}")

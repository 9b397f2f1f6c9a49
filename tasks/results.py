"""What a person sees of a run: the round's table in Prefect's UI, and the report."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_link_artifact, acreate_table_artifact

from report import page
from report.tables import round_table


@task(retries=1, retry_delay_seconds=5, timeout_seconds=600, task_run_name="table-{round}")
async def show_round(root: str, round: int) -> None:
    """Put what the round reached, beside the paper's figures, among the artifacts."""
    table = round_table(root, round)
    names = [str(column.header) for column in table.columns]
    rows = [
        dict(zip(names, map(str, cells), strict=True)) for cells in zip(*(c.cells for c in table.columns), strict=True)
    ]
    await acreate_table_artifact(rows, key=f"round-{round}", description=f"Round {round} of {root}")


@task(retries=1, retry_delay_seconds=5, timeout_seconds=600)
async def write_report(root: str) -> str:
    """Write the report as it stands; return its place."""
    place = page.write_report(root)
    link = place if "://" in place else f"file://{place}"
    await acreate_link_artifact(link, key="report", link_text="report.html", description=f"Report of {root}")
    return place

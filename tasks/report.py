"""The report of a run, and a link to it in Prefect's UI."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_link_artifact

from report import page


@task(retries=1, retry_delay_seconds=5, timeout_seconds=600)
async def write_report(root: str) -> str:
    """Write the report; return its path or URL."""
    url = page.write_report(root)
    link = url if "://" in url else f"file://{url}"
    await acreate_link_artifact(link, key="report", link_text="report.html", description=f"Report of {root}")
    return url

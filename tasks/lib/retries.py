"""Retries and caching, as all tasks of a run have them.

A dead engine, sandbox or disk is retried, a mistake of the user is not. A wrong answer is not a failure at all. Each
task states its own number of retries, delay and time-out.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import INPUTS, RUN_ID

from rstar.protocols import InfrastructureError

CACHE_POLICY = INPUTS + RUN_ID  # within a flow run: its retry repeats only the tasks that have not succeeded


def infrastructure_failed(task: Any, task_run: Any, state: Any) -> bool:
    """Return whether Prefect should retry a failed attempt. A time-out is not retried."""
    return isinstance(state.data, InfrastructureError)

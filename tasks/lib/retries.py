"""Which failures are retried: a dead engine, sandbox or disk; never a wrong answer and never a user's mistake.

Every task states its own retries, delay and time-out; what they share is this condition and how results are kept:
under the inputs and the flow run, so that a retry of a failed run does only what is missing.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import INPUTS, RUN_ID

from rstar.protocols import InfrastructureError

KEPT = INPUTS + RUN_ID


def infrastructure_failed(task: Any, task_run: Any, state: Any) -> bool:
    """Tell Prefect whether the exception of a failed attempt is worth another one; a time-out is not."""
    return isinstance(state.data, InfrastructureError)

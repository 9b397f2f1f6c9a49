"""The truth about steps: which steps of a trajectory are wrong, for problems of the miniature world.

The true quantities of these problems are known, and their steps are arithmetic, which the sandbox's evaluator computes
without running code. Nothing is known about a trajectory that has any other code.
"""

from __future__ import annotations

from collections.abc import Sequence

from miniature.problems import Truth, wrong_steps
from rstar.protocols import Verdict
from sandbox.inside.fast_path.arithmetic import NotEligible, run_arithmetic

MAX_OUTPUT_BYTES = 4096


def wrong_of(truth: Truth | None, steps: Sequence[str]) -> list[bool] | None:
    """Return for each rendered step whether it is wrong; None if that is unknown."""
    if not truth:
        return None
    try:
        return wrong_steps(truth, steps, _run_step)
    except NotEligible:
        return None


def has_wrong_step(truth: Truth | None, steps: Sequence[str]) -> bool | None:
    """Return whether any step is wrong; None if that is unknown."""
    wrong = wrong_of(truth, steps)
    return None if wrong is None else any(wrong)


def _run_step(variables: dict[str, object], code: str) -> None:
    """Update `variables` with the results of a step. A step that fails changes nothing, so it counts as wrong."""
    outcome = run_arithmetic(code, variables, max_output_bytes=MAX_OUTPUT_BYTES)
    if outcome.verdict is Verdict.OK:
        variables |= outcome.variables

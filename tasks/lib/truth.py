"""Which steps of a trajectory are truly right: known for the miniature world's problems, whose quantities are known.

Their steps are arithmetic, which the sandbox's evaluator carries out without running any code. A trajectory with
anything else in it stays unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from miniature.problems import Truth, wrong_steps
from rstar.protocols import Verdict
from sandbox.inside.fast_path.arithmetic import NotEligible, run_arithmetic

MAX_OUTPUT_BYTES = 4096


def wrong_of(truth: Truth | None, steps: Sequence[str]) -> list[bool] | None:
    """Say of each rendered step whether it is wrong; None where that cannot be known."""
    if not truth:
        return None
    try:
        return wrong_steps(truth, steps, run_step)
    except NotEligible:
        return None


def has_wrong_step(truth: Truth | None, steps: Sequence[str]) -> bool | None:
    """Say whether any step is wrong; None where that cannot be known."""
    wrong = wrong_of(truth, steps)
    return None if wrong is None else any(wrong)


def run_step(variables: dict[str, object], code: str) -> None:
    """Carry out one step on `variables`; a step that fails changes nothing, which is wrong."""
    outcome = run_arithmetic(code, variables, max_output_bytes=MAX_OUTPUT_BYTES)
    if outcome.verdict is Verdict.OK:
        variables |= outcome.variables

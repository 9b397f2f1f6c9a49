"""Which steps of a trajectory are truly right: the truth that the paper's Q-values estimate (Section 3.2).

A problem's truth lists, for each step of the true solution, the quantities that the step sets and their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from domains.mathematics import steps as fmt
from miniature.families.sentences import ASIDE

Truth = Sequence[Mapping[str, str]]


def wrong_steps(truth: Truth, steps: Sequence[str], run: Callable[[dict[str, object], str], object]) -> list[bool]:
    """Say of each rendered step whether it is wrong.

    A code step is right if it changes what the next true step changes, to the same values. So a side computation is
    wrong, and so is a step out of order. Steps that note the number of a distractor may be left out. The last code
    step is right if its output is, and the answer step if its answer is. `run(variables, code)` executes a step's code
    and updates `variables`; what it raises is passed on.
    """
    pending = [dict(values) for values in truth]
    variables: dict[str, object] = {}
    verdicts = []
    for step in steps:
        if fmt.kind_of(step) is fmt.StepKind.ANSWER:
            verdicts.append(fmt.answer_of(step) != truth[-1]["print"])
            continue
        variables.pop(ASIDE, None)
        if fmt.kind_of(step) is fmt.StepKind.LAST_CODE:
            output = f"{fmt.OUTPUT}{truth[-1]['print']}{fmt.END_OF_OUTPUT}"
            verdicts.append(bool(pending) and output not in step)
            continue
        before = dict(variables)
        run(variables, fmt.code_of(step))
        changed = changes(before, variables)
        num_notes = next((i for i, values in enumerate(pending) if values.keys() != {ASIDE}), len(pending))
        allowed = pending[: num_notes + 1]
        verdicts.append(changed not in allowed)
        if changed in allowed:
            del pending[: allowed.index(changed) + 1]
    return verdicts


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, str]:
    """Return the variables that a step set to another value, and the value as printed; imports do not count."""
    return {
        name: str(value)
        for name, value in after.items()
        if name != "Fraction" and (name not in before or before[name] != value)
    }

"""The truth about steps is known for the arithmetic of generated problems, and unknown for other code."""

from __future__ import annotations

from miniature.problems import generate, solution
from tasks.lib.truth import has_wrong_step, wrong_of

GENERATED = generate({"gsm": 10, "math": 10, "olympiad": 10}, seed=1, split="train")


def test_the_true_solution_has_no_wrong_step() -> None:
    for generated in GENERATED:
        assert has_wrong_step(generated.truth, solution(generated.problem.question)) is False


def test_a_step_with_a_changed_number_is_wrong() -> None:
    for generated in GENERATED:
        steps = solution(generated.problem.question)
        changed = [steps[0].replace(" = ", " = 1 + ", 1), *steps[1:]]
        verdicts = wrong_of(generated.truth, changed)
        assert verdicts is not None and verdicts[0]


def test_a_step_beyond_arithmetic_is_unknown_and_never_run() -> None:
    generated = GENERATED[0]
    first = "<code>\n# list\nx = [print(1) for _ in range(3)]\n<end_of_step>"
    assert has_wrong_step(generated.truth, [first]) is None
    assert has_wrong_step(None, solution(generated.problem.question)) is None

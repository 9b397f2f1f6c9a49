"""Which steps are truly right is known for the families' arithmetic, and unknown for anything else."""

from __future__ import annotations

from miniature.problems import generate, solution
from tasks.lib.truth import has_wrong_step, wrong_of

MADE = generate({"gsm": 10, "math": 10, "olympiad": 10}, seed=1, split="train")


def test_the_true_solution_has_no_wrong_step() -> None:
    assert [has_wrong_step(made.truth, solution(made.problem.question)) for made in MADE] == [False] * len(MADE)


def test_a_changed_number_is_a_wrong_step_even_where_the_answer_is_copied() -> None:
    for made in MADE:
        steps = solution(made.problem.question)
        spoiled = [steps[0].replace(" = ", " = 1 + ", 1), *steps[1:]]
        verdicts = wrong_of(made.truth, spoiled)
        assert verdicts is not None and verdicts[0]


def test_a_step_beyond_arithmetic_is_unknown_and_never_run() -> None:
    made = MADE[0]
    first = "<code>\n# list\nx = [print(1) for _ in range(3)]\n<end_of_step>"
    assert has_wrong_step(made.truth, [first]) is None
    assert has_wrong_step(None, solution(made.problem.question)) is None

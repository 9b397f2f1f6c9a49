"""Which steps are wrong: those that do not follow the true solution, even where the answer is right."""

from __future__ import annotations

from contextlib import suppress

from miniature.families.stories import read_story, run_plan_code
from miniature.problems import generate, solution, wrong_steps


def run(variables: dict[str, object], code: str) -> None:
    with suppress(AssertionError):
        run_plan_code(code, variables)


def test_no_step_of_the_true_solution_is_wrong_and_a_changed_one_is() -> None:
    for one in generate({"gsm": 10, "math": 10, "olympiad": 10}, seed=3, split="train"):
        steps = solution(one.problem.question)
        assert not any(wrong_steps(one.truth, steps, run))
        changed = [steps[0].replace(" = ", " = 1 + "), *steps[1:]]
        assert wrong_steps(one.truth, changed, run)[0]


def test_a_distractor_may_be_left_out_but_a_side_computation_is_wrong_even_if_the_answer_is_right() -> None:
    question = "A) Tom has 40 coins. B) Tom is 9 years old. C) Tom loses 15 coins. D) What does Tom have at last?"
    start, noted, *rest = solution(question)
    assert noted == "\n# B) Tom is 9 years old.\naside = 9\n<end_of_step>"
    truth = [dict(step.values) for step in read_story(question).plan()]
    assert wrong_steps(truth, [start, noted, *rest], run) == [False] * 5
    assert wrong_steps(truth, [start, *rest], run) == [False] * 4
    side, used = noted.replace("aside", "extra"), noted.replace("aside = 9", "tom = tom + 9")
    assert wrong_steps(truth, [start, side, *rest], run) == [False, True, False, False, False]
    assert wrong_steps(truth, [start, used, *rest], run)[1]


def test_distractors_with_one_number_are_told_apart() -> None:
    question = (
        "A) Tom has 40 coins. B) Tom is 9 years old. C) Tom loses 15 coins. D) The bus of Tom has 9 seats. "
        "E) Tom finds 7 coins. F) What does Tom have at last?"
    )
    plan, steps = read_story(question).plan(), solution(question)
    truth = [dict(step.values) for step in plan]
    assert [step.counts for step in plan] == [True, False, True, False, True, True]
    assert not any(wrong_steps(truth, steps, run))
    assert not any(wrong_steps(truth, [steps[0], *steps[2:]], run))
    again = [*steps[:3], steps[2].replace("tom - 15", "25"), *steps[3:]]  # a step that changes nothing
    assert wrong_steps(truth, again, run) == [False, False, False, True, False, False, False, False]
    slip = [steps[0], steps[1].replace("= 9", "= 15"), *steps[2:]]
    assert wrong_steps(truth, slip, run) == [False, True, *[False] * 5]

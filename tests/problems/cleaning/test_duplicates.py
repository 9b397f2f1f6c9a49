"""A problem's identity, and the refusal of a second problem with the same one."""

import pytest

from problems.cleaning.duplicates import DuplicateProblem, SeenProblems, problem_id
from rstar.protocols import Problem


def test_the_id_ignores_white_space_and_unicode_form_and_nothing_else():
    assert problem_id(" Caf\u00e9  au\nlait ") == problem_id("Cafe\u0301 au lait")
    assert problem_id("2 + 2") != problem_id("2 + 3") and problem_id("a") != problem_id("A")
    assert len(problem_id("a")) == 16


def test_two_problems_without_an_id_of_their_own_are_kept_and_a_repeated_id_is_refused():
    seen = SeenProblems()
    for line, (question, given_id) in enumerate([("p", None), ("q", None), ("r", 7)], start=1):
        seen.add(line, Problem(problem_id(question), question, "1"), given_id)
    with pytest.raises(DuplicateProblem, match="duplicate id 7: first used at line 3"):
        seen.add(4, Problem(problem_id("s"), "s", "1"), 7)
    with pytest.raises(DuplicateProblem, match=r"the same problem as line 1$"):
        seen.add(5, Problem(problem_id("p"), "p", "1"), None)
    assert [line for line, _ in seen.found.values()] == [1, 2, 3]

"""Generated problems: exact, reproducible, disjoint by structure, hard to guess, and without needless steps."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from fractions import Fraction

import pytest

from miniature.families.generator import DEALS
from miniature.families.levels import LEVELS
from miniature.families.sentences import wrong_operation
from miniature.families.stories import read_story, run_plan_code
from miniature.problems import generate, solution, vary
from problems.cleaning.duplicates import problem_id
from rstar.protocols import UserError

COUNTS = {"gsm": 60, "math": 60, "olympiad": 90}


@pytest.fixture(scope="module")
def made():
    return {split: generate(COUNTS, seed=3, split=split) for split in ("train", "test")}


def printed(codes: list[str]) -> str | None:
    """Return what a solution prints; None where it fails."""
    scope: dict[str, object] = {}
    with suppress(AssertionError, NameError, ZeroDivisionError):
        return [run_plan_code(code, scope) for code in codes][-1]
    return None


def test_train_and_test_have_no_structure_in_common(made) -> None:
    train, test = ({problem.structure for problem in made[split]} for split in ("train", "test"))
    assert train and test and not train & test


def test_equal_seeds_give_equal_problems_and_different_seeds_different_ones(made) -> None:
    assert generate(COUNTS, seed=3, split="train") == made["train"]
    assert generate(COUNTS, seed=4, split="train") != made["train"]


def test_a_question_can_be_read_back_and_its_plan_gives_the_answer(made) -> None:
    for made_one in made["train"] + made["test"]:
        story = read_story(made_one.problem.question)
        assert story is not None and story.question == made_one.problem.question
        assert story.plan()[-1].values["print"] == made_one.problem.answer
        assert made_one.problem.id == problem_id(made_one.problem.question)


def test_levels_differ_by_the_number_of_operations(made) -> None:
    for one in made["train"]:
        level = LEVELS[one.problem.level]
        kinds = [
            kind for kind in one.structure.split("-") if kind not in ("start", "end") and not kind.startswith("ask")
        ]
        assert level.min_operations <= len(kinds) <= level.max_operations


def test_olympiad_problems_have_fractions_pairs_and_reversed_questions(made) -> None:
    olympiad = [one for one in made["train"] if one.problem.level == "olympiad"]
    assert any("/" in one.problem.answer for one in olympiad)
    assert any(one.problem.answer.startswith("(") for one in olympiad)
    assert any(one.structure.endswith("ask_start") for one in olympiad)


def test_answers_are_hard_to_guess(made) -> None:
    answers = Counter(one.problem.answer for one in made["train"])
    assert answers.most_common(1)[0][1] <= 0.05 * len(made["train"])
    numbers = [Fraction(part) for one in made["train"] for part in one.problem.answer.strip("()").split(", ")]
    assert all(number > 12 or number.denominator > 1 for number in numbers)
    assert not any(one.structure.split("-")[-2] == "rest" for one in made["train"])


def test_a_deal_taken_the_wrong_way_fails_its_assertion(made) -> None:
    plans = [[step.code for step in read_story(one.problem.question).plan()] for one in made["train"]]
    guesses = [(codes, at) for codes in plans for at, code in enumerate(codes) if "\nassert" in code]
    assert guesses
    for codes, at in guesses:
        assert printed([*codes[:at], wrong_operation(codes[at]), *codes[at + 1 :]]) is None


def test_the_amount_of_a_deal_does_not_tell_whether_it_was_bought_or_sold() -> None:
    ways: dict[int, Counter[str]] = {amount: Counter() for amount in DEALS}
    for one in generate({"olympiad": 1000}, seed=0, split="train"):
        for way, amount in re.findall(r"^\w+ ([+-])= (\d+)$", "".join(solution(one.problem.question)), re.M):
            ways[int(amount)][way] += 1
    assert all(counts.total() >= 200 and 0.4 < counts["+"] / counts.total() < 0.6 for counts in ways.values()), ways


def test_the_answer_needs_every_step_except_those_that_note_a_distractor(made) -> None:
    for one in made["train"]:
        plan = read_story(one.problem.question).plan()
        for left_out in plan[:-1]:
            others = [step.code for step in plan if step is not left_out]
            assert (printed(others) == one.problem.answer) == (not left_out.counts)


def test_a_wrong_operation_fails_more_often_in_a_longer_story_but_not_always(made) -> None:
    failing: dict[str, list[bool]] = {level: [] for level in LEVELS}
    for one in made["train"]:
        codes = [step.code for step in read_story(one.problem.question).plan()]
        for at, code in enumerate(codes[:-1]):
            if "\nassert" not in code and (changed := wrong_operation(code)) != code:
                failing[one.problem.level].append(printed([*codes[:at], changed, *codes[at + 1 :]]) is None)
    shares = [sum(failed) / len(failed) for failed in failing.values()]
    assert 0 < shares[0] < shares[1] < shares[2] < 0.65, shares
    every = [failed for level in failing.values() for failed in level]
    assert 0.15 < sum(every) / len(every) < 0.5


def test_the_easiest_level_has_every_kind_of_two_person_sentence() -> None:
    easy = generate({"gsm": 150}, seed=0, split="train")
    told = {kind for one in easy for kind in one.structure.split("-")}
    assert {"fold", "more", "less", "give", "pool", "ask_both", "ask_gap", "ask_pair"} <= told


def test_a_variation_is_a_new_train_problem_of_the_level(made) -> None:
    for one in made["train"][::10]:
        new = vary(one.problem.question, seed=1, level=one.problem.level)
        if new is not None:
            assert new.problem.question != one.problem.question
            assert read_story(new.problem.question).split == "train"
            assert new.problem.level == one.problem.level
    assert sum(vary(one.problem.question, seed=1, level=one.problem.level) is not None for one in made["train"]) > 150
    assert vary("What is 2 + 2?", seed=1, level="gsm") is None


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(UserError, match="unknown level 'hard'; allowed: gsm, math, olympiad"):
        generate({"hard": 1}, seed=0, split="train")
    [one] = generate({"gsm": 1}, seed=0, split="train")
    with pytest.raises(UserError, match="unknown level 'Level 5'; allowed: gsm, math, olympiad"):
        vary(one.problem.question, seed=0, level="Level 5")

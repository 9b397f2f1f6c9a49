from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest

from miniature.families.generator import DEALS, LEVELS, NUM_OPERATIONS, generate, vary
from miniature.families.sentences import KINDS, read, wrong_operation
from miniature.families.stories import read_story, render_plan, run_plan_code, solution, wrong_steps
from problems.sources.importing import problem_id
from rstar.protocols import UserError

COUNTS = {"gsm": 60, "math": 60, "olympiad": 90}


@pytest.fixture(scope="module")
def made():
    return {split: generate(COUNTS, seed=3, split=split) for split in ("train", "test")}


def run(variables: dict[str, object], code: str) -> None:
    with suppress(AssertionError):
        run_plan_code(code, variables)


def printed(codes: list[str]) -> str | None:
    """What a solution prints; None where it does not run to its end."""
    scope: dict[str, object] = {}
    with suppress(AssertionError, NameError, ZeroDivisionError):
        return [run_plan_code(code, scope) for code in codes][-1]
    return None


def test_train_and_test_have_no_structure_in_common(made) -> None:
    train, test = ({problem.structure for problem in made[split]} for split in ("train", "test"))
    assert train and test and not train & test


def test_equal_seeds_give_equal_problems_and_others_do_not(made) -> None:
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
        low, high = NUM_OPERATIONS[one.problem.level]
        kinds = [
            kind for kind in one.structure.split("-") if kind not in ("start", "end") and not kind.startswith("ask")
        ]
        assert low <= len(kinds) <= high


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


def test_a_hand_computed_story() -> None:
    question = (
        "A) Tom has 40 coins. B) Ana has 3 times as many coins as Tom. C) Tom is 9 years old. "
        "D) Tom gives 14 coins to Ana. E) 50 percent of the coins of Tom are damaged. "
        "F) How many coins does Tom have, and how many Ana?"
    )
    story = read_story(question)
    assert story is not None and story.structure == "start-fold-give-drop-ask_pair"
    assert [dict(step.values) for step in story.plan()] == [
        {"tom": "40"},
        {"ana": "120"},
        {"aside": "9"},
        {"tom": "26", "ana": "134"},
        {"tom": "13"},  # 26 - 26 * 50 // 100
        {"print": "(13, 134)"},
    ]


def test_a_reversed_story_is_told_and_undone_from_its_end() -> None:
    question = (
        "A) In the end Ana has 60 nuts. B) Before that, the nuts of Ana become 3 times as many. "
        "C) Ana is 9 years old. D) Before that, Ana loses 5 nuts. E) How many nuts did Ana have at the start?"
    )
    story = read_story(question)
    assert story is not None and story.question == question
    plan = story.plan()
    undone = "assert ana % 3 == 0\nana = ana // 3"
    assert [step.code for step in plan] == ["ana = 60", undone, "aside = 9", "ana = ana + 5", "print(ana)"]
    assert plan[-1].values == {"print": "25"}
    assert [plan[1].comment, plan[2].comment] == [
        "Undo: B) Before that, the nuts of Ana become 3 times as many.",
        "C) Ana is 9 years old.",
    ]


def test_where_a_sentence_leaves_the_way_open_the_check_decides_and_only_one_way_passes(made) -> None:
    question = (
        "A) Ana has 40 nuts. B) Ana buys or sells 5 nuts and now has full packs of 7. "
        "C) Ana buys or sells 5 nuts and now has full packs of 8. D) What does Ana have at last?"
    )
    plan = read_story(question).plan()
    assert [step.code for step in plan[1:3]] == ["ana -= 5\nassert ana % 7 == 0", "ana += 5\nassert ana % 8 == 0"]
    assert plan[-1].values == {"print": "40"}
    plans = [[step.code for step in read_story(one.problem.question).plan()] for one in made["train"]]
    guesses = [(codes, at) for codes in plans for at, code in enumerate(codes) if "\nassert" in code]
    assert guesses
    for codes, at in guesses:
        assert printed([*codes[:at], wrong_operation(codes[at]), *codes[at + 1 :]]) is None


def test_the_amount_does_not_tell_which_way_an_open_sentence_goes() -> None:
    ways: dict[int, Counter[str]] = {amount: Counter() for amount in DEALS}
    for one in generate({"olympiad": 1000}, seed=0, split="train"):
        for way, amount in re.findall(r"^\w+ ([+-])= (\d+)$", "".join(solution(one.problem.question)), re.M):
            ways[int(amount)][way] += 1
    assert all(counts.total() >= 200 and 0.4 < counts["+"] / counts.total() < 0.6 for counts in ways.values()), ways


def test_a_solution_is_of_its_own_wording() -> None:
    for start in ("has", "starts with"):
        question = f"A) Tom {start} 40 coins. B) Tom loses 15 coins. C) What does Tom have at last?"
        assert f"# A) Tom {start} 40 coins." in solution(question)[0]


def test_every_wording_reads_back_as_its_own_kind() -> None:
    for kind in KINDS.values():
        for number, wording in enumerate(kind.wordings):
            sentence = wording.format(A="Tom", B="Ana", n=12, m=7, item="apples")
            event = read(sentence, "apples")
            assert event is not None and (event.kind, event.wording) == (kind.name, number)
            assert event.text == sentence
            earlier = replace(event, before=True)
            assert read(earlier.text, "apples") == (earlier if kind.undo else None)


def test_no_step_of_the_true_solution_is_wrong_and_each_spoilt_one_is(made) -> None:
    for one in made["train"][::7]:
        steps = solution(one.problem.question)
        assert not any(wrong_steps(one.truth, steps, run))
        spoilt = [steps[0].replace(" = ", " = 1 + "), *steps[1:]]
        assert wrong_steps(one.truth, spoilt, run)[0]


def test_the_answer_needs_every_step_but_those_that_note_a_distractor(made) -> None:
    for one in made["train"]:
        plan = read_story(one.problem.question).plan()
        for left_out in plan[:-1]:
            others = [step.code for step in plan if step is not left_out]
            assert (printed(others) == one.problem.answer) == (not left_out.counts)


def test_a_wrong_operation_fails_more_often_in_a_longer_story_but_never_surely_where_no_way_was_open(made) -> None:
    failing: dict[str, list[bool]] = {level: [] for level in LEVELS}
    for one in made["train"]:
        codes = [step.code for step in read_story(one.problem.question).plan()]
        for at, code in enumerate(codes[:-1]):
            if "\nassert" not in code and (spoilt := wrong_operation(code)) != code:
                failing[one.problem.level].append(printed([*codes[:at], spoilt, *codes[at + 1 :]]) is None)
    shares = [sum(failed) / len(failed) for failed in failing.values()]
    assert 0 < shares[0] < shares[1] < shares[2] < 0.65, shares
    every = [failed for level in failing.values() for failed in level]
    assert 0.15 < sum(every) / len(every) < 0.5


def test_the_easiest_level_has_every_kind_of_two_person_sentence() -> None:
    easy = generate({"gsm": 150}, seed=0, split="train")
    told = {kind for one in easy for kind in one.structure.split("-")}
    assert {"fold", "more", "less", "give", "pool", "ask_both", "ask_gap", "ask_pair"} <= told


def test_a_wrong_operation_leaves_the_check_as_it_is() -> None:
    assert wrong_operation("leo = leo + 4 * 3") == "leo = leo - 4 * 3"
    assert wrong_operation("assert leo % 5 == 0\nleo = leo // 5") == "assert leo % 5 == 0\nleo = leo - 5"
    assert wrong_operation("leo = 4") == "leo = 4"


def test_a_distractor_may_be_noted_or_left_out_but_a_side_computation_is_wrong_though_the_answer_is_right() -> None:
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
    assert set(LEVELS) == {"gsm", "math", "olympiad"}


def test_the_rendered_plan_is_a_whole_response() -> None:
    story = read_story("A) Tom has 40 coins. B) Tom loses 15 coins. C) What does Tom have at last?")
    assert "".join(render_plan(story.plan())) == (
        "<code>\n# A) Tom has 40 coins.\ntom = 40\n<end_of_step>\n"
        "# B) Tom loses 15 coins.\ntom = tom - 15\n<end_of_step>\n"
        "# C) What does Tom have at last?\nprint(tom)\n<end_of_code>\n<output>25<end_of_output>\n"
        "<answer>The answer is \\boxed{25}.\n<end_of_answer>"
    )

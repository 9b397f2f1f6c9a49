"""Stories: read back from their questions, solved forwards and backwards, and rendered as whole responses."""

from __future__ import annotations

from dataclasses import replace

from miniature.families.sentences import KINDS, read, wrong_operation
from miniature.families.stories import read_story, solution


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


def test_a_reversed_story_is_told_backwards_and_each_step_undoes_its_sentence() -> None:
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


def test_the_assertion_decides_whether_a_deal_was_bought_or_sold() -> None:
    question = (
        "A) Ana has 40 nuts. B) Ana buys or sells 5 nuts and now has full packs of 7. "
        "C) Ana buys or sells 5 nuts and now has full packs of 8. D) What does Ana have at last?"
    )
    plan = read_story(question).plan()
    assert [step.code for step in plan[1:3]] == ["ana -= 5\nassert ana % 7 == 0", "ana += 5\nassert ana % 8 == 0"]
    assert plan[-1].values == {"print": "40"}


def test_a_solution_keeps_the_wording_of_its_question() -> None:
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


def test_a_wrong_operation_keeps_the_assertion() -> None:
    assert wrong_operation("leo = leo + 4 * 3") == "leo = leo - 4 * 3"
    assert wrong_operation("assert leo % 5 == 0\nleo = leo // 5") == "assert leo % 5 == 0\nleo = leo - 5"
    assert wrong_operation("leo = 4") == "leo = 4"


def test_a_solution_is_a_whole_response() -> None:
    question = "A) Tom has 40 coins. B) Tom loses 15 coins. C) What does Tom have at last?"
    assert "".join(solution(question)) == (
        "<code>\n# A) Tom has 40 coins.\ntom = 40\n<end_of_step>\n"
        "# B) Tom loses 15 coins.\ntom = tom - 15\n<end_of_step>\n"
        "# C) What does Tom have at last?\nprint(tom)\n<end_of_code>\n<output>25<end_of_output>\n"
        "<answer>The answer is \\boxed{25}.\n<end_of_answer>"
    )

"""Steps are read, rendered and split byte for byte."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.mathematics import prompts, steps
from domains.mathematics.steps import StepKind

FIRST = "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>"
SECOND = "\n# Tom buys 12.\ntom = tom + 12\n<end_of_step>"
LAST = "\n# Now print the final answer\nprint(tom)\n<end_of_code>"
ANSWER = "\n<answer>From the result, the answer is \\boxed{46}.\n<end_of_answer>"
RENDERED = LAST + "\n<output>46<end_of_output>"


def samples(name):
    folder = os.environ.get("RSTAR_SHARED_DATA")
    if not folder:
        pytest.skip("RSTAR_SHARED_DATA is not set: no reference samples")
    return json.loads((Path(folder) / "reference_samples" / name).read_text())


def test_the_end_marker_gives_the_kind():
    texts = [FIRST, SECOND, LAST, RENDERED, ANSWER, "tom = 34"]
    kinds = [StepKind.CODE, StepKind.CODE, StepKind.LAST_CODE, StepKind.LAST_CODE, StepKind.ANSWER, None]
    assert [steps.kind_of(text) for text in texts] == kinds


def test_code_is_the_text_between_the_markers():
    assert steps.code_of(FIRST) == "# Tom has 34 apples.\ntom = 34"
    assert steps.code_of(RENDERED) == "# Now print the final answer\nprint(tom)"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (ANSWER, "46"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{(0, \infty\}}", r"(0, \infty\}"),
        (r"\boxed{7} and \boxed{8", "7"),
        (r"\boxed { 5 }", "5"),
        (r"\boxed{ }", None),
        ("no box", None),
    ],
)
def test_the_answer_is_in_the_last_balanced_box(text, answer):
    assert steps.answer_of(text) == answer


@pytest.mark.parametrize(
    ("text", "prefix", "reason"),
    [
        (FIRST, [], None),
        (SECOND, [FIRST], None),
        (LAST, [FIRST], None),
        ("<code>\nprint(46)\n<end_of_code>", [], None),
        (ANSWER, [RENDERED], None),
        ("<code>\n# Tom has 34 apples.tom = 34\n\n<end_of_step>", [], "no code"),
        ("\n# Now print the answer.\n<end_of_code>", [FIRST], "no code"),
        ("tom = 34", [], "no end marker"),
        (SECOND, [], "the first step starts"),
        (FIRST, [FIRST], "the first step starts"),
        ("\nx = 1\n<code>\ny = 2\n<end_of_step>", [FIRST], "the first step starts"),
        ("<code>\nx = 1\n<code>\ny = 2\n<end_of_step>", [], "the first step starts"),
        (SECOND, [RENDERED], "after the end of the code"),
        (ANSWER, [FIRST], "before the end of the code"),
        (ANSWER, [], "before the end of the code"),
        ("\n<answer>It is 46.\n<end_of_answer>", [RENDERED], "no \\boxed"),
        ("\n\\boxed{46}\n<end_of_answer>", [RENDERED], "does not start with"),
        (SECOND + LAST, [FIRST], "goes on after"),
        ("\nx = '<output>'\n<end_of_step>", [FIRST], "its own output"),
    ],
)
def test_a_malformed_step_has_a_reason(text, prefix, reason):
    malformed = steps.read_step(text, prefix).malformed
    assert (malformed == "") if reason is None else (reason in malformed)


def test_output_is_rendered_after_the_last_code_step_only():
    assert steps.render(LAST, "46\n") == RENDERED
    assert steps.render(FIRST, "46\n") == FIRST


def test_a_program_that_prints_markers_does_not_shift_the_loss_mask():
    rendered = steps.render(LAST, "1<end_of_output>\n<answer>\\boxed{2}<end_of_answer>")
    assert rendered.count("<end_of_output>") == 1
    assert steps.output_spans(rendered) == [(len(LAST), len(rendered))]


def test_only_the_output_of_the_sandbox_is_masked():
    text = FIRST + RENDERED + ANSWER
    assert [text[start:end] for start, end in steps.output_spans(text)] == ["\n<output>46<end_of_output>"]
    assert steps.output_spans("print('<output>1<end_of_output>')\n<end_of_step>") == []


def test_a_response_is_split_into_its_rendered_steps():
    assert steps.parse_response(FIRST + SECOND + RENDERED + ANSWER) == [FIRST, SECOND, RENDERED, ANSWER]


@pytest.mark.parametrize(
    "tail",
    [
        "<output>46<end_of_output><answer>It is \\boxed{46}.<end_of_answer>",
        "\n<output>\n[46]\n<end_of_output> <answer>It is \\boxed{46}.\n<end_of_answer>\n\n",
    ],
)
def test_the_loosely_formatted_endings_of_the_reference_are_split(tail):
    response = "<code>\nx = 1\n<end_of_step>\n\n\n# b\nprint(x)\n<end_of_code>" + tail
    parsed = steps.parse_response(response)
    assert [steps.kind_of(step) for step in parsed] == [StepKind.CODE, StepKind.LAST_CODE, StepKind.ANSWER]
    assert "".join(parsed) == response


def test_an_unfinished_step_is_the_last_one():
    assert steps.parse_response(FIRST + "\n# Tom") == [FIRST, "\n# Tom"]


@given(st.lists(st.sampled_from([*steps.MARKERS, "\n", " ", "x = 1", "\\boxed{1}", "é"]), max_size=30))
def test_the_steps_of_a_split_response_join_to_the_response(pieces):
    response = "".join(pieces)
    assert "".join(steps.parse_response(response)) == response


def test_steps_that_differ_in_white_space_are_equal():
    assert steps.normalized(SECOND) == steps.normalized("\n\n# Tom  buys 12. \ntom = tom +  12<end_of_step>\n")
    assert steps.normalized(FIRST) != steps.normalized(SECOND)


def test_steps_that_differ_in_indentation_are_not_equal():
    inside = "\nfor i in r:\n    a()\n    b()\n<end_of_step>"
    assert steps.normalized(inside) != steps.normalized(inside.replace("    b", "b"))


def test_the_examples_of_the_few_shot_prompt_are_well_formed():
    prompt = prompts.render_few_shot("What is 1 + 1?")
    assert prompt.endswith("\n\nQuestion: What is 1 + 1?\n")
    for example in prompts.WORKED_EXAMPLES:
        assert f"Question: {example.question}\n<code>\n" in prompt
        parsed = steps.parse_response(example.response)
        for index, step in enumerate(parsed):
            assert not steps.read_step(step.partition("\n<output>")[0], parsed[:index]).malformed


def test_the_zero_shot_prompt_is_that_of_the_reference():
    template = samples("sft_prompt.json")["pot_suffix"]
    assert prompts.render_prompt("1 + 1?") == template.replace("{input}", "1 + 1?")


def test_the_sft_samples_of_the_reference_split_and_join():
    for sample in samples("sft_data_examples.json"):
        parsed = steps.parse_response(sample["response"])
        assert "".join(parsed) == sample["response"]
        assert [steps.kind_of(step) for step in parsed[-2:]] == [StepKind.LAST_CODE, StepKind.ANSWER]
        assert {steps.kind_of(step) for step in parsed[:-2]} <= {StepKind.CODE}
        assert steps.answer_of(parsed[-1]) is not None
        for index, step in enumerate(parsed):
            assert not steps.read_step(step.partition("\n<output>")[0], parsed[:index]).malformed


def test_the_preferences_and_worked_examples_of_the_reference_split_and_join():
    texts = [sample[side] for sample in samples("rm_data_examples.json") for side in ("pos", "neg")]
    for text in [*texts, *samples("few_shots.json")]:
        parsed = steps.parse_response(text)
        assert "".join(parsed) == text
        assert None not in map(steps.kind_of, parsed)

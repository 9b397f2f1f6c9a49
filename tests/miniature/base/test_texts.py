"""The tiny base's text: steps that restate their passage, and mistakes that are marked and masked."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

from domains.mathematics import steps as fmt
from domains.mathematics.prompts import render_prompt
from miniature.base import cued_text, proofread_text
from miniature.base.proofread_text import NO


def test_a_passage_is_restated_step_by_step_without_its_asides() -> None:
    rng = random.Random(0)
    for _ in range(200):
        told = cued_text.passage(rng)
        for comment, _ in told.steps:
            assert comment.removeprefix("Undo: ") in told.text
        assert not set(told.asides) & {comment for comment, _ in told.steps}
        assert all(code.count("\n") <= 1 for _, code in told.steps)
        assert all(code.startswith("assert ") for _, code in told.steps if "//" in code.rpartition("\n")[2])


def test_equal_seeds_give_equal_documents() -> None:
    for text in (cued_text, proofread_text):
        one, same, other = (list(islice(text.documents(seed), 20)) for seed in (1, 1, 2))
        assert one == same != other


def steps_of(response: str) -> list[tuple[str, str]]:
    """Comments and codes of the steps in a response."""
    steps = []
    for part in response.split("\n# ")[1:]:
        comment, _, code = part.partition("\n")
        for end in (fmt.END_OF_STEP, fmt.END_OF_CODE):
            code = code.partition(f"\n{end}")[0]
        steps.append((comment, code))
    return steps


def test_each_mistake_is_masked_and_marked_in_its_step_or_after_it_or_at_the_end() -> None:
    rng, again = random.Random(3), random.Random(3)
    counts: Counter[str] = Counter()
    for _ in range(300):
        told = cued_text.passage(again, longest=again.choice(proofread_text.LENGTHS))
        prompt, response, hidden = proofread_text.document(rng)
        again.setstate(rng.getstate())
        assert prompt == render_prompt(told.text)
        learnt, at, unmarked = "", 0, False
        for start, end in hidden:
            learnt, at = learnt + response[at:start], end
            whole = bool(steps_of(response[start:end]))
            marked = response[end:].startswith(NO)
            assert whole or (marked and len(response[start:end].split()) <= 1)
            counts["in the step" if not whole else "after it" if marked else "at the end"] += 1
            unmarked = unmarked or not marked
            at += len(NO) if marked else 0
        learnt += response[at:]
        assert response.endswith(NO) == unmarked
        right = iter(told.steps)
        assert all(step in right for step in steps_of(learnt))  # the right steps, in their order
    assert min(counts.values()) > 20 and len(counts) == 3

"""What the tiny base is taught: steps that restate their passage, and slips that are told and not learnt."""

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


def test_a_slip_is_hidden_and_wrong_and_told_in_the_step_at_its_end_or_at_last() -> None:
    rng, again = random.Random(3), random.Random(3)
    counts: Counter[str] = Counter()
    for _ in range(300):
        told = cued_text.passage(again, longest=again.choice(proofread_text.LENGTHS))
        prompt, response, hidden = proofread_text.document(rng)
        again.setstate(rng.getstate())
        assert prompt == render_prompt(told.text)
        learnt, at, let_pass = "", 0, False
        for start, end in hidden:
            learnt, at = learnt + response[at:start], end
            whole = bool(steps_of(response[start:end]))
            told_now = response[end:].startswith(NO)
            assert whole or (told_now and len(response[start:end].split()) <= 1)
            counts["in the step" if not whole else "at its end" if told_now else "at last"] += 1
            let_pass = let_pass or not told_now
            at += len(NO) if told_now else 0
        learnt += response[at:]
        assert response.endswith(NO) == let_pass
        right = iter(told.steps)
        assert all(step in right for step in steps_of(learnt))  # the right steps, in their order
    assert min(counts.values()) > 20 and len(counts) == 3

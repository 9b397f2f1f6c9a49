"""The bootstrap policy: right without mistakes, reproducible, and wrong in the ways and as often as it should be."""

from __future__ import annotations

import pytest

from miniature.problems import generate, solution
from miniature.writer import MISREAD, BootstrapPolicy
from rstar.protocols import UserError

FLAWLESS = BootstrapPolicy(misread=dict.fromkeys(MISREAD, 0.0), slip=0.0)


async def write(policy: BootstrapPolicy, question: str, seed: int = 0) -> list[str]:
    """Write step after step, with the outputs of the true solution."""
    truth, steps = solution(question), []
    while len(steps) < len(truth):
        [proposal] = await policy.propose(question, steps, num_candidates=1, seed=seed + len(steps))
        text = proposal.text
        steps.append(truth[len(steps)] if text.endswith("<end_of_code>") else text)
    return steps


async def test_without_mistakes_it_writes_the_true_solution() -> None:
    for one in generate({"gsm": 10, "math": 10, "olympiad": 20}, seed=1, split="train"):
        assert await write(FLAWLESS, one.problem.question) == solution(one.problem.question)


async def test_equal_seeds_write_equal_steps_and_slips_differ_between_samples() -> None:
    [one] = generate({"math": 1}, seed=1, split="train")
    policy = BootstrapPolicy(misread=dict.fromkeys(MISREAD, 0.0), slip=0.5)
    first = await policy.propose(one.problem.question, (), num_candidates=40, seed=3)
    assert first == await policy.propose(one.problem.question, (), num_candidates=40, seed=3)
    assert len({proposal.text for proposal in first}) > 1


async def test_a_misread_sentence_is_misread_in_nearly_every_sample() -> None:
    always = BootstrapPolicy(misread=dict.fromkeys(MISREAD, float("inf")), slip=0.0)
    problems = generate({"olympiad": 30}, seed=1, split="train")
    wrong = []
    for problem in problems:
        first, right, *_ = solution(problem.problem.question)
        found = await always.propose(problem.problem.question, [first], num_candidates=20, seed=0)
        wrong.append(sum(proposal.text != right for proposal in found) / 20)
    assert all(share > 0.8 for share in wrong)


async def test_a_distractor_whose_operation_is_misread_is_worked_into_the_answer() -> None:
    always = dict.fromkeys(MISREAD, float("inf"))
    question = "A) Tom has 40 coins. B) Tom is 9 years old. C) Tom loses 15 coins. D) What does Tom have at last?"
    first, noted, *_ = solution(question)
    written = [
        await BootstrapPolicy(seed, misread=always, slip=0.0).propose(question, [first], num_candidates=1, seed=0)
        for seed in range(40)
    ]
    texts = [proposal.text for [proposal] in written]
    assert texts.count(noted.replace("aside = 9", "tom = tom + 9")) >= 8  # the operation is 40 % of what it misreads
    assert noted.replace("aside = 9", "tom = tom - 9") not in texts


async def test_it_misreads_long_stories_more_often_than_short_ones() -> None:
    policy = BootstrapPolicy(slip=0.0)
    shares = []
    for level in ("gsm", "math", "olympiad"):
        problems = [one.problem.question for one in generate({level: 60}, seed=1, split="train")]
        shares.append(sum([await write(policy, question) != solution(question) for question in problems]) / 60)
    assert shares[0] < 0.2 < shares[1] < 0.4 < shares[2]


async def test_a_foreign_question_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="only reads the built-in families") as caught:
        await FLAWLESS.propose("What is 2 + 2?", (), num_candidates=1, seed=0)
    assert "\n" not in str(caught.value)

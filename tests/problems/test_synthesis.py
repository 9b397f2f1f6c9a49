"""The label of a synthesised problem is the answer that most solvers agree on."""

from problems.synthesis import majority


class Numbers:
    """A judge of numbers; it cannot decide about words."""

    async def equivalent(self, answer: str, other: str) -> bool | None:
        try:
            return float(answer) == float(other)
        except ValueError:
            return None


async def test_the_most_frequent_answer_wins_and_equivalent_answers_are_one():
    assert await majority(["3", None, "2", "3.0", "2.0", "03"], Numbers()) == ("3", 3)


async def test_of_equally_frequent_answers_the_first_wins():
    assert await majority(["2", "3", "3.0", "2.0"], Numbers()) == ("2", 2)


async def test_answers_that_cannot_be_compared_do_not_agree():
    assert await majority(["a", "b", "c", "b"], Numbers()) == ("b", 2)


async def test_no_answers_give_no_majority():
    assert await majority([None, None], Numbers()) == (None, 0)

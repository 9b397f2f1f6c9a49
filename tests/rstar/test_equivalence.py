"""The judge is asked no more than needed."""

from rstar.equivalence import Equivalence


class Judge:
    def __init__(self):
        self.asked = []

    async def equivalent(self, one, other):
        self.asked.append((one, other))
        return float(one) == float(other)

    correct = equivalent


async def test_a_pair_is_asked_once_and_equal_strings_never():
    judge = Judge()
    same = Equivalence(judge)
    assert [await same("46", " 46"), await same("46", "46.0"), await same("46", "46.0")] == [True] * 3
    assert judge.asked == [("46", "46.0")]


async def test_answers_are_classed_by_the_first_that_is_the_same():
    assert await Equivalence(Judge()).classes(["1", "2", "1.0", "2.0", "3", "1"]) == [0, 1, 0, 1, 4, 0]

"""The judge is asked only what is not known yet."""

from rstar.equivalence import Equivalence


async def test_a_pair_is_judged_once_and_equal_strings_never(judge):
    equivalent = Equivalence(judge)
    assert [await equivalent("46", " 46"), await equivalent("46", "46.0"), await equivalent("46", "46.0")] == [True] * 3
    assert judge.comparisons == [("46", "46.0")]


async def test_the_class_of_an_answer_is_the_first_equivalent_one(judge):
    assert await Equivalence(judge).classes(["1", "2", "1.0", "2.0", "3", "1"]) == [0, 1, 0, 1, 4, 0]

"""The edit distance of a pair is Levenshtein's."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from tasks.pairs import edit_distance


def by_definition(text: str, other: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = text[i - 1] == other[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (not same))

    return distance(len(text), len(other))


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_edit_distance_is_the_fewest_insertions_deletions_and_replacements(text: str, other: str) -> None:
    assert edit_distance(text, other) == by_definition(text, other)


def test_edit_distance_of_known_words() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("same", "same") == 0

"""The comparison of two answers without algebra, and the choice of cases that Math-Verify compares.

`domains.mathematics.grading.judge` lists the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from domains.mathematics.grading import answers
from domains.mathematics.grading.answers import Number, Shape

MAX_CHARS = 10_000
_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\fbox|\\begin\{(?:align|equation)")
_RELATION = re.compile(r"[<>=]|\\(?:in|neq?|leq?|geq?|leqslant|geqslant|approx|equiv|sim)(?![A-Za-z])")
_SPACED_NUMBERS = re.compile(r"[+-]?[\d.,/]+(?:\s+[+-]?[\d.,/]+)+")
_WORD = re.compile(r"(?<![\\\w{])[^\W\d_]{3,}(?![\w(])")
_RUN_ON = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{9,}")
_PYTHON_NAMES = (  # as SymPy prints them
    (re.compile(r"(?<![\\A-Za-z])sqrt\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi "),
)
_NUMERAL = re.compile(r"\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?")
_ANNOUNCED = re.compile(r"answer|=", re.IGNORECASE)


def compare(answer: str, other: str) -> bool | tuple[str, str]:
    """Return the verdict, or the two texts that Math-Verify has to compare."""
    if max(len(answer), len(other)) > MAX_CHARS:
        return answer.strip() == other.strip()
    a, b = answers.clean(answer), answers.clean(other)
    if a == b or not a or not b:
        return bool(a) and a == b
    if _DELIMITED.search(a + b):
        return _for_math_verify(a), _for_math_verify(b)
    a, b = _values(a, b)
    verdict = _compare_plain(a, b)
    return (_for_math_verify(a), _for_math_verify(b)) if verdict is None else verdict


def _values(a: str, b: str) -> tuple[str, str]:
    """Drop the names of an answer if the other has none: "x = 5" against "5", "x=2, y=3" against "(2,3)"."""
    if len(answers.sides(a)) == 1:
        b = answers.without_name(b)
    elif len(answers.sides(b)) == 1:
        a = answers.without_name(a)
    shapes = answers.shape(a), answers.shape(b)
    if shapes[0].ordered and shapes[1].kind == "list":
        return a, _as_tuple(shapes[1]) or b
    if shapes[1].ordered and shapes[0].kind == "list":
        return _as_tuple(shapes[0]) or a, b
    return a, b


def _as_tuple(named: Shape) -> str | None:
    """Return the values of "x=2, y=3" as the tuple "(2,3)"; None if a part has no name."""
    values = [answers.without_name(part) for part in named.parts]
    return f"({','.join(values)})" if all(v != p for v, p in zip(values, named.parts, strict=True)) else None


def _compare_plain(a: str, b: str) -> bool | None:
    """Return the verdict on two cleaned answers; None if it needs algebra."""
    if a == b:
        return True
    numbers = answers.number(a), answers.number(b)
    if numbers[0] and numbers[1]:
        return numbers[0].same(numbers[1])
    if None not in (bases := (answers.based(a), answers.based(b))):
        return bases[0] == bases[1]
    if (same := answers.same_words(a, b)) is not None:
        return same
    shapes = answers.shape(a), answers.shape(b)
    if (same := _compare_parts(*shapes)) is not None:
        return same
    if any(_is_spaced(shape) for shape in shapes) or _is_sentence(a) or _is_sentence(b):
        return False
    return _compare_relations(a, b)


def _is_spaced(shape: Shape) -> bool:
    return any(_SPACED_NUMBERS.fullmatch(part) and not answers.number(part) for part in shape.parts)


def _is_sentence(text: str) -> bool:
    return bool(_WORD.search(text)) and len(_NUMERAL.findall(text)) > 1 and " " in text and not _ANNOUNCED.search(text)


def _compare_parts(a: Shape, b: Shape) -> bool | None:
    if len(a.parts) < 2 and len(b.parts) < 2:
        return None
    if a.kind != b.kind and (a.ordered or b.ordered) and "single" not in (a.kind, b.kind):
        return False
    a_numbers, b_numbers = _numbers(a), _numbers(b)
    if a_numbers and b_numbers:
        if len(a_numbers) != len(b_numbers):
            return False
        return _in_order(a_numbers, b_numbers) if a.ordered else _in_any_order(a_numbers, b_numbers)
    if any(not s.ordered and len(set(s.parts)) < len(s.parts) for s in (a, b)):
        return Counter(a.parts) == Counter(b.parts)
    return None


def _numbers(shape: Shape) -> list[Number] | None:
    numbers = [answers.number(part) for part in shape.parts]
    return [n for n in numbers if n] if all(numbers) else None


def _in_order(a: Sequence[Number], b: Sequence[Number]) -> bool:
    return all(x.same(y) for x, y in zip(a, b, strict=True))


def _in_any_order(a: Sequence[Number], b: Sequence[Number]) -> bool:
    unmatched = list(b)
    for x in a:
        match = next((i for i, y in enumerate(unmatched) if x.same(y)), None)
        if match is None:
            return False
        del unmatched[match]
    return True


def _compare_relations(a: str, b: str) -> bool | None:
    """Return False for an equation against a value, and for an equation such as "1 = 1"; None otherwise."""
    if any(len(answers.split(x)) > 1 or (_WORD.search(x) and " " in x) for x in (a, b)):
        return None
    sides = [answers.sides(x) for x in (a, b)]
    if any(len(s) > 1 and len(set(s)) == 1 for s in sides):
        return False
    if (len(sides[0]) > 1) != (len(sides[1]) > 1) and not (_RELATION.search(a) and _RELATION.search(b)):
        return False
    return None


def readable(truth: str) -> bool | str:
    """Return whether answers can be compared with a ground truth, or the text that Math-Verify has to try."""
    text = answers.without_name(answers.clean(truth))
    if not text or len(text) > MAX_CHARS or not any(c.isalnum() for c in text):
        return False
    if answers.number(text) or answers.based(text) or answers.is_words(text):
        return True
    shape = answers.shape(text)
    if _numbers(shape):
        return True
    if not _DELIMITED.search(text) and (_is_spaced(shape) or _is_sentence(text) or _RUN_ON.search(text)):
        return False
    return _for_math_verify(text)


def _for_math_verify(text: str) -> str:
    """Return a text as Math-Verify reads it: LaTeX between delimiters, a number with its unit without them."""
    if _DELIMITED.search(text) or (_WORD.search(text) and " " in text and "\\" not in text):
        return text
    for pattern, latex in _PYTHON_NAMES:
        text = pattern.sub(latex, text)
    return f"${text}$"

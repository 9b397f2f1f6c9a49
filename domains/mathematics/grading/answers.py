"""Final answers as text, as exact values and by their form, without a computer algebra system.

The form of an answer (a number, an ordered tuple, an unordered list, words, an equation) is read here because
Math-Verify loses it: it adds the numbers of "12 30", reads a pair as an open interval, drops repeated roots, and reads
a word as the product of its letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

_DROP = re.compile(
    r"(?<!\\)\\(?:(?:left|right|displaystyle|limits|[bB]igg?)(?![A-Za-z])|[,!]|\$)|\^\\circ|\^\{\\circ\}|°"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[;:> ]|q?quad(?![A-Za-z]))|~|\s+")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"({_DIGITS})?(?:\.(\d*))?(?:[eE]([+-]?\d{{1,3}}))?")
_SLASH = re.compile(rf"({_DIGITS})\s*/\s*({_DIGITS})")
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d,]+)\s*\}|(\d))")
_MIXED = re.compile(r"(\d+)\s*(\\[dtc]?frac.*)|(\d+)\s+(\d+\s*/\s*\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_BASED = re.compile(r"(\d+)_(?:\{(\d{1,2})\}|(\d))")
_PYTHON_FRACTION = re.compile(r"Fraction\((-?\d+), (\d+)\)")
_PERCENT = re.compile(r"(?:\\?%|\s+percent|\\text\s*\{\s*percent\s*\})$")
MAX_DIGITS = 400


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value and how it was written."""

    value: Fraction
    num_decimals: int = -1  # digits after the point; -1 if it is not a decimal, so that it cannot be a rounded value
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Return whether two numbers are the same, rounded as in `rounds`, with or without a percent sign.

        "50%" is 0.5. It is also 50, with the sign read as a unit. But "0.5%" is not 0.5, because a number below 1
        without a sign is a share already.
        """
        if self.percent == other.percent:
            return self.rounds(other)
        percent, bare = (self, other) if self.percent else (other, self)
        share = Number(percent.value / 100, percent.num_decimals + 2)
        return share.rounds(bare) or (abs(bare.value) >= 1 and percent.rounds(bare))

    def rounds(self, other: Number) -> bool:
        """Return whether two numbers are equal up to rounding.

        Allowed are the rounding of a float (15 significant digits or more) and a fraction without a finite decimal
        expansion rounded to at least six decimals.
        """
        if self.value == other.value:
            return True
        fine, coarse = (
            (self, other) if other.num_decimals < 0 or self.num_decimals > other.num_decimals else (other, self)
        )
        if fine.num_decimals < 6 or _significant(fine) < 6:
            return False
        error = abs(self.value - other.value)
        if _significant(fine) >= 15:
            return error <= abs(coarse.value) * Fraction(1, 10**12)
        return (
            coarse.num_decimals < 0
            and not _terminates(coarse.value)
            and error * 2 <= Fraction(1, 10**fine.num_decimals)
        )


def _significant(number: Number) -> int:
    return len(str(abs(int(number.value * 10**number.num_decimals))))


def _terminates(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def clean(answer: str) -> str:
    """Return an answer without its notation: math delimiters, a box around it, spacing, currency, a full stop."""
    text, unwrapped = "", answer.strip()
    while text != unwrapped:
        text = unwrapped
        unwrapped = _unwrap(text)
    text = re.sub(r"(\d),\\!\s*(?=\d{3})", r"\1,", text)
    text = re.sub(r"(\d)\s*\{\s*,\s*\}\s*(?=\d{3})", r"\1,", text)
    text = _SPACE.sub(" ", _DROP.sub("", text)).replace("−", "-").replace("**", "^").strip()
    text = _PYTHON_FRACTION.sub(r"\1/\2", text)
    if text.count("$") == 1:  # a currency, not a delimiter
        text = text.replace("$", "")
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _unwrap(text: str) -> str:
    for left, right in _WRAPPERS:
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and len(text) > len(left + right) and left not in inner:
            return inner.strip()
    box = _BOXED.match(text)
    return text[box.end() : -1].strip() if box and _closing(text, box.end() - 1) == len(text) - 1 else text


def _closing(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one at `start`; -1 if there is none."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] in "([{":
            depth += 1
        elif text[index] in ")]}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def number(text: str) -> Number | None:
    """Return the exact value of a numeral, fraction, mixed number or percentage; None for anything else."""
    if len(text) > MAX_DIGITS or not text.isascii() or not any(c.isdigit() for c in text):
        return None
    percent = _PERCENT.search(text)
    text = text[: percent.start()].strip() if percent else text
    sign = -1 if text.startswith("-") else 1
    try:
        unsigned = _unsigned(text[1:].lstrip() if text[:1] in ("+", "-") else text)
    except (ZeroDivisionError, ValueError):
        return None
    return unsigned and Number(sign * unsigned.value, unsigned.num_decimals, percent is not None)


def _unsigned(text: str) -> Number | None:
    if match := _DECIMAL.fullmatch(text):
        whole, decimals, exponent = match[1] or "", match[2] or "", int(match[3] or 0)
        value = Fraction(int(whole.replace(",", "") + decimals)) * Fraction(10) ** (exponent - len(decimals))
        return Number(value, max(0, len(decimals) - exponent) if decimals or exponent < 0 else -1)
    if match := _SLASH.fullmatch(text):
        return Number(Fraction(_int(match[1]), _int(match[2])))
    if match := _LATEX_FRACTION.fullmatch(text):
        return Number(Fraction(_int(match[1] or match[2]), _int(match[3] or match[4])))
    if match := _MIXED.fullmatch(text):
        part = number(match[2] or match[4])
        return Number(int(match[1] or match[3]) + part.value) if part and 0 < part.value < 1 else None
    if match := _REPEATING.fullmatch(text):
        whole, start, cycle = match[1], match[2], match[3]
        tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(start))
        return Number(Fraction(int(whole + start or "0"), 10 ** len(start)) + tail)
    return None


def _int(digits: str) -> int:
    return int(digits.replace(",", ""))


def based(text: str) -> Fraction | None:
    """Return the value of a numeral with a base from 2 to 10, such as 1101_2; None for anything else."""
    match = _BASED.fullmatch(text)
    base = int(match[2] or match[3]) if match else 0
    if match is None or not 2 <= base <= 10 or any(int(d) >= base for d in match[1]):
        return None
    return Fraction(int(match[1], base))


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of an answer: its brackets and its parts."""

    kind: Literal["single", "tuple", "closed", "set", "list"]  # closed: square brackets
    parts: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        """Whether the order of the parts counts."""
        return self.kind in ("tuple", "closed")


_BRACKETS: tuple[tuple[str, str, Literal["tuple", "closed", "set"]], ...] = (
    ("(", ")", "tuple"),
    ("[", "]", "closed"),
    (r"\{", r"\}", "set"),
    ("{", "}", "set"),
)


def shape(text: str) -> Shape:
    """Return the form of a cleaned answer."""
    for left, right, kind in _BRACKETS:
        start = len(left) - 1
        if text.startswith(left) and text.endswith(right) and _closing(text, start) == len(text) - 1:
            parts = split(text[len(left) : -len(right)])
            return Shape(kind, parts) if len(parts) > 1 or kind == "set" else Shape("single", (text,))
    parts = split(text)
    return Shape("list", parts) if len(parts) > 1 else Shape("single", (text,))


def split(text: str) -> tuple[str, ...]:
    """Return the parts between semicolons or, if there are none, between commas, "and" and "or", outside of brackets.

    1,234 is one number.
    """
    if number(text) is not None:
        return (text,)
    text = re.sub(r"\\text\s*\{\s*,?\s*(and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z])", ",", text)
    parts = _outer(text, ";") if ";" in text else [text]
    return tuple(part for part in (parts if len(parts) > 1 else _outer(text, ",")) if part)


def _outer(text: str, separator: str) -> list[str]:
    """Return the parts between the separators outside of brackets. <=, >=, != and \\= do not count as equals signs."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == separator and depth == 0 and text[max(0, index - 1)] not in "<>!\\":
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


_NAME = re.compile(r"\\?[^\W\d_][^_+*/^<>=|.\d-]*(?:_(?:\{[^{}]*\}|\w)[^_+*/^<>=|.\d-]*)*(?:\([^()]*\))?\s*")
_OPERATION = re.compile(r"\\(?:sqrt|log|ln|sin|cos|tan|in|neq?|leq?|geq?|pm|cup)(?![A-Za-z])")


def sides(text: str) -> tuple[str, ...]:
    """Return the sides of an equation or of a chain of equations; for any other text, the text alone."""
    return tuple(_outer(text.replace("==", "="), "="))


def without_name(text: str) -> str:
    """Return the value of "x = 5", "f(x) = 2x" or "x = 3 + 4 = 7"; any other text unchanged."""
    if len(split(text)) != 1:
        return text
    name, *rest = sides(text)
    return rest[-1] if rest and rest[-1] and _NAME.fullmatch(name) and not _OPERATION.search(name) else text


def same_words(a: str, b: str) -> bool | None:
    """Return whether two texts are the same words, whatever their case; None if both may be products of letters.

    One to three letters may be a product, unless LaTeX marks them as text. Four or more are a word.
    """
    (a_words, a_sure), (b_words, b_sure) = _words(a), _words(b)
    if not (a_sure or b_sure):
        return None
    return bool(a_words) and a_words == b_words


def is_words(text: str) -> bool:
    """Return whether an answer consists of words only."""
    return _words(text)[1]


def _words(text: str) -> tuple[str, bool]:
    inner, num_texts = _TEXT.subn(r"\1", text)
    inner = re.sub(r"[\s.,'!()*-]+", " ", inner).strip()
    plain = re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+)*", inner)
    return (inner.casefold(), num_texts > 0 or len(inner) >= 4) if plain else ("", False)

"""Final answers as text and as exact values: what can be compared without a computer algebra system.

The shape of an answer (a number, an ordered tuple, an unordered list, words, one side of an equation) is read here,
because Math-Verify loses it: it adds "12 30" up, takes a pair for an open interval, a repeated root for one, and a
word for the product of its letters. Section 3.2 only asks whether an answer matches the ground truth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

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
    """An exact value, and how it was written."""

    value: Fraction
    num_decimals: int = -1  # digits after the point; -1: not a decimal, so nothing was rounded
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Equal values, a rounding as in `rounds`, or the same number with and without a percent sign.

        "50%" is 0.5 and, the sign being a unit, 50; but "0.5%" is not 0.5: below 1, a bare number is a share.
        """
        if self.percent == other.percent:
            return self.rounds(other)
        percent, bare = (self, other) if self.percent else (other, self)
        share = Number(percent.value / 100, percent.num_decimals + 2)
        return share.rounds(bare) or (abs(bare.value) >= 1 and percent.rounds(bare))

    def rounds(self, other: Number) -> bool:
        """Equal, or one is the other as a float prints it, or to six or more decimals a fraction that never ends."""
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
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def clean(answer: str) -> str:
    """The answer without what only dresses it: math delimiters, a single box, spacing, currency, a full stop."""
    text, wrapped = "", answer.strip()
    while text != wrapped:
        text = wrapped
        wrapped = _unwrap(text)
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
    """The index of the bracket that closes the one at `start`; -1 where none does."""
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
    """The exact value of a numeral, a fraction, a mixed number or a percentage; None for anything else."""
    if len(text) > MAX_DIGITS or not text.isascii() or not any(c.isdigit() for c in text):
        return None
    percent = _PERCENT.search(text)
    text = text[: percent.start()].strip() if percent else text
    sign = -1 if text.startswith("-") else 1
    try:
        found = _unsigned(text[1:].lstrip() if text[:1] in ("+", "-") else text)
    except (ZeroDivisionError, ValueError):
        return None
    return found and Number(sign * found.value, found.num_decimals, percent is not None)


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
    """The value of a numeral with its base as an index, such as 1101_2."""
    match = _BASED.fullmatch(text)
    base = int(match[2] or match[3]) if match else 0
    if match is None or not 2 <= base <= 10 or any(int(d) >= base for d in match[1]):
        return None
    return Fraction(int(match[1], base))


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer is built: its kind and, for a kind with parts, their cleaned texts."""

    kind: str  # one | tuple | closed | set | list
    parts: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        return self.kind in ("tuple", "closed")


def shape(text: str) -> Shape:
    """The brackets around an answer and the parts between its outer commas."""
    for left, right, kind in (("(", ")", "tuple"), ("[", "]", "closed"), (r"\{", r"\}", "set"), ("{", "}", "set")):
        start = len(left) - 1
        if text.startswith(left) and text.endswith(right) and _closing(text, start) == len(text) - 1:
            parts = split(text[len(left) : -len(right)])
            return Shape(kind, parts) if len(parts) > 1 or kind == "set" else Shape("one", (text,))
    parts = split(text)
    return Shape("list", parts) if len(parts) > 1 else Shape("one", (text,))


def split(text: str) -> tuple[str, ...]:
    """The parts between semicolons, or else commas, "and" and "or", outside of brackets; 1,234 is one number."""
    if number(text) is not None:
        return (text,)
    text = re.sub(r"\\text\s*\{\s*,?\s*(and|or)\s*\}|(?<![A-Za-z])(?:and|or)(?![A-Za-z])", ",", text)
    parts = _outer(text, ";") if ";" in text else [text]
    return tuple(part for part in (parts if len(parts) > 1 else _outer(text, ",")) if part)


def _outer(text: str, separator: str) -> list[str]:
    """What stands between the separators outside of brackets; <=, >=, != and \\= are no equals sign."""
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
    """The sides of an equation, or of a chain of them; the text alone where it is none."""
    return tuple(_outer(text.replace("==", "="), "="))


def without_name(text: str) -> str:
    """The value of "x = 5", "f(x) = 2x" or "x = 3 + 4 = 7"; anything else as it is."""
    if len(split(text)) != 1:
        return text
    name, *rest = sides(text)
    return rest[-1] if rest and rest[-1] and _NAME.fullmatch(name) and not _OPERATION.search(name) else text


def same_words(a: str, b: str) -> bool | None:
    """Whether two texts are the same words, whatever their case; None where at least one may be a product of letters.

    Two or three letters are a product, unless one of the two says that it is a text; four letters are a word.
    """
    (a_words, a_sure), (b_words, b_sure) = _words(a), _words(b)
    if not (a_sure or b_sure):
        return None
    return bool(a_words) and a_words == b_words


def is_words(text: str) -> bool:
    """Whether an answer is nothing but words."""
    return _words(text)[1]


def _words(text: str) -> tuple[str, bool]:
    inner, num_texts = _TEXT.subn(r"\1", text)
    inner = re.sub(r"[\s.,'!()*-]+", " ", inner).strip()
    plain = re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+)*", inner)
    return (inner.casefold(), num_texts > 0 or len(inner) >= 4) if plain else ("", False)

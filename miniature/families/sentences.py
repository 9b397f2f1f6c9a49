"""The sentences of the built-in families: their wordings, and the code that carries each out.

A kind of sentence is one operation on the quantities of a story. `read` inverts `Event.text`, so a story can be read
back from its question alone. Each sentence of a question starts with a letter, so that a very small model keeps its
place. (With numbers it takes 10 for 1.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

NAMES = ("Tom", "Ana", "Ben", "Mia", "Leo", "Eva", "Sam", "Zoe", "Max", "Ida", "Jon", "Lea")
ITEMS = ("apples", "stamps", "coins", "shells", "cards", "books", "eggs", "pens", "beads", "nuts")
MASSES = ("kilograms of rice", "liters of milk", "meters of rope", "kilograms of sand")
ASIDE = "aside"  # the variable that takes the number of a distractor
BEFORE = "Before that, "  # begins each earlier event of a story that is told backwards


@dataclass(frozen=True, slots=True)
class Kind:
    """One operation: its wordings, its code, and, where it has an inverse, the code that undoes it.

    `otherwise` is for a sentence that does not say whether the quantity rises or falls: the code of the second way.
    Exactly one of the two ways passes its own assertion.
    """

    name: str
    wordings: tuple[str, ...]
    code: str
    undo: str = ""
    otherwise: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("start", ("{A} has {n} {item}.", "{A} starts with {n} {item}."), "{a} = {n}"),
        Kind("end", ("In the end {A} has {n} {item}.",), "{a} = {n}"),
        Kind(
            "gain",
            ("{A} finds {n} {item}.",),
            "{a} = {a} + {n}",
            "{a} = {a} - {n}",
        ),
        Kind(
            "lose",
            ("{A} loses {n} {item}.",),
            "{a} = {a} - {n}",
            "{a} = {a} + {n}",
        ),
        Kind(
            "times",
            ("The {item} of {A} become {n} times as many.",),
            "{a} = {a} * {n}",
            "assert {a} % {n} == 0\n{a} = {a} // {n}",
        ),
        Kind(
            "share",
            ("{A} keeps one of {n} equal parts.",),
            "assert {a} % {n} == 0\n{a} = {a} // {n}",
            "{a} = {a} * {n}",
        ),
        Kind(
            "cut",
            ("{A} pours out {n} equal portions and keeps one portion.",),
            "from fractions import Fraction\n{a} = Fraction({a}, {n})",
        ),
        Kind(
            "drop",
            ("{n} percent of the {item} of {A} are damaged.",),
            "{a} = {a} - {a} * {n} // 100",
        ),
        Kind(
            "rise",
            ("The {item} of {A} grow by {n} percent.",),
            "{a} = {a} + {a} * {n} // 100",
        ),
        Kind(
            "rate",
            ("{A} makes {n} {item} an hour for {m} hours.",),
            "{a} = {a} + {n} * {m}",
            "{a} = {a} - {n} * {m}",
        ),
        Kind(
            "spend",
            ("{A} uses up {n} {item} a day for {m} days.",),
            "{a} = {a} - {n} * {m}",
            "{a} = {a} + {n} * {m}",
        ),
        Kind(
            "rest",
            ("{A} fills boxes of {n} {item} and keeps only the rest.",),
            "{a} = {a} % {n}",
        ),
        Kind(
            "deal",
            ("{A} buys or sells {n} {item} and now has full packs of {m}.",),
            "{a} += {n}\nassert {a} % {m} == 0",  # not `{a} = {a} +`, whose sign a model should not learn to guess
            otherwise="{a} -= {n}\nassert {a} % {m} == 0",
        ),
        Kind(
            "give",
            ("{A} gives {n} {item} to {B}.",),
            "{a} = {a} - {n}\n{b} = {b} + {n}",
        ),
        Kind(
            "fold",
            ("{B} has {n} times as many {item} as {A}.",),
            "{b} = {a} * {n}",
        ),
        Kind(
            "more",
            ("{B} has {n} more {item} than {A}.",),
            "{b} = {a} + {n}",
        ),
        Kind(
            "less",
            ("{B} has {n} fewer {item} than {A}.",),
            "{b} = {a} - {n}",
        ),
        Kind(
            "pool",
            ("{A} takes over all {item} of {B}.",),
            "{a} = {a} + {b}",
        ),
        Kind(
            "idle",
            ("{A} is {n} years old.", "The bus of {A} has {n} seats."),
            ASIDE + " = {n}",
        ),
        Kind("ask_now", ("How many {item} does {A} have now?", "What does {A} have at last?"), "print({a})"),
        Kind("ask_start", ("How many {item} did {A} have at the start?",), "print({a})"),
        Kind(
            "ask_both",
            ("How many {item} do {A} and {B} have together?",),
            "print({a} + {b})",
        ),
        Kind(
            "ask_gap",
            ("How many more {item} does {A} have than {B}?",),
            "print({a} - {b})",
        ),
        Kind(
            "ask_pair",
            ("How many {item} does {A} have, and how many {B}?",),
            "print(({a}, {b}))",
        ),
    )
}
# Percentages have no inverse: `a * 100 // (100 - n)` is too long for the tiny model to write without a mistake.
INVERTIBLE = tuple(name for name, kind in KINDS.items() if kind.undo)


@dataclass(frozen=True, slots=True)
class Event:
    """One sentence of a story: its kind, its wording, and the people, thing and numbers in it."""

    kind: str
    actor: str
    item: str
    n: int = 0
    m: int = 0
    other: str = ""
    wording: int = 0
    before: bool = False  # told backwards: a solution undoes it

    @property
    def text(self) -> str:
        text = self._fill(KINDS[self.kind].wordings[self.wording])
        return BEFORE + re.sub("^The ", "the ", text) if self.before else text

    @property
    def ways(self) -> list[str]:
        """The code of each way that the sentence allows: two where it does not say whether the quantity rises."""
        kind = KINDS[self.kind]
        return [self._fill(code) for code in ((kind.undo,) if self.before else (kind.code, kind.otherwise)) if code]

    def _fill(self, template: str) -> str:
        return template.format(
            A=self.actor, B=self.other, a=self.actor.lower(), b=self.other.lower(), n=self.n, m=self.m, item=self.item
        )


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, int, re.Pattern[str]], ...]:
    slots = {
        "A": f"(?P<A>{'|'.join(NAMES)})",
        "B": f"(?P<B>{'|'.join(NAMES)})",
        "n": r"(?P<n>\d+)",
        "m": r"(?P<m>\d+)",
        "item": f"(?P<item>{'|'.join(ITEMS + MASSES)})",
    }
    patterns = []
    for kind in KINDS.values():
        for number, wording in enumerate(kind.wordings):
            parts = re.split(r"\{(\w+)\}", wording)
            text = "".join(slots[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
            patterns.append((kind.name, number, re.compile(text)))
    return tuple(patterns)


def read(sentence: str, item: str = "") -> Event | None:
    """Return the event of a lettered `sentence`, or None where it is not one of the families' wordings."""
    sentence = re.sub(r"^[A-Z]\) ", "", sentence)
    if before := sentence.startswith(BEFORE):
        sentence = re.sub("^the ", "The ", sentence.removeprefix(BEFORE))
    for name, number, pattern in _patterns():
        if before and name not in INVERTIBLE:
            continue
        if match := pattern.fullmatch(sentence):
            got = match.groupdict()
            return Event(
                name,
                got.get("A", ""),
                got.get("item", item),
                n=int(got.get("n", 0)),
                m=int(got.get("m", 0)),
                other=got.get("B", ""),
                wording=number,
                before=before,
            )
    return None


def sentences(question: str) -> list[str]:
    """Split a question at its full stops and question marks."""
    return re.split(r"(?<=[.?]) ", question.strip())


def wrong_operation(code: str) -> str:
    """Return the code with another operation and the same assertion; unchanged where it has no operation."""
    check, newline, line = code.rpartition("\n") if code.startswith("assert") else ("", "", code)
    signs = (("+=", "-="), ("-=", "+="), (" + ", " - "), (" - ", " + "))
    for old, new in (*signs, (" * ", " + "), (" // ", " - "), (" % ", " // "), ("(", "(2 * ")):
        if old in line:
            return f"{check}{newline}{line.replace(old, new, 1)}"
    return code

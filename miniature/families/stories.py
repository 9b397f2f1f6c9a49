"""Stories: a question of the built-in families as a list of events, and its true solution with every value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from types import CodeType
from typing import Any, Literal

from miniature.families.sentences import ASIDE, Event, read, sentences
from miniature.families.truth import changes
from miniature.steps import write_solution
from rstar.protocols import UserError

Split = Literal["train", "test"]
UNDO = "Undo: "  # begins the comment of a step that undoes its sentence
TEST_SHARE = 5  # one structure in five is held out


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of the true solution: the sentence that it restates, its code, and the values that it sets."""

    comment: str
    code: str
    values: Mapping[str, str]  # variable -> value, both as printed; the last step sets "print"

    @property
    def counts(self) -> bool:
        """Whether the answer depends on it: a step that only notes the number of a distractor does not count."""
        return self.values.keys() != {ASIDE}


@dataclass(frozen=True, slots=True)
class Story:
    """A list of events that ends with a question."""

    events: tuple[Event, ...]

    @property
    def question(self) -> str:
        return " ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """The sentences as the question tells them, each with its letter."""
        return [f"{letter}) {event.text}" for letter, event in zip(ascii_uppercase, self.events, strict=False)]

    @property
    def structure(self) -> str:
        """The operations and the question, without names, numbers, wordings and distractors."""
        return "-".join(event.kind for event in self.events if event.kind != "idle")

    @property
    def split(self) -> Split:
        return "test" if _hash(self.structure) % TEST_SHARE == 0 else "train"

    @lru_cache(maxsize=4096)  # noqa: B019 - stories are values, and the writer needs the plan at every step
    def plan(self) -> list[PlanStep]:
        """Return the true solution, one step a sentence."""
        values: dict[str, object] = {}
        steps = []
        for sentence, event in zip(self.sentences, self.events, strict=True):
            values.pop(ASIDE, None)  # else a second distractor with the same number would change nothing
            before = dict(values)
            code, printed = run_ways(event.ways, values)
            comment = f"{UNDO}{sentence}" if event.before else sentence
            changed = changes(before, values) if printed is None else {"print": printed}
            steps.append(PlanStep(comment, code, changed))
        return steps


def run_ways(ways: Sequence[str], values: dict[str, Any]) -> tuple[str, str | None]:
    """Run the first of `ways` whose assertions hold; return its code and what it prints."""
    *others, last = ways
    for code in others:
        try:
            return code, run_plan_code(code, values)
        except AssertionError:
            pass
    return last, run_plan_code(last, values)


def run_plan_code(code: str, values: dict[str, Any]) -> str | None:
    """Run the families' own code, never a model's, on `values`; return what it prints."""
    printed: list[str] = []
    scope: dict[str, Any] = {
        "__builtins__": {"print": lambda value: printed.append(str(value)), "__import__": __import__}
    }
    scope |= values
    exec(_compiled(code), scope)
    values |= {name: value for name, value in scope.items() if name not in ("__builtins__", "Fraction")}
    return printed[0] if printed else None


@lru_cache(maxsize=4096)
def _compiled(code: str) -> CodeType:
    return compile(code, "<plan>", "exec")


@lru_cache(maxsize=4096)
def read_story(question: str) -> Story | None:
    """Read a story back from its question; None where the question is not one of the families'."""
    events: list[Event] = []
    for sentence in sentences(question):
        event = read(sentence, events[0].item if events else "")
        if event is None:
            return None
        events.append(event)
    return Story(tuple(events)) if events and events[-1].kind.startswith("ask_") else None


def solution(question: str) -> list[str]:
    """Return the true solution of a question as rendered steps; raises UserError for a question of another kind."""
    story = read_story(question)
    if story is None:
        raise UserError(f"not a problem of the built-in families: {question[:60]!r}")
    plan = story.plan()
    return write_solution([(step.comment, step.code) for step in plan], plan[-1].values["print"])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")

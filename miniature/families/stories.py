"""Stories: a question of the built-in families as a list of events, its true solution, and which steps depart from it.

Because a story knows every intermediate quantity, a step can be called right or wrong without a model: the truth that
the paper's Q-values estimate (Section 3.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from types import CodeType
from typing import Any, Literal

from domains.mathematics import steps as fmt
from miniature.families.sentences import ASIDE, Event, read, sentences
from rstar.protocols import UserError

Split = Literal["train", "test"]
UNDO = "Undo: "  # begins the comment of a step that undoes its sentence
TEST_SHARE = 5  # one structure in so many is held out


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of the true solution: what it restates, what it runs, the values it leaves."""

    comment: str
    code: str
    values: Mapping[str, str]  # variable -> value, as printed

    @property
    def counts(self) -> bool:
        """Whether the answer depends on it. A step that only notes the number of a distractor does not count."""
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

    @lru_cache(maxsize=4096)  # noqa: B019 - stories are values, and the writer asks for the plan at every step
    def plan(self) -> list[PlanStep]:
        """The true solution, step by step: a sentence after the other."""
        values: dict[str, object] = {}
        steps = []
        for sentence, event in zip(self.sentences, self.events, strict=True):
            values.pop(ASIDE, None)  # so that the next one counts as a change, also where its number is the same
            before = dict(values)
            code, printed = run_ways(event.ways, values)
            comment = f"{UNDO}{sentence}" if event.before else sentence
            changed = {name: str(value) for name, value in values.items() if before.get(name, _ABSENT) != value}
            steps.append(PlanStep(comment, code, {"print": printed} if printed is not None else changed))
        return steps


_ABSENT = object()


def run_ways(ways: Sequence[str], values: dict[str, Any]) -> tuple[str, str | None]:
    """Run the first of `ways` whose checks pass; return it and what it prints."""
    *others, last = ways
    for code in others:
        try:
            return code, run_plan_code(code, values)
        except AssertionError:
            pass
    return last, run_plan_code(last, values)


def run_plan_code(code: str, values: dict[str, Any]) -> str | None:
    """Run the families' own code on `values`; return what it prints. Never for a model's code."""
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
    """Read a story back from its question; None where it is not one of the families."""
    events: list[Event] = []
    for sentence in sentences(question):
        event = read(sentence, events[0].item if events else "")
        if event is None:
            return None
        events.append(event)
    return Story(tuple(events)) if events and events[-1].kind.startswith("ask_") else None


def solution(question: str) -> list[str]:
    """The true solution of a families' question as rendered steps, in the bytes of `domains.mathematics.steps`."""
    story = read_story(question)
    if story is None:
        raise UserError(f"not a problem of the built-in families: {question[:60]!r}")
    return render_plan(story.plan())


def render_plan(plan: Sequence[PlanStep]) -> list[str]:
    """Render planned steps, output and answer included."""
    rendered = [write_step(step.comment, step.code, first=i == 0) for i, step in enumerate(plan[:-1])]
    last = write_step(plan[-1].comment, plan[-1].code, first=len(plan) == 1, last=True)
    output = plan[-1].values["print"]
    return [*rendered, fmt.render(last, output), write_answer(output)]


def write_step(comment: str, code: str, *, first: bool, last: bool = False) -> str:
    marker = fmt.END_OF_CODE if last else fmt.END_OF_STEP
    return f"{fmt.CODE if first else ''}\n# {comment}\n{code}\n{marker}"


def write_answer(answer: str) -> str:
    return f"\n<answer>The answer is \\boxed{{{answer}}}.\n{fmt.END_OF_ANSWER}"


def wrong_steps(
    truth: Sequence[Mapping[str, str]], steps: Sequence[str], run: Callable[[dict[str, object], str], object]
) -> list[bool]:
    """Say of each rendered step whether it is wrong: it changes a quantity to a value the truth does not give it next.

    `run(variables, code)` executes a step's code and updates `variables`; a side computation is wrong too, and so are
    steps out of the plan's order. Distractors may be left out.
    """
    pending = [dict(values) for values in truth]
    variables: dict[str, object] = {}
    verdicts = []
    for step in steps:
        if fmt.kind_of(step) is fmt.StepKind.ANSWER:
            verdicts.append(fmt.answer_of(step) != truth[-1]["print"])
            continue
        variables.pop(ASIDE, None)
        before = dict(variables)
        if fmt.kind_of(step) is fmt.StepKind.LAST_CODE:
            verdicts.append(bool(pending) and f"<output>{truth[-1]['print']}<end_of_output>" not in step)
            continue
        run(variables, fmt.code_of(step))
        changed = {k: str(v) for k, v in variables.items() if k != "Fraction" and before.get(k, _ABSENT) != v}
        counting = next((i for i, values in enumerate(pending) if values.keys() != {ASIDE}), len(pending))
        allowed = pending[: counting + 1]
        verdicts.append(changed not in allowed)
        if changed in allowed:
            del pending[: allowed.index(changed) + 1]
    return verdicts


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")

"""Seeded word problems with exact ground truth: stories of quantities that change hands, in three levels.

Stands in for the paper's problem set (Section 4.1 and Appendix A.2), which needs real models. Each problem carries the
value of every intermediate quantity, so that a step can be called right or wrong without a model. Train and test are
disjoint by structure: the sequence of operations and the question asked decide the split, whatever the numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from problems.importing import problem_id
from problems.sentences import INVERTIBLE, ITEMS, KINDS, MASSES, NAMES, Event, read, sentences
from rstar import steps as fmt
from rstar.protocols import Problem, UserError

Split = Literal["train", "test"]
NUM_OPERATIONS = {"gsm": (1, 3), "math": (3, 5), "olympiad": (5, 8)}
LEVELS = tuple(NUM_OPERATIONS)
SOLO = {
    "gsm": ("gain", "lose", "times", "share", "rate"),
    "math": ("gain", "lose", "times", "share", "rate", "spend", "drop", "rise"),
    "olympiad": ("gain", "lose", "times", "share", "rate", "spend", "drop", "rise", "rest"),
}
STYLES = {"gsm": ("solo",), "math": ("solo", "duo"), "olympiad": ("solo", "duo", "reversed")}
DUO_QUESTIONS = {
    "math": ("ask_both", "ask_gap", "ask_now"),
    "olympiad": ("ask_both", "ask_gap", "ask_now", "ask_pair"),
}
NUM_DISTRACTORS = {"gsm": (0, 0, 1), "math": (0, 1), "olympiad": (0, 1, 2)}
TEST_SHARE = 5  # one structure in so many is held out


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of the true solution: what it restates, what it runs, the values it leaves."""

    comment: str
    code: str
    values: Mapping[str, str]  # variable -> value, as printed


@dataclass(frozen=True, slots=True)
class Story:
    """A list of events that ends with a question."""

    events: tuple[Event, ...]

    @property
    def question(self) -> str:
        return " ".join(event.text for event in self.events)

    @property
    def structure(self) -> str:
        """The operations and the question, without names, numbers, wordings and distractors."""
        return "-".join(event.kind for event in self.events if event.kind not in ("idle", "some"))

    @property
    def split(self) -> Split:
        return "test" if _hash(self.structure, 4) % TEST_SHARE == 0 else "train"

    @lru_cache(maxsize=4096)  # noqa: B019 - stories are values, and the writer asks for the plan at every step
    def plan(self) -> list[PlanStep]:
        """The true solution, step by step; a reversed story is undone from its end."""
        told = [event for event in self.events if event.kind not in ("idle", "some")]
        *events, ask = told
        if ask.kind == "ask_start":
            end, *undone = reversed(events)
            lines = [(end.text, end.code), *((f"Undo: {event.text}", event.undo) for event in undone)]
        else:
            lines = [(event.text, event.code) for event in events]
        lines.append((ask.text, ask.code))
        values: dict[str, object] = {}
        steps = []
        for comment, code in lines:
            before = dict(values)
            printed = run_plan_code(code, values)
            changed = {name: str(value) for name, value in values.items() if before.get(name, _ABSENT) != value}
            steps.append(PlanStep(comment, code, {"print": printed} if printed is not None else changed))
        return steps


_ABSENT = object()


@dataclass(frozen=True, slots=True)
class FamilyProblem:
    """A generated problem, its structure, and the value each true step leaves."""

    problem: Problem
    structure: str
    truth: list[dict[str, str]]


def run_plan_code(code: str, values: dict[str, object]) -> str | None:
    """Run the families' own code on `values`; return what it prints. Never for a model's code."""
    printed: list[str] = []
    scope: dict[str, object] = {
        "__builtins__": {"print": lambda value: printed.append(str(value)), "__import__": __import__}
    }
    scope |= values
    exec(code, scope)
    values |= {name: value for name, value in scope.items() if name not in ("__builtins__", "Fraction")}
    return printed[0] if printed else None


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


def generate(num_problems: Mapping[str, int], *, seed: int, split: Split) -> list[FamilyProblem]:
    """Return that many problems of each level, no two with the same text; equal seeds, equal problems."""
    if unknown := set(num_problems) - set(LEVELS):
        raise UserError(f"problems: unknown level {sorted(unknown)[0]!r}; allowed: {', '.join(LEVELS)}")
    made: dict[str, FamilyProblem] = {}
    for level, wanted in num_problems.items():
        rng = random.Random(f"{seed}-{split}-{level}")
        count = 0
        while count < wanted:
            problem = _checked(_tell(level, rng), level, split, source="families")
            if problem is not None and problem.problem.id not in made:
                made[problem.problem.id] = problem
                count += 1
    return list(made.values())


def vary(question: str, *, seed: int, level: str) -> FamilyProblem | None:
    """Return a new problem by the rules of a solved one: new people and numbers, and one operation exchanged.

    None where the question is not of the families, or no valid variation was found.
    """
    story = read_story(question)
    if story is None:
        return None
    rng = random.Random(f"vary-{seed}-{question}")
    for _ in range(50):
        problem = _checked(_retell(story, level, rng), level, "train", source="synthesis")
        if problem is not None and problem.problem.question != question:
            return problem
    return None


def solution(question: str) -> list[str]:
    """The true solution of a families' question as rendered steps, in the bytes of `rstar.steps`."""
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

    `run(variables, code)` executes a step's code and updates `variables`; steps that change nothing that the problem
    asks about (a side computation on a distractor) are wrong too. Order between independent quantities is free.
    """
    pending = [dict(values) for values in truth]
    variables: dict[str, object] = {}
    verdicts = []
    for step in steps:
        if fmt.kind_of(step) is fmt.StepKind.ANSWER:
            verdicts.append(fmt.answer_of(step) != truth[-1]["print"])
            continue
        before = dict(variables)
        if fmt.kind_of(step) is fmt.StepKind.LAST_CODE:
            verdicts.append(bool(pending) and f"<output>{truth[-1]['print']}<end_of_output>" not in step)
            continue
        run(variables, fmt.code_of(step))
        changed = {k: str(v) for k, v in variables.items() if k != "Fraction" and before.get(k, _ABSENT) != v}
        expected = pending[0] if pending else None
        verdicts.append(changed != expected)
        if changed == expected:
            pending.pop(0)
    return verdicts


def _checked(story: Story | None, level: str, split: Split, *, source: str) -> FamilyProblem | None:
    """The story as a problem, or None where a quantity is absurd, the answer easy to guess or the split the other."""
    if story is None or story.split != split:
        return None
    try:
        plan = story.plan()
    except (ZeroDivisionError, NameError):
        return None
    answer = plan[-1].values["print"]
    if not all(_sane(value) for step in plan for value in step.values.values()) or not _hard_to_guess(answer):
        return None
    if any(not step.values for step in plan):  # a step that changes nothing
        return None
    question = story.question
    problem = Problem(problem_id(question), question, answer, level, source)
    return FamilyProblem(problem, story.structure, [dict(step.values) for step in plan])


def _numbers(text: str) -> list[Fraction]:
    return [Fraction(part) for part in text.strip("()").split(", ")]


def _sane(text: str) -> bool:
    return all(0 <= number < 10_000 for number in _numbers(text))


def _hard_to_guess(answer: str) -> bool:
    return all(number > 12 or number.denominator > 1 for number in _numbers(answer))


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")


def _tell(level: str, rng: random.Random) -> Story | None:
    """Draw a story of the level: a start, operations, distractors, a question."""
    count = rng.randint(*NUM_OPERATIONS[level])
    style = rng.choice(STYLES[level])
    if style == "reversed":
        invertible = [kind for kind in SOLO[level] if kind in INVERTIBLE]
        kinds = ["some", *rng.choices(invertible, k=count), "end", "ask_start"]
    elif style == "duo":
        kinds = ["start", *rng.choices([*SOLO[level], "give", "give", "give"], k=count - 1)]
        kinds.insert(rng.randint(1, 2), rng.choice(("fold", "more", "less")))
        if level == "olympiad" and rng.random() < 0.3:
            kinds[-1] = "pool"
        kinds.append(rng.choice(DUO_QUESTIONS[level]))
    else:
        cut = ["cut"] if level == "olympiad" and rng.random() < 0.4 else []
        kinds = ["start", *rng.choices(SOLO[level], k=count - len(cut)), *cut, "ask_now"]
    if kinds[-2] == "rest":  # what is left over of few is easy to guess
        return None
    for _ in range(rng.choice(NUM_DISTRACTORS[level])):
        kinds.insert(rng.randint(1, len(kinds) - 2), "idle")
    return _fill(kinds, rng)


def _retell(story: Story, level: str, rng: random.Random) -> Story | None:
    """The same kinds with one operation exchanged for another of the level."""
    kinds = [event.kind for event in story.events]
    reverse = kinds[-1] == "ask_start"
    free = [i for i, kind in enumerate(kinds) if kind in SOLO["olympiad"]]
    if free:
        kinds[rng.choice(free)] = rng.choice([k for k in SOLO[level] if k in INVERTIBLE or not reverse])
    return _fill(kinds, rng)


def _fill(kinds: Sequence[str], rng: random.Random) -> Story | None:
    """Fill kinds with people, a thing and numbers that keep every quantity a sensible whole number."""
    actor, other = rng.sample(NAMES, 2)
    item = rng.choice(MASSES if "cut" in kinds else ITEMS)
    values = {actor: Fraction(0), other: Fraction(0)}
    known = {actor}
    hidden = Fraction(rng.randint(20, 300))
    events: list[Event] = []
    for kind in kinds:
        who = rng.choice(sorted(known)) if kind in SOLO["olympiad"] + ("idle", "give") else actor
        whom = other if who == actor else actor
        value = hidden if kind == "some" else values[who]
        numbers = _draw(kind, value, rng)
        if numbers is None or (kind in ("give", "pool") and len(known) < 2):
            return None
        n, m = numbers
        event = Event(kind, who, item, n, m, whom, rng.randrange(len(KINDS[kind].wordings)))
        if kind == "end":
            event = Event(kind, who, item, int(value), 0, whom, event.wording)
        if kind == "some":
            values[actor] = hidden
        _apply(event, values)
        if kind in ("fold", "more", "less"):
            known.add(whom)
        if any(v < 0 or v > 9_999 for v in values.values()):
            return None
        events.append(event)
    return Story(tuple(events))


def _apply(event: Event, values: dict[str, Fraction]) -> None:
    names = {name.lower(): name for name in values}
    if event.kind in ("some", "end", "idle") or event.kind.startswith("ask_"):
        return
    scope: dict[str, object] = {name.lower(): value for name, value in values.items()}
    run_plan_code(event.code, scope)
    for variable, name in names.items():
        values[name] = Fraction(str(scope[variable]))


def _draw(kind: str, value: Fraction, rng: random.Random) -> tuple[int, int] | None:
    """Numbers for one event on a quantity of `value`; None where the kind does not fit."""
    whole = int(value)
    if kind == "start":
        return rng.randint(20, 300), 0
    if kind in ("lose", "give", "less"):
        return (rng.randint(3, whole - 13), 0) if whole > 20 else None
    if kind == "spend":
        m = rng.randint(2, 9)
        return (rng.randint(2, (whole - 10) // m), m) if whole - 10 >= 2 * m else None
    if kind in ("times", "fold"):
        return (rng.randint(2, 6), 0) if whole < 1500 else None
    if kind == "share":
        divisors = [k for k in range(2, 10) if value.denominator == 1 and whole % k == 0 and whole // k > 12]
        return (rng.choice(divisors), 0) if divisors else None
    if kind == "cut":
        return rng.randint(2, 9), 0
    if kind in ("drop", "rise"):
        exact = [p for p in (5, 10, 15, 20, 25, 30, 40, 50, 60, 75) if value.denominator == 1 and whole * p % 100 == 0]
        return (rng.choice(exact), 0) if exact and whole else None
    if kind == "rest":
        return (rng.randint(31, 97), 0) if whole > 150 else None
    if kind == "rate":
        return rng.randint(2, 40), rng.randint(2, 9)
    return rng.randint(3, 99), 0


"""Seeded word problems with exact ground truth: stories of quantities that change hands, in three levels.

Stands in for the paper's problem set (Section 4.1 and Appendix A.2), which needs real models. Each problem carries the
value of every intermediate quantity, so that a step can be called right or wrong without a model. Train and test are
disjoint by structure: the sequence of operations and the question asked decide the split, whatever the numbers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd

from miniature.families.sentences import INVERTIBLE, ITEMS, KINDS, MASSES, NAMES, Event
from miniature.families.stories import PlanStep, Split, Story, read_story, run_plan_code, run_ways
from problems.sources.importing import problem_id
from rstar.protocols import Problem, UserError

NUM_OPERATIONS = {"gsm": (1, 3), "math": (3, 5), "olympiad": (5, 8)}
LEVELS = tuple(NUM_OPERATIONS)
EASY = ("gain", "lose", "times", "share", "rate", "spend")
HARD = (*EASY, "share", "drop", "rise", "rest", "deal")  # a share of many quantities leaves something over: twice
SOLO = {"gsm": EASY, "math": HARD, "olympiad": (*HARD, *("deal",) * 19)}  # what happens to a quantity
DUO = {"gsm": EASY, "math": HARD, "olympiad": (*HARD, *("deal",) * 39)}  # the same where two people have some
DEALS = (10, 20, 30, 40, 50)  # few amounts, each bought about as often as sold: a number must not tell the way
GIVES = ("give",) * 8  # in stories of two people drawn eight times as often as each of those
EVEN = ("solo", "duo", "reversed")
STYLES = {"gsm": EVEN, "math": EVEN, "olympiad": ("solo", "solo", "duo", "duo", "reversed")}
DIVISORS = range(2, 13)
PERCENTS = tuple(p for p in range(5, 100) if 100 // gcd(100, p) <= 20)  # of a multiple of 20 at most
Number = int | Fraction
DUO_QUESTIONS = ("ask_both", "ask_gap", "ask_pair")
NUM_DISTRACTORS = {"gsm": (0, 0, 1), "math": (0, 1), "olympiad": (0, 1, 2)}


@dataclass(frozen=True, slots=True)
class FamilyProblem:
    """A generated problem, its structure, and the value each true step leaves."""

    problem: Problem
    structure: str
    truth: list[dict[str, str]]


def generate(num_problems: Mapping[str, int], *, seed: int, split: Split) -> list[FamilyProblem]:
    """Return that many problems of each level, no two with the same text; equal seeds, equal problems."""
    if unknown := set(num_problems) - set(LEVELS):
        raise UserError(f"problems: unknown level {sorted(unknown)[0]!r}; allowed: {', '.join(LEVELS)}")
    made: dict[str, FamilyProblem] = {}
    for level, wanted in num_problems.items():
        rng = random.Random(f"{seed}-{split}-{level}")
        for _ in range(wanted):
            style = rng.choice(STYLES[level])
            problem = None
            while problem is None or problem.problem.id in made:
                problem = _checked(_tell(level, style, rng), level, split, source="families")
            made[problem.problem.id] = problem
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


def _checked(story: Story | None, level: str, split: Split, *, source: str) -> FamilyProblem | None:
    """The story as a problem, or None where a quantity is absurd, the answer easy to guess or the split the other.

    No step of its solution may be needless: search could not tell whether it is right.
    """
    if story is None or story.split != split:
        return None
    try:
        plan = story.plan()
    except (ZeroDivisionError, NameError, AssertionError):
        return None
    answer = plan[-1].values["print"]
    if not all(_sane(value) for step in plan for value in step.values.values()) or not _hard_to_guess(answer):
        return None
    if any(_without(i, plan) == answer for i, step in enumerate(plan[:-1]) if step.counts):
        return None
    question = story.question
    problem = Problem(problem_id(question), question, answer, level, source)
    return FamilyProblem(problem, story.structure, [dict(step.values) for step in plan])


def _without(at: int, plan: Sequence[PlanStep]) -> str | None:
    """What the solution prints without one of its steps; None where it fails."""
    values: dict[str, object] = {}
    try:
        for i, step in enumerate(plan):
            printed = run_plan_code("" if i == at else step.code, values)
    except (NameError, ZeroDivisionError, AssertionError):
        return None
    return printed


def _numbers(text: str) -> list[Fraction]:
    return [Fraction(part) for part in text.strip("()").split(", ")]


def _sane(text: str) -> bool:
    return all(0 <= number < 10_000 for number in _numbers(text))


def _hard_to_guess(answer: str) -> bool:
    return all(number > 12 or number.denominator > 1 for number in _numbers(answer))


def _tell(level: str, style: str, rng: random.Random) -> Story | None:
    """Draw a story of the level: a start, operations, distractors, a question."""
    count = rng.randint(*NUM_OPERATIONS[level])
    if style == "reversed":
        invertible = [kind for kind in SOLO[level] if kind in INVERTIBLE]
        kinds = ["some", *rng.choices(invertible, k=count), "end", "ask_start"]
    elif style == "duo":
        pooled = count > 1 and rng.random() < 0.4
        kinds = ["start", *rng.choices([*DUO[level], *GIVES], k=count - 1 - pooled)]
        kinds.insert(rng.randint(1, min(2, len(kinds))), rng.choice(("fold", "more", "less")))
        kinds += ["pool", "ask_now"] if pooled else [rng.choice(DUO_QUESTIONS)]
    else:
        cut = ["cut"] if level != "gsm" and rng.random() < 0.25 else []
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
    if reverse:
        kinds = ["some", *kinds[-2:0:-1], "end", "ask_start"]
    free = [i for i, kind in enumerate(kinds) if kind in HARD]
    if free:
        kinds[rng.choice(free)] = rng.choice([k for k in SOLO[level] if k in INVERTIBLE or not reverse])
    return _fill(kinds, rng)


def _fill(kinds: Sequence[str], rng: random.Random) -> Story | None:
    """Fill kinds with people, a thing and numbers that keep every quantity a sensible whole number.

    Kinds that begin with `some`, a quantity that is not told, are what happened, and are told from their end.
    """
    actor, other = rng.sample(NAMES, 2)
    item = rng.choice(MASSES if "cut" in kinds else ITEMS)
    reverse = kinds[0] == "some"
    values: dict[str, Number] = {actor.lower(): rng.randint(20, 120) if reverse else 0, other.lower(): 0}
    known = {actor}
    events: list[Event] = []
    for kind in kinds[reverse:]:
        who = rng.choice(sorted(known)) if kind in (*HARD, "idle", "give") else actor
        if kind == "ask_gap":
            who = max(sorted(known), key=lambda name: values[name.lower()])
        whom = other if who == actor else actor
        numbers = _draw(kind, values[who.lower()], rng)
        if numbers is None or (kind in ("give", "pool") and len(known) < 2):
            return None
        n, m = numbers
        event = Event(kind, who, item, n, m, whom, rng.randrange(len(KINDS[kind].wordings)))
        if kind not in ("end", "idle") and not kind.startswith("ask_"):
            run_ways(event.ways, values)
        if kind in ("fold", "more", "less"):
            known.add(whom)
        if any(v < 0 or v > 9_999 for v in values.values()):
            return None
        events.append(event)
    if reverse:
        *happened, end, ask = events
        events = [end, *(replace(event, before=event.kind != "idle") for event in reversed(happened)), ask]
    return Story(tuple(events))


def _draw(kind: str, value: Number, rng: random.Random) -> tuple[int, int] | None:
    """Numbers for one event on a quantity of `value`; None where the kind does not fit."""
    whole = int(value)
    if kind == "start":
        return rng.randint(20, 300), 0
    if kind == "end":
        return (whole, 0) if whole < 1_000 else None
    if kind in ("lose", "give", "less"):
        return (rng.randint(3, min(whole - 13, 999)), 0) if whole > 20 else None
    if kind == "spend":
        m = rng.randint(2, 9)
        return (rng.randint(2, (whole - 10) // m), m) if whole - 10 >= 2 * m else None
    if kind in ("times", "fold"):
        return (rng.randint(5, 13), 0) if whole < 700 else None
    if kind == "share":
        divisors = [k for k in DIVISORS if value.denominator == 1 and whole % k == 0 and whole // k > 12]
        return (rng.choice(divisors), 0) if divisors else None
    if kind == "cut":
        return rng.randint(2, 9), 0
    if kind == "deal":  # in one of the two ways, and not in the other, whole packs come out
        fits = [(n, m) for n in DEALS for m in range(6, 13) if n < whole - 12]
        exact = [(n, m) for n, m in fits if ((value + n) % m == 0) != ((value - n) % m == 0)]
        return rng.choice(exact) if exact else None
    if kind in ("drop", "rise"):
        exact = [p for p in PERCENTS if value.denominator == 1 and whole * p % 100 == 0]
        return (rng.choice(exact), 0) if exact and whole else None
    if kind == "rest":
        return (rng.randint(31, 97), 0) if whole > 150 else None
    if kind == "rate":
        return rng.randint(2, 40), rng.randint(2, 9)
    return rng.randint(3, 99), 0

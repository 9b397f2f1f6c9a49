"""Seeded word problems with exact ground truth: stories of quantities that change hands.

Stands in for the paper's problem set (Section 4.1 and Appendix A.2), which needs real models. Train and test are
disjoint by structure: the sequence of operations and the question decide the split, whatever the names and numbers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd

from miniature.families.levels import HARD, Level, find_level
from miniature.families.sentences import INVERTIBLE, ITEMS, KINDS, MASSES, NAMES, Event
from miniature.families.stories import PlanStep, Split, Story, read_story, run_plan_code, run_ways
from problems.cleaning.duplicates import problem_id
from rstar.protocols import Problem

DEALS = (10, 20, 30, 40, 50)  # few, so that each is bought about as often as sold: the number must not tell which
GIVES = ("give",) * 8  # in stories of two people, drawn as often as eight of the level's own kinds
DUO_QUESTIONS = ("ask_both", "ask_gap", "ask_pair")
DIVISORS = range(2, 13)
PERCENTS = tuple(p for p in range(5, 100) if 100 // gcd(100, p) <= 20)  # whole for the multiples of a number up to 20
Number = int | Fraction


@dataclass(frozen=True, slots=True)
class GeneratedProblem:
    """A problem, its structure, and for each step of its true solution the values that the step leaves."""

    problem: Problem
    structure: str
    truth: list[dict[str, str]]


def generate(by_level: Mapping[str, int], *, seed: int, split: Split) -> list[GeneratedProblem]:
    """Return that many problems of each level, no two with the same text; equal seeds give equal problems.

    Raises UserError for an unknown level.
    """
    made: dict[str, GeneratedProblem] = {}
    for level in [find_level(name) for name in by_level]:
        rng = random.Random(f"{seed}-{split}-{level.name}")
        for _ in range(by_level[level.name]):
            style = rng.choice(level.styles)
            new = None
            while new is None or new.problem.id in made:
                new = _checked(_tell(level, style, rng), level, split, source="families")
            made[new.problem.id] = new
    return list(made.values())


def vary(question: str, *, seed: int, level: str) -> GeneratedProblem | None:
    """Return a variation of a solved problem: new people and numbers, and one operation exchanged for another.

    None where the question was not generated here, or where no valid variation was found. Raises UserError for an
    unknown level.
    """
    story = read_story(question)
    if story is None:
        return None
    rng = random.Random(f"vary-{seed}-{question}")
    known = find_level(level)
    for _ in range(50):
        new = _checked(_retell(story, known, rng), known, "train", source="synthesis")
        if new is not None and new.problem.question != question:
            return new
    return None


def _checked(story: Story | None, level: Level, split: Split, *, source: str) -> GeneratedProblem | None:
    """Return the story as a problem; None where it is of the other split or makes a bad problem.

    Bad are absurd quantities, an answer that is easy to guess, and a solution with a needless step: search could not
    tell whether such a step is right.
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
    problem = Problem(problem_id(story.question), story.question, answer, level.name, source)
    return GeneratedProblem(problem, story.structure, [dict(step.values) for step in plan])


def _without(at: int, plan: Sequence[PlanStep]) -> str | None:
    """Return what the solution prints without one of its steps; None where it fails."""
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


def _tell(level: Level, style: str, rng: random.Random) -> Story | None:
    """Draw a story of the level: a start, operations, distractors, a question."""
    count = rng.randint(level.min_operations, level.max_operations)
    if style == "reversed":
        invertible = [kind for kind in level.solo if kind in INVERTIBLE]
        kinds = ["some", *rng.choices(invertible, k=count), "end", "ask_start"]
    elif style == "duo":
        pooled = count > 1 and rng.random() < 0.4
        kinds = ["start", *rng.choices([*level.duo, *GIVES], k=count - 1 - pooled)]
        kinds.insert(rng.randint(1, min(2, len(kinds))), rng.choice(("fold", "more", "less")))
        kinds += ["pool", "ask_now"] if pooled else [rng.choice(DUO_QUESTIONS)]
    else:
        cut = ["cut"] if level.share_with_cut and rng.random() < level.share_with_cut else []
        kinds = ["start", *rng.choices(level.solo, k=count - len(cut)), *cut, "ask_now"]
    if kinds[-2] == "rest":  # a remainder is a small number, which is easy to guess
        return None
    for _ in range(rng.choice(level.num_distractors)):
        kinds.insert(rng.randint(1, len(kinds) - 2), "idle")
    return _fill(kinds, rng)


def _retell(story: Story, level: Level, rng: random.Random) -> Story | None:
    """Draw a story of the same kinds of sentences, one operation exchanged for another of the level."""
    kinds = [event.kind for event in story.events]
    reverse = kinds[-1] == "ask_start"
    if reverse:
        kinds = ["some", *kinds[-2:0:-1], "end", "ask_start"]
    free = [i for i, kind in enumerate(kinds) if kind in HARD]
    if free:
        kinds[rng.choice(free)] = rng.choice([kind for kind in level.solo if kind in INVERTIBLE or not reverse])
    return _fill(kinds, rng)


def _fill(kinds: Sequence[str], rng: random.Random) -> Story | None:
    """Fill the kinds of sentences with people, a thing and numbers; None where a quantity would be absurd.

    Kinds that begin with `some`, a quantity that the question does not give, are in the order of events; the story is
    told backwards, from the end.
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
    """Draw the two numbers of an event that changes a quantity of `value`; None where the kind does not fit it."""
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
    if kind == "deal":  # exactly one of the two ways must give whole packs
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

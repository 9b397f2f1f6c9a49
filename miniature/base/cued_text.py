"""Text for the second stage of pre-training: longer passages in the shapes of word problems, with cues.

As in copying_text, the words of a sentence mean nothing. A cue in the sentence or at its end says what its code is
(plus, minus, times, over, modulo, rate, percent, share, across, whole, total) or that it has none (aside). The
families have no cues: which words mean which operation is left for fine-tuning to teach.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from domains.mathematics.prompts import render_prompt
from miniature.base.copying_text import (
    NAMES,
    NOUNS,
    OPERATIONS,
    WORDS,
    Line,
    capitalized,
    checked,
    draw_number,
    draw_output,
    lettered,
)
from miniature.steps import write_solution

CUES = {word for word, _, _ in OPERATIONS} | {"is", "aside", "rate", "percent", "share", "across", "whole", "total"}
FILLERS = [word for word in WORDS if word not in CUES | {"no"}]  # proofread_text marks mistakes with `no`
SHOWN = {"first": "{a}", "both": "{a} + {b}", "gap": "{a} - {b}", "pair": "({a}, {b})"}


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage, its steps (comment and code, the question last), and the sentences that have no step."""

    text: str
    steps: list[tuple[str, str]]
    asides: list[str]
    people: list[str]


def passage(rng: random.Random, *, longest: int = 11) -> Passage:
    """Draw a passage whose steps restate its sentences in order or backwards, without those with the cue `aside`."""
    people = rng.sample(NAMES, rng.choice((1, 2)))
    lines = [_sentence(rng, people) for _ in range(rng.randint(2, longest))]
    if rng.random() < 0.5:
        lines[0] = _note(rng, people)
    backwards = rng.random() < 0.35
    if backwards:
        lines.append(_note(rng, people))
    cue = rng.choice(tuple(SHOWN)) if len(people) == 2 else "first"
    order = rng.sample(people, len(people))
    question = f"{_words(rng, 1, 3)} {' '.join(order)} {_words(rng, 0, 2)} {cue}".replace("  ", " ").strip()
    question = f"{capitalized(question)} {'backwards' if backwards else 'forwards'}?"
    lines, question = lettered(lines, question)
    told = [line for line in lines if line[1]]
    steps = [(sentence, checked(code)) for sentence, code, _ in told]
    if backwards:
        steps = [steps[-1], *((f"Undo: {sentence}", checked(undo)) for sentence, _, undo in reversed(told[:-1]))]
    steps.append((question, f"print({SHOWN[cue].format(a=order[0].lower(), b=order[-1].lower())})"))
    text = " ".join([*(sentence for sentence, _, _ in lines), question])
    return Passage(text, steps, [sentence for sentence, code, _ in lines if not code], people)


def document(rng: random.Random) -> tuple[str, str]:
    """Return one (prompt, response)."""
    told = passage(rng)
    return render_prompt(told.text), "".join(write_solution(told.steps, draw_output(rng)))


def documents(seed: int) -> Iterator[tuple[str, str]]:
    """Yield documents without end; equal seeds give equal documents."""
    rng = random.Random(seed)
    while True:
        yield document(rng)


def _sentence(rng: random.Random, people: list[str]) -> Line:
    who = rng.choice(people)
    other = next((name for name in people if name != who), rng.choice([n for n in NAMES if n != who]))
    a, b, n, m = who.lower(), other.lower(), draw_number(rng), rng.randint(2, 12)
    word, sign, inverse = rng.choice(OPERATIONS)
    noun, told = rng.choice(NOUNS), _clause(rng, who, n, rng.choice(NOUNS))
    kind = rng.random()
    if kind < 0.15:
        return _note(rng, people)
    if kind < 0.3:
        return _cued(rng, told, "aside"), "", ""
    if kind < 0.55:
        return _cued(rng, told, word), f"{a} = {a} {sign} {n}", f"{a} = {a} {inverse} {n}"
    if kind < 0.68:
        unit = rng.choice(WORDS)
        first = f"{who} {_words(rng, 1, 2)} {n} {noun} a {unit} for {m} {unit}s"
        second = f"For {m} {unit}s {who} {_words(rng, 1, 2)} {n} {noun} a {unit}"
        sign, inverse = rng.choice((("+", "-"), ("-", "+")))
        sentence = _cued(rng, rng.choice((first, second)), f"{'plus' if sign == '+' else 'minus'} rate")
        return sentence, f"{a} = {a} {sign} {n} * {m}", f"{a} = {a} {inverse} {n} * {m}"
    if kind < 0.78:
        sign, inverse = rng.choice((("+", "-"), ("-", "+")))
        share = rng.choice(range(5, 100, 5))
        clause = rng.choice(
            (
                f"{share} percent of the {noun} of {who} {_words(rng, 1, 2)}",
                f"The {noun} of {who} {_words(rng, 1, 3)} {share} percent",
                f"{who} {_words(rng, 1, 2)} {share} percent of {noun}",
            )
        )
        sentence = _cued(rng, clause, f"{'plus' if sign == '+' else 'minus'} percent")
        return sentence, f"{a} = {a} {sign} {a} * {share} // 100", f"{a} = {a} * 100 // (100 {sign} {share})"
    if kind < 0.86:
        clause = f"{other} {_words(rng, 1, 2)} {n} {_words(rng, 0, 1)} {noun} {_words(rng, 1, 1)} {who}"
        return _cued(rng, clause, word), f"{b} = {a} {sign} {n}", f"{b} = {b} {inverse} {n}"
    if kind < 0.92:
        sentence = _cued(rng, f"{who} {_words(rng, 1, 1)} {n} {noun} to {other}", "across")
        return sentence, f"{a} = {a} - {n}\n{b} = {b} + {n}", f"{a} = {a} + {n}\n{b} = {b} - {n}"
    if kind < 0.96:
        first, second, cue = rng.choice(((who, other, "whole"), (other, who, "total")))
        sentence = _cued(rng, f"{first} {_words(rng, 1, 3)} {rng.choice((noun, ''))} {_words(rng, 0, 1)} {second}", cue)
        return sentence, f"{a} = {a} + {b}", f"{a} = {a} - {b}"
    code = f"from fractions import Fraction\n{a} = Fraction({a}, {n})"
    return _cued(rng, told, "share"), code, f"{a} = {a} * {n}"


def _cued(rng: random.Random, clause: str, cue: str) -> str:
    """Put a cue at the end of a sentence, or only the cue's first word among the others, as in real sentences."""
    words = capitalized(clause).split()
    if rng.random() < 0.3:
        return f"{' '.join(words)}, {cue}."
    words.insert(rng.randint(1, len(words)), cue.split()[0])
    return f"{' '.join(words)}."


def _note(rng: random.Random, people: list[str]) -> Line:
    """Draw a sentence whose code notes its number; it has the cue `is` or none."""
    who, n = rng.choice(people), rng.choice((draw_number(rng), rng.randint(20, 999)))
    sentence = f"{_clause(rng, who, n, rng.choice(NOUNS))}{rng.choice((', is', ''))}."
    return sentence, f"{who.lower()} = {n}", f"{who.lower()} = {n}"


def _clause(rng: random.Random, who: str, n: int, noun: str) -> str:
    """Draw a clause of a person, a thing and a number, in either order, among words that mean nothing."""
    parts = [
        rng.choice((who, who, f"the {noun} of {who}")),
        rng.choice((f"{n} {noun}", str(n), f"{n} {_words(rng, 1, 1)}")),
    ]
    if rng.random() < 0.25:
        parts.reverse()
    parts = [rng.choice(("", "", _words(rng, 1, 2))), parts[0], _words(rng, 1, 2), parts[1], _words(rng, 0, 3)]
    return capitalized(" ".join(part for part in parts if part))


def _words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(FILLERS, k=rng.randint(low, high)))

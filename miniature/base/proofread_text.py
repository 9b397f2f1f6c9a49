"""The last part of the base's text: passages of models/cued_text.py, many with slips in them, and the word `no`.

A large base model has read corrections, and can tell a slip when it reads one. Here a step may be a wrong one, hidden
from the loss. `no` and what is right follow the first wrong word, or `no` and the right step the whole step, or, where
it was let pass, `no` follows the answer. What is wrong is always wrong by the passage's own cues. So the PPM's head has
something to read at the end of a step (Section 3.3).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from domains.mathematics import steps as fmt
from domains.mathematics.prompts import render_prompt
from miniature.base import cued_text
from miniature.base.copying_text import NAMES, OPERATIONS, checked
from miniature.base.cued_text import Passage

NO = " no"
WHOLE = 0.6  # of the documents are passages as they are, so that writing is not forgotten over reading
SLIPS, SHARE_INLINE, SHARE_TOLD = 0.4, 0.4, 0.8  # steps that are slips; told in the step; of the others, at its end
LENGTHS = (3, 5, 11)  # sentences at most; short ones have more slips a token
SIGNS = [sign for _, sign, _ in OPERATIONS]
Step = tuple[str, str]  # a comment and its code
Span = tuple[int, int]


def document(rng: random.Random) -> tuple[str, str, list[Span]]:
    """Return (prompt, response, the parts of the response that are not to be learnt)."""
    passage = cued_text.passage(rng, longest=rng.choice(LENGTHS))
    share = rng.choice((0.0, SLIPS, SLIPS))
    response, hidden, wrong = fmt.CODE, [], False
    for i, step in enumerate(passage.steps):
        if rng.random() < share and (slip := _slip(rng, passage, i)) != step:
            start = len(response)
            if rng.random() < SHARE_INLINE:
                text, span = _corrected(_render(rng, *step), _render(rng, *slip))
                response += text
                hidden.append((start + span[0], start + span[1]))
                continue
            response += _render(rng, *slip)
            hidden.append((start, len(response)))
            if rng.random() < SHARE_TOLD:
                response += NO
            else:
                wrong = True
                if slip[1].startswith("print"):
                    break
                if i < len(passage.steps) - 1:
                    continue
        response += _render(rng, *step)
    answer = response.rpartition(fmt.OUTPUT)[2].removesuffix(fmt.END_OF_OUTPUT)
    response += f"\n<answer>The answer is \\boxed{{{answer}}}.\n{fmt.END_OF_ANSWER}{NO if wrong else ''}"
    return render_prompt(passage.text), response, hidden


def documents(seed: int) -> Iterator[tuple[str, str, list[Span]]]:
    """Endless documents, with slips and without; equal seeds, equal documents."""
    rng = random.Random(seed)
    while True:
        yield (*cued_text.document(rng), []) if rng.random() < WHOLE else document(rng)


def _corrected(right: str, wrong: str) -> tuple[str, Span]:
    """Say the first wrong word, `no`, and the right one and what follows it; return where the wrong word is."""
    rights, wrongs = re.split(r"(?=[ \n])", right), re.split(r"(?=[ \n])", wrong)
    at = next(i for i, (a, b) in enumerate(zip(rights, wrongs, strict=False)) if a != b)
    before, after = "".join(rights[:at]), "".join(rights[at:])
    return before + wrongs[at] + NO + after, (len(before), len(before) + len(wrongs[at]))


def _render(rng: random.Random, comment: str, code: str) -> str:
    if code.startswith("print"):
        return fmt.render(f"\n# {comment}\n{code}\n{fmt.END_OF_CODE}", cued_text.output(rng))
    return f"\n# {comment}\n{code}\n{fmt.END_OF_STEP}"


def _slip(rng: random.Random, passage: Passage, at: int) -> Step:
    """A wrong step in the place of step `at`; now and then none is found, and it is the right one."""
    comment, code = passage.steps[at]
    numbers = re.findall(r"\d+", passage.text)
    others = [number for number in numbers if number not in code] or ["1"]
    kind = rng.random()
    if kind < 0.35:
        check, _, line = code.rpartition("\n") if code.startswith("assert") else ("", "", code)
        swapped = _swap(rng, line, r"(?<= )(//|[-+*%])(?= )", SIGNS)
        return comment, checked(swapped) if rng.random() < 0.8 or not check else f"{check}\n{swapped}"
    if kind < 0.45:
        told = sorted(set(re.findall(r"\d+", code)) & set(re.findall(r"\d+", comment)))
        number = rng.choice(told or ["x"])
        return comment, re.sub(rf"\b{number}\b", rng.choice(others), code)
    if kind < 0.6:
        names = [name.lower() for name in (*passage.people, rng.choice(NAMES))]
        return comment, _swap(rng, code, rf"\b({'|'.join(name.lower() for name in NAMES)})\b", names)
    if kind < 0.68:  # less than the whole line
        lines = code.splitlines()
        return comment, rng.choice(lines) if len(lines) > 1 else re.sub(r" (\*|//|[-+]) \d+$", "", code)
    if kind < 0.8:
        later = passage.steps[at + 1 :]
        return rng.choice((later[0], rng.choice(later))) if later else (comment, code)
    if kind < 0.88:
        return rng.choice(passage.steps[:at]) if at else (comment, code)
    if kind < 0.95 and passage.asides:
        who, n = rng.choice(passage.people).lower(), rng.choice(numbers)
        return rng.choice(passage.asides), rng.choice((f"{who} = {n}", f"{who} = {who} {rng.choice(SIGNS)} {n}"))
    number = rng.choice(re.findall(r"\d+", comment) or ["x"])
    other = rng.choice(others)
    return tuple(re.sub(rf"\b{number}\b", other, part) for part in (comment, code))  # type: ignore[return-value]


def _swap(rng: random.Random, code: str, pattern: str, among: list[str]) -> str:
    """Put another of `among` in the place of one thing that the pattern finds."""
    found = list(re.finditer(pattern, code))
    if not found:
        return code
    match = rng.choice(found)
    return code[: match.start()] + rng.choice(among) + code[match.end() :]

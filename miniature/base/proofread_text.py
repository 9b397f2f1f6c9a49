"""Text for the third stage of pre-training: passages of cued_text, many with mistakes that the word `no` marks.

A large base model has read corrections and recognises a mistake, which gives the PPM's head something to read at the
end of a step (Section 3.3). Here a step may be wrong by the passage's own cues; what is wrong is masked out of the
loss. Either `no` and the right words follow the first wrong word, or `no` and the right step follow the whole step, or
the mistake goes unmarked and `no` follows the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from domains.mathematics import steps as fmt
from domains.mathematics.prompts import render_prompt
from miniature.base import cued_text
from miniature.base.copying_text import NAMES, OPERATIONS, checked, draw_output
from miniature.base.cued_text import Passage
from miniature.steps import write_answer, write_step

NO = " no"
SHARE_CORRECT = 0.6  # of the documents: passages without mistakes, so that the model does not forget how to write
SHARE_WRONG = 0.4  # of the steps, in a passage with mistakes
SHARE_INLINE = 0.4  # of the mistakes: corrected at the first wrong word
SHARE_TOLD = 0.8  # of the other mistakes: corrected at the end of the step
LENGTHS = (3, 5, 11)  # sentences at most; short passages have more mistakes a token
SIGNS = [sign for _, sign, _ in OPERATIONS]
Step = tuple[str, str]  # a comment and its code
Span = tuple[int, int]


def document(rng: random.Random) -> tuple[str, str, list[Span]]:
    """Return (prompt, response, the spans of the response that are masked out of the loss)."""
    passage = cued_text.passage(rng, longest=rng.choice(LENGTHS))
    share = rng.choice((0.0, SHARE_WRONG, SHARE_WRONG))
    response, hidden, unmarked = fmt.CODE, [], False
    for i, step in enumerate(passage.steps):
        if rng.random() < share and (wrong := _wrong_step(rng, passage, i)) != step:
            start = len(response)
            if rng.random() < SHARE_INLINE:
                text, span = _corrected(_render(rng, *step), _render(rng, *wrong))
                response += text
                hidden.append((start + span[0], start + span[1]))
                continue
            response += _render(rng, *wrong)
            hidden.append((start, len(response)))
            if rng.random() < SHARE_TOLD:
                response += NO
            else:
                unmarked = True
                if wrong[1].startswith("print"):
                    break
                if i < len(passage.steps) - 1:
                    continue
        response += _render(rng, *step)
    answer = response.rpartition(fmt.OUTPUT)[2].removesuffix(fmt.END_OF_OUTPUT)
    response += write_answer(answer) + (NO if unmarked else "")
    return render_prompt(passage.text), response, hidden


def documents(seed: int) -> Iterator[tuple[str, str, list[Span]]]:
    """Yield documents without end, with mistakes and without; equal seeds give equal documents."""
    rng = random.Random(seed)
    while True:
        yield (*cued_text.document(rng), []) if rng.random() < SHARE_CORRECT else document(rng)


def _corrected(right: str, wrong: str) -> tuple[str, Span]:
    """Return the right step with the first wrong word and `no` put before what is right, and the wrong word's span."""
    rights, wrongs = re.split(r"(?=[ \n])", right), re.split(r"(?=[ \n])", wrong)
    at = next(i for i, (a, b) in enumerate(zip(rights, wrongs, strict=False)) if a != b)
    before, after = "".join(rights[:at]), "".join(rights[at:])
    return before + wrongs[at] + NO + after, (len(before), len(before) + len(wrongs[at]))


def _render(rng: random.Random, comment: str, code: str) -> str:
    if code.startswith("print"):
        return fmt.render(write_step(comment, code, last=True), draw_output(rng))
    return write_step(comment, code)


def _wrong_step(rng: random.Random, passage: Passage, at: int) -> Step:
    """Draw a wrong step for the place of step `at`. Some draws change nothing and return the right step."""
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
    if kind < 0.68:  # a part is missing
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
    """Replace one match of the pattern by one of `among`."""
    found = list(re.finditer(pattern, code))
    if not found:
        return code
    match = rng.choice(found)
    return code[: match.start()] + rng.choice(among) + code[match.end() :]

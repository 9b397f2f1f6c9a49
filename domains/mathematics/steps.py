"""The code-augmented step: its markers, and how steps are read, rendered and compared.

Section 3.2 (code-augmented CoT data synthesis); docs/architecture.md, "A step, in bytes". The markers are those of the
reference code, byte for byte, so that its SFT and PPM data sets can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache

from domains.protocol import Part
from rstar.protocols import Step

CODE = "<code>"
END_OF_STEP = "<end_of_step>"
END_OF_CODE = "<end_of_code>"
OUTPUT = "<output>"
END_OF_OUTPUT = "<end_of_output>"
ANSWER = "<answer>"
END_OF_ANSWER = "<end_of_answer>"

STOP_STRINGS = (END_OF_STEP, END_OF_CODE, END_OF_ANSWER)
MARKERS = (CODE, *STOP_STRINGS, OUTPUT, END_OF_OUTPUT, ANSWER)

_ENDS = (END_OF_STEP, END_OF_CODE, END_OF_OUTPUT, END_OF_ANSWER)
BOUNDARY = re.compile("|".join([f"(?={re.escape(CODE)})", *(f"(?<={re.escape(end)})" for end in _ENDS)]))

_MARKER = re.compile("|".join(MARKERS))
_MARKER_GROUP = re.compile(f"({_MARKER.pattern})")  # splits a text into markers and the parts between them
_STOP = re.compile("|".join(STOP_STRINGS))
_OUTPUT_BLOCK = re.compile(rf"(?<={END_OF_CODE})\s*{OUTPUT}.*?{END_OF_OUTPUT}", re.DOTALL)
_STEP = re.compile(
    rf".*?(?:{END_OF_STEP}|{END_OF_ANSWER}|{END_OF_CODE}(?:\s*{OUTPUT}.*?{END_OF_OUTPUT})?)",
    re.DOTALL,
)
_BOXED = re.compile(r"\\boxed\s*\{")


class StepKind(StrEnum):
    """The kind of a step, given by its end marker."""

    CODE = "code"
    LAST_CODE = "last_code"
    ANSWER = "answer"


_KINDS = {END_OF_STEP: StepKind.CODE, END_OF_CODE: StepKind.LAST_CODE, END_OF_ANSWER: StepKind.ANSWER}


def read_step(text: str, prefix: Sequence[str]) -> Step:
    """Read a candidate step that follows the rendered steps of `prefix`."""
    kind = kind_of(text)
    if reason := _malformed(text, kind, _previous_kind(prefix[-1]) if prefix else None):
        return Step(kind, malformed=reason)
    if kind is StepKind.ANSWER:
        return Step(kind, answer=answer_of(text))
    return Step(kind, code=code_of(text), continues=kind is StepKind.CODE)


def kind_of(text: str) -> StepKind | None:
    """Return the kind of a step, rendered or not; None if it has no end marker."""
    body = text.rstrip()
    if body.endswith(END_OF_OUTPUT) and END_OF_CODE in body:
        return StepKind.LAST_CODE
    return _KINDS.get(body[body.rfind("<") :])


_previous_kind = lru_cache(maxsize=256)(kind_of)  # all candidates of a node follow the same step


def _malformed(text: str, kind: StepKind | None, previous: StepKind | None) -> str | None:
    """Return why `text` cannot follow a step of kind `previous`; None if it can."""
    if kind is None:
        return "the step has no end marker"
    if len(_STOP.findall(text)) > 1:
        return "the step goes on after its end marker"
    if OUTPUT in text or END_OF_OUTPUT in text:
        return "the step writes its own output"
    if kind is not StepKind.ANSWER:
        if previous in (StepKind.LAST_CODE, StepKind.ANSWER):
            return "code follows after the end of the code"
        first = previous is None
        # `code_of` returns only what follows the marker, so a second one would hide code from the executor.
        if text.lstrip().startswith(CODE) != first or text.count(CODE) != first:
            return f"the first step starts with {CODE}, and only the first"
        # If the newline after a comment is missing, the code is part of the comment. Such a step would run.
        return None if _has_code(code_of(text)) else "the step has no code"
    if previous is not StepKind.LAST_CODE:
        return "the answer comes before the end of the code"
    if not text.lstrip().startswith(ANSWER):
        return f"the answer does not start with {ANSWER}"
    return None if answer_of(text) is not None else "the answer has no \\boxed{...}"


def _has_code(body: str) -> bool:
    """Return whether a text has more than comments and blank lines."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in body.splitlines())


def code_of(text: str) -> str:
    """Return the Python code of a step, without its markers."""
    end = _STOP.search(text)
    body = text[: end.start()] if end else text
    _, marker, after = body.partition(CODE)
    return (after if marker else body).strip("\n")


def answer_of(text: str) -> str | None:
    r"""Return the content of the last balanced, non-empty \boxed{...}; None if there is none."""
    for match in reversed(list(_BOXED.finditer(text))):
        end = _closing_brace(text, match.end())
        if end is not None and (content := text[match.end() : end].strip()):
            return content
    return None


def _closing_brace(text: str, start: int) -> int | None:
    depth, index = 1, start
    while index < len(text):
        if text[index] == "\\":
            index += 1  # an escaped brace is part of the answer
        elif text[index] in "{}":
            depth += 1 if text[index] == "{" else -1
            if depth == 0:
                return index
        index += 1
    return None


def render(text: str, output: str) -> str:
    """Return the rendered step. After a last code step, that is the step and its output between output markers."""
    if kind_of(text) is not StepKind.LAST_CODE:
        return text
    printed = _MARKER.sub("", output).strip()  # a program may print markers, which would shift the loss mask
    return f"{text}\n{OUTPUT}{printed}{END_OF_OUTPUT}"


def parse_response(response: str) -> list[str]:
    """Split a whole response into rendered steps, which join to `response` byte for byte.

    Blank text after the last step belongs to that step. Other text there is a last, unfinished step.
    """
    steps = _STEP.findall(response)
    rest = response[sum(map(len, steps)) :]
    if rest and (rest.strip() or not steps):
        return [*steps, rest]
    if rest:
        steps[-1] += rest
    return steps


def output_spans(text: str) -> list[tuple[int, int]]:
    """Return the character spans of outputs, which the sandbox wrote: they are left out of the SFT loss."""
    return [match.span() for match in _OUTPUT_BLOCK.finditer(text)]


def normalized(text: str) -> str:
    """Return the text with normalised white space. Indentation is kept: in Python it is part of the program."""
    lines = "\n".join(_MARKER_GROUP.split(text)).splitlines()
    return "\n".join([_normalized_line(line) for line in lines if line and not line.isspace()])


def _normalized_line(line: str) -> str:
    words = " ".join(line.split())
    if line[0].isspace() and words not in MARKERS:
        return line[: len(line) - len(line.lstrip())] + words
    return words


def with_stop(text: str) -> str:
    """Add the end marker to a finished step, as its form requires.

    An answer ends with <end_of_answer>, code whose last line prints with <end_of_code>, other code with <end_of_step>.
    """
    if text.lstrip().startswith(ANSWER):
        return text + END_OF_ANSWER
    return text + (END_OF_CODE if text.strip().splitlines()[-1].startswith("print(") else END_OF_STEP)


def parts(steps: Iterable[str]) -> Iterator[tuple[Part, str]]:
    """Yield the code, output and answer of rendered steps, without markers."""
    for step in steps:
        if kind_of(step) is StepKind.ANSWER:
            yield "answer", step.replace(ANSWER, "").replace(END_OF_ANSWER, "").strip()
        elif code := code_of(step).strip():
            yield "code", code
        for start, end in output_spans(step):
            yield "output", step[start:end].strip().removeprefix(OUTPUT).removesuffix(END_OF_OUTPUT).strip()

"""Programs as a domain: a step adds lines to a program, and the program is right where its unit tests pass.

Not in the paper. The ground truth of a problem is the text of its unit tests, plain assertions about the program's
names. The judge runs the tests after the program in the sandbox. It answers "wrong" where they fail, whatever the
reason, a time limit included.
"""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from domains.protocol import Part
from rstar.protocols import Executor, Judge, Step, Verdict

END_OF_STEP, END_OF_PROGRAM = "<end_of_step>", "<end_of_program>"
_STOP = re.compile(f"{END_OF_STEP}|{END_OF_PROGRAM}")
_STEP = re.compile(rf".*?(?:{END_OF_STEP}|{END_OF_PROGRAM})", re.DOTALL)

INSTRUCTION = f"""\
Write a Python program that answers the task, a few lines at a time. End each part with {END_OF_STEP}; every part must \
run after the parts before it. End the last part with {END_OF_PROGRAM}."""
EXAMPLE = f"""\
Task: Write a function area(width, height) that returns the area of a rectangle.
def area(width, height):
    return width * height
{END_OF_STEP}
assert area(2, 3) == 6
{END_OF_PROGRAM}"""


class Programs:
    """A `domains.protocol.Domain`."""

    name = "programs"
    stop_strings = (END_OF_STEP, END_OF_PROGRAM)
    boundary = re.compile(f"(?<={END_OF_STEP})|(?<={END_OF_PROGRAM})")

    def read(self, text: str, prefix: Sequence[str]) -> Step:
        """Read a candidate: code that runs, and a final one whose answer is the whole program."""
        stops, code = _STOP.findall(text), self.code_of(text)
        kind = "last_lines" if END_OF_PROGRAM in stops else "lines"
        if len(stops) != 1 or not text.rstrip().endswith(stops[0]):
            return Step(None, malformed="the step does not end at its one end marker")
        if any(END_OF_PROGRAM in step for step in prefix):
            return Step(kind, malformed="the program has ended already")
        if not code.strip():
            return Step(kind, malformed="the step has no code")
        if kind == "lines":
            return Step(kind, code)
        return Step(kind, code, "\n".join([*map(self.code_of, prefix), code]), continues=False)

    def render(self, text: str, output: str) -> str:
        return text

    def code_of(self, text: str) -> str:
        return _STOP.split(text, maxsplit=1)[0].strip("\n")

    def normalized(self, text: str) -> str:
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())

    def prompt(self, question: str) -> str:
        return f"Task: {question}\n"

    def few_shot_prompt(self, question: str) -> str:
        return f"{INSTRUCTION}\n\n{EXAMPLE}\n\n{self.prompt(question)}"

    def split(self, response: str) -> list[str]:
        steps = _STEP.findall(response)
        rest = response[sum(map(len, steps)) :]
        return [*steps, rest] if rest else steps

    def output_spans(self, text: str) -> list[tuple[int, int]]:
        return []

    def with_stop(self, text: str) -> str:
        return text + END_OF_STEP

    def parts(self, steps: Iterable[str]) -> Iterator[tuple[Part, str]]:
        for step in steps:
            yield "code", self.code_of(step)

    def final_answer(self, text: str) -> str | None:
        return text.strip() or None

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Say of each text of unit tests whether it is Python."""
        return [_is_python(answer) for answer in answers]

    @asynccontextmanager
    async def judge(self, executor: Executor) -> AsyncIterator[Judge]:
        yield UnitTests(executor)


class UnitTests:
    """A Judge that runs the unit tests after the program."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def correct(self, answer: str, truth: str) -> bool:
        execution = await self._executor.run(None, f"{answer}\n{truth}")
        if execution.checkpoint is not None:
            await self._executor.release(execution.checkpoint)
        return execution.verdict is Verdict.OK

    async def equivalent(self, answer: str, other: str) -> bool:
        return answer.strip() == other.strip()


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(text.strip())


DOMAIN = Programs()

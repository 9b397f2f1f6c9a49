"""Programs as a domain: each step adds lines to a program, which is correct if its unit tests pass.

Not in the paper. The ground truth of a problem is the text of its unit tests: assertions about the names that the
program defines. The judge runs them after the program in the sandbox. A program whose tests fail for any reason,
including a time limit, is wrong.
"""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from domains.protocol import Part
from rstar.protocols import Executor, Judge, Step, UserError, Verdict

PROGRAM, END_OF_STEP, END_OF_PROGRAM = "<program>", "<end_of_step>", "<end_of_program>"
_STOP = re.compile(f"{END_OF_STEP}|{END_OF_PROGRAM}")
_STEP = re.compile(rf".*?(?:{END_OF_STEP}|{END_OF_PROGRAM})", re.DOTALL)

INSTRUCTION = f"""\
Write a Python program that answers the task, a few lines at a time. End each part with {END_OF_STEP}; every part must \
run after the parts before it. End the last part with {END_OF_PROGRAM}."""
EXAMPLE = f"""\
Task: Write a function area(width, height) that returns the area of a rectangle.
{PROGRAM}
def area(width, height):
    return width * height
{END_OF_STEP}
assert area(2, 3) == 6
{END_OF_PROGRAM}"""


class Programs:
    """The domain of programs; its methods are those of `domains.protocol.Domain`."""

    name = "programs"
    stop_strings = (END_OF_STEP, END_OF_PROGRAM)
    boundary = re.compile("|".join(f"(?<={marker})" for marker in (PROGRAM, END_OF_STEP, END_OF_PROGRAM)))

    def read(self, text: str, prefix: Sequence[str]) -> Step:
        """Read a candidate. The answer of the final step is the whole program."""
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
        """Return the step as it is: outputs are not shown."""
        return text

    def code_of(self, text: str) -> str:
        """Return the text before the end marker."""
        return _STOP.split(text, maxsplit=1)[0].strip("\n")

    def normalized(self, text: str) -> str:
        """Return the text without blank lines and white space at the ends of lines."""
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())

    def prompt(self, question: str) -> str:
        """Return the task without instructions."""
        return f"Task: {question}\n{PROGRAM}"

    def few_shot_prompt(self, question: str) -> str:
        """Return the instructions, one worked example and the task."""
        return f"{INSTRUCTION}\n\n{EXAMPLE}\n\n{self.prompt(question)}"

    def split(self, response: str) -> list[str]:
        """Split a response into its steps; blank text after the last one belongs to it."""
        steps = _STEP.findall(response)
        rest = response[sum(map(len, steps)) :]
        if rest and not rest.strip() and steps:
            steps[-1] += rest
        elif rest:
            steps.append(rest)
        return steps

    def output_spans(self, text: str) -> list[tuple[int, int]]:
        """Return no spans: rendered steps hold no outputs."""
        return []

    def with_stop(self, text: str) -> str:
        """Raise UserError: the text does not show whether the step or the program ended."""
        raise UserError(
            "the endpoint does not say at which marker it stopped, so nobody knows where a program ends; "
            "use engine.kind = vllm, or a server that gives stop_reason"
        )

    def parts(self, steps: Iterable[str]) -> Iterator[tuple[Part, str]]:
        """Yield the code of each step."""
        for step in steps:
            yield "code", self.code_of(step)

    def ground_truth(self, field: str) -> str:
        """Return the unit tests as they are."""
        return field

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Return for each text of unit tests whether it is valid Python."""
        return [_is_python(tests) for tests in answers]

    @asynccontextmanager
    async def judge(self, executor: Executor) -> AsyncIterator[Judge]:
        """Open a judge that runs unit tests in `executor`."""
        yield UnitTests(executor)


class UnitTests:
    """A judge that runs the unit tests of a problem after a program."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def correct(self, answer: str, truth: str) -> bool:
        """Return whether the unit tests `truth` pass after the program `answer`."""
        execution = await self._executor.run(None, f"{answer}\n{truth}")
        if execution.checkpoint is not None:
            await self._executor.release(execution.checkpoint)
        return execution.verdict is Verdict.OK

    async def equivalent(self, answer: str, other: str) -> bool:
        """Return whether two programs have the same text."""
        return answer.strip() == other.strip()


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(text.strip())


DOMAIN = Programs()

"""The rule-based writer of code-augmented steps: the bootstrap policy for the built-in families.

Stands in for the paper's 236B model (Section 3.4, round 1: DeepSeek-Coder-V2-Instruct). It reads a question sentence by
sentence, and its mistakes have two sources. A sentence that it *misreads* is wrong in nearly every sample, so that some
problems stay unsolved however often one samples. *Slips* are drawn anew for each sample, and are more frequent after an
earlier mistake. The rates make round 1 cover about as much of each level as in the paper's Table 2 (paper: 97 / 67 /
21 %; here: 97 / 70 / 14 %).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from domains.mathematics import steps as fmt
from miniature.families.sentences import read, wrong_operation
from miniature.families.stories import UNDO, PlanStep, read_story
from miniature.steps import write_answer, write_step
from rstar.protocols import Proposal, UserError

MISREAD = {"plain": 0.007, "hard": 0.04, "reversed": 0.055}
USUAL_LENGTH, LENGTH_POWER = 5, 3.5  # a plan of twice the usual length is misread 2 ** LENGTH_POWER times as often
HARD_KINDS = frozenset({"drop", "rise", "rest", "cut", "spend", "fold", "more", "less", "give", "pool", "deal"})
SLIP = 0.12
SLIP_AFTER_ERROR = 0.25
MISREAD_PERSISTS = 0.98
MISTAKES = ("operation", "number", "skip", "crash")
WEIGHTS = (40, 28, 22, 10)


@dataclass(frozen=True, slots=True)
class BootstrapPolicy:
    """A Policy for problems of the built-in families; raises UserError for any other question."""

    seed: int = 0
    misread: dict[str, float] = field(default_factory=lambda: dict(MISREAD))
    slip: float = SLIP

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Write candidates. There is no tokenizer: `num_tokens` counts words."""
        if prefix and fmt.kind_of(prefix[-1]) is fmt.StepKind.LAST_CODE:
            _, _, output = prefix[-1].partition(fmt.OUTPUT)
            texts = [write_answer(output.removesuffix(fmt.END_OF_OUTPUT))] * num_candidates
        else:
            texts = [self._write(question, prefix, random.Random(f"{seed}-{i}")) for i in range(num_candidates)]
        return [Proposal(text, num_tokens=len(text.split())) for text in texts]

    def _write(self, question: str, prefix: Sequence[str], rng: random.Random) -> str:
        plan = _plan(question)
        at = _progress(plan, prefix)
        mistake = self._mistake(question, plan, at, _erred(plan, prefix), rng)
        if mistake == "skip" and at < len(plan) - 1:
            at += 1
        step = plan[at]
        code = step.code
        if mistake == "operation":
            code = wrong_operation(code) if step.counts else _worked_in(step)
        elif mistake == "number":
            code = _swap_number(code, question, rng)
        elif mistake == "crash":
            code = code.replace(" = ", " = total_", 1) if " = " in code else code + ")"
        return write_step(step.comment, code, first=not prefix, last=at == len(plan) - 1)

    def _mistake(self, question: str, plan: Sequence[PlanStep], at: int, erred: bool, rng: random.Random) -> str | None:
        """Draw the mistake in one sample of a planned step; None for no mistake."""
        step = plan[at]
        factor = (len(plan) / USUAL_LENGTH) ** LENGTH_POWER
        if self._misreads(question, step, factor) and rng.random() < MISREAD_PERSISTS:
            return random.Random(f"{self.seed}-{question}-{step.comment}").choices(MISTAKES, WEIGHTS)[0]
        if rng.random() < (SLIP_AFTER_ERROR if erred else self.slip):
            return rng.choices(MISTAKES, WEIGHTS)[0]
        return None

    def _misreads(self, question: str, step: PlanStep, factor: float) -> bool:
        """Whether this writer misreads this sentence of this problem: the same in every sample."""
        event = read(step.comment.removeprefix(UNDO))
        assert event is not None
        kind = "reversed" if event.before else "hard" if event.kind in HARD_KINDS else "plain"
        digest = hashlib.blake2b(f"{self.seed}-{question}-{step.comment}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self.misread[kind] * factor


def _plan(question: str) -> list[PlanStep]:
    story = read_story(question)
    if story is None:
        raise UserError(
            f"the bootstrap policy only reads the built-in families, not {question[:60]!r}; "
            "name a Hugging Face model in the recipe for other problems"
        )
    return story.plan()


def _comment(text: str) -> str:
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), "")


def _erred(plan: Sequence[PlanStep], prefix: Sequence[str]) -> bool:
    """Whether a step of the prefix has a comment or code that the plan does not have."""
    comments = {step.comment for step in plan}
    codes = {step.code.strip() for step in plan}
    return any(_comment(text) not in comments or _bare_code(text) not in codes for text in prefix)


def _bare_code(text: str) -> str:
    lines = fmt.code_of(text).splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#")).strip()


def _progress(plan: Sequence[PlanStep], prefix: Sequence[str]) -> int:
    """Return the position of the planned step after the last one that the prefix restates."""
    position = {step.comment: i for i, step in enumerate(plan)}
    done = [position[_comment(text)] for text in prefix if _comment(text) in position]
    return min(done[-1] + 1, len(plan) - 1) if done else 0


def _worked_in(step: PlanStep) -> str:
    """Return code that adds a distractor's number to the quantity of its person."""
    event = read(step.comment)
    assert event is not None
    return f"{event.actor.lower()} = {event.actor.lower()} + {event.n}"


def _swap_number(code: str, question: str, rng: random.Random) -> str:
    """Put another number of the question in the place of one in the code."""
    numbers = [word.strip(".,?") for word in question.split() if word.strip(".,?").isdigit()]
    told = [n for n in numbers if re.search(rf"\b{n}\b", code)]
    if not told:
        return code
    old = rng.choice(told)
    return re.sub(rf"\b{old}\b", rng.choice([n for n in numbers if n != old] or [str(int(old) + 1)]), code)

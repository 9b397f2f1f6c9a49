"""The rule-based writer of code-augmented steps that bootstraps round 1 on the built-in families.

Stands in for the paper's 236B model (Section 3.4, round 1: DeepSeek-Coder-V2-Instruct): it reads a question sentence by
sentence, and makes human kinds of mistakes at the rates below. Two sources: a sentence that it *misreads* it gets wrong
nearly every time it sees it (so some problems stay out of reach however often one samples), and *slips* strike anew at
each sample, more often once something has gone wrong. A distractor's operation is mistaken by working its number into
the answer; a wrong number or a skip there does no harm. The rates are tuned so that round 1 covers about as much of
each level as the paper's Table 2 says (97 / 67 / 21 %; reached: 97 / 70 / 14 %).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from domains.mathematics import steps as fmt
from miniature.families.sentences import read, wrong_operation
from miniature.families.stories import UNDO, PlanStep, read_story, write_answer, write_step
from rstar.protocols import Proposal, UserError

MISREAD = {"plain": 0.007, "hard": 0.04, "reversed": 0.055}
USUAL_LENGTH, LENGTH_POWER = 5, 3.5  # of plans; in one twice as long it misreads 2 ** LENGTH_POWER times as often
HARD_KINDS = frozenset({"drop", "rise", "rest", "cut", "spend", "fold", "more", "less", "give", "pool", "deal"})
SLIP = 0.12
SLIP_AFTER_ERROR = 0.25
MISREAD_PERSISTS = 0.98
MISTAKES = ("operation", "number", "skip", "crash")
WEIGHTS = (40, 28, 22, 10)


@dataclass(frozen=True, slots=True)
class BootstrapPolicy:
    """A Policy for problems of the built-in families; any other question is a UserError."""

    seed: int = 0
    misread: dict[str, float] = field(default_factory=lambda: dict(MISREAD))
    slip: float = SLIP

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Write candidates; tokens are counted as words, for want of a tokenizer."""
        if prefix and fmt.kind_of(prefix[-1]) is fmt.StepKind.LAST_CODE:
            _, _, output = prefix[-1].partition(fmt.OUTPUT)
            texts = [write_answer(output.removesuffix(fmt.END_OF_OUTPUT))] * num_candidates
        else:
            texts = [self._write(question, prefix, random.Random(f"{seed}-{i}")) for i in range(num_candidates)]
        return [Proposal(text, num_tokens=len(text.split())) for text in texts]

    def _write(self, question: str, prefix: Sequence[str], rng: random.Random) -> str:
        story = read_story(question)
        if story is None:
            raise UserError(
                f"the bootstrap policy only reads the built-in families, not {question[:60]!r}; "
                "name a Hugging Face model in the recipe for other problems"
            )
        plan = story.plan()
        at = _progress(plan, prefix)
        step = plan[at]
        erred = any(_comment(text) not in {p.comment for p in plan} or not _as_planned(plan, text) for text in prefix)
        mistake = None
        factor = (len(plan) / USUAL_LENGTH) ** LENGTH_POWER
        if self._misreads(question, step, factor) and rng.random() < MISREAD_PERSISTS:
            mistake = random.Random(f"{self.seed}-{question}-{step.comment}").choices(MISTAKES, WEIGHTS)[0]
        elif rng.random() < (SLIP_AFTER_ERROR if erred else self.slip):
            mistake = rng.choices(MISTAKES, WEIGHTS)[0]
        last = at == len(plan) - 1
        if mistake == "skip" and not last:
            step, last = plan[at + 1], at + 1 == len(plan) - 1
        code = step.code
        if mistake == "operation":
            code = wrong_operation(code) if step.counts else _worked_in(step)
        elif mistake == "number":
            code = _swap_number(code, question, rng)
        elif mistake == "crash":
            code = code.replace(" = ", " = total_", 1) if " = " in code else code + ")"
        return write_step(step.comment, code, first=not prefix, last=last)

    def _misreads(self, question: str, step: PlanStep, factor: float) -> bool:
        """Whether this writer misreads this sentence of this problem, once and for all."""
        event = read(step.comment.removeprefix(UNDO))
        assert event is not None
        kind = "reversed" if event.before else "hard" if event.kind in HARD_KINDS else "plain"
        digest = hashlib.blake2b(f"{self.seed}-{question}-{step.comment}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self.misread[kind] * factor


def _comment(text: str) -> str:
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), "")


def _as_planned(plan: Sequence[PlanStep], text: str) -> bool:
    code = "\n".join(line for line in fmt.code_of(text).splitlines() if line and not line.startswith("#"))
    return any(code.strip() == step.code.strip() for step in plan)


def _progress(plan: Sequence[PlanStep], prefix: Sequence[str]) -> int:
    """The planned step that comes after the last one that the prefix restates."""
    position = {step.comment: i for i, step in enumerate(plan)}
    done = [position[_comment(text)] for text in prefix if _comment(text) in position]
    return min(done[-1] + 1, len(plan) - 1) if done else 0


def _worked_in(step: PlanStep) -> str:
    """Work the number of a sentence that does not count into the quantity of its person."""
    event = read(step.comment)
    assert event is not None
    return f"{event.actor.lower()} = {event.actor.lower()} + {event.n}"


def _swap_number(code: str, question: str, rng: random.Random) -> str:
    numbers = [word.strip(".,?") for word in question.split() if word.strip(".,?").isdigit()]
    told = [n for n in numbers if re.search(rf"\b{n}\b", code)]
    if not told:
        return code
    old = rng.choice(told)
    return re.sub(rf"\b{old}\b", rng.choice([n for n in numbers if n != old] or [str(int(old) + 1)]), code)

"""Mathematics as a domain: problems with a final answer, solved by Python programs written step by step.

Section 3.2 (code-augmented CoT data synthesis) and Appendix A.3 (prompts).
"""

from __future__ import annotations

from collections.abc import Sequence

from domains.mathematics import prompts, steps
from domains.mathematics.grading.judge import MathJudge
from rstar.protocols import Executor


class Mathematics:
    """The domain of mathematics; its methods are those of `domains.protocol.Domain`."""

    name = "mathematics"
    stop_strings = steps.STOP_STRINGS
    boundary = steps.BOUNDARY

    read = staticmethod(steps.read_step)
    render = staticmethod(steps.render)
    code_of = staticmethod(steps.code_of)
    normalized = staticmethod(steps.normalized)
    split = staticmethod(steps.parse_response)
    output_spans = staticmethod(steps.output_spans)
    with_stop = staticmethod(steps.with_stop)
    parts = staticmethod(steps.parts)
    prompt = staticmethod(prompts.render_prompt)
    few_shot_prompt = staticmethod(prompts.render_few_shot)

    def ground_truth(self, field: str) -> str:
        """Return what follows the last "####", which ends a worked solution in GSM8K's form; without one, all."""
        return field.rpartition("####")[2]

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Return for each ground truth whether answers can be compared with it. Blocks."""
        judge = MathJudge()
        try:
            return judge.readable(answers)
        finally:
            judge.close()

    def judge(self, executor: Executor) -> MathJudge:
        """Return a new judge, which needs no executor."""
        return MathJudge()


DOMAIN = Mathematics()

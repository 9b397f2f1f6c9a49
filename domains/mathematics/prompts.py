"""The prompts: zero-shot for a fine-tuned policy, few-shot for the bootstrap model.

Appendix A.3. The zero-shot prompt is the same bytes in training, search and scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION = """\
Solve the question by writing one Python program, step by step. Each step is a comment in plain language followed by \
the code that carries it out, and ends with <end_of_step>; every step must run after the steps before it. The last \
step prints the final answer and ends with <end_of_code>. After the output, state the answer in \\boxed{} and end with \
<end_of_answer>."""


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """A question and a whole response, for the few-shot prompt."""

    question: str
    response: str

    def __str__(self) -> str:
        return f"Question: {self.question}\n{self.response}"


WORKED_EXAMPLES = (
    WorkedExample(
        "A bakery packs 18 rolls in each of 7 bags and sells 5 bags in the morning. How many rolls are left?",
        "<code>\n# Step 1: Calculate how many bags are left after the morning\nbags_left = 7 - 5\n<end_of_step>\n\n"
        "# Step 2: Calculate the number of rolls in those bags\nrolls_left = bags_left * 18\n<end_of_step>\n\n"
        "# Now print the final answer\nprint(rolls_left)\n<end_of_code>\n<output>36<end_of_output>\n"
        "<answer>From the result, we can see that \\boxed{36} rolls are left.\n<end_of_answer>",
    ),
    WorkedExample(
        "For which positive value of $x$ is $\\frac{x^2 - 1}{3x} = \\frac{1}{2}$? Give your answer as a fraction or "
        "an integer.",
        "<code>\nfrom sympy import Eq, Rational, solve, symbols\n\n# Step 1: Define the positive unknown x\n"
        "x = symbols('x', positive=True)\n<end_of_step>\n\n# Step 2: Write down the equation\n"
        "equation = Eq((x**2 - 1) / (3 * x), Rational(1, 2))\n<end_of_step>\n\n"
        "# Step 3: Solve the equation for x\nsolution = solve(equation, x)\n<end_of_step>\n\n"
        "# Now print the final answer\nprint(solution)\n<end_of_code>\n<output>[2]<end_of_output>\n"
        "<answer>From the result, we can see that the value of x is \\boxed{2}.\n<end_of_answer>",
    ),
)


def render_prompt(question: str) -> str:
    """Return the zero-shot prompt. The <code> of the first step follows it without a newline."""
    return f"<|user|>:\n{question}\n<|assistant|>: Let's think step by step and solve the problem with code."


def render_few_shot(question: str) -> str:
    """Return the few-shot prompt: an instruction, worked examples and the question. <code> follows it."""
    return "\n\n".join([INSTRUCTION, *map(str, WORKED_EXAMPLES), f"Question: {question}\n"])

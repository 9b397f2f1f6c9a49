"""The way in to the generated problems: make them, vary them, and tell the wrong steps of a trajectory.

Stands in for the paper's problem set and its synthesis (Section 4.1), which need real models.
"""

from miniature.families.generator import GeneratedProblem, generate, vary
from miniature.families.levels import LEVELS
from miniature.families.stories import Split, solution
from miniature.families.truth import Truth, wrong_steps

LEVEL_NAMES = tuple(LEVELS)

__all__ = ["LEVEL_NAMES", "GeneratedProblem", "Split", "Truth", "generate", "solution", "vary", "wrong_steps"]

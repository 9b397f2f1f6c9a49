"""The paper's own figures, to stand beside a run's; all in per cent.

arXiv 2501.04519, Qwen2.5-Math-7B, rounds 1 to 4 (round 0: the base model). Its problems and models are far larger
than a demo's: the shape of the curves is what can be compared.
"""

from __future__ import annotations

#: Table 2, by level and round.
COVERAGE: dict[str, dict[int, float]] = {
    "all": {1: 60.17, 2: 66.60, 3: 77.86, 4: 90.25},
    "gsm": {1: 96.61, 2: 97.88, 3: 98.15, 4: 98.15},
    "math": {1: 67.36, 2: 67.40, 3: 88.69, 4: 94.53},
    "olympiad": {1: 20.99, 2: 56.04, 3: 62.16, 4: 80.58},
}

#: Table 3, on MATH.
PASS_AT_1: dict[int, float] = {0: 58.8, 1: 69.6, 2: 73.6, 3: 75.8, 4: 78.4}

#: Table 6, the whole system on MATH; with 64 trajectories 90.0.
SYSTEM: dict[int, float] = {1: 75.2, 2: 86.6, 3: 87.0, 4: 89.4}

#: Table 7, pass@1 on MATH after SFT on trajectories chosen in this way.
SFT_CHOICE: dict[str, float] = {"random": 72.4, "rejection": 73.4, "verified": 78.4}

#: Table 8, the system on MATH with each kind of reward model.
REWARD_MODEL: dict[str, float] = {"ORM": 82.6, "PQM": 88.2, "PPM": 89.4}

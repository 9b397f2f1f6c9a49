"""The paper's own figures, shown beside a run's; in per cent unless said otherwise.

arXiv 2501.04519, Qwen2.5-Math-7B, rounds 1 to 4 (round 0: the base model), on MATH unless said otherwise. Its
problems and models are far larger than a demo's, so compare the shape of the curves. `paper_tables.json` has all of
its tables.
"""

from __future__ import annotations

import json
from pathlib import Path

_TABLES = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))


def _column(table: str, name: str = "MATH") -> dict[str, float]:
    """One column of a table, by the name of the row."""
    place = _TABLES[table]["columns"].index(name)
    return {row["name"]: row["values"][place] for row in _TABLES[table]["rows"]}


def _by_round(figures: dict[str, float], row: str) -> dict[int, float]:
    return {number: figures[f"{row}{number}"] for number in range(1, 5)}


#: Table 2, by level and round.
COVERAGE: dict[str, dict[int, float]] = {
    level: _by_round(_column("table2", column), "round ")
    for level, column in {"all": "all", "gsm": "GSM-level", "math": "MATH-level", "olympiad": "Olympiad-level"}.items()
}

#: Table 3, the policy alone.
PASS_AT_1: dict[int, float] = {
    0: _column("table3")["base, Qwen2.5-Math-7B"],
    **_by_round(_column("table3"), "policy SLM-r"),
}

#: Table 6, the whole system.
SYSTEM: dict[int, float] = _by_round(_column("table6"), "round ")

#: Table 5, the whole system of round 4 with 64 trajectories.
SYSTEM_64: float = _column("table5")["rStar-Math (7B SLM + 7B PPM), 64"]

#: Table 7, pass@1 after SFT on trajectories chosen in this way.
SFT_CHOICE: dict[str, float] = {
    "random": _column("table7")["random sample of policy SLM-r3"],
    "rejection": _column("table7")["rejection sampling of policy SLM-r3"],
    "verified": _column("table7")["step-by-step verified"],
}

#: Table 8, the whole system with each kind of reward model.
REWARD_MODEL: dict[str, float] = {kind: _column("table8")[kind] for kind in ("ORM", "PQM", "PPM")}

#: Table 9, generated tokens for one trajectory.
TOKENS: int = int(_column("table9")["tokens"])

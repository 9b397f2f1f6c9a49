"""The claims about the demo, as means over several seeds, and whether each holds.

    python -m bench.demo_seeds [--seeds 0 1 2] [--out runs/seeds] [--set KEY=VALUE ...]

Finished runs are only read. Prints Markdown for docs/results.md. The exit code is 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from report import charts
from report.section import Chart, Series, round_names
from store import catalog
from store import questions as queries

LEVELS = ("gsm", "math", "olympiad", "all")


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run, in percent, by (round, level) or by round."""

    coverage: dict[tuple[int, str], float]
    pass_at_1: dict[tuple[int, str], float]
    ppm_pairs: dict[int, float]
    systems: dict[tuple[int, str], float]  # (round, metric), all levels
    wrong_steps: dict[tuple[int, str], float]  # (round, choice)
    minutes: float  # of its phases
    peak_gib: float


def read_run(root: str) -> Figures:
    con = catalog.open_catalog(root)

    def rows(name: str) -> list[dict[str, object]]:
        return queries.run(con, name).to_dicts()

    cost = rows("cost")
    return Figures(
        coverage={(r["round"], r["level"]): r["coverage"] for r in rows("coverage")},
        pass_at_1={(r["round"], r["level"]): r["accuracy"] for r in rows("pass_at_1")},
        ppm_pairs={r["round"]: r["accuracy"] for r in rows("ppm_pairs")},
        systems={(r["round"], r["metric"]): r["accuracy"] for r in rows("accuracy") if r["level"] == "all"},
        wrong_steps={(r["round"], r["choice"]): r["share"] for r in rows("wrong_steps")},
        minutes=sum(r["seconds"] for r in cost) / 60,
        peak_gib=max(r["peak_memory_bytes"] for r in cost) / 2**30,
    )


def claims(runs: list[Figures]) -> list[tuple[str, float, bool]]:
    """Return each claim with its figure and whether it holds."""
    last = max(round for round, _ in runs[0].coverage)

    def at(table: str, key: object) -> float:
        return mean(getattr(run, table)[key] for run in runs)

    policy = [at("pass_at_1", (r, "all")) for r in range(1, last + 1)]
    drop = max(before - after for before, after in pairwise(policy))
    pairs = [at("ppm_pairs", r) for r in range(1, last + 1)]
    rise = min(after - before for before, after in pairwise(pairs))
    olympiad = at("coverage", (last, "olympiad")) - at("coverage", (1, "olympiad"))
    over_policy = at("systems", (last, "system")) - at("systems", (last, "pass@1"))
    over_majority = at("systems", (last, "system")) - at("systems", (last, "majority"))
    return [
        ("olympiad coverage, last round minus first (>= 30)", olympiad, olympiad >= 30),
        ("policy pass@1, last round minus first (>= 15)", policy[-1] - policy[0], policy[-1] - policy[0] >= 15),
        ("largest drop of pass@1 between rounds (<= 2)", drop, drop <= 2),
        ("search with the PPM minus the policy alone (>= 10)", over_policy, over_policy >= 10),
        ("search with the PPM minus majority voting (>= 3)", over_majority, over_majority >= 3),
        ("smallest rise of the PPM's pair accuracy between rounds (> 0)", rise, rise > 0),
    ]


def table(runs: list[Figures]) -> list[str]:
    last = max(round for round, _ in runs[0].coverage)
    columns = ["round", *(f"coverage {level}" for level in LEVELS), "pass@1", "majority", "system", "PPM pairs"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for round in range(last + 1):
        cells = [cell(runs, "coverage", (round, level)) for level in LEVELS]
        cells.append(cell(runs, "pass_at_1", (round, "all")))
        cells += [cell(runs, "systems", (round, metric)) for metric in ("majority", "system")]
        cells.append(cell(runs, "ppm_pairs", round))
        lines.append(f"| {round} | " + " | ".join(cells) + " |")
    return lines


def picture(runs: list[Figures]) -> str:
    """Return docs/demo.svg: coverage and accuracy by round."""
    last = max(round for round, _ in runs[0].coverage)

    def line(name: str, table: str, key: Callable[[int], object], colour: int) -> Series:
        cells = [cell(runs, table, key(round)) for round in range(last + 1)]
        return Series(name, [float(text) if text else None for text in cells], colour)

    series = [
        line("coverage, olympiad level", "coverage", lambda round: (round, "olympiad"), 1),
        line("policy alone, held-out problems", "pass_at_1", lambda round: (round, "all"), 0),
        line("search with the PPM", "systems", lambda round: (round, "system"), 2),
        line("majority voting, equal tokens", "systems", lambda round: (round, "majority"), 3),
        line("PPM on held-out pairs of steps", "ppm_pairs", lambda round: round, 4),
    ]
    return charts.svg(Chart("The demo by round", round_names(range(last + 1)), series, top=100))


def cell(runs: list[Figures], table: str, key: object) -> str:
    """Return the mean of a figure; empty unless every run has it."""
    values = [getattr(run, table)[key] for run in runs if key in getattr(run, table)]
    return f"{mean(values):.1f}" if len(values) == len(runs) else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="runs/seeds", help="folder for the runs")
    parser.add_argument("--picture", help="write the chart to this SVG file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    options = parser.parse_args()
    roots, walls = [str(Path(options.out) / f"seed-{seed}") for seed in options.seeds], []
    for seed, root in zip(options.seeds, roots, strict=True):
        command = [sys.executable, "-m", "cli.main", "demo", "--seed", str(seed), "--out", root]
        began = time.monotonic()
        subprocess.run([*command, *(part for key in options.set for part in ("--set", key))], check=True)
        walls.append((time.monotonic() - began) / 60)
    runs = [read_run(root) for root in roots]
    print("\n".join(table(runs)))
    if options.picture:
        Path(options.picture).write_text(picture(runs))
    choices = ("every correct", "random", "rejection", "verified")
    for choice in choices:
        shares = [run.wrong_steps[1, choice] for run in runs if (1, choice) in run.wrong_steps]
        print(f"\nright answers with a wrong step, round 1, {choice}: {mean(shares):.1f} %" if shares else "", end="")
    peak = max(run.peak_gib for run in runs)
    phases = ", ".join(f"{run.minutes:.1f}" for run in runs)
    commands = ", ".join(f"{wall:.1f}" for wall in walls)  # short for a finished run
    print(f"\n\nminutes of the phases: {phases}; of the commands: {commands}; peak memory {peak:.1f} GiB\n")
    print("| claim (mean of the seeds) | figure | holds |\n|---|---|---|")
    results = claims(runs)
    for text, figure, holds in results:
        print(f"| {text} | {figure:.1f} | {'yes' if holds else 'NO'} |")
    return 0 if all(holds for *_, holds in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Determinism: the same command twice, and the trees of a trained tiny policy with 1 shard and with 7.

    python -m bench.determinism [--out runs/determinism] [--problems 40]

Prints Markdown for docs/results.md. The exit code is 1 if the same command gives different tables, or if fewer than
99.9 % of the trees are equal with 1 and 7 shards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa

from store import shards
from store.layout import Run

TABLES = ("nodes", "trajectories", "sft", "pairs", "evaluations")


def run(root: Path, *, shards: int, problems: int) -> Path:
    train = f"problems.train={{gsm = {problems}, math = {problems}, olympiad = {problems}}}"
    command = [sys.executable, "-m", "cli.main", "demo", "--recipe", "smoke", "--out", str(root)]
    overrides = [train, f"run.shards={shards}", "sft.epochs=3", "rounds.2.num_rollouts=4", "rounds.2.num_candidates=4"]
    subprocess.run([*command, *(part for key in overrides for part in ("--set", key))], check=True)
    return root


def table(root: Path, name: str) -> pa.Table:
    """Return a whole table of a run, sorted by key, without the columns about timing and placement."""
    return shards.comparable(pa.concat_tables(shards.read_table(url, name) for url in Run(root).files(name)), name)


def equal_trees(one: Path, other: Path) -> tuple[int, int]:
    """Return how many trees of the last round are equal in both runs, and the number of trees."""
    left, right = (
        {key: rows.drop("model", "recipe") for key, rows in trees.group_by("problem_id", "tree", maintain_order=True)}
        for trees in (pl.from_arrow(table(root, "nodes")).filter(pl.col("round") == 2) for root in (one, other))
    )
    return sum(key in right and left[key].equals(right[key]) for key in left), max(len(left), len(right))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/determinism", help="folder for the three runs")
    parser.add_argument("--problems", type=int, default=40, help="training problems of each level")
    options = parser.parse_args()
    out = Path(options.out)
    first, again = (run(out / name, shards=1, problems=options.problems) for name in ("first", "again"))
    seven = run(out / "seven", shards=7, problems=options.problems)
    print("| compared | equal |\n|---|---|")
    same = True
    for name in TABLES:
        equal = table(first, name).equals(table(again, name))
        same &= equal
        print(f"| table {name}, the same command twice | {'yes' if equal else 'NO'} |")
    equal, total = equal_trees(first, seven)
    print(f"| trees, 1 shard and 7 | {equal} of {total} ({100 * equal / total:.2f} %) |")
    return 0 if same and equal >= 0.999 * total else 1


if __name__ == "__main__":
    sys.exit(main())

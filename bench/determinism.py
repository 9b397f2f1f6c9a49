"""The same command twice, and 1 shard against 7: which trees of a round searched by a trained tiny policy differ?

    python -m bench.determinism [--out runs/determinism] [--problems 40]

Prints Markdown, for docs/results.md; exits 1 where two equal commands differ, or fewer than 99.9 % of the trees of
1 and 7 shards are equal.
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
    """A whole table of a run without timing and placement, rows by key."""
    return shards.comparable(pa.concat_tables(shards.read_table(url, name) for url in Run(root).files(name)), name)


def equal_trees(one: Path, other: Path) -> tuple[int, int]:
    """How many of the last round's trees are equal, row for row, and of how many."""
    left, right = (
        {key: rows.drop("model", "recipe") for key, rows in trees.group_by("problem_id", "tree", maintain_order=True)}
        for trees in (pl.from_arrow(table(root, "nodes")).filter(pl.col("round") == 2) for root in (one, other))
    )
    return sum(key in right and left[key].equals(right[key]) for key in left), max(len(left), len(right))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/determinism")
    parser.add_argument("--problems", type=int, default=40, help="of each level")
    options = parser.parse_args()
    out = Path(options.out)
    first, again = (run(out / name, shards=1, problems=options.problems) for name in ("first", "again"))
    cut = run(out / "seven", shards=7, problems=options.problems)
    print("| compared | equal |\n|---|---|")
    same = True
    for name in TABLES:
        equal = table(first, name).equals(table(again, name))
        same &= equal
        print(f"| the same command twice, table {name} | {'yes' if equal else 'NO'} |")
    equal, total = equal_trees(first, cut)
    print(f"| trees of 1 and 7 shards | {equal} of {total} ({100 * equal / total:.2f} %) |")
    return 0 if same and equal >= 0.999 * total else 1


if __name__ == "__main__":
    sys.exit(main())

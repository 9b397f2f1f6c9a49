"""Agreement of the judge with labelled answer pairs, by source and kind, and every disagreement.

    python -m bench.grading answer_pairs.jsonl.gz

Rows are {id, prediction, gold, equal, kind, settings}. The labels follow the conventions of the libraries they come
from: options by letter, percentages by value, precision as a setting. So full agreement is not the target; false
positives are the bug.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from domains.mathematics.grading.judge import MathJudge


def read(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


def table(counts: Counter[tuple[str, str]], kinds: list[str]) -> str:
    lines = [f"{'source':24} {'kind':8} {'agree':>9}  false positives  false negatives"]
    for kind in kinds:
        right, positive, negative = (counts[kind, what] for what in ("right", "positive", "negative"))
        total = right + positive + negative
        lines.append(f"{kind:33} {right:4}/{total:<4}  {positive:15}  {negative:15}")
    return "\n".join(lines)


async def measure(rows: list[dict[str, Any]]) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    started = time.perf_counter()
    async with MathJudge() as judge:
        verdicts = await asyncio.gather(*(judge.equivalent(str(r["gold"]), str(r["prediction"])) for r in rows))
        seconds = time.perf_counter() - started
    for row, verdict in zip(rows, verdicts, strict=True):
        what = "right" if verdict == row["equal"] else "positive" if verdict else "negative"
        for kind in (f"{row['id'].rsplit('-', 1)[0]:24} {row['kind']}", "all"):
            counts[kind, what] += 1
        if what != "right":
            print(f"false {what}: {row['id']}: {row['prediction'][-70:]!r} against {str(row['gold'])[-50:]!r}")
    kinds = sorted({kind for kind, _ in counts}, key=lambda k: (k == "all", k))
    print(table(counts, kinds), f"\n{len(rows)} pairs in {seconds:.1f} s; {judge.counts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="answer pairs, JSON Lines, gzipped or not")
    asyncio.run(measure(read(parser.parse_args().path)))


if __name__ == "__main__":
    main()

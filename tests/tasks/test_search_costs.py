"""The costs of a round's search are summed, also if its shards used different engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domains.mathematics.domain import DOMAIN
from store import shards
from store.layout import Run
from tasks.lib.engines import Engines
from tasks.search_costs import engine_counts, sum_search_costs


class Counting:
    def __init__(self, **metrics: float) -> None:
        self._metrics = metrics

    def metrics(self) -> dict[str, float]:
        return self._metrics


def test_the_counts_of_engines_are_whole_numbers() -> None:
    policy: Any = Counting(num_requests=3, num_prompt_tokens=40, busy_seconds=1.2345)
    engines = Engines(DOMAIN, policy, None, executor=Counting(), judge=object())  # type: ignore[arg-type]
    assert engine_counts(engines) == {"policy_requests": 3, "policy_prompt_tokens": 40, "policy_busy_ms": 1234}
    writer: Any = object()
    assert engine_counts(Engines(DOMAIN, writer, None, executor=Counting(), judge=object())) == {}  # type: ignore[arg-type]


def test_the_counts_of_shards_are_summed_whatever_engines_they_used(tmp_path: Path) -> None:
    common = {"problems": 2, "solved": 1, "trees": 2, "nodes": 9, "num_tokens": 5, "seconds": 1.5}
    counted = [common | {"ppm_batches": 2, "sandbox_executions": 4}, common | {"ppm_scored": 7}]
    totals = sum_search_costs.fn(str(tmp_path), 1, counted, "r")
    assert (totals["ppm_batches"], totals["ppm_scored"], totals["sandbox_executions"]) == (2, 7, 4)
    [row] = shards.read_rows(Run(tmp_path).rounds(1, "search"), "rounds")
    assert (row["seconds"], row["num_tokens"], json.loads(row["counts"])["nodes"]) == (3.0, 10, 18)

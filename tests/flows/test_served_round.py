"""The smallest whole run whose policy and PPM are served by vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.served import vllm_servers as serving
from rstar.protocols import UserError
from store import catalog

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.mark.timeout(900)
def test_a_run_searches_and_evaluates_with_vllm(base: str, tmp_path: Path) -> None:
    try:
        serving.vllm_python()
    except UserError as missing:
        if "RSTAR_REQUIRE_VLLM" not in os.environ:
            pytest.skip(str(missing))
    command = [
        *(sys.executable, "-m", "cli.main", "demo", "--recipe", "smoke", "--out", str(tmp_path / "served")),
        *("--set", f"model.base={base}", "--set", "engine.kind=vllm"),
        *("--set", "sft.threads=1", "--set", "ppm.threads=1"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr
    query = "SELECT sum(prompt_tokens), sum(cached_tokens), max(scorer_seconds) FROM nodes WHERE round = 2"
    [(num_prompt_tokens, num_cached_tokens, scorer_seconds)] = catalog.query(tmp_path / "served", query).rows()
    assert 0 < num_cached_tokens < num_prompt_tokens and scorer_seconds > 0
    metrics = catalog.query(tmp_path / "served", "SELECT DISTINCT metric FROM evaluations")["metric"].to_list()
    assert {"pass@1", "system", "majority"} <= set(metrics)
    logs = {log.name for log in (tmp_path / "served/logs").iterdir()}
    assert {"vllm-policy-0.log", "vllm-ppm-0.log"} <= logs

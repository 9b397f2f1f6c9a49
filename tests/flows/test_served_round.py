"""The smallest whole run with policy and PPM behind real vLLM servers."""

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
    asked = "SELECT sum(prompt_tokens) AS read, sum(cached_tokens) AS cached, max(scorer_seconds) AS scored FROM nodes"
    [(read, cached, scored)] = catalog.query(tmp_path / "served", f"{asked} WHERE round = 2").rows()
    assert 0 < cached < read and scored > 0
    metrics = catalog.query(tmp_path / "served", "SELECT DISTINCT metric FROM evaluations")["metric"].to_list()
    assert {"pass@1", "system", "majority"} <= set(metrics)
    logs = {log.name for log in (tmp_path / "served/logs").iterdir()}
    assert {"vllm-policy-0.log", "vllm-ppm-0.log"} <= logs

"""The search of a round whose policy and PPM are served by vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flows.recipe import load_recipe
from flows.run_recipe import store_recipe
from flows.shard import search_shard
from miniature.problems import generate
from models import ppm
from models.checkpoints import load_tokenizer
from models.served import vllm_servers as serving
from rstar.annotation import Annotation
from rstar.protocols import UserError, Verdict
from rstar.search import SearchSettings
from store import shards
from store.layout import Run
from tasks.lib.concurrency import map_concurrently
from tasks.lib.engines import ROOT, EngineSettings, Models, SandboxSettings, open_engines
from tasks.problems import generated_rows
from tasks.rollouts import SearchPlan, search_problem

BASE = ROOT / "miniature" / "base" / "weights"


def missing() -> str:
    """Return what these tests lack; empty if they can run."""
    try:
        serving.vllm_python()
    except UserError as error:
        return str(error)
    return "" if (BASE / "config.json").is_file() else "no miniature/base/weights: `make tiny-base`"


pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tiny_ppm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, tokenizer = tmp_path_factory.mktemp("ppm"), load_tokenizer(BASE)
    model = ppm.from_policy(BASE, pad_token_id=tokenizer.pad_token_id, device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


async def test_trees_are_searched_and_scored_by_vllm(tiny_ppm: Path, tmp_path: Path) -> None:
    models = Models(
        str(BASE), str(tiny_ppm), temperature=0.7, max_new_tokens=48, device="cpu",
        engine=EngineSettings("vllm", log_dir=str(tmp_path)),
    )  # fmt: skip
    plan = SearchPlan(SearchSettings(num_rollouts=4, num_candidates=8, annotation=Annotation.PPM), seed=1)
    problems = [generated.problem for generated in generate({"gsm": 12}, seed=3, split="train")]
    async with open_engines(models, SandboxSettings("local")) as engines:
        trees_of_problems = await map_concurrently(
            lambda problem: search_problem(problem, engines, plan), problems, limit=8
        )
        requests, scored = engines.policy.metrics(), engines.scorer.metrics()
    nodes = [node for [tree] in trees_of_problems for node in tree.nodes[1:]]
    written = [node for node in nodes if node.num_tokens]
    assert len(written) > len(problems)
    assert any(node.verdict is Verdict.OK for node in written)  # a few: the base model was not trained on problems
    print(f"{len(nodes)} nodes; policy {requests}; PPM {scored}")
    assert requests["num_requests"] >= len(problems) and scored["num_scored"] > 0
    assert requests["num_retries"] == scored["num_retries"] == 0


@pytest.mark.usefixtures("prefect_server")
async def test_a_shard_of_a_recipe_with_vllm_is_searched(tmp_path: Path) -> None:
    root = tmp_path / "run"
    overrides = ["engine.kind=vllm", "rounds.1.policy=base", "run.shards=1", "rounds.1.num_rollouts=2"]
    recipe = load_recipe("smoke", overrides)
    store_recipe(recipe, str(root))
    run = Run(root)
    shards.write_rows(run.problems("train"), "problems", generated_rows({"gsm": 3}, seed=3, split="train"))
    counts = await search_shard(str(root), 1, 0)
    assert counts["problems"] == 3 and counts["num_tokens"] > 0
    rows = shards.read_rows(run.nodes(1, 0), "nodes")
    fingerprint = json.loads((BASE / "manifest.json").read_text())["fingerprint"]
    assert {row["model"] for row in rows} == {fingerprint}
    assert (root / "logs" / "vllm-policy-0.log").is_file()

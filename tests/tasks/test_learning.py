"""A PPM learns from the Q-values: trained on shuffled ones it ranks no better than chance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domains.mathematics.domain import DOMAIN
from domains.mathematics.grading.judge import MathJudge
from miniature.problems import GeneratedProblem, generate
from miniature.writer import MISREAD, BootstrapPolicy
from models.inprocess.scorer import TransformersScorer
from models.training import ppm as train_ppm
from models.training.config import TrainingConfig
from rstar.annotation import Annotation
from rstar.pairs import step_pairs
from rstar.search import SearchSettings, search
from rstar.tree import Tree
from sandbox.providers import open_sandbox
from tasks.heldout_pairs import pair_rows, score_pairs
from tasks.lib.engines import ROOT
from tasks.lib.trees import SearchedProblem, node_refs
from tasks.preference_pairs import pair_row

BASE = ROOT / "miniature" / "base" / "weights"


async def search_all(problems: list[GeneratedProblem]) -> list[Tree]:
    settings = SearchSettings(num_rollouts=16, num_candidates=6, annotation=Annotation.TERMINAL)
    writer = BootstrapPolicy(misread=dict.fromkeys(MISREAD, 0.0), slip=0.3)  # so that nodes have right and wrong steps
    async with open_sandbox("local") as executor, MathJudge() as judge:
        arguments = {"steps": DOMAIN, "policy": writer, "executor": executor, "judge": judge, "settings": settings}
        return list(await asyncio.gather(*(search(each.problem, **arguments, seed=0) for each in problems)))


async def accuracy(
    pairs: list[dict[str, object]], heldout: list[dict[str, object]], out: Path, shuffle: bool, seed: int = 0
) -> float:
    """Train a PPM on `pairs`; return the share of held-out pairs whose right step it scores higher."""
    config = TrainingConfig(
        data="pairs", base=str(BASE), out=str(out), learning_rate=2e-3, optimizer="muon", epochs=2, group_batch=32,
        max_length=1024, shuffle_labels=shuffle, seed=seed, threads=1,
    )  # fmt: skip
    train_ppm.train(config, pairs)
    async with TransformersScorer(out, domain=DOMAIN) as scorer:
        margins = await score_pairs(heldout, scorer, DOMAIN)
    return sum(margin > 0 for margin in margins) / len(margins)


@pytest.mark.skipif(not BASE.is_dir(), reason="the tiny base is not built; `make tiny-base`")
async def test_a_ppm_ranks_unseen_steps_unless_it_was_trained_on_shuffled_q_values(tmp_path: Path) -> None:
    train = generate({"gsm": 60, "math": 40}, seed=1, split="train")
    test = generate({"gsm": 30, "math": 30}, seed=1, split="test")
    trees = await search_all(train)
    problems = [SearchedProblem(tree.problem, tree, node_refs([tree], tree, DOMAIN)) for tree in trees]
    common = {"run": "test", "round": 1, "recipe": ""}
    pairs = [pair_row(searched, pair, **common) for searched in problems for pair in step_pairs(searched.tree)]
    test_trees = zip(await search_all(test), test, strict=True)
    heldout = [row for tree, generated in test_trees for row in pair_rows(tree, generated.truth)]
    assert len(pairs) > 200 and len(heldout) > 60
    true = await accuracy(pairs, heldout, tmp_path / "true", shuffle=False)
    shuffled = [await accuracy(pairs, heldout, tmp_path / f"{seed}", shuffle=True, seed=seed) for seed in range(8)]
    assert true > 0.7
    assert sum(shuffled) / len(shuffled) < 0.6  # a single one may rank well or badly by chance

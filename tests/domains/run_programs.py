# ruff: noqa: E402 - the block must stand before the imports
"""Searches, extracts, renders and scores in the domain of programs, with domains.mathematics made unimportable.

Run as a script, so that nothing has imported it before; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Blocked(MetaPathFinder):
    """Refuses every module of domains.mathematics."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.startswith("domains.mathematics"):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())

from domains.registry import find_domain
from models import ppm
from models.checkpoints import load_tokenizer, new_checkpoint
from models.inprocess.policy import TransformersPolicy
from models.inprocess.scorer import TransformersScorer
from models.training import sft
from rstar.annotation import Annotation
from rstar.pairs import extract_pairs
from rstar.protocols import Problem, Proposal
from rstar.search import SearchSettings, search
from rstar.trajectories import sft_choice, trajectories
from sandbox.providers import open_sandbox

BASE = Path(__file__).resolve().parents[2] / "miniature" / "base" / "weights"
DOMAIN = find_domain("programs")
PROBLEM = Problem(
    "p", "Write a function double(x) that returns twice x.", "assert double(3) == 6\nassert double('a') == 'aa'"
)
RIGHT, SQUARE, BROKEN = (
    "def double(x):\n    return 2 * x",
    "def double(x):\n    return x * x",
    "def double(x)\n    pass",
)
LAST = ["assert double(1) == 2\n<end_of_program>", "_ = double(0)\n<end_of_program>"]


class Writer:
    """First one of three functions, of which one is no Python, then the end of the program."""

    async def propose(self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int) -> list[Proposal]:
        firsts = [f"{code}\n<end_of_step>" for code in (RIGHT, SQUARE, BROKEN)]
        texts = LAST if prefix else firsts
        return [Proposal(text, num_tokens=len(text.split())) for text in texts[:num_candidates]]


async def searched(scorer: Any = None) -> Any:
    settings = SearchSettings(
        num_rollouts=8, num_candidates=3, annotation=Annotation.PPM if scorer else Annotation.TERMINAL
    )
    async with open_sandbox("local") as executor, DOMAIN.judge(executor) as judge:
        engines = {"policy": Writer(), "executor": executor, "judge": judge, "scorer": scorer}
        return await search(PROBLEM, steps=DOMAIN, **engines, settings=settings)


def make_ppm(folder: Path) -> Path:
    """A PPM with a head that was drawn at random, for scores that are not all 0."""
    import torch

    tokenizer = load_tokenizer(BASE)
    model = ppm.from_policy(BASE, pad_token_id=tokenizer.pad_token_id, device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.2)
    with new_checkpoint(folder / "ppm") as out:
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return folder / "ppm"


async def written(prefix: list[str]) -> list[str]:
    """What a model that has never seen programs writes: text, of whatever sense."""
    async with TransformersPolicy(BASE, domain=DOMAIN, max_new_tokens=8, device="cpu") as policy:
        proposals = await policy.propose(PROBLEM.question, prefix, num_candidates=2, seed=1)
    return [proposal.text for proposal in proposals]


async def scored(checkpoint: Path) -> tuple[list[float], Any]:
    async with TransformersScorer(checkpoint, domain=DOMAIN, device="cpu") as scorer:
        siblings = [f"{RIGHT}\n<end_of_step>", f"{SQUARE}\n<end_of_step>"]
        scores = await scorer.score(PROBLEM.question, [], siblings)
        return list(scores), await searched(scorer)


def labelled(response: str) -> str:
    """The text that SFT learns of a response."""
    tokenizer = load_tokenizer(BASE)
    row = sft.tokenize(tokenizer, DOMAIN.prompt(PROBLEM.question), response, domain=DOMAIN)
    return str(tokenizer.decode([label for label in row["labels"][:-1] if label != sft.IGNORE]))


def main() -> None:
    tree = asyncio.run(searched())
    found = trajectories(tree)
    best = sft_choice(found)[0]
    with tempfile.TemporaryDirectory() as folder:
        scores, with_ppm = asyncio.run(scored(make_ppm(Path(folder))))
    print(
        json.dumps(
            {
                "blocked": not any(name.startswith("domains.mathematics") for name in sys.modules),
                "nodes": [[node.text, node.verdict.value, node.correct, node.q] for node in tree.nodes[1:]],
                "answers": [one.answer for one in found],
                "pairs": [[pair.chosen, pair.rejected, pair.margin] for pair in extract_pairs(tree)],
                "best": best.text,
                "learned": labelled(best.text),
                "written": asyncio.run(written([])),
                "scores": scores,
                "ppm_scores": [node.ppm_score for node in with_ppm.root.children],
            }
        )
    )


if __name__ == "__main__":
    main()

"""Step beam search with the PPM: a cheaper search at inference than MCTS.

Not in the paper's text, but in its reference code. At each depth every partial trajectory of the beam gets n
candidates. Of all valid ones those with the best PPM scores are kept, as many as the beam is wide. A kept trajectory
that is finished is an answer and keeps its place in the beam. The reference code departs from this: there a finished
candidate takes a place whatever its score, and is continued once more. No value is backed up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rstar.annotation import Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.expansion import Expander
from rstar.inference.thinking import ScoredTrajectory, scored_trajectory
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import cancel
from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """The parameters of a beam search. Trajectories that are unfinished at `max_depth` are dropped."""

    beam_width: int
    num_candidates: int
    max_depth: int = 16


async def beam_search(
    problem: Problem,
    *,
    steps: StepFormat,
    policy: Policy,
    executor: Executor,
    scorer: StepScorer,
    judge: Judge,
    settings: BeamSettings,
    seed: int = 0,
) -> tuple[list[ScoredTrajectory], Tree]:
    """Search; return at most `beam_width` trajectories in the order in which they were finished, and the tree.

    The tree holds all that was sampled, each node with the PPM's pseudo-visit only. `problem.answer` is never read.
    """
    tree = Tree.start(problem, seed)
    checkpoints = Checkpoints(executor, steps)
    expander = Expander(
        tree, policy, checkpoints, Equivalence(judge), scorer, steps, Annotation.INFERENCE, settings.num_candidates,
        settings.max_depth,
    )  # fmt: skip
    finished: list[Node] = []
    beam = [tree.root]
    try:
        for depth in range(settings.max_depth):
            children = await _expand_all(expander, beam, depth)
            best = sorted(children, key=_score, reverse=True)[: settings.beam_width - len(finished)]
            finished += [node for node in best if node.terminal]
            beam = [node for node in best if not node.terminal]
            await checkpoints.release([node for node in children if node not in beam])
            if not beam:
                break
    finally:
        await checkpoints.release_all(tree.nodes)
    return [scored_trajectory(node) for node in finished], tree


async def _expand_all(expander: Expander, beam: list[Node], depth: int) -> list[Node]:
    """Expand all nodes of the beam at once; return their valid children, in the order of the beam."""
    expansions = [asyncio.create_task(expander.candidates(node)) for node in beam]
    try:
        results = [await expansion for expansion in expansions]
    finally:
        await cancel(expansions)
    children = []
    for node, candidates in zip(beam, results, strict=True):
        expander.add(node, candidates, depth)
        await expander.release_unneeded(node, candidates)
        children += node.children
    return children


def _score(node: Node) -> float:
    return -1.0 if node.ppm_score is None else node.ppm_score

"""Step beam search with the PPM: the cheaper of the two searches at inference.

Not in the paper's text; its reference code has it beside MCTS. At each depth every partial trajectory of the beam is
continued by n candidates; of all that are valid the best by the PPM's score stay, as many as the beam is wide. A
trajectory that stays and is finished keeps its place, and is an answer. Departures from the reference, on purpose:
there a finished candidate takes a place whatever its score, and is continued once more. No value is backed up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rstar.annotation import Annotation
from rstar.checkpoints import Checkpoints
from rstar.equivalence import Equivalence
from rstar.expansion import Expander
from rstar.inference.thinking import Conclusion, ScoredTrajectory, conclude, scored_trajectory
from rstar.protocols import Executor, Judge, Policy, Problem, StepFormat, StepScorer
from rstar.search import cancel
from rstar.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """Partial trajectories that are kept, candidates of each, and the depth at which the unfinished are given up."""

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
    top_k: int | None = None,
) -> tuple[Conclusion, list[ScoredTrajectory], Tree]:
    """Search and conclude as `rstar.inference.thinking.think` does; `problem.answer` is never read.

    Returns the conclusion, at most `beam_width` trajectories in the order in which they were finished, and the tree of
    all that was sampled, whose visits stay at the PPM's one.
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
            children = await _expanded(expander, beam, depth)
            kept = sorted(children, key=_score, reverse=True)[: settings.beam_width - len(finished)]
            finished += [node for node in kept if node.terminal]
            beam = [node for node in kept if not node.terminal]
            await checkpoints.release([node for node in children if node not in beam])
            if not beam:
                break
    finally:
        await checkpoints.release_all(tree.nodes)
    trajectories = [scored_trajectory(node) for node in finished]
    return await conclude(trajectories, judge=judge, top_k=top_k), trajectories, tree


async def _expanded(expander: Expander, beam: list[Node], depth: int) -> list[Node]:
    """The valid children of all nodes of the beam, asked for at once; best node's first, siblings as sampled."""
    asked = [asyncio.create_task(expander.candidates(node)) for node in beam]
    try:
        answered = [await expansion for expansion in asked]
    finally:
        await cancel(asked)
    children = []
    for node, candidates in zip(beam, answered, strict=True):
        expander.add(node, candidates, depth)
        await expander.release_spent(node, candidates)
        children += node.children
    return children


def _score(node: Node) -> float:
    return -1.0 if node.ppm_score is None else node.ppm_score

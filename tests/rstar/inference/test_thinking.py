"""Deep thinking: which answer is chosen, computed by hand."""

import pytest

from rstar.inference.thinking import Conclusion, ScoredTrajectory, conclude, scored_trajectories, think
from rstar.search import SearchSettings


def scored(*pairs):
    return [ScoredTrajectory(answer, score) for answer, score in pairs]


async def test_the_best_score_the_majority_and_the_weighted_majority_may_all_differ(judge):
    trajectories = scored(("1", 0.9), ("2", -0.9), ("2", -0.9), ("2.0", -0.9), ("3", 0.6), ("3", 0.6))
    assert await conclude(trajectories, judge=judge) == Conclusion(best="1", majority="2", weighted_majority="3")


async def test_only_the_top_k_have_a_weighted_vote(judge):
    trajectories = scored(("1", 0.9), ("3", 0.6), ("3", 0.6))
    assert (await conclude(trajectories, judge=judge, top_k=1)).weighted_majority == "1"
    assert (await conclude(trajectories, judge=judge, top_k=3)).weighted_majority == "3"


async def test_ties_go_to_the_better_score_and_then_to_the_first_found(judge):
    assert (await conclude(scored(("1", 0.1), ("2", 0.2)), judge=judge)).majority == "2"
    tied = await conclude(scored(("1", 0.2), ("2", 0.2)), judge=judge)
    assert tied == Conclusion("1", "1", "1")


async def test_no_trajectory_is_no_answer(judge):
    assert await conclude([], judge=judge) == Conclusion(None, None, None)


async def test_trajectories_are_in_the_order_in_which_they_were_found(letters, judge):
    policy = {"": "ab", "a": "cd", "b": "ef", "a/d": "gh"}
    ppm = {"a": 0.9, "b": 0.8, "a/c": -0.9, "a/d": 0.1, "b/e": 0.5, "b/f": 0.2, "a/d/g": 0.3, "a/d/h": 0.0}
    answers = {"a/c": "7", "b/e": "42", "a/d/g": "41"}
    tree = await letters(policy, answers, ppm=ppm, annotation="inference", num_rollouts=4)
    assert [trajectory.answer for trajectory in scored_trajectories(tree)] == ["7", "42", "41"]
    assert (await conclude(scored_trajectories(tree), judge=judge)).best == "42"


async def test_thinking_searches_with_the_ppm_and_marks_no_answer_correct_or_wrong(golden, judge):
    world = {"policy": {"": ["a"]}, "invalid": [], "answers": {"a": "42"}, "ppm": {"a": 0.5}}
    with pytest.raises(AttributeError, match="answer"):
        _ = Unanswered().answer
    conclusion, trajectories, tree = await think(
        Unanswered(),
        policy=golden.ScriptedPolicy(world),
        executor=golden.ScriptedExecutor(world),
        scorer=golden.ScriptedScorer(world),
        judge=judge,
        settings=SearchSettings(num_rollouts=2, num_candidates=1),
        steps=golden.LETTERS,
    )
    assert conclusion.best == "42"
    assert [(trajectory.answer, trajectory.score) for trajectory in trajectories] == [("42", 0.5)]
    assert tree.nodes[1].correct is None


class Unanswered:
    """A problem without a ground truth."""

    id, question = "p", "?"

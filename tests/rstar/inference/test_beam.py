"""Beam search and best-of-N, computed by hand: which partial trajectories are kept, and the answers."""

import asyncio

import pytest

from rstar.inference.beam import BeamSettings, beam_search
from rstar.inference.best_of_n import sample, score_samples
from rstar.inference.thinking import best_scored, conclude
from rstar.protocols import PolicyError, Problem, Verdict


class Unanswered:
    """A problem without a ground truth."""

    id, question = "p", "?"


def world(policy, answers=None, *, invalid=(), ppm=None):
    policy = {path: list(names) for path, names in policy.items()}
    return {"policy": policy, "answers": answers or {}, "invalid": list(invalid), "ppm": ppm or {}}


@pytest.fixture
def search(golden):
    async def run(scripted, **settings):
        policy = golden.ScriptedPolicy(scripted)
        expanded = []

        class Recorded:
            async def propose(self, question, prefix, **more):
                expanded.append(golden.path_of(prefix))
                return await policy.propose(question, prefix, **more)

        trajectories, tree = await beam_search(
            Unanswered(),
            policy=Recorded(),
            executor=golden.ScriptedExecutor(scripted),
            scorer=golden.ScriptedScorer(scripted),
            judge=golden.ExactJudge(),
            settings=BeamSettings(**{"num_candidates": 3, **settings}),
            steps=golden.LETTERS,
        )
        return trajectories, tree, expanded

    return run


async def test_the_best_of_all_candidates_are_kept_whatever_their_parent(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "a/d": 0.1, "a/e": 0.2, "b/f": 0.6, "b/g": 0.5, "b/f/h": 0.3, "b/g/i": 0.4}
    scripted = world({"": "abc", "a": "de", "b": "fg", "b/f": "h", "b/g": "i"}, {"b/f/h": "7", "b/g/i": "42"}, ppm=ppm)
    trajectories, tree, expanded = await search(scripted, beam_width=2)
    assert expanded == ["", "a", "b", "b/f", "b/g"]
    # Of two trajectories that are finished at the same depth, the one with the better score comes first.
    assert [(trajectory.answer, trajectory.score) for trajectory in trajectories] == [("42", 0.4), ("7", 0.3)]
    assert best_scored(trajectories).answer == "42"
    assert [node.correct for node in tree.nodes if node.terminal] == [None, None]


async def test_a_finished_trajectory_keeps_its_place_and_is_not_continued(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "b/d": 0.1, "b/e": 0.0, "b/d/f": 0.2}
    scripted = world({"": "abc", "b": "de", "b/d": "f"}, {"a": "7", "b/d/f": "42"}, ppm=ppm)
    trajectories, _, expanded = await search(scripted, beam_width=2)
    assert expanded == ["", "b", "b/d"]  # one place is left, so c and b/e are not continued
    assert [trajectory.answer for trajectory in trajectories] == ["7", "42"]
    assert best_scored(trajectories).answer == "7"


async def test_a_finished_trajectory_below_the_cut_is_no_answer(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "a/d": 0.5, "b/e": 0.4}
    scripted = world({"": "abc", "a": "d", "b": "e"}, {"c": "0", "a/d": "7", "b/e": "42"}, ppm=ppm)
    trajectories, _, _ = await search(scripted, beam_width=2)
    assert [trajectory.answer for trajectory in trajectories] == ["7", "42"]


async def test_an_invalid_candidate_is_kept_as_data_and_takes_no_place(search):
    ppm = {"b": 0.1, "c": 0.0, "b/d": 0.3}
    scripted = world({"": "abc", "b": "d"}, {"b/d": "42"}, invalid=["a"], ppm=ppm)
    trajectories, tree, expanded = await search(scripted, beam_width=1)
    assert expanded == ["", "b"]
    assert [trajectory.answer for trajectory in trajectories] == ["42"]
    assert tree.nodes[1].verdict is Verdict.EXCEPTION


async def test_a_trajectory_that_is_unfinished_at_the_maximum_depth_gives_no_answer(search):
    ppm = {"a": 0.9, "b": 0.8, "a/c": 0.5, "b/d": 0.4}
    scripted = world({"": "ab", "a": "c", "b": "d", "b/d": "e"}, {"a/c": "7", "b/d/e": "42"}, ppm=ppm)
    trajectories, _, expanded = await search(scripted, beam_width=2, max_depth=2)
    assert expanded == ["", "a", "b"]
    assert [trajectory.answer for trajectory in trajectories] == ["7"]
    assert (await search(world({"": ""}), beam_width=2))[0] == []
    assert best_scored([]) is None


async def test_of_equal_scores_those_sampled_first_are_kept(search):
    scripted = world({"": "abc", "a": "", "b": ""}, ppm=dict.fromkeys("abc", 0.5))
    assert (await search(scripted, beam_width=2))[2] == ["", "a", "b"]


async def test_all_checkpoints_are_released_and_the_error_of_a_dead_engine_is_raised(golden):
    scripted = world({"": "ab", "a": "c"}, {"a/c": "7"}, ppm={"a": 0.1, "b": 0.2, "a/c": 0.3})

    class Counting(golden.ScriptedExecutor):
        held = 0

        async def run(self, checkpoint, code):
            self.held += 1
            return await super().run(checkpoint, code)

        async def release(self, checkpoint):
            self.held -= 1

    class Dying(golden.ScriptedPolicy):
        async def propose(self, question, prefix, **more):
            if golden.path_of(prefix) == "b":
                raise PolicyError("gone")
            await asyncio.sleep(0)
            return await super().propose(question, prefix, **more)

    for policy in (golden.ScriptedPolicy, Dying):
        executor = Counting(scripted)
        engines = {"policy": policy(scripted), "executor": executor, "scorer": golden.ScriptedScorer(scripted)}
        engines |= {"judge": golden.ExactJudge(), "steps": golden.LETTERS}
        search = beam_search(Unanswered(), **engines, settings=BeamSettings(2, 2))
        if policy is Dying:
            with pytest.raises(PolicyError, match="gone"):
                await search
        else:
            await search
        assert executor.held == 0


async def test_best_of_n_scores_the_last_steps_and_votes_count_the_same_trajectories(golden):
    async def draw(name, answer):
        scripted = world({"": [name], name: "z"}, {f"{name}/z": answer} if answer else {}, invalid=["c/z"])
        engines = {"policy": golden.ScriptedPolicy(scripted), "executor": golden.ScriptedExecutor(scripted)}
        engines |= {"judge": golden.ExactJudge(), "steps": golden.LETTERS}
        return await sample(Problem("p", "?", "42"), **engines, max_depth=4, seed=0)

    samples = [await draw("a", "7"), await draw("b", "42"), await draw("c", None), await draw("d", "7")]
    assert [(each.answer, each.correct, len(each.steps)) for each in samples] == [
        ("7", False, 2), ("42", True, 2), (None, False, 1), ("7", False, 2),
    ]  # fmt: skip
    scorer = golden.ScriptedScorer({"ppm": {"a/z": 0.1, "b/z": 0.9, "d/z": -0.5}})
    trajectories = await score_samples("?", samples, scorer)
    assert [trajectory.score for trajectory in trajectories] == [0.1, 0.9, -0.5]
    conclusion = await conclude(trajectories, judge=golden.ExactJudge())
    assert (conclusion.best, conclusion.majority) == ("42", "7")
    assert [(trajectory.answer, trajectory.steps, trajectory.num_tokens) for trajectory in trajectories] == [
        (each.answer, each.steps, each.num_tokens) for each in samples if each.answer is not None
    ]

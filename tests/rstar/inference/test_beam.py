"""Beam search and best of N, by hand: which partial trajectories stay, and what is answered."""

import asyncio

import pytest

from rstar.inference.beam import BeamSettings, beam_search
from rstar.inference.best_of_n import sample, scored
from rstar.inference.thinking import conclude
from rstar.protocols import PolicyError, Problem, Verdict


class Unanswered:
    """A problem of which only the question is known."""

    id, question = "p", "?"


def world(policy, answers=None, *, invalid=(), ppm=None):
    policy = {path: list(names) for path, names in policy.items()}
    return {"policy": policy, "answers": answers or {}, "invalid": list(invalid), "ppm": ppm or {}}


@pytest.fixture
def search(golden):
    async def run(made, **settings):
        policy = golden.ScriptedPolicy(made)
        asked = []

        class Watched:
            async def propose(self, question, prefix, **more):
                asked.append(golden.path_of(prefix))
                return await policy.propose(question, prefix, **more)

        conclusion, found, tree = await beam_search(
            Unanswered(),
            policy=Watched(),
            executor=golden.ScriptedExecutor(made),
            scorer=golden.ScriptedScorer(made),
            judge=golden.ExactJudge(),
            settings=BeamSettings(**{"num_candidates": 3, **settings}),
            steps=golden.LETTERS,
        )
        return conclusion, found, tree, asked

    return run


async def test_the_best_of_all_candidates_stay_whoever_their_parent_is(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "a/d": 0.1, "a/e": 0.2, "b/f": 0.6, "b/g": 0.5, "b/f/h": 0.3, "b/g/i": 0.4}
    made = world({"": "abc", "a": "de", "b": "fg", "b/f": "h", "b/g": "i"}, {"b/f/h": "7", "b/g/i": "42"}, ppm=ppm)
    conclusion, found, tree, asked = await search(made, beam_width=2)
    assert asked == ["", "a", "b", "b/f", "b/g"]
    # The better of equals in depth comes first.
    assert [(one.answer, one.score) for one in found] == [("42", 0.4), ("7", 0.3)]
    assert conclusion.best == "42"
    assert [node.correct for node in tree.nodes if node.terminal] == [None, None]


async def test_a_finished_trajectory_keeps_its_place_and_is_not_continued(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "b/d": 0.1, "b/e": 0.0, "b/d/f": 0.2}
    made = world({"": "abc", "b": "de", "b/d": "f"}, {"a": "7", "b/d/f": "42"}, ppm=ppm)
    conclusion, found, _, asked = await search(made, beam_width=2)
    assert asked == ["", "b", "b/d"]  # one place is left, c and b/e are not continued
    assert [one.answer for one in found] == ["7", "42"]
    assert conclusion.best == "7"


async def test_a_finished_trajectory_below_the_cut_is_no_answer(search):
    ppm = {"a": 0.9, "b": 0.8, "c": 0.7, "a/d": 0.5, "b/e": 0.4}
    made = world({"": "abc", "a": "d", "b": "e"}, {"c": "0", "a/d": "7", "b/e": "42"}, ppm=ppm)
    _, found, _, _ = await search(made, beam_width=2)
    assert [one.answer for one in found] == ["7", "42"]


async def test_what_does_not_run_is_kept_as_data_and_takes_no_place(search):
    ppm = {"b": 0.1, "c": 0.0, "b/d": 0.3}
    made = world({"": "abc", "b": "d"}, {"b/d": "42"}, invalid=["a"], ppm=ppm)
    conclusion, _, tree, asked = await search(made, beam_width=1)
    assert asked == ["", "b"]
    assert conclusion.best == "42"
    assert tree.nodes[1].verdict is Verdict.EXCEPTION


async def test_the_maximum_depth_ends_it_without_an_answer_for_the_unfinished(search):
    ppm = {"a": 0.9, "b": 0.8, "a/c": 0.5, "b/d": 0.4}
    made = world({"": "ab", "a": "c", "b": "d", "b/d": "e"}, {"a/c": "7", "b/d/e": "42"}, ppm=ppm)
    _, found, _, asked = await search(made, beam_width=2, max_depth=2)
    assert asked == ["", "a", "b"]
    assert [one.answer for one in found] == ["7"]
    assert (await search(world({"": ""}), beam_width=2))[0].best is None


async def test_equal_scores_stay_in_sampling_order(search):
    made = world({"": "abc", "a": "", "b": ""}, ppm=dict.fromkeys("abc", 0.5))
    assert (await search(made, beam_width=2))[3] == ["", "a", "b"]


async def test_all_checkpoints_are_given_back_and_a_dead_engine_is_raised_as_itself(golden):
    made = world({"": "ab", "a": "c"}, {"a/c": "7"}, ppm={"a": 0.1, "b": 0.2, "a/c": 0.3})

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
        executor = Counting(made)
        given = {"policy": policy(made), "executor": executor, "scorer": golden.ScriptedScorer(made)}
        given |= {"judge": golden.ExactJudge(), "steps": golden.LETTERS}
        searching = beam_search(Unanswered(), **given, settings=BeamSettings(2, 2))
        if policy is Dying:
            with pytest.raises(PolicyError, match="gone"):
                await searching
        else:
            await searching
        assert executor.held == 0


async def test_the_best_of_n_is_scored_by_its_last_step_and_votes_count_the_same_trajectories(golden):
    async def one(name, answer):
        made = world({"": [name], name: "z"}, {f"{name}/z": answer} if answer else {}, invalid=["c/z"])
        given = {"policy": golden.ScriptedPolicy(made), "executor": golden.ScriptedExecutor(made)}
        problem = Problem("p", "?", "42")
        return await sample(problem, **given, judge=golden.ExactJudge(), max_depth=4, seed=0, steps=golden.LETTERS)

    samples = [await one("a", "7"), await one("b", "42"), await one("c", None), await one("d", "7")]
    assert [(each.answer, each.correct, len(each.steps)) for each in samples] == [
        ("7", False, 2), ("42", True, 2), (None, False, 1), ("7", False, 2),
    ]  # fmt: skip
    scorer = golden.ScriptedScorer({"ppm": {"a/z": 0.1, "b/z": 0.9, "d/z": -0.5}})
    trajectories = await scored("?", samples, scorer)
    assert [trajectory.score for trajectory in trajectories] == [0.1, 0.9, -0.5]
    conclusion = await conclude(trajectories, judge=golden.ExactJudge())
    assert (conclusion.best, conclusion.majority) == ("42", "7")
    assert [(trajectory.answer, trajectory.steps, trajectory.num_tokens) for trajectory in trajectories] == [
        (each.answer, each.steps, each.num_tokens) for each in samples if each.answer is not None
    ]

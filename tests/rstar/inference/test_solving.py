"""Deep thinking within a budget: what ends the search, and what is known if it ends early."""

import asyncio

import pytest

from domains.mathematics.domain import DOMAIN
from rstar.inference.budget import Budget
from rstar.inference.solution import Ending
from rstar.inference.solving import Solving, solve
from rstar.inference.thinking import best_scored, conclude, think
from rstar.protocols import PolicyError, Problem, Proposal, ScorerError, UserError
from rstar.search import SearchSettings

POLICY = {"": "ab", "a": "cd", "b": "ef", "a/d": "gh", "a/d/h": "ij", "b/f": "kl", "b/f/k": "mn"}
PPM = {"a": 0.9, "b": 0.8, "a/c": -0.9, "a/d": 0.1, "b/e": 0.5, "b/f": 0.2, "a/d/g": 0.3, "a/d/h": 0.0,
       "a/d/h/i": 0.7, "a/d/h/j": 0.1, "b/f/k": 0.1, "b/f/l": -0.2, "b/f/k/m": 0.9, "b/f/k/n": 0.0}  # fmt: skip
ANSWERS = {"a/c": "7", "b/e": "42", "a/d/g": "41", "a/d/h/i": "42.0", "b/f/k/m": "43"}
SETTINGS = SearchSettings(num_rollouts=1, num_candidates=2)


@pytest.fixture
def engines(golden, judge):
    """A world whose later answers score better. Each letter is one token."""
    world = {"policy": {path: list(names) for path, names in POLICY.items()}, "invalid": [], "answers": ANSWERS}

    class Policy(golden.ScriptedPolicy):
        async def propose(self, *arguments, **settings):
            proposals = await super().propose(*arguments, **settings)
            return [Proposal(each.text, num_tokens=1, prompt_tokens=5) for each in proposals]

    return {
        "policy": Policy(world),
        "executor": golden.ScriptedExecutor(world),
        "scorer": golden.ScriptedScorer({"ppm": PPM}),
        "judge": judge,
        "steps": golden.LETTERS,
    }


class Stuck:
    """A policy that answers `calls` times and then never again."""

    def __init__(self, policy, calls):
        self.policy, self.calls = policy, calls
        self.stuck = asyncio.Event()

    async def propose(self, *arguments, **settings):
        if self.calls == 0:
            self.stuck.set()
            await asyncio.Event().wait()
        self.calls -= 1
        return await self.policy.propose(*arguments, **settings)


@pytest.mark.parametrize(
    ("text", "budget"),
    [("16", Budget(trajectories=16)), ("20000t", Budget(tokens=20000)), (" 30s ", Budget(seconds=30.0)),
     ("0.5s", Budget(seconds=0.5))],
)  # fmt: skip
def test_a_budget_is_read_by_its_unit(text, budget):
    assert Budget.read(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0t", "0.0s", "-1", "1.5", "1.5t", "ten", "30 m", "1e3", "9" * 40, "infs"])
def test_the_error_for_a_bad_budget_is_one_line_that_says_what_to_give(text):
    with pytest.raises(UserError, match="trajectories") as error:
        Budget.read(text)
    assert len(str(error.value).splitlines()) == 1


def test_a_budget_without_a_limit_is_refused():
    with pytest.raises(UserError):
        Budget()


def test_of_two_budgets_the_smaller_limit_of_each_kind_counts():
    both = Budget(trajectories=8, seconds=60.0).within(Budget(tokens=100, seconds=5.0))
    assert both == Budget(8, 100, 5.0)
    assert str(both) == "8 trajectories, 100 tokens, 5 seconds"
    assert str(Budget(1, 1, 1.0)) == "1 trajectory, 1 token, 1 second"


@pytest.mark.parametrize("num_rollouts", range(1, 9))
async def test_a_budget_of_n_trajectories_gives_the_result_of_think_with_n_rollouts(engines, num_rollouts, judge):
    settings = SearchSettings(num_rollouts=num_rollouts, num_candidates=2)
    conclusion, trajectories, tree = await think(Problem("p", "?", "42"), **engines, settings=settings, seed=3)
    solution = await solve("?", **engines, settings=SETTINGS, budget=Budget(trajectories=num_rollouts), seed=3)
    assert solution.best == best_scored(trajectories)
    assert (solution.majority, solution.weighted_majority) == (conclusion.majority, conclusion.weighted_majority)
    assert solution.best.answer == (await conclude(trajectories, judge=judge)).best
    assert (solution.num_trajectories, solution.num_tokens) == (len(trajectories), tree.num_tokens)
    assert solution.num_rollouts == tree.num_rollouts
    assert solution.ending is (Ending.CLOSED if tree.root.closed else Ending.BUDGET)


async def test_the_ground_truth_of_a_problem_is_not_read(engines):
    class Unanswered:
        id, question = "p", "?"

    assert (await solve(Unanswered(), **engines, settings=SETTINGS, budget=Budget(1))).best is not None


async def test_each_better_trajectory_is_reported_once_and_the_last_one_is_the_best(engines):
    reported = []
    solution = await solve("?", **engines, settings=SETTINGS, budget=Budget(99), on_better=reported.append)
    assert [each.score for each in reported] == sorted({each.score for each in reported}) and len(reported) > 2
    assert reported[-1] == solution.best
    assert solution.ending is Ending.CLOSED


async def test_the_answer_of_the_runner_up_differs_from_the_best(engines):
    solution = await solve("?", **engines, settings=SETTINGS, budget=Budget(99))
    assert (solution.best.answer, solution.runner_up.answer) == ("43", "42.0")
    assert solution.majority == "42"  # two trajectories have it, and the first one wrote it so


async def test_a_search_may_find_no_runner_up_or_nothing_at_all(engines):
    assert (await solve("?", **engines, settings=SETTINGS, budget=Budget(1))).runner_up is None
    engines["policy"].world["policy"].clear()
    nothing = await solve("?", **engines, settings=SETTINGS, budget=Budget(99))
    assert (nothing.best, nothing.runner_up, nothing.majority) == (None, None, None)
    assert nothing.ending is Ending.CLOSED


@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 9, 12])
async def test_the_rollout_that_reaches_the_token_limit_is_the_last(engines, tokens):
    solution = await solve("?", **engines, settings=SETTINGS, budget=Budget(tokens=tokens))
    assert solution.num_tokens >= tokens
    fewer = solution.num_rollouts - 1
    if fewer:
        assert (await solve("?", **engines, settings=SETTINGS, budget=Budget(fewer))).num_tokens < tokens
    assert solution.prompt_tokens == 5


async def test_the_time_limit_ends_the_search_within_a_rollout_and_keeps_the_best_so_far(engines):
    engines["policy"] = Stuck(engines["policy"], calls=3)
    solution = await asyncio.wait_for(solve("?", **engines, settings=SETTINGS, budget=Budget(seconds=0.05)), 5)
    assert solution.best is not None and solution.ending is Ending.BUDGET
    assert 0.05 <= solution.seconds < 5


async def test_a_stopped_search_returns_what_it_found(engines):
    policy = engines["policy"] = Stuck(engines["policy"], calls=3)
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    running = asyncio.create_task(solving.run())
    await policy.stuck.wait()
    solving.stop()
    solution = await running
    assert solution.best == solving.best is not None
    assert solution.ending is Ending.STOPPED


async def test_a_search_stopped_before_its_start_finds_nothing(engines):
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    solving.stop()
    assert (await solving.run()).best is None


async def test_the_solution_so_far_can_be_read_during_the_search_and_after_it_was_cancelled(engines):
    policy = engines["policy"] = Stuck(engines["policy"], calls=3)
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    running = asyncio.create_task(solving.run())
    await policy.stuck.wait()
    during = await solving.so_far()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    after = await solving.so_far()
    assert during.best == after.best == solving.best is not None
    assert after.ending is Ending.UNFINISHED
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1  # the search left no task behind


@pytest.mark.parametrize("calls", range(8))
async def test_the_tree_of_a_search_stopped_anywhere_is_the_beginning_of_the_whole_tree(engines, calls):
    whole = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    await whole.run()
    policy = engines["policy"] = Stuck(engines["policy"], calls=calls)
    stopped = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    running = asyncio.create_task(stopped.run())
    await asyncio.wait({running, stuck := asyncio.create_task(policy.stuck.wait())}, return_when="FIRST_COMPLETED")
    stuck.cancel()
    stopped.stop()
    await running
    assert stopped.tree.to_records()[-1]["id"] < len(whole.tree.nodes)
    texts = [node.text for node in stopped.tree.nodes]
    assert texts == [node.text for node in whole.tree.nodes[: len(texts)]]


async def test_a_search_that_runs_out_of_time_releases_every_checkpoint(problem, executor, judge):
    class Endless:
        async def propose(self, question, prefix, *, num_candidates, seed):
            await asyncio.sleep(0)
            start = "" if prefix else "<code>"
            return [Proposal(f"{start}\n# {seed}\nx{len(prefix)} = {at}\n<end_of_step>") for at in range(2)]

    class Even:
        async def score(self, question, prefix, candidates):
            return [0.0 for _ in candidates]

    engines = {"steps": DOMAIN, "policy": Endless(), "executor": executor, "scorer": Even(), "judge": judge}
    settings = SearchSettings(num_rollouts=1, num_candidates=2, max_depth=6)
    solution = await solve(problem, **engines, settings=settings, budget=Budget(seconds=0.05))
    assert solution.best is None and len(executor.codes) > 2
    assert executor.states == {}


async def test_a_stop_after_the_time_limit_does_not_interrupt_the_release_of_checkpoints(problem, executor, judge):
    releasing = asyncio.Event()
    release = executor.release

    async def release_slowly(checkpoint):
        releasing.set()
        await asyncio.sleep(0.05)
        await release(checkpoint)

    class Once:
        calls = 0

        async def propose(self, question, prefix, *, num_candidates, seed):
            self.calls += 1
            if self.calls > 1:
                await asyncio.Event().wait()
            return [Proposal("<code>\nx = 1\n<end_of_step>"), Proposal("<code>\nx = 2\n<end_of_step>")]

    class Even:
        async def score(self, question, prefix, candidates):
            return [0.0 for _ in candidates]

    executor.release = release_slowly
    engines = {"steps": DOMAIN, "policy": Once(), "executor": executor, "scorer": Even(), "judge": judge}
    solving = Solving(problem, **engines, settings=SETTINGS, budget=Budget(seconds=0.05))
    running = asyncio.create_task(solving.run())
    await asyncio.wait_for(releasing.wait(), 5)
    solving.stop()
    solution = await running
    assert executor.states == {} and len(executor.codes) == 2
    assert solution.ending is Ending.BUDGET and solution.failure is None


@pytest.mark.parametrize("dead", ["policy", "scorer"])
async def test_a_search_ended_before_an_engine_ever_answered_has_failed(engines, dead):
    class Mute:
        async def propose(self, *arguments, **settings):
            await asyncio.Event().wait()

        score = propose

    error = {"policy": PolicyError, "scorer": ScorerError}[dead]
    engines[dead] = Mute()
    with pytest.raises(error, match="gave no answer in"):
        await solve("?", **engines, settings=SETTINGS, budget=Budget(seconds=0.05))
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    asyncio.get_running_loop().call_later(0.05, solving.stop)
    solution = await solving.run()
    assert isinstance(solution.failure, error) and solution.ending is Ending.STOPPED


@pytest.mark.parametrize("calls", [1, 2])
async def test_a_search_whose_engine_answered_once_has_not_failed(engines, calls):
    engines["policy"] = Stuck(engines["policy"], calls=calls)
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(seconds=0.05))
    assert (await solving.run()).failure is None


async def test_the_error_of_a_dead_engine_is_raised_and_the_best_so_far_is_kept(engines):
    class Dying(Stuck):
        async def propose(self, *arguments, **settings):
            if self.calls == 0:
                raise PolicyError("gone")
            return await super().propose(*arguments, **settings)

    engines["policy"] = Dying(engines["policy"], calls=3)
    solving = Solving("?", **engines, settings=SETTINGS, budget=Budget(99))
    with pytest.raises(PolicyError):
        await solving.run()
    assert (await solving.so_far()).best is not None

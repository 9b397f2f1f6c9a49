"""Each rule of the search, on trees that are small enough to compute by hand."""

import asyncio

import pytest

from domains.mathematics.domain import DOMAIN
from rstar.annotation import Annotation
from rstar.expansion import expansion_seed
from rstar.protocols import Execution, PolicyError, Proposal, SandboxLost, Verdict
from rstar.search import SearchSettings, search
from rstar.tree import Tree

FIRST = "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>"
SECOND = "\n# Tom buys 12.\ntom = tom + 12\n<end_of_step>"
LAST = "\n# Now print the final answer\nprint(tom)\n<end_of_code>"


def answer(value):
    return f"\n<answer>It is \\boxed{{{value}}}.\n<end_of_answer>"


class ByDepth:
    """A policy that proposes the same steps at all nodes of the same depth."""

    def __init__(self, *steps):
        self.steps = steps
        self.prefixes = []

    async def propose(self, question, prefix, *, num_candidates, seed):
        self.prefixes.append(list(prefix))
        return [Proposal(text, num_tokens=3, logprob=-1.5, prompt_tokens=7) for text in self.steps[len(prefix)]]


class Scorer:
    """Scores longer steps higher."""

    async def score(self, question, prefix, candidates):
        return [min(1.0, len(candidate) / 100) for candidate in candidates]


def settings(num_rollouts=1, **more):
    return SearchSettings(**{"num_rollouts": num_rollouts, "num_candidates": 2, **more})


def state(node):
    return node.visits, node.value_sum, node.closed


async def test_wrong_and_correct_answers_are_backed_up(letters, at):
    tree = await letters({"": "ab", "a": "cd"}, {"a/c": "7", "a/d": "42"}, num_rollouts=1)
    assert state(at(tree, "a/c")) == (1, -1.0, True)
    assert state(at(tree, "a/d")) == (1, 1.0, True)
    assert state(at(tree, "a")) == (2, 0.0, True)
    assert state(tree.root) == (2, 0.0, False)


async def test_siblings_of_an_answer_stay_open(letters, at):
    tree = await letters({"": "ab", "a": "cd", "b": "e", "a/d": "f"}, {"a/c": "42", "b/e": "7"}, num_rollouts=1)
    assert state(at(tree, "a/d")) == (0, 0.0, False)
    assert state(at(tree, "a")) == (1, 1.0, False)


async def test_an_unvisited_child_is_entered_before_a_visited_one(letters, at):
    tree = await letters({"": "ab", "a": "cd", "b": "e"}, {"a/c": "42", "b/e": "7"}, num_rollouts=2)
    assert state(at(tree, "b/e")) == (1, -1.0, True)
    assert state(tree.root) == (2, 0.0, False)


async def test_a_node_without_a_valid_candidate_is_a_dead_end_and_is_backed_up(letters, at):
    tree = await letters({"": "ab", "a": "cd"}, invalid=["a/c", "a/d"], num_rollouts=1)
    assert at(tree, "a").dead_end
    assert state(at(tree, "a")) == (1, -1.0, True)
    assert state(tree.root) == (1, -1.0, False)
    assert [node.verdict for node in tree.nodes[3:]] == [Verdict.EXCEPTION] * 2


async def test_a_node_at_the_maximum_depth_is_a_dead_end_once_it_is_entered(letters, at):
    tree = await letters({"": "ab", "a": "cd"}, num_rollouts=1, max_depth=1)
    assert state(at(tree, "a")) == (1, -1.0, True)
    assert state(at(tree, "b")) == (0, 0.0, False)


async def test_an_answer_at_the_maximum_depth_counts(letters, at):
    tree = await letters({"": "a"}, {"a": "42"}, num_rollouts=1, max_depth=1)
    assert state(at(tree, "a")) == (1, 1.0, True)


async def test_a_root_without_open_children_ends_the_search_early(letters):
    tree = await letters({"": "ab", "a": "c", "b": "d"}, {"a/c": "42", "b/d": "7"}, num_rollouts=9)
    assert tree.root.closed
    assert tree.num_rollouts == 2


async def test_equal_candidates_are_one_child_that_counts_its_samples(letters, at):
    tree = await letters({"": "bab"}, num_rollouts=1, max_depth=1)
    assert [child.num_samples for child in tree.root.children] == [2, 1]
    assert [child.index for child in tree.root.children] == [0, 1]


async def test_equal_answers_are_one_child(letters, at):
    tree = await letters({"": "abc"}, {"a": "7", "b": "42", "c": "7"}, num_rollouts=1)
    assert [(child.answer, child.num_samples) for child in tree.root.children] == [("7", 2), ("42", 1)]
    assert state(tree.root) == (2, 0.0, True)


async def test_a_ppm_score_is_one_pseudo_visit_that_is_not_backed_up(letters, at):
    ppm = {"a": 0.5, "b": 0.25, "a/c": -0.75, "a/d": -0.5}
    tree = await letters({"": "ab", "a": "cd"}, {"a/c": "42"}, ppm=ppm, annotation="ppm", num_rollouts=1)
    assert state(at(tree, "b")) == (1, 0.25, False)
    assert state(at(tree, "a/d")) == (1, -0.5, False)
    assert state(at(tree, "a/c")) == (1, 1.0, True)
    assert state(at(tree, "a")) == (2, 1.5, False)
    assert state(tree.root) == (1, 1.0, False)


async def test_at_inference_the_value_of_a_terminal_is_its_ppm_score(letters, at):
    ppm = {"a": 0.5, "b": 0.25, "a/c": -0.75}
    tree = await letters({"": "ab", "a": "c"}, {"a/c": "42"}, ppm=ppm, annotation="inference", num_rollouts=1)
    assert state(at(tree, "a/c")) == (1, -0.75, True)
    assert state(at(tree, "a")) == (2, -0.25, True)


async def test_at_inference_the_ground_truth_is_not_read(executor, judge):
    class Sealed:
        id, question = "p", "?"

        @property
        def answer(self):
            raise AssertionError("the ground truth was read")

    policy = ByDepth([FIRST], [LAST], [answer(34), answer(35)])
    engines = {"steps": DOMAIN, "policy": policy, "executor": executor, "judge": judge, "scorer": Scorer()}
    tree = await search(Sealed(), **engines, settings=settings(annotation=Annotation.INFERENCE))
    assert [node.correct for node in tree.walk() if node.terminal] == [None, None]


async def test_ppm_augmented_annotation_needs_a_scorer(problem, executor, judge):
    with pytest.raises(ValueError, match="needs a scorer"):
        await search(
            problem,
            steps=DOMAIN,
            policy=ByDepth(),
            executor=executor,
            judge=judge,
            settings=settings(annotation=Annotation.PPM),
        )


async def test_real_steps_run_in_the_state_of_their_prefix_and_answers_are_judged(problem, executor, judge):
    policy = ByDepth([FIRST], [SECOND], [LAST], [answer("46.0")])
    ends = []
    tree = await search(
        problem,
        steps=DOMAIN,
        policy=policy,
        executor=executor,
        judge=judge,
        settings=settings(),
        on_rollout=lambda tree, end: ends.append(end),
    )
    assert policy.prefixes[-1] == [FIRST, SECOND, LAST + "\n<output>46<end_of_output>"]
    assert tree.nodes[3].output == "46\n"
    terminal = tree.nodes[4]
    assert (terminal.answer, terminal.correct, terminal.num_tokens, terminal.prompt_tokens) == ("46.0", True, 3, 7)
    assert ends == [tree.nodes[3]]
    assert len(executor.codes) == 3  # the answer is not run


async def test_candidates_that_differ_in_white_space_only_are_run_once(problem, executor, judge):
    policy = ByDepth([FIRST, FIRST.replace(" = ", "  = "), FIRST + "\n"], ["x"])
    tree = await search(problem, steps=DOMAIN, policy=policy, executor=executor, judge=judge, settings=settings())
    assert executor.codes == ["# Tom has 34 apples.\ntom = 34"]
    assert (tree.nodes[1].num_samples, tree.nodes[1].num_tokens, tree.nodes[1].sampled_tokens) == (3, 3, 9)


async def test_malformed_and_failing_candidates_are_recorded_and_not_entered(problem, executor, judge):
    policy = ByDepth(["no marker", SECOND, answer(46), "<code>\n1 / 0\n<end_of_step>", FIRST], [])
    tree = await search(problem, steps=DOMAIN, policy=policy, executor=executor, judge=judge, settings=settings())
    assert [node.verdict for node in tree.nodes[1:]] == [*[Verdict.MALFORMED] * 3, Verdict.EXCEPTION, Verdict.OK]
    assert tree.nodes[4].error == "ZeroDivisionError('division by zero')"
    assert [child.text for child in tree.root.children] == [FIRST]
    assert len(executor.codes) == 2  # malformed candidates are not run


async def test_equivalent_answers_are_merged_and_equal_strings_are_not_judged(problem, executor, judge):
    policy = ByDepth([FIRST], [LAST], [answer("46"), answer("46.0"), "\n<answer>So \\boxed{46}\n<end_of_answer>"])
    tree = await search(problem, steps=DOMAIN, policy=policy, executor=executor, judge=judge, settings=settings())
    assert [child.num_samples for child in tree.nodes[2].children] == [3]
    assert judge.comparisons == [("46.0", "46")]


async def test_all_checkpoints_are_released(problem, executor, judge):
    policy = ByDepth([FIRST, FIRST.replace("34", "35")], [SECOND, LAST], [LAST, answer(1)], [answer(46)])
    for num_rollouts in (1, 2, 3):
        await search(
            problem, steps=DOMAIN, policy=policy, executor=executor, judge=judge, settings=settings(num_rollouts)
        )
        assert executor.states == {}


async def test_the_state_after_the_last_code_is_released_at_once_and_other_open_states_are_kept(
    problem, executor, judge
):
    policy = ByDepth([FIRST, FIRST.replace("34", "35")], [SECOND, LAST], [LAST], [answer(46)])
    held = []

    def look(tree, end):
        held.extend((node.kind, node.checkpoint is not None) for node in tree.nodes[1:] if not node.expanded)

    await search(
        problem, steps=DOMAIN, policy=policy, executor=executor, judge=judge, settings=settings(), on_rollout=look
    )
    assert ("last_code", False) in held and ("code", True) in held
    assert ("last_code", True) not in held


async def test_all_checkpoints_are_released_when_the_policy_dies(problem, executor, judge):
    class Dying(ByDepth):
        async def propose(self, question, prefix, *, num_candidates, seed):
            if prefix:
                assert executor.states
                raise PolicyError("gone")
            return await super().propose(question, prefix, num_candidates=num_candidates, seed=seed)

    with pytest.raises(PolicyError):
        await search(problem, steps=DOMAIN, policy=Dying([FIRST]), executor=executor, judge=judge, settings=settings())
    assert executor.states == {}


async def test_a_lost_sandbox_is_an_error_and_not_a_verdict(problem, judge):
    class Lost:
        async def run(self, checkpoint, code):
            await asyncio.sleep(0)
            raise SandboxLost("gone")

    with pytest.raises(SandboxLost):
        await search(problem, steps=DOMAIN, policy=ByDepth([FIRST]), executor=Lost(), judge=judge, settings=settings())


def branching():
    return ByDepth(
        [FIRST, FIRST.replace("34", "35")],
        [SECOND, SECOND.replace("+", "-"), LAST],
        [LAST, answer(46), answer(34)],
        [answer(46), answer(0)],
    )


async def test_a_search_can_be_continued_from_a_stored_tree(problem, executor, judge):
    engines = {"steps": DOMAIN, "policy": branching(), "executor": executor, "judge": judge}
    whole = await search(problem, **engines, settings=settings(7), seed=5)
    tree = await search(problem, **engines, settings=settings(3), seed=5)
    tree = Tree.from_records(problem, tree.to_records(), DOMAIN)
    tree = await search(problem, **engines, settings=settings(4), tree=tree)
    assert tree.to_records() == whole.to_records()


async def test_a_reloaded_node_whose_prefix_fails_now_is_a_dead_end(problem, executor, judge):
    engines = {
        "steps": DOMAIN,
        "policy": ByDepth([FIRST, FIRST.replace("34", "35")], [SECOND], [LAST], [answer(46)]),
        "judge": judge,
    }
    tree = await search(problem, **engines, executor=executor, settings=settings(1), seed=5)

    class Stricter:
        async def run(self, checkpoint, code):
            return Execution(Verdict.FORBIDDEN, error="no more")

        async def release(self, checkpoint):
            pass

    before = len(tree.nodes)
    tree = await search(problem, **engines, executor=Stricter(), settings=settings(1), tree=tree)
    assert [node.verdict for node in tree.nodes[before:]] == [Verdict.FORBIDDEN]
    assert tree.root.children[1].dead_end


def test_the_seed_of_an_expansion_is_fixed_and_depends_on_tree_question_and_prefix():
    assert expansion_seed(1, "q", ["a", "b"]) == 4213048284680348964
    seeds = [(2, "q", ["a", "b"]), (1, "r", ["a", "b"]), (1, "q", ["ab"]), (1, "q", ["a", "b", ""]), (1, "qa", ["b"])]
    assert len({expansion_seed(*arguments) for arguments in [*seeds, (1, "q", ["a", "b"])]}) == 6
    assert 0 <= expansion_seed(1, "q\ud800", []) < 2**63

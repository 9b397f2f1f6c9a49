"""Trees are stored as rows and read back, and several trees of a problem are merged into one."""

import json

import pytest

from domains.mathematics.domain import DOMAIN
from rstar.merging import merge_trees
from rstar.protocols import Problem, Verdict
from rstar.tree import Tree

POLICY = {"": "abb", "a": "cd", "b": "ef", "a/d": "gh"}
ANSWERS = {"a/c": "42", "b/e": "7", "a/d/g": "42"}


@pytest.fixture
def search(letters):
    def search(num_rollouts=3, *, policy=POLICY, answers=ANSWERS, invalid=("b/f",), **more):
        return letters(policy, answers, invalid=invalid, num_rollouts=num_rollouts, **more)

    return search


async def test_a_tree_can_be_read_back_from_its_rows_which_are_plain_json(search):
    tree = await search()
    records = json.loads(json.dumps(tree.to_records()))
    again = Tree.from_records(tree.problem, reversed(records), DOMAIN)
    assert again.to_records() == tree.to_records()
    assert [node.prefix() for node in again.walk()] == [node.prefix() for node in tree.walk()]
    assert again.num_rollouts == tree.num_rollouts == 3
    assert again.nodes[1].kind == "code"
    assert {node.verdict for node in again.nodes} == {Verdict.OK, Verdict.EXCEPTION}


async def test_a_row_holds_the_main_columns_of_its_node(search):
    (row,) = [row for row in (await search()).to_records() if row["answer"] == "7"]
    columns = {name: row[name] for name in ("parent", "depth", "kind", "verdict", "terminal", "correct", "visits", "q")}
    assert columns == {
        **{"parent": 2, "depth": 2, "kind": "answer", "verdict": "ok"},
        **{"terminal": True, "correct": False, "visits": 1, "q": -1.0},
    }


async def test_one_tree_merged_is_itself(search):
    tree = await search()
    assert merge_trees([tree], DOMAIN).to_records() == tree.to_records()


async def test_visits_and_value_sums_of_the_same_prefix_add_up(search, at):
    """Tree 1 has a with N=2, q=2 and b with N=1, q=-1. Tree 2 has b, where e is correct, and a new step z."""
    first = await search()
    second = await search(1, policy={"": "bz", "b": "eg"}, answers={"b/e": "42", "b/g": "7"}, invalid=())
    merged = merge_trees([first, second], DOMAIN)
    roots = [(tree.root.visits, tree.root.value_sum) for tree in (first, second, merged)]
    assert roots == [(3, 1), (2, 0), (5, 1)]
    assert (at(merged, "b").visits, at(merged, "b").value_sum, at(merged, "b").num_samples) == (3, -1, 3)
    assert [(node.answer, node.correct, node.visits) for node in at(merged, "b").children] == [
        ("7", False, 2),  # one terminal, because the answers are equal, though the letters differ
        ("42", True, 1),
    ]
    assert [child.index for child in merged.root.children] == [0, 1, 2]
    assert merged.root.num_samples == 1
    assert merged.num_rollouts == 4


async def test_an_invalid_step_is_never_merged_with_a_valid_one(search, at):
    first = await search(3)
    second = await search(2, policy={"": "b", "b": "f"}, invalid=())
    merged = merge_trees([first, second], DOMAIN)
    assert sorted(node.verdict for node in merged.nodes if node.parent is at(merged, "b") and "# f" in node.text) == [
        Verdict.EXCEPTION,
        Verdict.OK,
    ]


async def test_a_node_closed_in_one_tree_is_open_if_another_tree_has_an_open_child(search, at):
    closed = await search(1, policy={"": "a", "a": "c"})
    fresh = await search(1, policy={"": "a", "a": "cx"}, answers={"a/c": "42"})
    assert closed.root.closed and not fresh.root.closed
    merged = merge_trees([closed, fresh], DOMAIN)
    assert not merged.root.closed and not at(merged, "a").closed and at(merged, "a/c").closed


async def test_a_dead_end_of_one_tree_stays_one_if_another_tree_continues_there(search, at):
    dead = await search(1, policy={"": "a"})
    alive = await search(1, policy={"": "a", "a": "cx"})
    for trees in ([dead, alive], [alive, dead]):
        node = at(merge_trees(trees, DOMAIN), "a")
        assert (node.dead_end, node.closed, node.visits, node.value_sum) == (True, False, 2, 0.0)


async def test_a_node_not_yet_entered_takes_its_state_from_the_other_tree(search, at):
    fresh = await search(1, policy={"": "ba", "b": "e"})
    done = await search(1, policy={"": "a", "a": "c"})
    node = at(merge_trees([fresh, done], DOMAIN), "a")
    assert (node.expanded, node.closed, node.visits) == (True, True, 1)


async def test_merging_does_not_change_the_trees(search):
    first, second = await search(3), await search(2)
    before = first.to_records(), second.to_records()
    merge_trees([first, second], DOMAIN)
    assert (first.to_records(), second.to_records()) == before


def test_trees_of_different_problems_cannot_be_merged():
    trees = [Tree.start(Problem(name, "?", "1"), 0) for name in "ab"]
    with pytest.raises(ValueError, match="one problem"):
        merge_trees(trees, DOMAIN)

"""Trees can be read back from the node table, and a merged node is named by the first tree that has it."""

from __future__ import annotations

from pathlib import Path

from domains.mathematics.domain import DOMAIN
from domains.mathematics.steps import StepKind
from rstar.merging import merge_trees
from rstar.protocols import Problem, Verdict
from rstar.trajectories import trajectories
from rstar.tree import Tree
from store import shards
from store.layout import Run
from tasks.lib.trees import node_refs, node_rows, searched_problems, trees_of

PROBLEM = Problem("p1", "What is 1 + 1?", "2")
COLUMNS = {"run": "r", "round": 1, "shard": 0, "model": "m", "recipe": "h"}
FIRST = "<code>\n# {}\nx = 1\n<end_of_step>"
LAST = "\n# print\nprint(x)\n<end_of_code>"


def tree(seed: int, *firsts: str, answer: str = "2") -> Tree:
    """Return a tree with these first steps, of which the first leads to the answer, and one malformed candidate."""
    tree = Tree.start(PROBLEM, seed)
    nodes = [
        tree.add(tree.root, index=i, text=FIRST.format(name), kind=StepKind.CODE, visits=2, value_sum=1.0)
        for i, name in enumerate(firsts)
    ]
    tree.add(tree.root, index=9, text="broken", verdict=Verdict.MALFORMED, closed=True)
    rendered = DOMAIN.render(LAST, "2")
    last = tree.add(
        nodes[0], index=0, text=LAST, rendered=rendered, output="2", kind=StepKind.LAST_CODE, visits=1, value_sum=1.0
    )
    text = f"\n<answer>\\boxed{{{answer}}}\n<end_of_answer>"
    tree.add(
        last, index=0, text=text, kind=StepKind.ANSWER, answer=answer, correct=answer == "2", visits=1, value_sum=1.0
    )
    return tree


def test_trees_read_back_from_the_table_are_the_trees_written(tmp_path: Path) -> None:
    trees = [tree(1, "a", "b"), tree(2, "a")]
    url = str(tmp_path / "nodes.parquet")
    shards.write_rows(url, "nodes", node_rows(trees, **COLUMNS))
    back = trees_of(shards.read_rows(url, "nodes"), {"p1": PROBLEM}, DOMAIN)["p1"]
    assert [node_rows([each], **COLUMNS) for each in back] == [node_rows([each], **COLUMNS) for each in trees]
    assert trajectories(back[0]) == trajectories(trees[0])


def test_a_merged_node_is_named_by_the_first_tree_that_has_it() -> None:
    first, second = tree(1, "a"), tree(2, "b", "a")
    merged = merge_trees([first, second], DOMAIN)
    refs = node_refs([first, second], merged, DOMAIN)
    names = {refs[node.id]: node.text for node in merged.nodes}
    assert names["0:1"] == FIRST.format("a")
    assert names["1:1"] == FIRST.format("b")
    assert "1:2" not in names
    assert len(set(refs.values())) == len(merged.nodes)


def test_a_problem_with_two_trees_is_merged_when_a_round_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    shards.write_rows(run.nodes(1, 0), "nodes", node_rows([tree(1, "a"), tree(2, "a")], **COLUMNS))
    (searched,) = searched_problems(run, 1, {"p1": PROBLEM}, DOMAIN)
    child = searched.tree.root.children[0]
    assert child.visits == 4
    assert searched.refs[child.id] == "0:1"

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from domains.mathematics.domain import DOMAIN
from models import ppm
from models.checkpoints import load_tokenizer
from models.tokens import encode
from models.training.ppm import Group, lay_out
from models.training.prefix_tree import ROOT, PrefixTree

TEXTS = [[5, 6, 7], [5, 6, 8, 9], [5, 6], [6, 7]]


def test_a_common_prefix_is_stored_once() -> None:
    tree = PrefixTree()
    assert [tree.num_new(text) for text in TEXTS] == [3, 4, 2, 2]
    places = [tree.add(text) for text in TEXTS]
    assert tree.tokens == [5, 6, 7, 8, 9, 6, 7]
    assert tree.parents == [ROOT, 0, 1, 1, 3, ROOT, 5]
    assert places == [2, 4, 1, 6]
    assert tree.num_new([5, 6, 8, 1]) == 1
    assert len(tree) == 7


def test_a_token_attends_to_its_own_text_only() -> None:
    tree = PrefixTree()
    for text in TEXTS:
        tree.add(text)
    inputs = tree.inputs()
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 2, 3, 0, 1]]
    sees = inputs["attention_mask"][0, 0]
    assert [(row == 0).nonzero()[:, 0].tolist() for row in sees] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 3],
        [0, 1, 3, 4],
        [5],
        [5, 6],
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_in_a_tree_equal_those_of_the_separate_texts(small_policy: Path, attention: str) -> None:
    rng = random.Random(0)
    stems = [[rng.randrange(5, 100) for _ in range(30)] for _ in range(2)]
    texts = [[*stems[i % 2][: rng.randrange(5, 30)], *(rng.randrange(5, 100) for _ in range(9))] for i in range(12)]
    model = ppm.from_policy(small_policy, pad_token_id=0, device="cpu").eval().double()  # so that CPUs agree
    model.set_attn_implementation(attention)
    torch.nn.init.normal_(model.score.weight)
    tree = PrefixTree()
    places = [tree.add(text) for text in texts]
    assert len(tree) < sum(map(len, texts))
    with torch.no_grad():
        inputs = tree.inputs()
        inputs["attention_mask"] = inputs["attention_mask"].double()
        together = ppm.logits(model, ppm.states(model, places, **inputs))
        alone = [ppm.logits(model, ppm.states(model, [-1], input_ids=torch.tensor([text]))) for text in texts]
    assert together.tolist() == pytest.approx([float(value) for value in alone], abs=1e-5)


def test_as_many_groups_of_a_problem_as_fit_are_in_one_example(small_policy: Path) -> None:
    tokenizer = load_tokenizer(small_policy)
    first = Group("q", ["Tom has 3.", "Tom has 4."], [(0, 1)], [1.0, -1.0])
    second = Group("q", ["Tom has 5.", "Tom has 3."], [(1, 0)], [1.0, -1.0])
    other = Group("p", ["Tom has 3.", "Zoe has 4."], [(0, 1)], [1.0, -1.0])
    endless = Group("p", ["Tom has 3. " * 99, "Tom"], [(0, 1)], [1.0, -1.0])
    longest = max(len(encode(tokenizer, text, DOMAIN)) for text in first.texts)
    one, two = lay_out([first, second, other, endless], tokenizer, domain=DOMAIN, max_length=2 * longest)
    assert (one.groups, two.groups) == ([[(0, 1)], [(3, 2)]], [[(0, 1)]])
    assert one.places[0] == one.places[3]
    assert one.targets == [1.0, -1.0, 1.0, -1.0]
    many = [Group("q", [f"{i} {i} {i}", f"{i} {i} 1000"], [(0, 1)], [1.0, -1.0]) for i in range(9)]
    made = lay_out(many, tokenizer, domain=DOMAIN, max_length=2 * longest)
    assert len(made) > 1
    assert sum(len(example.groups) for example in made) == 9

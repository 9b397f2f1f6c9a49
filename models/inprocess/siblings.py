"""Attention of candidates that share a prompt: the prompt's keys and values are read once a node, not once a candidate.

Siblings' queries meet their node's keys in one matrix product, their own few tokens in another, and the two are joined
by their softmax normalisers (Hydragen, arXiv 2402.05099). A batch of siblings is otherwise bound by reading copies of
the prompts' cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

from models.inprocess.attention import HIDDEN, MIN_QUERIES, attend, causal, check_plain, grouped
from models.inprocess.prefixes import States

NAME = "siblings"
WORTH_A_COPY = 0.75  # prompts are left behind once fewer than this share of them are in use


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts' states (layers, nodes, heads, tokens, width), and for each row its node and place among siblings."""

    states: States
    bias: torch.Tensor  # (nodes, 1, 1, tokens): 0, or HIDDEN past the prompt's end
    node: torch.Tensor
    place: torch.Tensor
    num_places: int  # siblings of a node at most

    @classmethod
    def of(cls, states: States, lengths: torch.Tensor, counts: list[int]) -> Prompts:
        """`counts` says how many rows each prompt has, `lengths` how many of its tokens they see."""
        node = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(lengths.device)
        past = torch.arange(states.keys.shape[-2], device=lengths.device) >= lengths[:, None]
        bias = torch.where(past, HIDDEN, 0.0).to(states.keys.dtype)[:, None, None]
        return cls(states, bias, node, *places_of(node))

    def only(self, rows: torch.Tensor) -> Prompts:
        """For some of the rows, by a mask or by their numbers, one perhaps twice; prompts without rows go at times."""
        node, states, bias = self.node[rows], self.states, self.bias
        nodes = node.unique()
        if len(nodes) < WORTH_A_COPY * len(bias):
            nodes, node = node.unique(return_inverse=True)
            states, bias = States(states.keys[:, nodes], states.values[:, nodes]), bias[nodes]
        return Prompts(states, bias, node, *places_of(node))


def places_of(node: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The place of each row among its node's, and the most places that a node has."""
    place = places(node)
    return place, int(place.max()) + 1


def places(group: torch.Tensor) -> torch.Tensor:
    """The place of each member among those of its group, where `group` names each one's by a number from 0."""
    counts = group.bincount()
    order = group.argsort(stable=True)
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    return place


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, *, scaling: float, **options: Any
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: query (rows, heads, tokens, width), key and value of the rows' own tokens.

    Within `attending(model, NAME, prompts)` a model continues `prompts`; its cache holds what the rows say themselves.
    """
    check_plain(options)
    prompts: Prompts = module.config.attended
    rows, heads, length, width = query.shape
    query = grouped(query, key.shape[1])
    own, own_weight = attend(query, key, value, scaling, causal(query.shape[2], length, key))
    num_places = max(prompts.num_places, -(-MIN_QUERIES // query.shape[2]))
    asked = query.new_zeros(len(prompts.bias), num_places, *query.shape[1:])
    asked[prompts.node, prompts.place] = query
    at = prompts.states.keys[module.layer_idx], prompts.states.values[module.layer_idx]
    found, weight = attend(asked.transpose(1, 2).flatten(2, 3), *at, scaling, prompts.bias)
    found, weight = (
        one.unflatten(2, (num_places, -1)).transpose(1, 2)[prompts.node, prompts.place] for one in (found, weight)
    )
    share = 1 / (1 + torch.exp(own_weight - weight))  # torch.sigmoid has another last bit at a tensor's end
    joined = found * share + own * (1 - share)
    return joined.view(rows, heads, length, width).transpose(1, 2), None


AttentionInterface.register(NAME, attention)

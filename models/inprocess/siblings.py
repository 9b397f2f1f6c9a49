"""Attention of candidates that share a prompt: the prompt's keys and values are read once per node.

The siblings' queries meet the keys of their node's prompt in one matrix product and the keys of their own few tokens in
another; the two results are joined by their softmax normalizers (Hydragen, arXiv 2402.05099). With a copy of the
prompt's cache for each sibling, reading the copies would take most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

from models.inprocess.attention import MASKED, MIN_QUERIES, attend, causal, check_plain, grouped
from models.inprocess.prefixes import States

NAME = "siblings"
MIN_SHARE_IN_USE = 0.75  # of the prompts; below it, copying those in use is worth the time


@dataclass(frozen=True, slots=True)
class Prompts:
    """The states of the prompts (layers, nodes, heads, tokens, width), and which rows continue which prompt."""

    states: States
    bias: torch.Tensor  # (nodes, 1, 1, tokens): 0, or MASKED after the prompt's end
    node: torch.Tensor  # (rows): the prompt of each row
    place: torch.Tensor  # (rows): the number of each row among its prompt's rows
    num_places: int  # the largest number of rows of a prompt

    @classmethod
    def of(cls, states: States, lengths: torch.Tensor, counts: list[int]) -> Prompts:
        """Make `counts[i]` rows that see the first `lengths[i]` tokens of prompt i."""
        node = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(lengths.device)
        past = torch.arange(states.keys.shape[-2], device=lengths.device) >= lengths[:, None]
        bias = torch.where(past, MASKED, 0.0).to(states.keys.dtype)[:, None, None]
        return cls(states, bias, node, *places_of(node))

    def only(self, rows: torch.Tensor) -> Prompts:
        """Select rows, by a mask or by numbers that may repeat; drop unused prompts if there are many of them."""
        node, states, bias = self.node[rows], self.states, self.bias
        nodes = node.unique()
        if len(nodes) < MIN_SHARE_IN_USE * len(bias):
            nodes, node = node.unique(return_inverse=True)
            states, bias = States(states.keys[:, nodes], states.values[:, nodes]), bias[nodes]
        return Prompts(states, bias, node, *places_of(node))


def places_of(node: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the place of each row among its node's rows, and the largest number of rows of a node."""
    place = places(node)
    return place, int(place.max()) + 1


def places(group: torch.Tensor) -> torch.Tensor:
    """Number the members of each group from 0; `group` has the group's number, from 0, for each member."""
    counts = group.bincount()
    order = group.argsort(stable=True)
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    return place


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, *, scaling: float, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attend to the rows' prompts and own tokens; an attention function of transformers.

    `query` has shape (rows, heads, tokens, width). `key` and `value` are those of the rows' own tokens, from the
    model's cache; the prompts come from `attending(model, NAME, prompts)`.
    """
    check_plain(options)
    prompts: Prompts = module.config.attended
    rows, heads, length, width = query.shape
    query = grouped(query, key.shape[1])
    own, own_weight = attend(query, key, value, scaling, causal(query.shape[2], length, key))
    num_places = max(prompts.num_places, -(-MIN_QUERIES // query.shape[2]))
    by_node = query.new_zeros(len(prompts.bias), num_places, *query.shape[1:])
    by_node[prompts.node, prompts.place] = query
    states = prompts.states.keys[module.layer_idx], prompts.states.values[module.layer_idx]
    found, weight = attend(by_node.transpose(1, 2).flatten(2, 3), *states, scaling, prompts.bias)
    found, weight = (
        one.unflatten(2, (num_places, -1)).transpose(1, 2)[prompts.node, prompts.place] for one in (found, weight)
    )
    share = 1 / (1 + torch.exp(own_weight - weight))  # torch.sigmoid rounds differently at the end of a tensor
    joined = found * share + own * (1 - share)
    return joined.view(rows, heads, length, width).transpose(1, 2), None


AttentionInterface.register(NAME, attention)

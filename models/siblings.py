"""Attention of candidates that share a prompt: the prompt's keys and values are read once a node, not once a candidate.

Siblings' queries meet their node's keys in one matrix product, their own few tokens in another, and the two are joined
by their softmax normalisers (Hydragen, arXiv 2402.05099). A batch of siblings is otherwise bound by reading copies of
the prompts' cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

from models.prefixes import States
from rstar.protocols import UserError

NAME = "siblings"
WORTH_A_COPY = 0.75  # prompts are left behind once fewer than this share of them are in use
HIDDEN = -1e9  # finite, so that a prompt without any visible token gives no NaN


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts' states (layers, nodes, heads, tokens, width), and for each row its node and place among siblings."""

    states: States
    bias: torch.Tensor  # (nodes, 1, 1, tokens): 0, or HIDDEN where there is padding
    node: torch.Tensor
    place: torch.Tensor
    num_places: int  # siblings of a node at most

    @classmethod
    def of(cls, states: States, mask: torch.Tensor, counts: list[int]) -> Prompts:
        """`counts` says how many rows each prompt has; `mask`, of shape (nodes, tokens), where there is no padding."""
        node = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(mask.device)
        bias = (1 - mask[:, None, None, :]).to(states.keys.dtype) * HIDDEN
        return cls(states, bias, node, places(node), max(counts))

    def only(self, rows: torch.Tensor) -> Prompts:
        """For some of the rows, by a mask or by their numbers, one perhaps twice; prompts without rows go at times."""
        node, states, bias = self.node[rows], self.states, self.bias
        nodes = node.unique()
        if len(nodes) < WORTH_A_COPY * len(bias):
            nodes, node = node.unique(return_inverse=True)
            states, bias = States(states.keys[:, nodes], states.values[:, nodes]), bias[nodes]
        place = places(node)
        return Prompts(states, bias, node, place, int(place.max()) + 1)


def places(group: torch.Tensor) -> torch.Tensor:
    """The place of each member among those of its group, where `group` names each one's by a number from 0."""
    counts = group.bincount()
    order = group.argsort(stable=True)
    place = torch.empty_like(group)
    place[order] = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
    return place


class SiblingLayer(DynamicLayer):
    """A row's own keys and values, after a prompt that is kept elsewhere."""

    def __init__(self, prompt_length: int) -> None:
        super().__init__()
        self.prompt_length = prompt_length

    def get_seq_length(self) -> int:
        return self.prompt_length + super().get_seq_length()


def sibling_cache(num_layers: int, prompt_length: int) -> Cache:
    return Cache(layers=[SiblingLayer(prompt_length) for _ in range(num_layers)])


@contextmanager
def attending(model: Any, prompts: Prompts) -> Iterator[None]:
    """Within the block `model` continues `prompts`, with a `sibling_cache`."""
    before = model.config._attn_implementation
    model.config._attn_implementation, model.config.sibling_prompts = NAME, prompts
    try:
        yield
    finally:
        model.config._attn_implementation = before
        del model.config.sibling_prompts


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, *, scaling: float, **options: Any
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: query (rows, heads, tokens, width), key and value of the rows' own tokens."""
    if options.get("softcap") or options.get("s_aux") is not None:
        raise UserError("the engine in process has no soft-capped or sink attention; serve this model with vLLM")
    prompts: Prompts = module.config.sibling_prompts
    rows, heads, length, width = query.shape
    query = query.reshape(rows, key.shape[1], -1, width)  # the queries of a key head, one after the other
    own, own_weight = _attend(query, key, value, scaling, _causal(query.shape[2], length, key))
    asked = query.new_zeros(len(prompts.bias), prompts.num_places, *query.shape[1:])
    asked[prompts.node, prompts.place] = query
    at = prompts.states.keys[module.layer_idx], prompts.states.values[module.layer_idx]
    found, weight = _attend(asked.transpose(1, 2).flatten(2, 3), *at, scaling, prompts.bias)
    found, weight = (
        one.unflatten(2, (prompts.num_places, -1)).transpose(1, 2)[prompts.node, prompts.place]
        for one in (found, weight)
    )
    share = torch.sigmoid(weight - own_weight)
    joined = found * share + own * (1 - share)
    return joined.view(rows, heads, length, width).transpose(1, 2), None


def _causal(num_queries: int, length: int, key: torch.Tensor) -> torch.Tensor | None:
    """What hides the later ones of the newest `length` tokens, shape (queries, tokens); None for a single token."""
    if length == 1:
        return None
    bias = torch.full((length, key.shape[-2]), HIDDEN, dtype=key.dtype, device=key.device)
    return bias.triu(key.shape[-2] - length + 1).repeat(num_queries // length, 1)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the logarithm of its normaliser."""
    scores = (query * scaling) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    shares = scores.softmax(-1)
    weight = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()  # without another exponential
    return shares @ value, weight


AttentionInterface.register(NAME, attention)

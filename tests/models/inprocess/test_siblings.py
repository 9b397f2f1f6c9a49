from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from models.checkpoints import load_policy
from models.inprocess.attention import attending
from models.inprocess.prefixes import PrefixCache
from models.inprocess.siblings import NAME, Prompts

PROMPTS = ([40, 41, 42, 43], [50], [60, 61])
COUNTS = [3, 1, 2]
ROWS = torch.tensor([[7, 8, 9], [9, 8, 7], [7, 7, 7], [8, 8, 9], [9, 9, 7], [7, 9, 9]])


@pytest.fixture(scope="module")
def model(small_policy: Path) -> torch.nn.Module:
    return load_policy(small_policy, device="cpu").base_model.eval()


@torch.inference_mode()
def expected(model: torch.nn.Module, row: int) -> torch.Tensor:
    prompt = [prompt for prompt, count in zip(PROMPTS, COUNTS, strict=True) for _ in range(count)][row]
    whole = model(torch.tensor([[*prompt, *ROWS[row].tolist()]])).last_hidden_state
    return whole[0, len(prompt) :]


@torch.inference_mode()
def continued(model: torch.nn.Module, *, at_once: bool) -> torch.Tensor:
    """Return hidden states (rows, tokens, width) of ROWS after PROMPTS, all tokens at once or one by one."""
    states, lengths = PrefixCache(model).states([[prompt] for prompt in PROMPTS])
    prompts, cache = Prompts.of(states, lengths, COUNTS), DynamicCache()
    positions = lengths[prompts.node, None] + torch.arange(ROWS.shape[1])
    parts = [slice(0, 3)] if at_once else [slice(at, at + 1) for at in range(3)]
    with attending(model, NAME, prompts):
        return torch.cat(
            [
                model(ROWS[:, part], position_ids=positions[:, part], past_key_values=cache).last_hidden_state
                for part in parts
            ],
            dim=1,
        )


@pytest.mark.parametrize("at_once", [True, False])
def test_siblings_attend_to_their_own_prompt_and_their_own_tokens(model: torch.nn.Module, at_once: bool) -> None:
    found = continued(model, at_once=at_once)
    for row in range(len(ROWS)):
        torch.testing.assert_close(found[row], expected(model, row), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_rest_of_the_rows_continue_as_they_would_with_all(model: torch.nn.Module) -> None:
    states, lengths = PrefixCache(model).states([[prompt] for prompt in PROMPTS])
    prompts, cache = Prompts.of(states, lengths, COUNTS), DynamicCache()
    positions = lengths[prompts.node, None]
    with attending(model, NAME, prompts):
        model(ROWS[:, :1], position_ids=positions, past_key_values=cache)
    left = torch.tensor([False, True, False, False, True, True])
    cache.batch_select_indices(left)
    prompts = prompts.only(left)
    assert prompts.states.keys.shape[1] == 2  # the second prompt has no row left
    with attending(model, NAME, prompts):
        found = model(
            ROWS[left, 1:], position_ids=positions[left] + torch.tensor([1, 2]), past_key_values=cache
        ).last_hidden_state
    for one, row in zip(found, left.nonzero()[:, 0].tolist(), strict=True):
        torch.testing.assert_close(one, expected(model, row)[1:], atol=1e-4, rtol=1e-4)


def test_the_models_own_attention_is_restored_afterwards(model: torch.nn.Module) -> None:
    before = model.config._attn_implementation
    continued(model, at_once=True)
    assert model.config._attn_implementation == before and not hasattr(model.config, "attended")

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from models.checkpoints import load_policy
from models.inprocess.attention import MIN_ROWS
from models.inprocess.prefixes import PrefixCache

QUESTION, OTHER = [40, 41, 42, 43], [50, 51]
STEPS = ([60, 61, 62], [70], [80, 81])
PROMPTS = ([QUESTION, *STEPS[:1]], [OTHER], [OTHER, *STEPS])


@pytest.fixture(scope="module")
def model(small_policy: Path) -> torch.nn.Module:
    return load_policy(small_policy, device="cpu").base_model.eval()


@torch.inference_mode()
def expected(model: torch.nn.Module, prompt: list[list[int]]) -> torch.Tensor:
    """Return the keys and values of one prompt, computed alone and at once: shape (2, layers, heads, tokens, width)."""
    cache = DynamicCache()
    model(torch.tensor([[token for piece in prompt for token in piece]]), past_key_values=cache, use_cache=True)
    return torch.stack([torch.stack([getattr(one, kind)[0] for one in cache.layers]) for kind in ("keys", "values")])


@torch.inference_mode()
def check(cache: PrefixCache, model: torch.nn.Module, prompts: list[list[list[int]]]) -> None:
    states, lengths = cache.states(prompts)
    assert lengths.tolist() == [sum(map(len, prompt)) for prompt in prompts]
    for i, prompt in enumerate(prompts):
        found = torch.stack([states.keys[:, i], states.values[:, i]])[..., : lengths[i], :]
        torch.testing.assert_close(found, expected(model, prompt), atol=1e-4, rtol=1e-4)


def test_states_equal_those_of_the_prompts_computed_alone(model: torch.nn.Module) -> None:
    check(PrefixCache(model), model, list(PROMPTS))


@pytest.mark.parametrize(("max_tokens", "rows_at_once"), [(1, [1, 1, 1, 1]), (2 * MIN_ROWS, [2, 2]), (10**4, [4])])
def test_a_batch_is_computed_a_few_prompts_at_a_time(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, max_tokens: int, rows_at_once: list[int]
) -> None:
    monkeypatch.setattr("models.inprocess.prefixes.CPU_TOKENS", max_tokens)
    cache = PrefixCache(model)
    read: list[int] = []
    with torch.inference_mode():
        counting = model.register_forward_pre_hook(lambda module, given: read.append(len(given[0])))
        cache.states([[OTHER], [QUESTION], list(PROMPTS[2]), [STEPS[1]]])
        counting.remove()
    assert read == rows_at_once
    check(cache, model, [[QUESTION, *STEPS], [STEPS[1], OTHER], [OTHER], list(PROMPTS[2])])


def test_a_prompt_without_tokens_is_an_error(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="prompt 1 of the batch has no token"):
        PrefixCache(model).states([[QUESTION], [[]]])


def test_cached_pieces_are_not_computed_again_and_the_states_are_equal(model: torch.nn.Module) -> None:
    cache = PrefixCache(model)
    check(cache, model, list(PROMPTS))
    assert cache.num_cached_tokens == 0
    check(cache, model, [[QUESTION, *STEPS], [QUESTION, STEPS[1]], list(PROMPTS[2])])
    assert cache.num_cached_tokens == (4 + 3) + 4 + (2 + 3 + 1 + 2)
    check(cache, model, [list(PROMPTS[2])])  # all of it is cached


def test_a_full_cache_drops_the_piece_used_least_recently(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = PrefixCache(model)
    with torch.inference_mode():
        states, _ = one.states([[QUESTION]])
    kept = states.row(0).tokens(slice(0, len(QUESTION)))
    monkeypatch.setattr("models.inprocess.prefixes.MAX_BYTES", 2 * kept.num_bytes)
    cache = PrefixCache(model)
    check(cache, model, [[QUESTION]])
    check(cache, model, [[OTHER]])
    check(cache, model, [[QUESTION]])
    check(cache, model, [[[90, 91, 92, 93]]])  # drops OTHER
    before = cache.num_cached_tokens
    check(cache, model, [[QUESTION]])
    assert cache.num_cached_tokens == before + 4
    check(cache, model, [[OTHER]])
    assert cache.num_cached_tokens == before + 4

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch

from domains.mathematics.domain import DOMAIN
from miniature.base.model import train_tokenizer
from models.checkpoints import load_policy, load_tokenizer
from models.inprocess.attention import MIN_ROWS, ROW_MULTIPLE
from models.inprocess.policy import TransformersPolicy, _Request, group_by_prompt
from rstar.protocols import Proposal, UserError

QUESTIONS = ("Tom has 34 apples.", "Ana owns 7 pens. Ana sells 3 pens. What does Ana have at last?", "Why?")
PREFIX = ("<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>",)


def texts(proposals: list[Proposal]) -> list[str]:
    return [proposal.text for proposal in proposals]


# Seeds start at 10: with seed 0 one draw is 7e-9 from the border between two tokens, where a batch's last bits decide.
async def ask(checkpoint: Path, order: list[int], *, max_batch: int, **options: object) -> dict[int, list[Proposal]]:
    async with TransformersPolicy(
        checkpoint, domain=DOMAIN, max_new_tokens=12, max_batch=max_batch, **options
    ) as policy:
        found = await asyncio.gather(
            *(policy.propose(QUESTIONS[i], PREFIX, num_candidates=3, seed=10 + i) for i in order)
        )
    return {i: list(proposals) for i, proposals in zip(order, found, strict=True)}


def test_a_saved_tokenizer_is_loaded_unchanged_and_keeps_each_marker_one_token(small_policy: Path) -> None:
    text = "# 12) Zoe has 345 pens.\n<end_of_step>"
    tokens = load_tokenizer(small_policy).tokenize(text)
    assert tokens == train_tokenizer().tokenize(text)
    assert tokens[-1] == "<end_of_step>" and "ĠZoe" in tokens


async def test_a_candidate_depends_on_its_seed_and_not_on_its_batch(small_policy: Path) -> None:
    together = await ask(small_policy, [0, 1, 2], max_batch=64)
    alone = await ask(small_policy, [2, 0, 1], max_batch=1)
    assert {i: texts(found) for i, found in together.items()} == {i: texts(found) for i, found in alone.items()}
    assert len(set(texts(together[0]))) == 3
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12) as policy:
        other = await policy.propose(QUESTIONS[0], PREFIX, num_candidates=3, seed=99)
    assert texts(list(other)) != texts(together[0])


async def test_requests_with_equal_prompts_share_it_and_get_the_same_answers_as_alone(small_policy: Path) -> None:
    async def ask_all(max_batch: int) -> tuple[list[list[str]], dict[str, float]]:
        async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12, max_batch=max_batch) as policy:
            asked = [(question, seed) for seed in range(10, 14) for question in QUESTIONS[:2]]
            found = await asyncio.gather(*(policy.propose(q, PREFIX, num_candidates=2, seed=seed) for q, seed in asked))
            return [texts(list(each)) for each in found], policy.metrics()

    together, shared = await ask_all(64)
    alone, apart = await ask_all(1)
    assert together == alone and len(set(map(tuple, together))) == 8
    assert shared["num_batches"] == 1 and apart["num_batches"] == 8
    assert shared["num_prompt_tokens"] == apart["num_prompt_tokens"]
    assert shared["num_cached_tokens"] == apart["num_cached_tokens"] > 0  # three of four find their whole prompt


def test_requests_are_grouped_by_prompt_up_to_a_bound() -> None:
    def requests(*questions: int) -> list[_Request]:
        return [_Request([[question]], 1, seed) for seed, question in enumerate(questions)]

    assert group_by_prompt(requests(1, 2, 3)) == [[0], [1], [2]]
    assert group_by_prompt(requests(1, 2, 1, 2, 1, 2)) == [[0, 2, 4], [1, 3, 5]]
    assert list(map(len, group_by_prompt(requests(*[1] * 40)))) == [16, 16, 8]
    many = _Request([[1]], 32, 0)  # a request is never split
    assert list(map(len, group_by_prompt([many, *requests(*[1] * 20)]))) == [1, 16, 4]


async def test_candidates_are_computed_once_until_they_differ(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12, temperature=0) as policy:
        rows: list[int] = []
        policy._model.register_forward_hook(lambda model, given, found: rows.append(len(found.logits)))
        alike = await policy.propose(QUESTIONS[0], PREFIX, num_candidates=40, seed=10)
    assert set(rows) == {MIN_ROWS} and len(set(texts(list(alike)))) == 1
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12, temperature=0.1) as policy:
        rows.clear()
        policy._model.register_forward_hook(lambda model, given, found: rows.append(len(found.logits)))
        other = await policy.propose(QUESTIONS[0], PREFIX, num_candidates=40, seed=10)
    assert rows[0] == MIN_ROWS and 1 < len(set(texts(list(other)))) < 36
    assert MIN_ROWS < max(rows) < len(set(texts(list(other)))) + ROW_MULTIPLE


async def test_with_one_seed_more_candidates_start_with_the_fewer(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12) as policy:
        few = await policy.propose(QUESTIONS[0], (), num_candidates=2, seed=5)
        many = await policy.propose(QUESTIONS[0], (), num_candidates=4, seed=5)
    assert texts(list(many))[:2] == texts(list(few))


async def test_greedy_is_the_models_most_likely_continuation(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=6, temperature=0) as policy:
        [proposal] = await policy.propose(QUESTIONS[1], PREFIX, num_candidates=1, seed=0)
    model, tokenizer = load_policy(small_policy, device="cpu"), load_tokenizer(small_policy)
    ids = tokenizer(DOMAIN.prompt(QUESTIONS[1]) + PREFIX[0], add_special_tokens=False)["input_ids"]
    start, total = len(ids), 0.0
    with torch.no_grad():
        for _ in range(6):
            logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            total += float(logprobs.max())
            if (chosen := int(logprobs.argmax())) == tokenizer.eos_token_id:  # counts, but not in the text
                break
            ids.append(chosen)
    assert (proposal.text, proposal.num_tokens) == (tokenizer.decode(ids[start:]), len(ids) - start)
    assert proposal.logprob == pytest.approx(total, abs=6e-3)
    assert proposal.prompt_tokens == start


async def test_a_step_ends_at_its_first_marker(small_policy: Path) -> None:
    found = await ask(small_policy, [0, 1, 2], max_batch=64)
    for proposal in (proposal for proposals in found.values() for proposal in proposals):
        ends = [proposal.text.find(marker) + len(marker) for marker in DOMAIN.stop_strings if marker in proposal.text]
        assert not ends or min(ends) == len(proposal.text)
        assert 0 < proposal.num_tokens <= 12


async def test_markers_of_several_tokens_also_end_a_step(small_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def written() -> list[Proposal]:
        async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=40) as policy:
            return list(await policy.propose(QUESTIONS[0], PREFIX, num_candidates=200, seed=3))

    by_id = await written()
    monkeypatch.setattr("models.inprocess.policy.stop_ids", lambda tokenizer, stop_strings: [])
    assert await written() == by_id
    assert any(proposal.text.endswith(DOMAIN.stop_strings) and proposal.num_tokens < 40 for proposal in by_id)


async def test_sampling_follows_the_distribution(small_policy: Path) -> None:
    model, tokenizer = load_policy(small_policy, device="cpu"), load_tokenizer(small_policy)
    ids = tokenizer(DOMAIN.prompt(QUESTIONS[0]), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    likeliest = int(probabilities.argmax())
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=1, max_batch=4096) as policy:
        found = await policy.propose(QUESTIONS[0], (), num_candidates=2000, seed=1)
    text = tokenizer.decode([likeliest])
    share = sum(proposal.text == text for proposal in found) / len(found)
    expected = float(probabilities[likeliest])
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5 + 1e-3)


async def test_a_prefix_that_fills_the_context_gets_empty_candidates(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=4) as policy:
        found = await policy.propose("word " * 600, (), num_candidates=2, seed=0)
    assert texts(list(found)) == ["", ""]


async def test_a_prompt_near_the_end_of_the_context_does_not_shorten_other_candidates(small_policy: Path) -> None:
    async with TransformersPolicy(small_policy, domain=DOMAIN, max_new_tokens=12, max_context=60) as policy:
        alone = await policy.propose(QUESTIONS[0], (), num_candidates=3, seed=10)
        long, short = await asyncio.gather(
            policy.propose("word " * 32, (), num_candidates=3, seed=11),
            policy.propose(QUESTIONS[0], (), num_candidates=3, seed=10),
        )
        assert policy.metrics()["num_batches"] == 2
    assert texts(list(short)) == texts(list(alone)) and max(each.num_tokens for each in short) == 12
    assert 0 < max(each.num_tokens for each in long) == 60 - long[0].prompt_tokens < 12


async def test_a_window_shorter_than_the_context_is_an_error_of_one_line(small_policy: Path, tmp_path: Path) -> None:
    for file in small_policy.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"model\.max_context = 512: .* attends to 64 tokens; lower it") as caught:
        TransformersPolicy(tmp_path, domain=DOMAIN)
    assert "\n" not in str(caught.value)
    TransformersPolicy(tmp_path, domain=DOMAIN, max_context=64)


def test_a_missing_checkpoint_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint here \(config.json is missing\)") as caught:
        TransformersPolicy(tmp_path / "absent", domain=DOMAIN)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_an_error_of_one_line(small_policy: Path, tmp_path: Path) -> None:
    for file in small_policy.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="the checkpoint cannot be loaded") as caught:
        TransformersPolicy(tmp_path, domain=DOMAIN)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 64

"""The policy behind endpoints of any kind: whatever text they return is a candidate, never an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains.mathematics.domain import DOMAIN
from models.checkpoints import load_tokenizer
from models.served.completions import CompletionsPolicy, with_marker
from models.tokens import encode
from rstar.protocols import PolicyError, Proposal

Starter = Callable[..., Any]
PREFIX = ("<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>",)


def choice(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "finish_reason": "stop", **more}


def answering(name: str, choices: list[dict[str, Any]], **more: Any) -> Callable[..., tuple[int, Any]]:
    """A server that serves `name` and always answers with the first n of `choices`."""

    def behave(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": name}]}
        return 200, {"choices": choices[: body["n"]], **more}

    return behave


async def propose(checkpoint: Path, server: Any, *, num_candidates: int, **options: Any) -> list[Proposal]:
    async with CompletionsPolicy(checkpoint, [server.url], domain=DOMAIN, max_new_tokens=12, **options) as policy:
        return list(await policy.propose("Why?", PREFIX, num_candidates=num_candidates, seed=2**62 + 5))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (choice("\n# a\na = 1\n"), "\n# a\na = 1\n<end_of_step>"),
        (choice("\n# a\na = 1\nprint(a)\n"), "\n# a\na = 1\nprint(a)\n<end_of_code>"),
        (choice("\n<answer>It is \\boxed{1}.\n"), "\n<answer>It is \\boxed{1}.\n<end_of_answer>"),
        (choice("\na = 1\n", stop_reason="<end_of_code>"), "\na = 1\n<end_of_code>"),
        (choice("\na = 1\n", matched_stop="<end_of_step>"), "\na = 1\n<end_of_step>"),
        (choice("\na = 1\n", stop_reason=151643), "\na = 1\n"),
        (choice("\na = 1\n<end_of_step>", stop_reason="<end_of_step>"), "\na = 1\n<end_of_step>"),
        (choice("\na = 1\n<end_of_step>\nb = 2\n<end_of_step>"), "\na = 1\n<end_of_step>"),
        ({"text": "a a a a", "finish_reason": "length"}, "a a a a"),
        (choice(""), ""),
        ({"finish_reason": "stop", "text": None}, ""),
    ],
)
def test_a_step_gets_back_the_marker_at_which_its_server_stopped(given: dict[str, Any], text: str) -> None:
    assert with_marker(given, DOMAIN) == text


async def test_a_request_has_the_ids_of_training_and_overrides_the_servers_sampling_defaults(
    small_policy: Path, http_server: Starter
) -> None:
    server = http_server(answering(str(small_policy), [choice("\na = 1\n")] * 3, usage={"completion_tokens": 15}))
    found = await propose(small_policy, server, num_candidates=3, temperature=0.7)
    ids = encode(load_tokenizer(small_policy), DOMAIN.prompt("Why?") + PREFIX[0], DOMAIN)
    [body] = server.bodies
    assert (body["prompt"], body["n"], body["max_tokens"], body["stop"]) == (ids, 3, 12, list(DOMAIN.stop_strings))
    assert (body["temperature"], body["top_p"], body["seed"] < 2**31) == (0.7, 1.0, True)
    assert "return_token_ids" not in body
    assert found == [Proposal("\na = 1\n<end_of_step>", 5, 0.0, len(ids))] * 3


async def test_vllm_gets_the_ends_of_a_step_as_tokens_and_returns_tokens(
    small_policy: Path, http_server: Starter
) -> None:
    tokenizer = load_tokenizer(small_policy)
    ids = encode(tokenizer, "\na = 1\n<end_of_step>", DOMAIN)
    answer = answering(str(small_policy), [{"text": "", "finish_reason": "stop", "token_ids": ids}])

    def behave(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        models = {"data": [{"id": str(small_policy), "owned_by": "vllm"}]}
        return (200, models) if path == "/v1/models" else answer(path, body)

    server = http_server(behave)
    [proposal] = await propose(small_policy, server, num_candidates=1)
    [body] = server.bodies
    assert body["stop_token_ids"] == [
        *map(tokenizer.convert_tokens_to_ids, DOMAIN.stop_strings),
        tokenizer.eos_token_id,
    ]
    assert "stop" not in body and body["return_token_ids"] and body["return_tokens_as_token_ids"]
    assert (proposal.text, proposal.num_tokens) == ("\na = 1\n<end_of_step>", len(ids))


async def test_a_server_that_returns_one_choice_is_asked_until_there_are_n(
    small_policy: Path, http_server: Starter
) -> None:
    listed = {"tokens": ["a", "b"], "token_logprobs": [-0.5, None]}
    server = http_server(answering(str(small_policy), [choice("\na = 1\n", logprobs=listed)]))
    found = await propose(small_policy, server, num_candidates=3)
    assert [(one.num_tokens, one.logprob) for one in found] == [(2, -0.5)] * 3
    assert [body["seed"] for body in server.bodies] == [5, 6, 7]


async def test_greedy_candidates_are_requested_once(small_policy: Path, http_server: Starter) -> None:
    server = http_server(answering(str(small_policy), [choice("\na = 1\n")]))
    assert len(await propose(small_policy, server, num_candidates=4, temperature=0)) == 4
    assert [body["n"] for body in server.bodies] == [1]


async def test_invalid_unicode_gives_a_candidate_that_can_be_stored(small_policy: Path, http_server: Starter) -> None:
    server = http_server(answering(str(small_policy), [choice("\n# \ud83d\n")]))
    [proposal] = await propose(small_policy, server, num_candidates=1)
    assert proposal.text.encode() == b"\n# ?\n<end_of_step>"


async def test_a_prefix_that_fills_the_context_causes_no_request(small_policy: Path, http_server: Starter) -> None:
    server = http_server(answering(str(small_policy), [choice("\na = 1\n")]))
    found = await propose(small_policy, server, num_candidates=2, max_context=10)
    assert [one.text for one in found] == ["", ""]
    assert not server.bodies


async def test_an_answer_without_choices_is_a_policy_error(small_policy: Path, http_server: Starter) -> None:
    server = http_server(answering(str(small_policy), []))
    with pytest.raises(PolicyError, match="the answer has no choices"):
        await propose(small_policy, server, num_candidates=1)

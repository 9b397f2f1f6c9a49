"""The policy behind an endpoint: vLLM's or another server's OpenAI-compatible /v1/completions.

Section 3.2, step 1: one request for n candidates for the next step. The prompt is sent as token ids, made by the same
code as in training (models/tokens.py). All requests of a tree go to one replica, which has its prefixes cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from domains.protocol import Domain
from models.checkpoints import load_tokenizer
from models.served.endpoints import open_replicas
from models.tokens import cut_step, decode_step, encode, stop_ids
from rstar.protocols import PolicyError, Proposal

PATH = "/v1/completions"
MAX_SEED = 2**31  # accepted by every server

# Neutral values: for options that a request leaves out, servers use the checkpoint's generation_config.json.
PLAIN: dict[str, Any] = {"top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
PLAIN_VLLM: dict[str, Any] = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "skip_special_tokens": False,  # the step markers are special tokens of the tiny tokenizer
    "spaces_between_special_tokens": False,
    "include_stop_str_in_output": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,  # saves decoding each token, because only the ids are used
}


class CompletionsPolicy:
    """A Policy that sends its requests to the replicas of an endpoint; `async with` it.

    Equal seeds give equal steps if the server's sampling is deterministic; `temperature=0` is greedy. `checkpoint` is a
    folder or a Hugging Face name: its tokenizer is used, and the endpoint must serve it (otherwise UserError).

    vLLM returns token ids, which are decoded as in `TransformersPolicy`. Other servers leave out the marker at which
    they stopped; `with_marker` restores it. A server that drops special tokens cannot serve a model whose markers are
    special tokens.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        urls: Sequence[str],
        *,
        domain: Domain,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        max_context: int = 4096,
        few_shot: bool = False,
        **options: Any,
    ) -> None:
        """`options` are those of `models.served.replicas.Replicas`."""
        self._temperature = temperature
        self._max_new_tokens, self._max_context = max_new_tokens, max_context
        self._domain = domain
        self._prompt = domain.few_shot_prompt if few_shot else domain.prompt
        self._tokenizer = load_tokenizer(checkpoint)
        self._stop_ids = stop_ids(self._tokenizer, domain.stop_strings)
        self._opening = open_replicas(str(checkpoint), urls, PolicyError, **options)
        self._num_requests = self._num_prompt_tokens = self._num_generated_tokens = 0
        self._num_cached_tokens: int | None = None  # None: the server does not say

    async def __aenter__(self) -> Self:
        self.replicas, endpoint = await self._opening.__aenter__()
        self._endpoint = endpoint
        self._max_context = min(self._max_context, endpoint.max_context or self._max_context)
        return self

    async def __aexit__(self, *details: Any) -> None:
        await self._opening.__aexit__(*details)

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """See `rstar.protocols.Policy`. If the prefix fills the context, the candidates are empty."""
        ids = encode(self._tokenizer, self._prompt(question) + "".join(prefix), self._domain)
        if len(ids) >= self._max_context:
            return [Proposal("", prompt_tokens=len(ids))] * num_candidates
        wanted = num_candidates if self._temperature else 1  # greedy candidates are all the same
        found: list[Proposal] = []
        while len(found) < wanted:  # some servers ignore n and return one choice
            choices = await self._ask(question, ids, num_candidates=wanted - len(found), seed=seed + len(found))
            found += [self._proposal(choice, len(ids)) for choice in choices[: wanted - len(found)]]
        self._num_requests += 1
        self._num_generated_tokens += sum(proposal.num_tokens for proposal in found)
        return found if self._temperature else found * num_candidates

    def metrics(self) -> dict[str, float]:
        """Return totals; `num_cached_tokens` only if the server reports them."""
        cached = {} if self._num_cached_tokens is None else {"num_cached_tokens": self._num_cached_tokens}
        return {
            "num_requests": self._num_requests,
            "num_prompt_tokens": self._num_prompt_tokens,
            **cached,
            "num_generated_tokens": self._num_generated_tokens,
            "num_retries": self.replicas.num_retries,
            "busy_seconds": self.replicas.busy_seconds,
        }

    def body(self, ids: list[int], *, num_candidates: int, seed: int) -> dict[str, Any]:
        """Return the request for steps that continue a prompt of these tokens."""
        return {
            "model": self._endpoint.model,
            "prompt": ids,
            "n": num_candidates,
            "seed": seed % MAX_SEED,
            "temperature": self._temperature,
            "max_tokens": min(self._max_new_tokens, self._max_context - len(ids)),
            **self._stop(),
            "logprobs": 0 if self._endpoint.is_vllm else 1,
            **PLAIN,
            **(PLAIN_VLLM if self._endpoint.is_vllm else {}),
        }

    def _stop(self) -> dict[str, Any]:
        """Return where generation stops: at token ids if each marker is one token, because vLLM's engine checks those.

        A marker that the model spells with other tokens then does not stop it, as in `TransformersPolicy`; the text
        after it is cut off.
        """
        if self._endpoint.is_vllm and self._stop_ids:
            ends = (*self._stop_ids, self._tokenizer.eos_token_id)
            return {"stop_token_ids": [token for token in ends if token is not None]}
        return {"stop": list(self._domain.stop_strings)}

    async def _ask(self, question: str, ids: list[int], *, num_candidates: int, seed: int) -> list[dict[str, Any]]:
        """Return the endpoint's choices, in order."""
        body = self.body(ids, num_candidates=num_candidates, seed=seed)
        answer = await self.replicas.post(PATH, body, question)
        self._num_prompt_tokens += len(ids)
        choices = answer.get("choices")
        if not (isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices)):
            raise PolicyError(f"{PATH}: the answer has no choices: {str(answer)[:200]}")
        usage = answer.get("usage") or {}
        if (cached := (usage.get("prompt_tokens_details") or {}).get("cached_tokens")) is not None:
            self._num_cached_tokens = (self._num_cached_tokens or 0) + cached
        for choice in choices:
            choice["cached_tokens"] = cached or 0
            # an average, for servers that do not list the tokens of each choice
            choice.setdefault("num_tokens", (usage.get("completion_tokens") or 0) // len(choices))
        return sorted(choices, key=lambda choice: choice.get("index") or 0)

    def _proposal(self, choice: dict[str, Any], prompt_tokens: int) -> Proposal:
        """Return the text of a choice up to the end of its first step. The search checks whether it is a step."""
        listed = choice.get("logprobs") or {}
        logprob = float(sum(filter(None, listed.get("token_logprobs") or ())))
        if (ids := choice.get("token_ids")) is not None:
            text, num_tokens = decode_step(self._tokenizer, ids, self._stop_ids, self._domain.stop_strings)
        else:
            text = with_marker(choice, self._domain)
            num_tokens = len(listed.get("tokens") or ()) or choice["num_tokens"]
        # JSON may contain lone surrogates, which UTF-8 and so the tables cannot.
        return Proposal(
            text.encode("utf-8", "replace").decode(), num_tokens, logprob, prompt_tokens, choice["cached_tokens"]
        )


def with_marker(choice: dict[str, Any], domain: Domain) -> str:
    """Return the text of a choice with the marker at which its server stopped.

    vLLM and SGLang name the marker; for other servers it is `Domain.with_stop`'s. A choice that reached its maximum
    length has none.
    """
    text = cut_step(str(choice.get("text") or ""), domain.stop_strings)
    if choice.get("finish_reason") != "stop" or text.endswith(domain.stop_strings) or not text.strip():
        return text
    named = choice.get("stop_reason") or choice.get("matched_stop")
    if named is not None:
        return text + named if named in domain.stop_strings else text
    return domain.with_stop(text)

"""The policy in process: a transformers model that answers the requests of all trees in flight in batches.

Section 3.2, step 1: n candidates for the next step, one request per node. Only the last step of a node's prompt is
computed, once (models/inprocess/prefixes.py). Siblings share the prompt's KV cache (models/inprocess/siblings.py), and
candidates are one row of the batch as long as their tokens are equal. Generation stops at the end of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import Cache, DynamicCache, StopStringCriteria

from domains.protocol import Domain
from models.batching import ThreadBatcher
from models.checkpoints import default_device, load_policy, load_tokenizer
from models.inprocess import siblings
from models.inprocess.attention import attending, check_window, padded
from models.inprocess.prefixes import Pieces, PrefixCache
from models.inprocess.sampling import choose, noise
from models.inprocess.siblings import Prompts
from models.tokens import decode_step, encode_pieces, stop_ids
from rstar.protocols import PolicyError, Proposal

MAX_SHARING = 16  # candidates that share one prompt in a batch
LOGPROB_DIGITS = 2  # further digits depend on the batch where kernels sum by shape


@dataclass(frozen=True, slots=True)
class _Request:
    pieces: Pieces
    num_candidates: int
    seed: int

    @property
    def length(self) -> int:
        return sum(map(len, self.pieces))


def group_by_prompt(requests: Sequence[_Request]) -> list[list[int]]:
    """Group the requests with equal prompts, such as those of samples that have not diverged yet.

    A batch's attention is padded to the largest group, so a group has at most MAX_SHARING candidates.
    """
    groups: list[list[int]] = []
    open_group: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, request in enumerate(requests):
        prompt = tuple(map(tuple, request.pieces))
        group = open_group.get(prompt)
        if group is None or sum(requests[i].num_candidates for i in (*group, at)) > MAX_SHARING:
            group = open_group[prompt] = []
            groups.append(group)
        group.append(at)
    return groups


@dataclass(slots=True)
class _Rows:
    """The rows of the model's batch: the different texts that candidates have so far, and padding."""

    num_texts: int
    tokens: torch.Tensor  # (rows): the newest token of each text
    positions: torch.Tensor  # (rows): its position
    prompts: Prompts
    cache: Cache

    def logits(self, model: Any) -> torch.Tensor:
        """Read the newest tokens; return the logits of the next ones, shape (rows, vocabulary)."""
        with attending(model, siblings.NAME, self.prompts):
            output = model(self.tokens[:, None], position_ids=self.positions[:, None], past_key_values=self.cache)
        return output.logits[:, -1]

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> None:
        """Append each of `tokens` to the row in `parents`. A row can have one child, several or none."""
        num_texts, parents, tokens = len(parents), padded(parents), padded(tokens)
        if not torch.equal(parents, padded(torch.arange(self.num_texts, device=parents.device))):
            self.cache.batch_select_indices(parents)
            self.prompts, self.positions = self.prompts.only(parents), self.positions[parents]
        self.num_texts, self.tokens, self.positions = num_texts, tokens, self.positions + 1


class TransformersPolicy:
    """A Policy that runs a Hugging Face causal LM on this machine; `async with` it.

    Equal seeds give equal steps, whatever else is in the batch, except that a batch's shape may change the last bits
    (models/inprocess/attention.py says where it does not). `temperature=0` is greedy. `few_shot` is for a model that
    has not been fine-tuned on the step format.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        domain: Domain,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        max_context: int = 4096,
        max_batch: int = 256,
        device: str = "",
        few_shot: bool = False,
        threads: int = 0,
    ) -> None:
        self._device = device or default_device()
        self._tokenizer = load_tokenizer(checkpoint)
        self._model = load_policy(checkpoint, device=self._device).eval()
        self._prefixes = PrefixCache(self._model.base_model)
        self._temperature = temperature
        self._domain = domain
        self._prompt = domain.few_shot_prompt if few_shot else domain.prompt
        self._max_new_tokens = max_new_tokens
        self._max_context = min(max_context, getattr(self._model.config, "max_position_embeddings", max_context))
        check_window(checkpoint, self._model.config, "model.max_context", self._max_context)
        self._stop_ids = stop_ids(self._tokenizer, domain.stop_strings)
        self._end_ids = torch.tensor([*self._stop_ids, self._tokenizer.eos_token_id])
        self._stop_strings = None if self._stop_ids else StopStringCriteria(self._tokenizer, list(domain.stop_strings))
        self._batcher = ThreadBatcher(self._generate, max_size=max_batch, threads=threads)
        self._num_prompt_tokens = self._num_cached_tokens = self._num_generated_tokens = self._num_requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._batcher.close()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """See `rstar.protocols.Policy`. If the prefix fills the context, the candidates are empty."""
        text = self._prompt(question) + "".join(prefix)
        request = _Request(encode_pieces(self._tokenizer, text, self._domain), num_candidates, seed)
        if request.length >= self._max_context:
            return [Proposal("", prompt_tokens=request.length)] * num_candidates
        return await self._batcher.ask(request, size=num_candidates, length=request.length)

    def metrics(self) -> dict[str, float]:
        """Return totals; `num_cached_tokens` are the prompt tokens found in the prefix cache."""
        return {
            "num_requests": self._num_requests,
            "num_prompt_tokens": self._num_prompt_tokens,
            "num_cached_tokens": self._num_cached_tokens,
            "num_generated_tokens": self._num_generated_tokens,
            "num_batches": self._batcher.num_batches,
            "busy_seconds": self._batcher.busy_seconds,
        }

    def _generate(self, requests: Sequence[_Request]) -> list[list[Proposal]]:
        try:
            return self._generate_batch(requests)
        except (RuntimeError, ValueError) as error:  # out of memory, a lost device
            raise PolicyError(f"the policy's engine failed on {len(requests)} requests: {error}") from error

    @torch.inference_mode()
    def _generate_batch(self, requests: Sequence[_Request]) -> list[list[Proposal]]:
        """Generate all candidates token by token; those of a prompt with equal tokens so far are one row."""
        groups = group_by_prompt(requests)
        rows = self._prefill([requests[group[0]].pieces for group in groups])
        node_of = {at: node for node, group in enumerate(groups) for at in group}
        nodes = [node_of[at] for at, request in enumerate(requests) for _ in range(request.num_candidates)]
        row = torch.tensor(nodes, device=self._device)  # of each unfinished candidate
        limits = torch.tensor([self._limit(request) for request in requests for _ in range(request.num_candidates)])
        drawn = [noise(each.seed, each.num_candidates, int(limits.max())) for each in requests]
        uniforms = torch.from_numpy(np.concatenate(drawn))
        written = torch.full(uniforms.shape, self._tokenizer.pad_token_id)
        logprobs = torch.zeros(len(uniforms))
        unfinished = torch.arange(len(uniforms))
        for at in range(uniforms.shape[1]):
            logits = rows.logits(self._model)
            chosen, logprob = choose(logits, row, uniforms[unfinished, at], self._temperature)
            written[unfinished, at] = chosen.cpu()
            logprobs[unfinished] += logprob.cpu()
            left = ~self._ended(written[unfinished, : at + 1]) & (at + 1 < limits[unfinished])
            if not left.any():
                break
            unfinished, left = unfinished[left], left.to(self._device)
            text, row = (row[left] * logits.shape[-1] + chosen[left]).unique(return_inverse=True)
            rows.advance(text // logits.shape[-1], text % logits.shape[-1])
        return self._proposals(requests, groups, written.tolist(), logprobs.tolist())

    def _limit(self, request: _Request) -> int:
        """Return the largest number of tokens of a candidate."""
        return min(self._max_new_tokens, self._max_context - request.length)

    def _prefill(self, prompts: Sequence[Pieces]) -> _Rows:
        states, lengths = self._prefixes.states(prompts)
        lasts = torch.tensor([pieces[-1][-1] for pieces in prompts], device=self._device)
        rows = padded(torch.arange(len(prompts), device=self._device))
        shared = Prompts.of(states, lengths - 1, [1] * len(prompts)).only(rows)
        return _Rows(len(prompts), lasts[rows], lengths[rows] - 1, shared, DynamicCache())

    def _ended(self, texts: torch.Tensor) -> torch.Tensor:
        """Return which texts, shape (candidates, tokens), end with their last token."""
        ended = torch.isin(texts[:, -1], self._end_ids)
        if self._stop_strings is not None:
            ended |= self._stop_strings(texts, None).cpu()
        return ended

    def _proposals(
        self, requests: Sequence[_Request], groups: Sequence[Sequence[int]], rows: list[list[int]],
        logprobs: list[float],
    ) -> list[list[Proposal]]:  # fmt: skip
        answers, at = [], 0
        # The prompt of a group's first request was read; for the others it was in the cache.
        firsts = {group[0]: cached for group, cached in zip(groups, self._prefixes.last_cached, strict=True)}
        for i, request in enumerate(requests):
            num_cached = firsts.get(i, request.length)
            own = slice(at, at + request.num_candidates)
            answers.append(
                [
                    self._proposal(row, logprob, request.length, num_cached)
                    for row, logprob in zip(rows[own], logprobs[own], strict=True)
                ]
            )
            at += request.num_candidates
            self._num_requests += 1
            self._num_prompt_tokens += request.length
            self._num_cached_tokens += num_cached
            self._num_generated_tokens += sum(proposal.num_tokens for proposal in answers[-1])
        return answers

    def _proposal(self, row: list[int], logprob: float, prompt_tokens: int, cached_tokens: int) -> Proposal:
        text, num_tokens = decode_step(self._tokenizer, row, self._stop_ids, self._domain.stop_strings)
        return Proposal(text, num_tokens, round(logprob, LOGPROB_DIGITS), prompt_tokens, cached_tokens)

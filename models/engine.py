"""The policy in process: a transformers model that answers the requests of all trees in flight in batches.

Section 3.2, step 1: n candidates for the next step, one request a node. Of a node's prompt only the last step is
computed (models/prefixes.py), once, and the siblings share its KV cache (models/siblings.py). Generation stops at the
end of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import Cache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from models.batching import Batcher
from models.checkpoints import default_device, load_policy, load_tokenizer
from models.prefixes import Pieces, PrefixCache
from models.sampling import MostDone, SeededSampler, noise
from models.siblings import Prompts, attending, sibling_cache
from models.tokens import decode_step, encode_pieces, stop_ids
from rstar.prompts import render_few_shot, render_prompt
from rstar.protocols import PolicyError, Proposal
from rstar.steps import STOP_STRINGS

LOGPROB_DIGITS = 2  # the digits beyond hang on what else is in the batch


@dataclass(frozen=True, slots=True)
class _Request:
    pieces: Pieces
    num_candidates: int
    seed: int

    @property
    def length(self) -> int:
        return sum(map(len, self.pieces))


def alike(requests: Sequence[_Request]) -> list[list[int]]:
    """Put requests with the same prompt together, as those of samples are that have not parted yet.

    A batch's attention has as many places at each prompt as the fullest has rows, so as many are put together as make
    the fewest places, a prompt itself counted as four.
    """
    together: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, request in enumerate(requests):
        together.setdefault(tuple(map(tuple, request.pieces)), []).append(at)

    def parted(most: int) -> list[list[int]]:
        return [group[at : at + most] for group in together.values() for at in range(0, len(group), most)]

    def places(groups: list[list[int]]) -> int:
        return len(groups) * (max(sum(requests[at].num_candidates for at in group) for group in groups) + 4)

    return min(map(parted, (1, 2, 4, 8, 16)), key=places)


class TransformersPolicy:
    """A Policy that runs a Hugging Face causal LM on this machine; `async with` it.

    Equal seeds give equal steps, up to the last bits that the shape of a batch moves. `temperature=0` is greedy.
    `few_shot` is for a model that has not been fine-tuned on the step format.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        max_context: int = 4096,
        max_batch: int = 256,
        device: str = "",
        few_shot: bool = False,
    ) -> None:
        self._device = device or default_device()
        self._tokenizer = load_tokenizer(checkpoint)
        self._model = load_policy(checkpoint, device=self._device).eval()
        self._prefixes = PrefixCache(self._model.base_model)
        self._temperature = temperature
        self._render_prompt = render_few_shot if few_shot else render_prompt
        self._max_new_tokens = max_new_tokens
        self._max_context = min(max_context, getattr(self._model.config, "max_position_embeddings", max_context))
        self._stop_ids = stop_ids(self._tokenizer)
        self._batcher = Batcher(self._generate, max_size=max_batch)
        self._num_prompt_tokens = self._num_cached_tokens = self._num_generated_tokens = self._num_requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._batcher.close()

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """See `rstar.protocols.Policy`. A prefix as long as the context gets candidates without text."""
        text = self._render_prompt(question) + "".join(prefix)
        request = _Request(encode_pieces(self._tokenizer, text), num_candidates, seed)
        if request.length >= self._max_context:
            return [Proposal("", prompt_tokens=request.length)] * num_candidates
        return await self._batcher.ask(request, size=num_candidates, length=request.length)

    def metrics(self) -> dict[str, float]:
        """Requests, tokens read, of those in the prefix cache, and written, batches, seconds the model was busy."""
        return {
            "num_requests": self._num_requests,
            "num_prompt_tokens": self._num_prompt_tokens,
            "num_cached_tokens": self._num_cached_tokens,
            "num_generated_tokens": self._num_generated_tokens,
            "num_batches": self._batcher.num_batches,
            "busy_seconds": self._batcher.busy_seconds,
        }

    def _generate(self, requests: Sequence[_Request]) -> list[list[Proposal]]:
        groups = alike(requests)
        order = [at for group in groups for at in group]
        try:
            answers = self._generate_batch([requests[at] for at in order], list(map(len, groups)))
        except (RuntimeError, ValueError) as error:  # out of memory, a lost device
            raise PolicyError(f"the policy's engine failed on {len(requests)} requests: {error}") from error
        answer_of = dict(zip(order, answers, strict=True))
        return [answer_of[at] for at in range(len(requests))]

    @torch.inference_mode()
    def _generate_batch(self, requests: Sequence[_Request], sizes: Sequence[int]) -> list[list[Proposal]]:
        """Generate until most rows are done, then go on with the others alone: long steps do not hold up short ones.

        `sizes` says how many requests one after another share each prompt.
        """
        longest = max(request.length for request in requests)
        room = max(1, min(self._max_new_tokens, self._max_context - longest))
        end_ids = [*self._stop_ids, self._tokenizer.eos_token_id]
        uniforms = np.concatenate([noise(request.seed, request.num_candidates, room) for request in requests])
        sampler = SeededSampler(uniforms, self._temperature, longest, end_ids)
        ids, mask, prompts = self._prefill(requests, sizes)
        cache = sibling_cache(self._model.config.num_hidden_layers, longest - 1)
        texts: list[list[int]] = [[] for _ in uniforms]
        logprobs = [0.0] * len(uniforms)
        rows = torch.arange(len(uniforms))
        while len(rows):
            with attending(self._model, prompts):
                ids = self._continue(ids, mask, cache, sampler, room - (ids.shape[1] - longest))
            left = ~sampler.done if ids.shape[1] - longest < room and self._stop_ids else torch.zeros_like(sampler.done)
            for row, logprob, text in zip(rows.tolist(), sampler.logprobs.tolist(), ids.tolist(), strict=True):
                texts[row], logprobs[row] = text[longest:], logprob
            rows, sampler, left = rows[left], sampler.only(left), left.to(ids.device)
            if len(rows):
                ids, prompts = ids[left], prompts.only(left)
                mask = torch.nn.functional.pad(mask[left], (0, ids.shape[1] - mask.shape[1]), value=1)
                cache.batch_select_indices(left)
        return self._proposals(requests, sizes, texts, logprobs)

    def _continue(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: Cache, sampler: SeededSampler, room: int
    ) -> torch.Tensor:
        return self._model.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=GenerationConfig(
                max_new_tokens=room,
                do_sample=False,
                eos_token_id=sampler.stop_ids.tolist(),
                pad_token_id=self._tokenizer.pad_token_id,
                stop_strings=None if self._stop_ids else list(STOP_STRINGS),
                disable_compile=True,  # every batch has another shape
            ),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([MostDone(sampler)]),
            tokenizer=self._tokenizer,
        )

    def _prefill(
        self, requests: Sequence[_Request], sizes: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, Prompts]:
        """Ids and mask of each row's prompt, padded on the left, and the nodes' states of all but its last token."""
        firsts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
        states, mask = self._prefixes.states([requests[at].pieces for at in firsts])
        ids = torch.full_like(mask, self._tokenizer.pad_token_id)
        for row, at in zip(ids, firsts, strict=True):
            row[-requests[at].length :] = torch.tensor([token for piece in requests[at].pieces for token in piece])
        counts = [
            sum(request.num_candidates for request in requests[at : at + size])
            for at, size in zip(firsts, sizes, strict=True)
        ]
        prompts = Prompts.of(states.tokens(slice(0, -1)), mask[:, :-1], counts)
        return ids[prompts.node], mask[prompts.node], prompts

    def _proposals(
        self, requests: Sequence[_Request], sizes: Sequence[int], rows: list[list[int]], logprobs: list[float]
    ) -> list[list[Proposal]]:
        answers, at = [], 0
        # a group's first request reads the prompt, the others find it there
        firsts = dict(zip(accumulate(sizes, initial=0), self._prefixes.num_known, strict=False))
        cached = [firsts.get(i, request.length) for i, request in enumerate(requests)]
        for request, num_cached in zip(requests, cached, strict=True):
            texts = rows[at : at + request.num_candidates]
            answers.append(
                [
                    self._proposal(row, lp, request.length, num_cached)
                    for row, lp in zip(texts, logprobs[at:], strict=False)
                ]
            )
            at += request.num_candidates
            self._num_requests += 1
            self._num_prompt_tokens += request.length
            self._num_cached_tokens += num_cached
            self._num_generated_tokens += sum(proposal.num_tokens for proposal in answers[-1])
        return answers

    def _proposal(self, row: list[int], logprob: float, prompt_tokens: int, cached_tokens: int) -> Proposal:
        text, num_tokens = decode_step(self._tokenizer, row, self._stop_ids)
        return Proposal(text, num_tokens, round(logprob, LOGPROB_DIGITS), prompt_tokens, cached_tokens)

"""Admission by tokens: limits the tokens that are requested from a policy at the same time.

Not in the paper. `max_in_flight` limits the number of trees, but tokens fill an engine's memory: long prefixes and many
candidates take more than short and few ones. The limit changes when results come, not what they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rstar.protocols import Policy, Proposal

CHARACTERS_PER_TOKEN = 3.0  # until an engine has counted a prompt
TOKENS_PER_STEP = 64.0  # until a step has been seen
SMOOTHING = 0.05  # weight of the newest value in the running means


class TokenGate:
    """A semaphore of `capacity` tokens, first come, first served.

    A request for more than the capacity takes all of it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, tokens: int) -> AsyncIterator[None]:
        """Wait until `tokens` are free, and hold them for the length of a block."""
        tokens = min(tokens, self.capacity)
        await self._acquire(tokens)
        try:
            yield
        finally:
            self._release(tokens)

    async def _acquire(self, tokens: int) -> None:
        if not self._waiting and self.num_taken + tokens <= self.capacity:
            self.num_taken += tokens
            return
        acquired = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, acquired))
        try:
            await acquired
        except asyncio.CancelledError:
            if not acquired.cancelled():
                self._release(tokens)
            raise

    def _release(self, tokens: int) -> None:
        self.num_taken -= tokens
        while self._waiting:
            next_tokens, acquired = self._waiting[0]
            if acquired.cancelled():
                self._waiting.popleft()
            elif self.num_taken + next_tokens <= self.capacity:
                self._waiting.popleft()
                self.num_taken += next_tokens
                acquired.set_result(None)
            else:
                return


class AdmittedPolicy:
    """A policy whose requests wait until there are no more than `max_tokens` tokens in flight.

    A request counts its prompt once, because siblings share it, and an average step for each candidate.
    """

    def __init__(self, policy: Policy, max_tokens: int) -> None:
        self._policy = policy
        self._gate = TokenGate(max_tokens)
        self._characters_per_token = CHARACTERS_PER_TOKEN
        self._tokens_per_step = TOKENS_PER_STEP

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Wait until the request fits, then pass it on."""
        num_characters = len(question) + sum(map(len, prefix))
        tokens = num_characters / self._characters_per_token + num_candidates * self._tokens_per_step
        async with self._gate.take(round(tokens)):
            proposals = await self._policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
        self._update_means(num_characters, proposals)
        return proposals

    def _update_means(self, num_characters: int, proposals: Sequence[Proposal]) -> None:
        if not proposals:
            return
        step = sum(proposal.num_tokens for proposal in proposals) / len(proposals)
        self._tokens_per_step += SMOOTHING * (step - self._tokens_per_step)
        if num_characters and proposals[0].prompt_tokens:
            token = num_characters / proposals[0].prompt_tokens
            self._characters_per_token += SMOOTHING * (token - self._characters_per_token)

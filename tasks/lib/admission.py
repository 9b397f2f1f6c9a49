"""Admission by tokens: a policy that is asked for no more than so many tokens at once.

Not in the paper. Trees are admitted by number (`max_in_flight`), but an engine's memory is filled by tokens: long
prefixes and many candidates take more of it than short ones. Results do not depend on it, only when they come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rstar.protocols import Policy, Proposal

CHARACTERS_A_TOKEN = 3.0  # before an engine has counted a prompt
TOKENS_A_STEP = 64.0  # before a step has been seen
FADING = 0.05  # weight of what was seen last in the running means


class TokenGate:
    """Lets in, first come first served, while what is inside is within `capacity`; what is larger goes in alone."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, tokens: int) -> AsyncIterator[None]:
        tokens = min(tokens, self.capacity)
        await self._enter(tokens)
        try:
            yield
        finally:
            self._leave(tokens)

    async def _enter(self, tokens: int) -> None:
        if not self._waiting and self.inside + tokens <= self.capacity:
            self.inside += tokens
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave(tokens)
            raise

    def _leave(self, tokens: int) -> None:
        self.inside -= tokens
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif self.inside + wanted <= self.capacity:
                self._waiting.popleft()
                self.inside += wanted
                turn.set_result(None)
            else:
                return


class AdmittedPolicy:
    """A policy behind a gate: a request counts its prompt once, which siblings share, and a step for each candidate."""

    def __init__(self, policy: Policy, max_tokens: int) -> None:
        self._policy = policy
        self._gate = TokenGate(max_tokens)
        self._characters_a_token = CHARACTERS_A_TOKEN
        self._tokens_a_step = TOKENS_A_STEP

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        characters = len(question) + sum(map(len, prefix))
        tokens = characters / self._characters_a_token + num_candidates * self._tokens_a_step
        async with self._gate.taken(round(tokens)):
            proposals = await self._policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
        self._learn(characters, proposals)
        return proposals

    def _learn(self, characters: int, proposals: Sequence[Proposal]) -> None:
        if not proposals:
            return
        mean = sum(proposal.num_tokens for proposal in proposals) / len(proposals)
        self._tokens_a_step += FADING * (mean - self._tokens_a_step)
        if characters and proposals[0].prompt_tokens:
            self._characters_a_token += FADING * (characters / proposals[0].prompt_tokens - self._characters_a_token)

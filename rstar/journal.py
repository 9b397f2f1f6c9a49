"""The journal of a search: what policy and PPM said, so that a search that was cut off is replayed, not paid for again.

Not in the paper. A search is a function of what it was told (the seed of an expansion hangs on its prefix alone), so
no state of a tree is kept: the search runs again from its roots, the journal answers what is known, and the engines
only what is not. Code runs again, which is cheap beside the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Protocol

from rstar.protocols import Policy, Proposal, StepScorer

_FIELDS = tuple(field.name for field in fields(Proposal))  # part of the key: other fields, another journal
_values = attrgetter(*_FIELDS)


class Journal(Protocol):
    """Answers by key. Keys are 32 hexadecimal digits, values plain lists as JSON has them."""

    def get(self, key: str) -> Any:
        """The value that was put under `key`; None where there is none."""
        ...

    def put(self, key: str, value: Any) -> None: ...


class JournalledPolicy:
    """A policy that is asked nothing twice: expansions are known by question, prefix, seed and number of candidates."""

    def __init__(self, policy: Policy, journal: Journal) -> None:
        self._policy = policy
        self._journal = journal

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        key = journal_key("policy", *_FIELDS, str(num_candidates), str(seed), question, *prefix)
        known = self._journal.get(key)
        if known is not None:
            return [Proposal(*values) for values in known]
        proposals = await self._policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
        self._journal.put(key, [_values(proposal) for proposal in proposals])
        return proposals


class JournalledScorer:
    """A scorer that is asked nothing twice: siblings are known by question, prefix and their rendered texts."""

    def __init__(self, scorer: StepScorer, journal: Journal) -> None:
        self._scorer = scorer
        self._journal = journal

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        key = journal_key("scorer", str(len(prefix)), question, *prefix, *candidates)
        known: list[float] | None = self._journal.get(key)
        if known is not None:
            return known
        scores = [float(score) for score in await self._scorer.score(question, prefix, candidates)]
        self._journal.put(key, scores)
        return scores


def journal_key(*parts: str) -> str:
    """A hash of the parts and their lengths, so that no two lists of parts run together."""
    lengths = ",".join([str(len(part)) for part in parts])
    text = "".join([lengths, ";", *parts])
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

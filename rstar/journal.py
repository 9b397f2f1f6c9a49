"""The journal of a search: the answers of policy and PPM, kept so that an interrupted search does not ask again.

Not in the paper. A search depends only on what policy, PPM, executor and judge answer, and the seed of an expansion
depends only on its tree and prefix. So the state of a tree is not saved. An interrupted search starts again at the
root: the journal answers the requests that it knows, and the engines answer the others. Code is run again, which is
cheap compared with generating tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Protocol

from rstar.protocols import Policy, Proposal, StepScorer

_FIELDS = tuple(field.name for field in fields(Proposal))  # part of the key: entries with other fields do not match
_values = attrgetter(*_FIELDS)


class Journal(Protocol):
    """Answers by key. Keys are 32 hexadecimal digits; values are lists that JSON can hold."""

    def get(self, key: str) -> Any:
        """Return the value of `key`; None if there is none."""
        ...

    def put(self, key: str, value: Any) -> None:
        """Store the value of `key`."""
        ...


class JournalledPolicy:
    """A policy that answers from the journal where it can.

    The key is the question, prefix, seed and number of candidates.
    """

    def __init__(self, policy: Policy, journal: Journal) -> None:
        self._policy = policy
        self._journal = journal

    async def propose(
        self, question: str, prefix: Sequence[str], *, num_candidates: int, seed: int
    ) -> Sequence[Proposal]:
        """Return the known steps, or ask the policy and store its answer."""
        key = journal_key("policy", *_FIELDS, str(num_candidates), str(seed), question, *prefix)
        known = self._journal.get(key)
        if known is not None:
            return [Proposal(*values) for values in known]
        proposals = await self._policy.propose(question, prefix, num_candidates=num_candidates, seed=seed)
        self._journal.put(key, [_values(proposal) for proposal in proposals])
        return proposals


class JournalledScorer:
    """A scorer that answers from the journal where it can.

    The key is the question, prefix and all rendered siblings.
    """

    def __init__(self, scorer: StepScorer, journal: Journal) -> None:
        self._scorer = scorer
        self._journal = journal

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """Return the known scores, or ask the scorer and store its answer."""
        key = journal_key("scorer", str(len(prefix)), question, *prefix, *candidates)
        known: list[float] | None = self._journal.get(key)
        if known is not None:
            return known
        scores = [float(score) for score in await self._scorer.score(question, prefix, candidates)]
        self._journal.put(key, scores)
        return scores


def journal_key(*parts: str) -> str:
    """Return a hash of the parts and their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    lengths = ",".join([str(len(part)) for part in parts])
    text = "".join([lengths, ";", *parts])
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

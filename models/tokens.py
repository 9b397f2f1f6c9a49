"""Text to token ids, in the same way in training, search and scoring.

The policy continues whole steps, so no token may cross the end of a step. A tokenizer that spells a marker with several
tokens could merge the marker's last character with the line break after it. Each text is therefore split at the
domain's boundaries, and each piece is tokenized alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from domains.protocol import Domain


def encode(tokenizer: Any, text: str, domain: Domain) -> list[int]:
    """Return the ids of a prompt and the steps after it."""
    return [token for piece in encode_pieces(tokenizer, text, domain) for token in piece]


def encode_pieces(tokenizer: Any, text: str, domain: Domain) -> list[list[int]]:
    """Return the ids of a prompt and of each step and output after it."""
    return [_ids(tokenizer, piece).tolist() for piece in domain.boundary.split(text) if piece]


@lru_cache(maxsize=1 << 15)
def _ids(tokenizer: Any, piece: str) -> array[int]:
    """Return the ids of one piece; cached, because a prefix starts with the pieces of its parent's."""
    return array("I", tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])


def encode_spans(tokenizer: Any, text: str, domain: Domain) -> list[tuple[int, tuple[int, int]]]:
    """Return each token with the span of characters of `text` that it stands for."""
    pieces = [piece for piece in domain.boundary.split(text) if piece]
    if not pieces:
        return []
    encoded = tokenizer(pieces, return_offsets_mapping=True, add_special_tokens=False)
    tokens, at = [], 0
    for piece, ids, offsets in zip(pieces, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        tokens += [(token, (start + at, end + at)) for token, (start, end) in zip(ids, offsets, strict=True)]
        at += len(piece)
    return tokens


def encode_siblings(
    tokenizer: Any, text: str, candidates: Sequence[str], domain: Domain, *, max_context: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the pieces of a prompt with its prefix, and the ids of each candidate.

    Prompt and candidate together have at most `max_context` tokens; the rest is cut off. Each has at least one.
    """
    pieces, room = [], max_context - 1
    for piece in encode_pieces(tokenizer, text, domain):
        pieces.append(piece[: max(0, room)])
        room -= len(piece)
    pieces = [piece for piece in pieces if piece]
    length = sum(map(len, pieces))
    rows = [encode(tokenizer, candidate, domain)[: max_context - length] for candidate in candidates]
    return pieces, [row or [tokenizer.pad_token_id] for row in rows]


def stop_ids(tokenizer: Any, stop_strings: Sequence[str]) -> list[int]:
    """Return the ids that end a step; empty if the tokenizer needs several tokens for one of the markers."""
    ids = [tokenizer.encode(marker, add_special_tokens=False) for marker in stop_strings]
    return [one[0] for one in ids] if all(len(one) == 1 for one in ids) else []


def decode_step(
    tokenizer: Any, ids: Sequence[int], ends: Sequence[int], stop_strings: Sequence[str]
) -> tuple[str, int]:
    """Return the text of generated ids up to the end of the step, and its number of tokens.

    `ends` are the `stop_ids`. End of text and padding do not belong to the step.
    """
    blank = {tokenizer.pad_token_id, tokenizer.eos_token_id}
    end = next((i + 1 for i, token in enumerate(ids) if token in ends), None)
    kept = list(ids[:end]) if end else [token for token in ids if token not in blank]
    return cut_step(tokenizer.decode(kept, skip_special_tokens=False), stop_strings), len(kept)


def cut_step(text: str, stop_strings: Sequence[str]) -> str:
    """Return the text up to its first end marker, or all of it if it has none."""
    stops = [text.find(marker) + len(marker) for marker in stop_strings if marker in text]
    return text[: min(stops)] if stops else text

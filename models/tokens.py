"""Text to ids, the same way in training, search and scoring.

The policy writes a step after whole steps, so no token may reach over the end of one: a tokenizer in which the markers
are not single tokens would else merge the last character of a marker with the line break that follows it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from domains.mathematics.steps import CODE, END_OF_ANSWER, END_OF_CODE, END_OF_OUTPUT, END_OF_STEP, STOP_STRINGS

_ENDS = (END_OF_STEP, END_OF_CODE, END_OF_OUTPUT, END_OF_ANSWER)
_BOUNDARY = re.compile("|".join([f"(?={re.escape(CODE)})", *(f"(?<={re.escape(end)})" for end in _ENDS)]))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a prompt and the steps after it."""
    return [token for piece in encode_pieces(tokenizer, text) for token in piece]


def encode_pieces(tokenizer: Any, text: str) -> list[list[int]]:
    """Return the ids of a prompt and of each step and output after it."""
    return [_ids(tokenizer, piece).tolist() for piece in _BOUNDARY.split(text) if piece]


@lru_cache(maxsize=1 << 15)
def _ids(tokenizer: Any, piece: str) -> array[int]:
    """The ids of one piece: a prefix begins with the pieces of the one before it."""
    return array("I", tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"])


def encode_spans(tokenizer: Any, text: str) -> list[tuple[int, tuple[int, int]]]:
    """Return each token with the characters of `text` that it stands for."""
    pieces = [piece for piece in _BOUNDARY.split(text) if piece]
    if not pieces:
        return []
    encoded = tokenizer(pieces, return_offsets_mapping=True, add_special_tokens=False)
    tokens, at = [], 0
    for piece, ids, offsets in zip(pieces, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        tokens += [(token, (start + at, end + at)) for token, (start, end) in zip(ids, offsets, strict=True)]
        at += len(piece)
    return tokens


def encode_siblings(
    tokenizer: Any, text: str, candidates: Sequence[str], max_context: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the pieces of a prompt with its prefix, and the ids of each candidate; together at most `max_context`."""
    pieces, room = [], max_context - 1
    for piece in encode_pieces(tokenizer, text):
        pieces.append(piece[: max(0, room)])
        room -= len(piece)
    pieces = [piece for piece in pieces if piece]
    length = sum(map(len, pieces))
    rows = [encode(tokenizer, candidate)[: max_context - length] for candidate in candidates]
    return pieces, [row or [tokenizer.pad_token_id] for row in rows]


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end a step; empty where the tokenizer spreads a marker over several tokens."""
    ids = [tokenizer.encode(marker, add_special_tokens=False) for marker in STOP_STRINGS]
    return [one[0] for one in ids] if all(len(one) == 1 for one in ids) else []


def decode_step(tokenizer: Any, ids: Sequence[int], ends: Sequence[int]) -> tuple[str, int]:
    """Return the text of generated ids up to the end of the step, and how many tokens it took.

    `ends` are the `stop_ids`. End of text and padding are not part of the step.
    """
    blank = {tokenizer.pad_token_id, tokenizer.eos_token_id}
    end = next((i + 1 for i, token in enumerate(ids) if token in ends), None)
    kept = list(ids[:end]) if end else [token for token in ids if token not in blank]
    return cut_step(tokenizer.decode(kept, skip_special_tokens=False)), len(kept)


def cut_step(text: str) -> str:
    """The text up to its first end marker, and whole where it has none."""
    stops = [text.find(marker) + len(marker) for marker in STOP_STRINGS if marker in text]
    return text[: min(stops)] if stops else text

"""Text to ids, the same way in training, search and scoring.

The policy writes a step after whole steps, so no token may reach over the end of one: a tokenizer in which the markers
are not single tokens would else merge the last character of a marker with the line break that follows it.
"""

from __future__ import annotations

import re
from typing import Any

from rstar.steps import CODE, END_OF_ANSWER, END_OF_CODE, END_OF_OUTPUT, END_OF_STEP

_ENDS = (END_OF_STEP, END_OF_CODE, END_OF_OUTPUT, END_OF_ANSWER)
_BOUNDARY = re.compile("|".join([f"(?={re.escape(CODE)})", *(f"(?<={re.escape(end)})" for end in _ENDS)]))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a prompt and the steps after it."""
    return [token for piece in encode_pieces(tokenizer, text) for token in piece]


def encode_pieces(tokenizer: Any, text: str) -> list[list[int]]:
    """Return the ids of a prompt and of each step and output after it."""
    pieces = [piece for piece in _BOUNDARY.split(text) if piece]
    return [list(ids) for ids in tokenizer(pieces, add_special_tokens=False)["input_ids"]] if pieces else []


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

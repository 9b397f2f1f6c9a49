from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from domains.mathematics.domain import DOMAIN
from models.checkpoints import load_tokenizer
from models.tokens import cut_step, encode, encode_pieces, encode_spans, stop_ids

RESPONSE = (
    "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>\n# How many?\nprint(tom)\n<end_of_code>\n"
    "<output>34<end_of_output>\n<answer>\\boxed{34}\n<end_of_answer>"
)


@pytest.fixture(scope="module")
def merging() -> PreTrainedTokenizerFast:
    """A tokenizer without special tokens, which also merges markers with the line breaks after them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([DOMAIN.prompt("Why?") + RESPONSE] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_text_has_the_ids_of_its_prompt_and_steps(merging: PreTrainedTokenizerFast) -> None:
    prompt, steps = DOMAIN.prompt("Why?"), DOMAIN.split(RESPONSE)
    whole = encode(merging, prompt + RESPONSE, DOMAIN)
    assert whole == [token for text in (prompt, *steps) for token in encode(merging, text, DOMAIN)]
    assert whole != merging(prompt + RESPONSE)["input_ids"]  # without the split, training would use these ids


def test_boundaries_and_end_markers_are_those_of_the_domain(merging: PreTrainedTokenizerFast) -> None:
    other = SimpleNamespace(boundary=re.compile("(?<=;)"), stop_strings=(";", "end"))
    text = "<code>\na = 1;\nb = 2;\nend of it"
    pieces = ["<code>\na = 1;", "\nb = 2;", "\nend of it"]
    assert encode_pieces(merging, text, other) == [merging(piece)["input_ids"] for piece in pieces]
    assert cut_step(text, other.stop_strings) == pieces[0] and cut_step(text, DOMAIN.stop_strings) == text
    assert stop_ids(merging, other.stop_strings) == []
    assert stop_ids(merging, other.stop_strings[:1]) == merging(";")["input_ids"]


def test_each_token_has_the_span_of_its_characters(small_policy: Path) -> None:
    text = DOMAIN.prompt("Tom has 34 apples.") + RESPONSE
    tokenizer = load_tokenizer(small_policy)
    spans = encode_spans(tokenizer, text, DOMAIN)
    assert "".join(text[start:end] for _, (start, end) in spans) == text
    assert [token for token, _ in spans] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encode(tokenizer, "", DOMAIN) == []

"""A policy small enough to train in a test, with the real tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from models.tiny import train_tokenizer


@pytest.fixture(scope="session")
def small_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer policy with random weights, drawn large enough that its choices differ from one another."""
    path = tmp_path_factory.mktemp("policy")
    tokenizer = train_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=96,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path

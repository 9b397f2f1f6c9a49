"""The base model of the flow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the shipped tiny base or, if it is not built, one with random weights."""
    shipped = REPOSITORY / "miniature" / "base" / "weights"
    if (shipped / "model.safetensors").exists():
        return str(shipped)
    from miniature.base.model import tiny_model, train_tokenizer

    folder, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)

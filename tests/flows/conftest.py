"""The model that the flows' tests start from, and their signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped tiny base or, where it is not built, one with random weights."""
    shipped = REPOSITORY / "models" / "tiny-base"
    if (shipped / "model.safetensors").exists():
        return str(shipped)
    from miniature.base.model import tiny_model, train_tokenizer

    place, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer()
    tiny_model(tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT as in a terminal, here and in what a test starts: a background job ignores it, and so does its run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

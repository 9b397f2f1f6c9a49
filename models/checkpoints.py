"""Loading checkpoints: each failure is one line that says which directory and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from rstar.protocols import UserError


def load_tokenizer(checkpoint: str | Path) -> Any:
    """The tokenizer of a checkpoint, padding on the left."""
    tokenizer = load_pretrained(AutoTokenizer, checkpoint)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(checkpoint: str | Path, *, device: str = "", training: bool = False) -> Any:
    """A causal language model: float32 on the CPU and for training, bfloat16 to ask on a GPU.

    In bfloat16 the small updates of fine-tuning would be rounded away.
    """
    device = device or default_device()
    dtype = torch.float32 if training or device == "cpu" else torch.bfloat16
    return load_whole(AutoModelForCausalLM, checkpoint, dtype=dtype).to(device)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_whole(factory: Any, checkpoint: str | Path, **options: Any) -> Any:
    """A model with all of its weights; those that its checkpoint lacks would be drawn at random."""
    model, loading = load_pretrained(factory, checkpoint, output_loading_info=True, **options)
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"{checkpoint}: {missing[0]} is missing from its weights; restore it or train it again")
    return model


def load_pretrained(factory: Any, checkpoint: str | Path, **options: Any) -> Any:
    """What `factory.from_pretrained` loads."""
    path = Path(checkpoint)
    looks_local = path.is_absolute() or str(checkpoint).startswith(".") or path.exists()
    if looks_local and not (path / "config.json").is_file():
        raise UserError(
            f"{path}: no checkpoint here (config.json is missing); train it first or name another in the recipe"
        )
    try:
        return factory.from_pretrained(str(checkpoint), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{checkpoint}: the checkpoint cannot be loaded ({reason}); restore it or train it again"
        ) from error

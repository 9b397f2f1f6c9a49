"""Checkpoints: folders in Hugging Face format with a manifest.

A checkpoint that cannot be loaded is a UserError of one line, which names the folder and says what to do. Checkpoints
are written under another name and then renamed, so a folder is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rstar.protocols import UserError


def load_tokenizer(checkpoint: str | Path) -> Any:
    """Load the tokenizer of a checkpoint. It pads on the left."""
    tokenizer = load_pretrained(AutoTokenizer, checkpoint)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(checkpoint: str | Path, *, device: str = "", training: bool = False) -> Any:
    """Load a causal language model: in float32 on a CPU and for training, in bfloat16 for inference on a GPU.

    Bfloat16 would round the small updates of fine-tuning away.
    """
    device = device or default_device()
    dtype = torch.float32 if training or device == "cpu" else torch.bfloat16
    return load_whole(AutoModelForCausalLM, checkpoint, dtype=dtype).to(device)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_whole(factory: Any, checkpoint: str | Path, **options: Any) -> Any:
    """Load a model with all of its weights: transformers would initialize missing ones at random."""
    model, loading = load_pretrained(factory, checkpoint, output_loading_info=True, **options)
    if missing := sorted(loading["missing_keys"]):
        raise UserError(f"{checkpoint}: {missing[0]} is missing from its weights; restore it or train it again")
    return model


def load_pretrained(factory: Any, checkpoint: str | Path, **options: Any) -> Any:
    """Call `factory.from_pretrained`; its errors become UserErrors."""
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


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    training: dict[str, Any],
    figures: dict[str, Any],
) -> None:
    """Write a trained model. The manifest holds the configuration `training`, and `figures` with the peak memory."""
    model.config.use_cache = True  # the trainer switched it off
    with new_checkpoint(out, training=training, figures=figures) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        figures["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # saving included


@contextmanager
def new_checkpoint(out: Path, **manifest: Any) -> Iterator[Path]:
    """Yield a temporary folder for the files of a checkpoint; then add the manifest and rename the folder to `out`."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    manifest["fingerprint"] = fingerprint(part)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def fingerprint(checkpoint: Path) -> str:
    """Return a hash of a checkpoint's weights. It identifies the model that wrote a step."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()

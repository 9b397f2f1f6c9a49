"""The process preference model (PPM): a policy's transformer with a scalar head, linear and then tanh.

Section 3.3. A score is `tanh(logit at the last token)`, in [-1, 1], in training and in inference. The checkpoint is a
`...ForSequenceClassification` with one label, which any server can load, and has `"rstar_head": "tanh"` in its
configuration. It gives logits; only this module applies the tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForSequenceClassification

from models.checkpoints import default_device, load_pretrained, load_whole
from rstar.protocols import UserError

HEAD = "tanh"


def from_policy(checkpoint: str | Path, *, pad_token_id: int, device: str = "") -> Any:
    """Make a PPM from the weights of a policy, with a head of zeros: the start of every round's PPM training."""
    config = load_pretrained(AutoConfig, checkpoint)
    config.num_labels, config.rstar_head, config.pad_token_id = 1, HEAD, pad_token_id
    model = load_pretrained(AutoModelForSequenceClassification, checkpoint, config=config, dtype=torch.float32)
    torch.nn.init.zeros_(model.score.weight)
    return model.to(device or default_device())


def load_ppm(checkpoint: str | Path, *, device: str = "") -> Any:
    """Load a trained PPM. A checkpoint without the tanh head is a UserError."""
    config = load_config(checkpoint)
    device = device or default_device()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return load_whole(AutoModelForSequenceClassification, checkpoint, config=config, dtype=dtype).to(device)


def load_config(checkpoint: str | Path) -> Any:
    """Load a PPM's configuration. A checkpoint without the tanh head is a UserError."""
    config = load_pretrained(AutoConfig, checkpoint)
    if getattr(config, "rstar_head", None) != HEAD:
        raise UserError(
            f'{checkpoint}: not a PPM checkpoint (its config.json has no "rstar_head": "{HEAD}"); '
            "train one with `python -m models.training.ppm`, or name the ppm directory of a round"
        )
    return config


def states(model: Any, places: Sequence[int], **inputs: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states at `places` of a single row of inputs, shape (places, hidden)."""
    return model.base_model(**inputs).last_hidden_state[0, places]


def logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return the head's logits, shape (texts,), for the hidden states of last tokens, shape (texts, hidden)."""
    return model.score(hidden)[:, 0].float()


def scores(logits: torch.Tensor) -> torch.Tensor:
    """Return scores in [-1, 1] for logits of any shape."""
    return torch.tanh(logits)


def squashed(logits: Sequence[float]) -> list[float]:
    """Return scores in [-1, 1] for the logits of a server."""
    return [math.tanh(logit) for logit in logits]


def grouped_pairwise_loss(values: torch.Tensor, groups: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """Return the mean over groups of −1/(P·M) Σ log σ(r⁺ − r⁻) (Equation 4).

    `values` has shape (texts,). A group lists its pairs of a positive and a negative text.
    """
    return _mean_of_groups(lambda positive, negative: -logsigmoid(positive - negative), values, groups)


def off_centre(values: torch.Tensor, groups: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """Return the mean over groups of 1/(P·M) Σ (z⁺ + z⁻)² of the logits z (arXiv 2312.09244, Equation 2).

    The tanh is flat for large logits. If both logits of a pair drift to the same end, the ranking loss has no gradient
    and cannot correct their order.
    """
    return _mean_of_groups(lambda positive, negative: (positive + negative) ** 2, values, groups)


def _mean_of_groups(
    measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    groups: Sequence[Sequence[tuple[int, int]]],
) -> torch.Tensor:
    means = []
    for pairs in groups:
        positive, negative = torch.tensor(pairs, device=values.device).T
        means.append(measure(values[positive], values[negative]).mean())
    return torch.stack(means).mean()

"""The process preference model: a policy's transformer with a scalar head, linear then tanh.

Section 3.3. The checkpoint is a `...ForSequenceClassification` with one label, so that any server can load it, and its
configuration says `"rstar_head": "tanh"`. The tanh is applied here and nowhere else: in training and in inference alike
a score is `tanh(logit at the last token)`, in [-1, 1].
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
    """A PPM with the weights of a policy and a fresh head: where every round's PPM starts."""
    config = load_pretrained(AutoConfig, checkpoint)
    config.num_labels, config.rstar_head, config.pad_token_id = 1, HEAD, pad_token_id
    model = load_pretrained(AutoModelForSequenceClassification, checkpoint, config=config, dtype=torch.float32)
    torch.nn.init.zeros_(model.score.weight)  # every score starts at 0
    return model.to(device or default_device())


def load_ppm(checkpoint: str | Path, *, device: str = "") -> Any:
    """Load a trained PPM; a checkpoint without the tanh head is a UserError."""
    config = load_config(checkpoint)
    device = device or default_device()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return load_whole(AutoModelForSequenceClassification, checkpoint, config=config, dtype=dtype).to(device)


def load_config(checkpoint: str | Path) -> Any:
    """Load a PPM's configuration; that of a checkpoint without the tanh head is a UserError."""
    config = load_pretrained(AutoConfig, checkpoint)
    if getattr(config, "rstar_head", None) != HEAD:
        raise UserError(
            f'{checkpoint}: not a PPM checkpoint (its config.json has no "rstar_head": "{HEAD}"); '
            "train one with `python -m models.training.ppm`, or name the ppm directory of a round"
        )
    return config


def squashed(logits: Sequence[float]) -> list[float]:
    """Scores in [-1, 1] of the logits that a server gave for the last tokens."""
    return [math.tanh(logit) for logit in logits]


def states(model: Any, places: Sequence[int], **inputs: torch.Tensor) -> torch.Tensor:
    """Last hidden states, shape (texts, hidden), of the texts that end at `places` of one row of inputs."""
    return model.base_model(**inputs).last_hidden_state[0, places]


def logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What the tanh makes scores of, shape (texts,), for the hidden states of last tokens, shape (texts, hidden)."""
    return model.score(hidden)[:, 0].float()


def scores(logits: torch.Tensor) -> torch.Tensor:
    """Scores in [-1, 1], of the logits' shape."""
    return torch.tanh(logits)


def grouped_pairwise_loss(values: torch.Tensor, groups: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """Mean over groups of −1/(P·M) Σ log σ(r⁺ − r⁻), Equation 4; a group lists its (positive, negative) rows."""
    return _mean_of_groups(lambda positive, negative: -logsigmoid(positive - negative), values, groups)


def off_centre(values: torch.Tensor, groups: Sequence[Sequence[tuple[int, int]]]) -> torch.Tensor:
    """Mean over groups of 1/(P·M) Σ (z⁺ + z⁻)² of the logits z (arXiv 2312.09244, Equation 2).

    Where both logits of a pair have drifted to one end of the tanh, the ranking loss has no gradient left: it cannot
    tell them apart any more, however wrong their order.
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

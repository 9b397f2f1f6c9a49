"""Pre-trains the tiny base model from scratch on generated text: `make tiny-base`, about 50 minutes on two cores.

The same trainer as SFT, in three stages: short passages until copying works (models/tiny_text.py), longer ones in the
shapes of word problems (models/cued_text.py), and those with slips in them (models/proofread_text.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from itertools import islice

from miniature.base import copying_text as tiny_text
from miniature.base import cued_text, proofread_text
from miniature.base.model import tiny_model, train_tokenizer
from models.training import sft as train_sft
from models.training.process import TrainingConfig, start

STAGES = (  # text, number of documents, learning rate
    (tiny_text.documents, 32_000, 6e-3),
    (cued_text.documents, 60_000, 4e-3),
    (proofread_text.documents, 20_000, 3e-3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="miniature/base/weights")
    parser.add_argument("--share", type=float, default=1.0, help="of the documents; less for a trial")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = TrainingConfig(
        data="generated",
        base="",
        out="",
        optimizer="muon",
        schedule="cosine",
        warmup_ratio=0.03,
        epochs=1,
        batch_tokens=8 * 512,
        max_length=512,
        weight_decay=0.01,
        adam_beta2=0.98,
        seed=options.seed,
    )
    start(config)
    tokenizer = train_tokenizer()
    model = tiny_model(tokenizer)
    for number, (documents, count, rate) in enumerate(STAGES, start=1):
        before = config.out
        out = options.out if number == len(STAGES) else f"{options.out}.stage{number}"
        config = dataclasses.replace(config, base=before, out=out, learning_rate=rate)
        text = islice(documents(options.seed + number), round(options.share * count))
        train_sft.train(config, text, model=model, tokenizer=tokenizer)
        model = None  # the next stage reads this one's checkpoint
        if before:
            shutil.rmtree(before)


if __name__ == "__main__":
    main()

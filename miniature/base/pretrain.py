"""Pre-train the tiny base model from scratch on generated text: `make tiny-base`, about 50 minutes on two cores.

It uses the SFT trainer, in three stages: short passages to learn copying (copying_text), longer ones in the shapes of
word problems (cued_text), and some with mistakes (proofread_text).
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from itertools import islice

from miniature.base import copying_text, cued_text, proofread_text
from miniature.base.model import tiny_model, train_tokenizer
from models.training import sft
from models.training.config import TrainingConfig
from models.training.process import start

STAGES = (  # text, number of documents, learning rate
    (copying_text.documents, 32_000, 6e-3),
    (cued_text.documents, 60_000, 4e-3),
    (proofread_text.documents, 20_000, 3e-3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="miniature/base/weights")
    parser.add_argument("--share", type=float, default=1.0, help="of the documents; less than 1 for a trial")
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
        sft.train(config, text, model=model, tokenizer=tokenizer)
        model = None  # the next stage reads this one's checkpoint
        if before:
            shutil.rmtree(before)


if __name__ == "__main__":
    main()

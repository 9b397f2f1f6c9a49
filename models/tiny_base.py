"""Pre-trains the tiny base model from scratch on generated text: `make tiny-base`.

The same trainer as SFT, on text that teaches copying, arithmetic sentences and the look of code (models/tiny_text.py).
"""

from __future__ import annotations

import argparse
from itertools import islice

from models import train_sft
from models.tiny import tiny_model, train_tokenizer
from models.tiny_text import documents
from models.training import TrainingConfig, start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="models/tiny-base")
    parser.add_argument("--num-documents", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = TrainingConfig(
        data="models/tiny_text.py",
        base="",
        out=options.out,
        learning_rate=6e-3,
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
    text = islice(documents(options.seed + 1), options.num_documents)
    train_sft.train(config, text, model=tiny_model(tokenizer), tokenizer=tokenizer)


if __name__ == "__main__":
    main()

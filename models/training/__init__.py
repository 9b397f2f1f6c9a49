"""Training: SFT of the policy and training of the PPM, each in its own process.

The way in: `launcher.run_trainer`, which starts `sft` or `ppm` with a configuration file.
Must never import Prefect; `launcher` and `config` must never import torch.
"""

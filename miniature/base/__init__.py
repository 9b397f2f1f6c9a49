"""The tiny base model: its configuration, the generated text that it is pre-trained on, and its weights.

The way in is `python -m miniature.base.pretrain`, which writes `weights/`.
Must never import `miniature.families` or `miniature.writer`: the base must not know the problems.
"""

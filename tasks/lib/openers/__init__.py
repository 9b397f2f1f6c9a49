"""Openers of engines, one file a kind: each has open_policy and open_scorer.

The way in is the table OPENERS in tasks/lib/engines.py: a new kind is one file here and one line there.
"""

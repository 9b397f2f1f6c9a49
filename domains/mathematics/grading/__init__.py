"""Grading: whether two final answers are the same, by exact rules first and by Math-Verify otherwise.

The way in is `domains.mathematics.grading.judge.MathJudge`. Imports rstar only.
"""

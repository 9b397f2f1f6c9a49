"""The `rstar` command: one file for each larger subcommand, and what they share.

The way in is `cli.main.main`. No other room may import it.
"""

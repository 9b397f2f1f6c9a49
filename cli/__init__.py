"""The `rstar` command, one file a subcommand.

The way in is `cli.main.main`. Nothing imports it.
"""

"""What keeps a problem set clean: a problem's identity, and the refusal of duplicates.

The way in is `problems.cleaning.duplicates`.
Must never import `problems.sources`, which uses it.
"""

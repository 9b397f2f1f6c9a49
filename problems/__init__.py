"""Problems with a final answer: public forms read into problems, duplicates refused, new problems labelled.

The ways in are `problems.sources.json_lines.import_problems` and `problems.synthesis.majority`.
Imports rstar and domains only, and no domain by name: callers hand over a `domains.protocol.Domain`.
"""

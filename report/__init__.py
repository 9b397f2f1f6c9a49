"""The report of a run: an HTML page, a Markdown file and tables for the terminal, beside the paper's figures.

Start at `page.write_report`; `tables` has the terminal's tables.
May import store, domains and rstar, and no other room.
"""

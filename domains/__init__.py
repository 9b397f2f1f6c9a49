"""Domains: what a kind of task is made of, and nothing else knows: step format, prompts, judge.

The way in is `domains.registry.find_domain`; `domains.protocol` says what a domain has. Imports rstar only.
"""

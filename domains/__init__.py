"""Domains: the kinds of tasks, each with its step format, prompts and judge. No other room knows these.

The way in is `domains.registry.find_domain`. `domains.protocol` defines what a domain has. Imports rstar only.
"""

"""The families: word problems about quantities that change hands, with the value of every intermediate quantity.

The way in, for anything outside miniature, is `miniature.problems`.
Must never import models, or any other room but rstar, domains and problems.
"""

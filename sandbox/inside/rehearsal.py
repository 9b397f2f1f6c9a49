"""What an interpreter does once before any step, so that no fork of it has to: a first `solve` costs four later ones.

sympy imports half of itself and fills its caches when first used. The forks of a rehearsed interpreter find both in
pages that they share with it.
"""

from __future__ import annotations

import sys


def rehearse() -> None:
    """Do a little of what mathematical code does, with the modules that are imported."""
    if "sympy" not in sys.modules:
        return
    import sympy

    x, y = sympy.symbols("x y")
    for a, b, c in ((0, 3, -6), (1, -5, 6), (2, 3, -7), (3, -20, 5), (1, 2, 5)):
        sympy.solve(a * x**2 + b * x + c, x)
    sympy.solve(sympy.Eq(x / 2 + 3, 11), x)
    sympy.solve([x + y - 10, x - 2 * y - 1], [x, y])
    sympy.solve(sympy.sqrt(x + 1) - 3, x)
    sympy.simplify((x**2 - 1) / (x - 1))
    sympy.factor(x**3 - 6 * x**2 + 11 * x - 6)
    sympy.expand((x + y) ** 3)
    sympy.diff(x**3 + sympy.sin(x), x)
    sympy.integrate(x**2, (x, 0, 3))
    sympy.sqrt(8).evalf()

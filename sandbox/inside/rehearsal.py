"""Uses sympy once before any step, so that its first use is not slow in every fork.

On its first use sympy imports many of its modules and fills its caches, so the first `solve` takes four times as long
as a later one. Forks share those modules and caches with the interpreter that they come from.
"""

from __future__ import annotations

import sys


def rehearse() -> None:
    """Run typical sympy calls, if sympy is imported."""
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

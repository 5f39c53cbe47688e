"""Compiles functions with numba where numba is installed, and leaves them as they are where it is not.

Rule: a compiled function is plain Python over NumPy arrays and numbers, so that both ways give the same answer to the
last bit. No function here asks for numba's `fastmath`, which would reorder sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

try:
    import numba
except ImportError:  # the extra `experiments` is not installed: slower by two orders of magnitude
    numba = None

COMPILED = numba is not None


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as machine code, kept on disk beside its module (or in `NUMBA_CACHE_DIR`)."""
    if numba is None:
        return function
    faster: Callable[P, R] = numba.njit(cache=True, error_model="numpy")(function)
    return faster


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, and part of whatever calls it."""
    if numba is None:
        return function
    faster: Callable[P, R] = numba.njit(inline="always", error_model="numpy")(function)
    return faster

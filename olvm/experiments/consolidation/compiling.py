"""Compiles functions with numba where numba is installed, and leaves them as they are where it is not.

Rules:
1. A compiled function is plain Python over NumPy arrays and numbers, so that both ways give the same answer to the
   last bit. No function here asks for numba's `fastmath`, which would reorder sums.
2. Machine code is kept on disk, so that one process of an installation compiles and the others load. numba looks only
   at the file of a function and not at those of the functions that it calls; so when any source of this package has
   changed, what was kept is thrown away here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

try:
    import numba
except ImportError:  # the extra `experiments` is not installed: some seventy times slower
    COMPILED = False
else:
    COMPILED = not getattr(numba.config, "DISABLE_JIT", 0)


def forget_stale_code(package: Path) -> bool:
    """Remove numba's files of a package whose sources have changed since; whether they had.

    Where the folder cannot be written to, numba keeps its files elsewhere, and there is nothing to remove.
    """
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = package / "__pycache__"
    stamp = folder / "compiled-from.sha256"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest.hexdigest():
        return False
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        for index in folder.glob("*.nbi"):
            index.unlink(missing_ok=True)
        stamp.write_text(digest.hexdigest(), encoding="ascii")
    return True


if COMPILED:
    forget_stale_code(Path(__file__).parent)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as machine code, kept on disk beside its module, or where numba can write."""
    if not COMPILED:
        return function
    faster: Callable[P, R] = numba.njit(cache=True, error_model="numpy")(function)
    return faster


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, and part of whatever calls it."""
    if not COMPILED:
        return function
    faster: Callable[P, R] = numba.njit(inline="always", error_model="numpy")(function)
    return faster

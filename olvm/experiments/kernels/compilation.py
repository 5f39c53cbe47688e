"""Whether there is a compiler. With numba functions are compiled and kept on disk; without it they run as they stand.

Rules:
1. A kernel that Python calls is made by `entry`, everything that it calls by `compiled`. numba's cache on disk looks at
   one file at a time; `entry` puts the text of all kernels into the key, so that a change in any of them is seen.
2. Kernels allocate nothing. They are compiled without numba's memory management: counting references to the sixty
   arrays of a replay at each call took 80 % of the time, and copying them from call to call most of the rest
   (docs/decisions/0023-compiled-replay.md). So all of a loop is compiled into one function.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

# OLVM_PLAIN_KERNELS=1: as if numba were not installed. For tests, and for a debugger.
IS_COMPILED = (
    importlib.util.find_spec("numba") is not None and os.environ.get("OLVM_PLAIN_KERNELS", "") != "1"
)


def compiled(function: Function) -> Function:
    """The function, compiled at its first call for the types that it is called with.

    Cost: 15 s of CPU time for all kernels on the first call ever, half a second in later processes.
    """
    if not IS_COMPILED:
        return function
    import numba

    compile_kernel: Any = numba.njit
    options = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True, "_nrt": False}
    return cast(Function, compile_kernel(**options)(function))


def entry(make: Callable[[int], Function]) -> Function:
    """Decorator of a factory whose inner function mentions its one argument, the digest of the kernels' text."""
    return compiled(make(_sources_digest()))


def _sources_digest() -> int:
    text = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text.update(path.read_bytes())
    return int.from_bytes(text.digest()[:7], "big")

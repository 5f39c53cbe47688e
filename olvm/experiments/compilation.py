"""Whether there is a compiler, and how functions are handed to it. Without numba they run as they stand.

Rules:
1. Both ways give the same answer to the last bit: a compiled function is plain Python over NumPy arrays and numbers,
   and none asks for numba's `fastmath`, which would reorder sums.
2. Only what Python calls in a run is kept on disk, and it is made by an entry (which others of its package may call).
   numba looks at the file of a function and not at the files of those that it calls, however deep; so an entry's key
   holds the digest of its whole package, and what it calls is never kept on its own, or a changed leaf would come back
   from the cache of an unchanged caller. All compiled code that an entry calls stands in the entry's own package.
3. Replays' kernels allocate nothing (`compiled`, `entry`). They are compiled without numba's memory management:
   counting references to the sixty arrays of a replay at each call took 80 % of the time, and copying them from call to
   call most of the rest (docs/decisions/0023-compiled-replay.md). So all of a loop is compiled into one function.
   What makes arrays is `allocating`, `allocating_inlined` and `allocating_entry`.
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
    importlib.util.find_spec("numba") is not None
    and os.environ.get("OLVM_PLAIN_KERNELS", "") != "1"
    and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
)
_LEAN = {"nogil": True, "forceinline": True, "_nrt": False}


def compiled(function: Function) -> Function:
    """The function, compiled with whatever calls it, for the types that it is called with. It allocates nothing."""
    return _compiled(function, **_LEAN)


def entry(make: Callable[[int], Function]) -> Function:
    """Decorator of a factory whose inner function mentions its one argument, the digest of its package's text.

    Cost: 20 to 50 s of CPU time for all kernels on the first call ever, half a second in later processes.
    """
    return _compiled(make(_digest_of(make)), cache=True, **_LEAN)


def allocating(function: Function) -> Function:
    """As `compiled`, for what makes arrays."""
    return _compiled(function)


def allocating_inlined(function: Function) -> Function:
    """As `allocating`, and written into whatever calls it."""
    return _compiled(function, inline="always")


def allocating_entry(make: Callable[[int], Function]) -> Function:
    """As `entry`, for what makes arrays."""
    return _compiled(make(_digest_of(make)), cache=True)


def sources_digest(package: Path) -> int:
    """A number that another text of any module of the folder, or of this one, would change."""
    text = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(package.glob("*.py")):
        text.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return int.from_bytes(text.digest()[:7], "big")


def tell_of_compilation(tell: Callable[[], None]) -> None:
    """Call `tell` once, when for the first time something is compiled rather than loaded from the cache."""
    if not IS_COMPILED:
        return
    from numba.core import event

    is_told = False

    class Listener(event.Listener):  # type: ignore[misc]  # numba has no types
        def on_start(self, _started: object) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                tell()

        def on_end(self, _ended: object) -> None:
            pass

    event.register("numba:compile", Listener())


def _digest_of(make: Callable[[int], Function]) -> int:
    return sources_digest(Path(make.__code__.co_filename).parent)


def _compiled(function: Function, **options: Any) -> Function:
    if not IS_COMPILED:
        return function
    import numba

    compile_function: Any = numba.njit
    return cast(Function, compile_function(error_model="numpy", **options)(function))

"""Python's collector of cycles while a world runs: seldom, as a run makes few cycles and very many objects.

Decides when memory is looked through, and nothing that a run could notice.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_THRESHOLD = (200_000, 20, 1_000)


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Python's collector, told that a run makes few cycles and very many objects. May be entered again within."""
    before = gc.get_threshold()
    if before == QUIET_THRESHOLD:
        yield
        return
    gc.set_threshold(*QUIET_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)

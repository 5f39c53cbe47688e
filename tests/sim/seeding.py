"""Which seeds this commit is tested with: others at each commit, and the same ones whenever it is tested again."""

from __future__ import annotations

import os

from benchmarks.measuring import commit

# Where there is no repository (an unpacked archive), the same seeds each time.
WITHOUT_A_COMMIT = 20_260_101
# The machines that run CI have two; more would only make its time hard to foretell.
WORKERS = min(4, len(os.sched_getaffinity(0)))


def number_of_commit() -> int:
    """Far apart for two commits, and small enough to be typed."""
    name = commit()
    return int(name[:7], 16) if name else WITHOUT_A_COMMIT

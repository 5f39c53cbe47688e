"""What a seed does to a trace: which VMs of it a run sees.

Without this a deterministic policy would give the same figures for every seed, and nothing could be said of chance.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from olvm.experiments.trace import Trace
from olvm.model.errors import BadInput


def sampled(trace: Trace, window_vms: int, keep: float, seed: int) -> Trace:
    """So many VMs in a row from a place that the seed draws, and of those each with probability `keep`.

    Times count from the first VM of the window. Equal arguments, equal VMs: all policies of a seed get the same.

    Raises BadInput where the trace has fewer VMs than the window, or nothing is left.
    """
    if not window_vms and keep >= 1:
        return trace
    drawn = np.random.default_rng([seed % 2**64, len(trace)])
    first, count = 0, len(trace)
    if window_vms:
        if window_vms > len(trace):
            raise BadInput(f"a window of {window_vms} VMs is more than {trace.source.name} has: {len(trace)}")
        first, count = int(drawn.integers(0, len(trace) - window_vms + 1)), window_vms
    at = np.arange(first, first + count, dtype=np.int64)
    if keep < 1:
        at = at[drawn.random(count) < keep]
    if not len(at):
        raise BadInput(
            f"nothing is left of {trace.source.name}: of {count} VMs none was kept; keep more than {keep:g}"
        )
    sample = trace.picked(at)
    arrival_s = sample.arrival_s - trace.arrival_s[first]
    arrival_s.flags.writeable = False
    digest = hashlib.sha256(f"{trace.digest} {window_vms} {keep!r} {seed}".encode()).hexdigest()
    return replace(sample, arrival_s=arrival_s, digest=digest)

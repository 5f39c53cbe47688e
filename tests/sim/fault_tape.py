"""A tape of bytes as faults: 0 is "normal", so that Hypothesis shrinks faults away by itself.

Three bytes are one moment: which fault (0, none), whom it strikes, and how hard and long. Any tape is within the
failure model; which faults exist is the model's affair, so a new one is on the tape the day it is in the model.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.failure_model import FAULTS, FaultKind
from sim.plan import Shape, Step
from sim.swarm import CALLS

NAMES = tuple(FAULTS)
BYTES_PER_FAULT = 3


def faults_on(tape: bytes, shape: Shape) -> Iterator[Step]:
    """The faults of a tape, all of one moment; who carries them out says when that is."""
    for start in range(0, len(tape) - BYTES_PER_FAULT + 1, BYTES_PER_FAULT):
        which, whom, how = tape[start : start + BYTES_PER_FAULT]
        if which:
            name = NAMES[(which - 1) % len(NAMES)]
            yield _fault(name, FAULTS[name], whom, how, shape)


def _fault(name: str, fault: FaultKind, whom: int, how: int, shape: Shape) -> Step:
    least, most = fault.for_s
    for_ms = 1_000 * (least + (most - least) * (how % 16) // 15)
    detail = CALLS[how % len(CALLS)] if name.startswith("call_") else ""
    return Step(0, name, _target(name, fault.target, whom, shape), for_ms, how % 16, detail)


def _target(name: str, kind: str, whom: int, shape: Shape) -> str:
    host = whom % shape.hosts + 1
    match kind:
        case "vm":
            return f"v{whom % shape.vms + 1}"
        case "host":
            return f"H{host}"
        case "rack":
            return f"R{whom % shape.racks}"
        case "silo":
            return ("engine", f"host-{host}")[whom // shape.hosts % 2]
        case "link" if name == "cut_migration":
            return f"H{host}|H{host % shape.hosts + 1}"
        case "link":
            return f"host-{host}|engine" if whom // shape.hosts % 2 else f"engine|host-{host}"
        case _:
            return ""

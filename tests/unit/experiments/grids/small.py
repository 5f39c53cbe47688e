"""A small grid, with a trace and a policy of its own beside it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

POLICY = """
class LastFit:
    def choose(self, vm, hosts):
        fitting = [index for index in range(len(hosts)) if hosts.fits[index]]
        return fitting[-1] if fitting else None


class Picky:
    def choose(self, vm, hosts):
        raise ValueError(f"{vm.vcpus:g} vCPUs are too many for me")
"""


def write_trace(path: Path, count: int = 300) -> None:
    drawn = random.Random(7)
    rows = [
        f"{at},{drawn.randint(5, 120)},{drawn.randint(1, 4)},{drawn.randint(1, 12)}\n" for at in range(count)
    ]
    path.write_text("arrival_s,lifetime_s,vcpus,memory_gib\n" + "".join(rows), encoding="utf-8")


def small_grid(folder: Path, **changed: Any) -> dict[str, Any]:
    """24 runs: two topologies, three policies, four seeds. Paths are absolute: it stands in no file."""
    trace = folder / "trace.csv"
    if not trace.exists():
        write_trace(trace)
    return {
        "name": "small",
        "seeds": 4,
        "policies": ["first_fit", "best_fit", "worst_fit"],
        "topologies": [
            {"name": "one", "hosts": "40x16c64g"},
            {"name": "two", "hosts": "20x16c64g,20x8c96g"},
        ],
        "traces": [{"name": "short", "path": str(trace), "window_vms": 100}],
        **changed,
    }

"""A policy of one's own against six that have names, on VM requests of Azure and mixed hosts.

Run it whole, or cell by cell where `# %%` is known (VS Code, Spyder, jupytext).

python examples/compare_policies.py [--vms 20000] [--seeds 20] [--workers N] [--out DIR] [--show]
"""

# %% The policy: best fit, but what stays free should have the proportions of the whole host.
from __future__ import annotations

import argparse
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np

from olvm.experiments import Results, run_grid
from olvm.experiments.grids.report import write_report


class BalancedFit:
    def choose(self, vm: Any, hosts: Any) -> int | None:
        fits = np.flatnonzero(hosts.fits)
        if not len(fits):
            return None
        cpu_left = (hosts.free_vcpus[fits] - vm.vcpus) / hosts.cpus[fits]
        memory_left = (hosts.free_memory_gib[fits] - vm.memory_gib) / hosts.memory_gib[fits]
        return int(fits[np.argmin(cpu_left + memory_left + np.abs(cpu_left - memory_left))])


# %% The grid: of one seed every policy sees the same VMs, on two fleets.
def grid(vm_count: int, seed_count: int) -> dict[str, Any]:
    hosts = max(1, vm_count // 200)
    names = ["first_fit", "best_fit", "worst_fit", "dot_product", "cosine", "norm_greedy"]
    return {
        "name": "A policy of one's own on Azure's requests",
        "policies": [*names, "compare_policies:BalancedFit"],  # the class above, by module and name
        "topologies": [
            {"name": "two kinds", "hosts": f"{hosts}x64c256g,{hosts}x32c256g"},
            {"name": "Borg cell a", "hosts": f"borg-a:{4 * hosts}x64c512g"},
        ],
        "traces": [{"name": "azure", "path": "azure-v1", "window_vms": vm_count}],
        "seeds": seed_count,
    }


# %% Run it, and look at it. A second call with the same folder runs nothing again.
def compare(vm_count: int, seed_count: int, out: Path, workers: int | None) -> Results:
    results = run_grid(grid(vm_count, seed_count), out, workers=workers)
    comparison = results.compare()
    for scenario in comparison.scenarios:
        print(f"{scenario.title}: at least {scenario.bound:.1f} hosts")
        for line in scenario.lines:
            interval = (
                "" if line.low is None else f"  +{line.difference:.2f} ({line.low:.2f} to {line.high:.2f})"
            )
            print(f"  {line.rank}  {line.policy:<28} {line.mean:8.2f} hosts{interval}")
    report = out / "report.html"
    write_report(results, report, comparison)
    print(f"plots: {report}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a policy with six others.")
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=None, help="0: without Ray")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--show", action="store_true", help="open the plots in a browser")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="olvm-compare-")) / "results"
    compare(arguments.vms, arguments.seeds, out, arguments.workers)
    if arguments.show:
        webbrowser.open((out / "report.html").resolve().as_uri())


if __name__ == "__main__":
    main()

"""How fast traces are replayed: the bundled Azure trace whole, with departures. JSON lines.

`placements`: from Parquet in to Parquet out (vms, both series, manifest), the median of several runs in one process,
with the kernel alone beside it; loading the compiled code comes before. `numpy_scan` is what a user would write
instead: one pass of NumPy over the hosts for each decision, on the first VMs of the trace. `small` is a call on 300 VMs
in memory. `first_call` is a new process from its start to the end of its first replay, compiled code cached and not.
`large` is 2,000,000 VMs on 100,000 hosts in a process of its own, with the most memory that it had. `scarce` is a mixed
fleet that is too small. `policies` says how many hosts each policy needs at most and on average over the hours; these
are figures of its decisions, whatever the machine.

python benchmarks/bench_replay.py [--hosts 1000 10000 100000] [--repeats 5] [--only placements numpy_scan …] [--vms N]
"""

from __future__ import annotations

import argparse
import heapq
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Teller

from olvm.experiments import Trace, read_trace, replay
from olvm.experiments.azure_trace import TRACE_PATH
from olvm.experiments.policies import POLICIES, PREDICTING

PARTS = ("placements", "numpy_scan", "others", "own", "small", "scarce", "policies", "first_call", "large")
INDEXED = ("first_fit", "best_fit")
SHAPE = "64c256g"
SCANNED_VMS = {1_000: 30_000, 10_000: 10_000, 100_000: 2_000}
LARGE_VMS = 2_000_000
COMPARED_FLEETS: dict[str, dict[str, Any]] = {
    "equal": {"hosts": "1000x64c256g"},
    "mixed": {"hosts": "500x64c256g,1000x32c256g"},
    "two_nodes": {"hosts": "1000x64c256g", "numa_nodes": 2, "split_above_gib": 64},
}
COMPARED_ERRORS = ("", "@0.3", "@0.5", "@1")  # of predicted lifetimes, in powers of ten
TRACE_VMS = 259_159


def azure_table(path: Path, vm_count: int) -> None:
    """The first VMs of the bundled trace as a trace's table; lifetimes as `olvm.experiments.azure_trace` has them."""
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            f"""copy (
                select cast(arrival_s - min(arrival_s) over () as double) as arrival_s,
                       case when censored then null else cast(greatest(duration_hi_s, 300) as double) end as lifetime_s,
                       cast(vcpu as double) as vcpus, cast(mem_gb as double) as memory_gib,
                       'azure-' || lpad(cast(file_row_number as varchar), 6, '0') as vm_id
                from read_parquet('{TRACE_PATH}', file_row_number = true) order by file_row_number
                limit {vm_count}
            ) to '{path}' (format parquet)"""
        )


def numpy_scan(trace: Trace, policy: str, host_count: int, vm_count: int) -> float:
    """Decisions per second of the obvious loop with NumPy; best fit or first fit."""
    free_cpu, free_mem = np.full(host_count, 64_000), np.full(host_count, 256 << 20)
    ends: list[tuple[float, int, int, int]] = []
    arrival_s, lifetime_s = trace.arrival_s.tolist(), trace.lifetime_s.tolist()
    cpus, mems = trace.milli_vcpus.tolist(), trace.memory_kib.tolist()
    began = time.perf_counter()
    for vm in range(vm_count):
        cpu, mem = cpus[vm], mems[vm]
        while ends and ends[0][0] <= arrival_s[vm]:
            _, host, cpu_back, mem_back = heapq.heappop(ends)
            free_cpu[host] += cpu_back
            free_mem[host] += mem_back
        fits = (free_cpu >= cpu) & (free_mem >= mem)
        if policy == "best_fit":
            host = int(np.where(fits, free_cpu * (1 << 30) + free_mem, np.iinfo(np.int64).max).argmin())
        else:
            host = int(fits.argmax())
        free_cpu[host] -= cpu
        free_mem[host] -= mem
        if lifetime_s[vm] == lifetime_s[vm]:
            heapq.heappush(ends, (arrival_s[vm] + lifetime_s[vm], host, cpu, mem))
    return vm_count / (time.perf_counter() - began)


class NumpyBestFit:
    """A user's policy."""

    def choose(self, vm: Any, hosts: Any) -> int | None:
        fits = np.flatnonzero((hosts.free_vcpus >= vm.vcpus) & (hosts.free_memory_gib >= vm.memory_gib))
        if not len(fits):
            return None
        free = hosts.free_vcpus[fits]
        fullest = fits[free == free.min()]
        return int(fullest[hosts.free_memory_gib[fullest].argmin()])


def first(trace: Trace, count: int) -> dict[str, Any]:
    return {
        "arrival_s": trace.arrival_s[:count],
        "lifetime_s": trace.lifetime_s[:count],
        "vcpus": trace.milli_vcpus[:count] / 1000,
        "memory_gib": trace.memory_kib[:count] / (1 << 20),
    }


def tell_placements(teller: Teller, path: Path, folder: Path, host_counts: list[int], repeats: int) -> None:
    for host_count in host_counts:
        for policy in INDEXED:
            runs = []
            for _ in range(repeats):
                cpu_began = time.process_time()
                result = replay(path, f"{host_count}x{SHAPE}", policy=policy, out=folder / "out")
                runs.append((result, time.process_time() - cpu_began))
            rate = statistics.median(result.placements_per_s for result, _ in runs)
            kernel = statistics.median(result.kernel_placements_per_s for result, _ in runs)
            cpu_s = statistics.median(cpu_s for _, cpu_s in runs)
            more = {"hosts": host_count, "vms": result.vm_count, "hosts_peak": result.hosts_peak}
            teller.tell(f"{policy}_{host_count}_placements_per_s", rate, "1/s", **more)
            teller.tell(f"{policy}_{host_count}_placements_per_cpu_s", result.placed / cpu_s, "1/s", **more)
            teller.tell(f"{policy}_{host_count}_kernel_placements_per_s", kernel, "1/s", **more)


def tell_scans(teller: Teller, trace: Trace, host_counts: list[int]) -> None:
    for host_count in host_counts:
        vm_count = min(len(trace), SCANNED_VMS.get(host_count, 2_000))
        for policy in INDEXED:
            rate = numpy_scan(trace, policy, host_count, vm_count)
            teller.tell(f"numpy_{policy}_{host_count}_per_s", rate, "1/s", hosts=host_count, vms=vm_count)


def tell_others(teller: Teller, trace: Trace, host_counts: list[int]) -> None:
    for host_count in host_counts:
        some = first(trace, min(len(trace), 200_000_000 // host_count))
        for policy in POLICIES:
            if policy in INDEXED:
                continue
            result = replay(some, f"{host_count}x{SHAPE}", policy=policy)
            teller.tell(
                f"{policy}_{host_count}_kernel_placements_per_s",
                result.kernel_placements_per_s,
                "1/s",
                hosts=host_count,
                vms=result.vm_count,
                hosts_peak=result.hosts_peak,
            )


def tell_own(teller: Teller, trace: Trace) -> None:
    some = first(trace, 50_000)
    own = replay(some, f"10000x{SHAPE}", policy=NumpyBestFit())
    same = own.digest == replay(some, f"10000x{SHAPE}", policy="best_fit").digest
    teller.tell(
        "own_policy_10000_placements_per_s",
        own.placements_per_s,
        "1/s",
        hosts=10_000,
        vms=own.vm_count,
        same_as_built_in=str(same),
    )


def tell_small(teller: Teller, trace: Trace) -> None:
    some = first(trace, 300)
    seconds = []
    for seed in range(1000):
        began = time.perf_counter()
        replay(some, "5x80c180g", numa_nodes=2, split_above_gib=10, seed=seed)
        seconds.append(time.perf_counter() - began)
    teller.tell_percentiles("small_replay", seconds)


def tell_scarce(teller: Teller, trace: Trace) -> None:
    some = first(trace, len(trace))
    for policy in INDEXED:
        for queue in ("reject", "fifo"):
            result = replay(some, "3000x4c64g,3000x16c16g", policy=policy, queue=queue)  # type: ignore[arg-type]
            teller.tell(
                f"scarce_{policy}_{queue}_kernel_decisions_per_s",
                result.vm_count / result.kernel_s,
                "1/s",
                placed=result.placed,
                rejected=result.rejected,
                wait_s_total=result.wait_s_total,
            )


def tell_policies(teller: Teller, path: Path, folder: Path) -> None:
    names = [*POLICIES, *(f"{name}{error}" for name in PREDICTING for error in COMPARED_ERRORS[1:])]
    for fleet, how in COMPARED_FLEETS.items():
        for name in names:
            result = replay(path, policy=name, out=folder / "out", **how)
            series = folder / "out" / "cluster.parquet"
            teller.tell(
                f"policies_{fleet}_{name}_hosts_mean",
                hourly(series, "used_hosts"),
                "hosts",
                hosts_peak=result.hosts_peak,
                bound_hosts=result.bound_hosts,
                rejected=result.rejected,
                wait_s_total=result.wait_s_total,
                stranded_vcpus=hourly(series, "stranded_vcpus"),
                stranded_memory_gib=hourly(series, "stranded_memory_gib"),
                **how,
            )


def hourly(series: Path, column: str) -> float:
    """The mean of the samples."""
    import duckdb

    with duckdb.connect() as connection:
        [(mean,)] = connection.execute(f"select avg({column}) from read_parquet('{series}')").fetchall()
    return float(mean)


def tell_first_call(teller: Teller) -> None:
    program = (
        "from olvm.experiments import replay; "
        "replay({'arrival_s': [0], 'lifetime_s': [1], 'vcpus': [1], 'memory_gib': [1]}, '1x1c1g')"
    )
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compiling", "cached"):
            began = time.perf_counter()
            environment = {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": ":".join(sys.path)}
            subprocess.run([sys.executable, "-c", program], check=True, env=environment)
            teller.tell(f"first_call_{name}", time.perf_counter() - began, "s")


def tell_large(teller: Teller) -> None:
    """Runs in a process of its own: the most memory that a process had never falls."""
    random = np.random.default_rng(1)
    cpus = random.choice([1.0, 2.0, 4.0, 8.0, 16.0], LARGE_VMS)
    trace = {
        "arrival_s": np.sort(random.uniform(0, 30 * 86_400, LARGE_VMS)),
        "lifetime_s": random.exponential(20 * 86_400, LARGE_VMS),
        "vcpus": cpus,
        "memory_gib": cpus * random.choice([2.0, 4.0, 8.0], LARGE_VMS),
    }
    with tempfile.TemporaryDirectory() as folder:
        for policy in INDEXED:
            result = replay(trace, f"100000x{SHAPE}", policy=policy, out=Path(folder) / "out")
            teller.tell(
                f"large_{policy}_placements_per_s",
                result.placements_per_s,
                "1/s",
                vms=LARGE_VMS,
                hosts=100_000,
                hosts_peak=result.hosts_peak,
                kernel_per_s=result.kernel_placements_per_s,
            )
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    teller.tell("large_memory", peak_bytes / 1e9, "GB", vms=LARGE_VMS, hosts=100_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--vms", type=int, default=TRACE_VMS, help="of the trace, from its beginning")
    arguments = parser.parse_args()
    teller = Teller("replay", {"hosts": arguments.hosts, "repeats": arguments.repeats, "vms": arguments.vms})
    if list(arguments.only) == ["large"]:
        tell_large(teller)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        azure_table(folder / "azure.parquet", arguments.vms)
        trace = read_trace(folder / "azure.parquet")
        replay(first(trace, 300), "5x80c180g")  # loads the compiled code
        parts = {
            "placements": lambda: tell_placements(
                teller, folder / "azure.parquet", folder, arguments.hosts, arguments.repeats
            ),
            "numpy_scan": lambda: tell_scans(teller, trace, arguments.hosts),
            "others": lambda: tell_others(teller, trace, arguments.hosts),
            "own": lambda: tell_own(teller, trace),
            "small": lambda: tell_small(teller, trace),
            "scarce": lambda: tell_scarce(teller, trace),
            "policies": lambda: tell_policies(teller, folder / "azure.parquet", folder),
            "first_call": lambda: tell_first_call(teller),
        }
        for name, tell in parts.items():
            if name in arguments.only:
                tell()
    if "large" in arguments.only:
        subprocess.run([sys.executable, __file__, "--only", "large"], check=True)


if __name__ == "__main__":
    main()

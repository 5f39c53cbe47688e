"""What the demo does and when: the fleet, the workload from the trace, the moments of the crashes, the periods.

Pure: it reads the bundled data and divides times; it knows no data center. Only the workload's clock and the
simulated hypervisors are accelerated; the periods by which a host is given up are a laboratory's, or losing a rack
would take minutes (docs/decisions/0006-workload-clock.md).

- The trace gives arrivals in periods of 300 s. The arrivals of a period are spread evenly inside it, which the
  trace does not say; their order is the trace's.
- The replay lasts one period longer than the arrivals, so that the last arrivals meet departures too. What lives
  longer than that runs on when the demo ends.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import msgspec

from olvm.experiments.azure_trace import PERIOD_S, TraceVm, read_azure_trace
from olvm.experiments.fleets import GIB_BYTES, HostShape, borg_mix
from olvm.model.errors import BadInput

HOST_COUNT = 40
HOST_CPUS_MAX = 176
HOST_MEMORY_BYTES_MAX = 576 * GIB_BYTES
POLICY_BY_CLUSTER = {"even": "evenly_distributed", "saving": "power_saving"}
CLUSTERS = tuple(POLICY_BY_CLUSTER)
HOST_CRASH_AT = 0.55  # of the replay
ENGINE_CRASH_AT = 0.75
RACK_SIZE = 4  # hosts of the first cluster that lose their power together
RACK_SILO = "host-rack"  # they share a process, which is killed with them
HIGHLY_AVAILABLE_EVERY = 4  # machines of a cluster
PRIORITIES = (90, 10)  # of highly available machines, in turn
KEPT_EVERY = 4  # each fourth machine that departs is only stopped; the others are removed as well
SAMPLE_PERIOD_S_MAX = 15.0
SAMPLES_PER_REPLAY = 12.0

# The proportions are those of the defaults, and a process that waits for a busy machine must not look like a dead host.
LABORATORY: dict[str, float] = {
    "heartbeat_period_s": 1.0,
    "report_period_s": 3.0,  # by it the cluster learns that one priority runs and the next may start
    "host_connecting_after_s": 3.0,
    "host_grace_s": 5.0,
    "host_grace_per_vm_s": 0.02,
    "query_period_s": 2.0,
    "lease_renew_period_s": 1.5,
    "lease_expiry_s": 6.0,
    "lease_takeover_after_s": 4.0,
    "fence_quiet_at_start_s": 5.0,
    "soft_fence_timeout_s": 1.0,
    "fence_poll_period_s": 0.5,
    "fence_retry_s": 2.0,
    "fence_quiet_between_s": 1.0,
    "host_reboot_timeout_s": 30.0,
    "migration_bandwidth_mib_s": 500.0,
    "migration_monitor_period_s": 0.25,
    "migration_retry_s": 0.5,
    "migrations_incoming_max": 4,
    "migrations_outgoing_max": 8,
    "balance_period_s": 3600.0,  # longer than the story: nothing moves by itself while copies are counted
}
MIGRATION_NETWORK_BYTES_PER_S = 1.25e9  # 10 Gbit/s
# How long two hypervisors wait for each other is real time: nobody accelerates the wire between their processes.
WIRE_PERIODS_S = {
    "incoming_timeout_s": 60.0,
    "migration_keepalive_s": 5.0,
    "migration_repeat_s": 2.0,
    "migration_silence_s": 20.0,
    "migration_confirm_timeout_s": 10.0,
}

RuntimeName = Literal["ray", "local"]


class PlannedHost(msgspec.Struct, frozen=True, kw_only=True):
    shape: HostShape
    cluster: str
    to_be_killed: bool = False
    in_rack: bool = False


class PlannedVm(msgspec.Struct, frozen=True, kw_only=True):
    """`arrive_s` and `leave_s` are wall seconds after the start of the replay; None stays."""

    name: str
    cluster: str
    vcpus: int
    memory_bytes: int
    high_availability: bool
    priority: int = 50
    lease: bool = False
    kept: bool
    arrive_s: float
    leave_s: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    hosts: list[PlannedHost]
    vms: list[PlannedVm]
    seconds: float  # wall time of the replay
    workload_s: float  # what of the trace is replayed in it

    @property
    def speed(self) -> float:
        """Workload seconds in one second."""
        return self.workload_s / self.seconds

    @property
    def host_to_kill(self) -> PlannedHost:
        return next(host for host in self.hosts if host.to_be_killed)

    @property
    def rack(self) -> list[PlannedHost]:
        return [host for host in self.hosts if host.in_rack]

    def settings(self) -> dict[str, Any]:
        """Of the data center: production values but for the hypervisors' clock, what `LABORATORY` says and a denser
        sampling."""
        return {
            **LABORATORY,
            "simulated": {
                "time_scale": self.speed,
                "migration_bandwidth_bytes_per_s": MIGRATION_NETWORK_BYTES_PER_S,
                **{name: period_s * self.speed for name, period_s in WIRE_PERIODS_S.items()},
            },
            "sample_period_s": min(SAMPLE_PERIOD_S_MAX, max(1.0, self.seconds / SAMPLES_PER_REPLAY)),
        }


def make_plan(*, vm_count: int, seconds: float) -> Plan:
    """Plan the demo.

    Raises:
        BadInput: no machine, more than the trace has, or no time.
    """
    if vm_count < 1 or seconds <= 0:
        raise BadInput(
            f"cannot replay {vm_count} machines in {seconds:g} s: give at least one machine and a time above 0"
        )
    trace = read_azure_trace(vm_count)
    if len(trace) < vm_count:
        raise BadInput(f"cannot replay {vm_count} machines: the bundled trace has {len(trace)}")
    arrivals = spread(trace)
    workload_s = trace[-1].arrival_s + 2 * PERIOD_S
    vms = [
        _planned(number, vm, arrive_s, workload_s, seconds)
        for number, (vm, arrive_s) in enumerate(zip(trace, arrivals, strict=True))
    ]
    return Plan(hosts=plan_hosts(), vms=vms, seconds=seconds, workload_s=workload_s)


def spread(trace: list[TraceVm]) -> list[float]:
    """Arrival times with those of one period spread evenly inside it."""
    count_by_period = Counter(vm.arrival_s for vm in trace)
    seen: Counter[float] = Counter()
    arrivals: list[float] = []
    for vm in trace:
        place = (seen[vm.arrival_s] + 0.5) / count_by_period[vm.arrival_s]
        seen[vm.arrival_s] += 1
        arrivals.append(vm.arrival_s + place * PERIOD_S)
    return arrivals


def _planned(number: int, vm: TraceVm, arrive_s: float, workload_s: float, seconds: float) -> PlannedVm:
    scale = seconds / workload_s
    leave_s = None if vm.lifetime_s is None else arrive_s + vm.lifetime_s
    round_, place = divmod(number // len(CLUSTERS), HIGHLY_AVAILABLE_EVERY)
    high_availability = place == 0
    return PlannedVm(
        name=vm.vm_id,
        cluster=CLUSTERS[number % len(CLUSTERS)],
        vcpus=vm.vcpus,
        memory_bytes=vm.memory_bytes,
        high_availability=high_availability,
        priority=PRIORITIES[round_ // 2 % len(PRIORITIES)] if high_availability else 50,
        lease=high_availability and round_ % 2 == 0,
        kept=number // len(CLUSTERS) % KEPT_EVERY == 1,
        arrive_s=arrive_s * scale,
        leave_s=None if leave_s is None or leave_s > workload_s else leave_s * scale,
    )


def plan_hosts() -> list[PlannedHost]:
    """Half of the mix to each cluster, in turn; the first host will be killed, the next of its cluster are the rack."""
    fleet = borg_mix(HOST_COUNT, "a", cpus_max=HOST_CPUS_MAX, memory_bytes_max=HOST_MEMORY_BYTES_MAX)
    return [
        PlannedHost(
            shape=shape,
            cluster=CLUSTERS[number % len(CLUSTERS)],
            to_be_killed=number == 0,
            in_rack=number % len(CLUSTERS) == 0 and 0 < number // len(CLUSTERS) <= RACK_SIZE,
        )
        for number, shape in enumerate(fleet)
    ]

"""How busy a simulated guest is: a pure function of (seed, VM id, time).

Nothing is remembered and no timer runs: utilisation is a closed formula and every counter its exact integral,
so an idle data center costs nothing between samples, and a rate always agrees with the counters' difference.
The load belongs to the VM, not to the host: it is the same wherever the VM runs.

Waves are triangles, not sines: `+ - * /` give the same bits on every machine, a mathematics library need not.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from hypervisor_backends.protocol import DomainSpec
from olvm.model.hardware import DiskSpec, NicSpec
from olvm.model.limits import NS_PER_S

_U32 = 2**32


def draw(seed: int, *key: object) -> float:
    """A number in [0, 1) that depends on the key alone: one draw more elsewhere does not change it."""
    text = "\x1f".join((str(seed), *map(str, key)))
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def draws(seed: int, count: int, *key: object) -> list[float]:
    """At most 16 numbers in [0, 1) of one key."""
    assert 0 < count <= 16, f"{count} draws asked of one key"
    digest = blake2b("\x1f".join((str(seed), *map(str, key))).encode(), digest_size=4 * count).digest()
    return [int.from_bytes(digest[at : at + 4], "big") / _U32 for at in range(0, 4 * count, 4)]


class LoadProfile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One VM's habits. The amplitudes' sum stays below the mean, so utilisation is positive."""

    mean_cores: float
    slow_cores: float
    slow_period_ns: int
    slow_phase_ns: int
    fast_cores: float
    fast_period_ns: int
    fast_phase_ns: int
    sys_share: float
    memory_share: float  # of the guest's memory, in the mean
    rx_bytes_per_core_s: float
    tx_bytes_per_core_s: float
    read_bytes_per_core_s: float
    written_bytes_per_core_s: float


def load_profile(seed: int, vm_id: str, vcpus: int, mean_percent: tuple[float, float]) -> LoadProfile:
    """`mean_percent`: the least and the most that the long-run mean may be, of the VM's own vCPUs."""
    u = draws(seed, 12, "load", vm_id)
    low, high = mean_percent
    mean = max(vcpus * (low + (high - low) * u[0]) / 100.0, 0.001)
    swing = min(mean, max(vcpus - mean, 0.0)) * 0.9
    slow_period_ns = int(600 + 6600 * u[1]) * NS_PER_S  # 10 minutes to 2 hours
    fast_period_ns = int(20 + 100 * u[2]) * NS_PER_S
    return LoadProfile(
        mean_cores=mean,
        slow_cores=swing * 0.75,
        slow_period_ns=slow_period_ns,
        slow_phase_ns=int(u[3] * slow_period_ns),
        fast_cores=swing * 0.25,
        fast_period_ns=fast_period_ns,
        fast_phase_ns=int(u[4] * fast_period_ns),
        sys_share=0.05 + 0.25 * u[5],
        memory_share=0.2 + 0.5 * u[6],
        rx_bytes_per_core_s=2e6 * u[7] * u[7],
        tx_bytes_per_core_s=2e6 * u[8] * u[8],
        read_bytes_per_core_s=4e6 * u[9] * u[9],
        written_bytes_per_core_s=4e6 * u[10] * u[10],
    )


def wave(at_ns: int, period_ns: int) -> tuple[float, float]:
    """A triangle from -1 up to 1 and back, and its integral in ns since the period began (0 at both ends).

    The remainder is taken in integers: a float of today's nanoseconds would be too coarse.
    """
    x = at_ns % period_ns
    half = period_ns // 2
    if x < half:
        return (4 * x - period_ns) / period_ns, x * (2 * x - period_ns) / period_ns
    y = x - half
    return (period_ns - 4 * y) / period_ns, y * (period_ns - 2 * y) / period_ns


def activity(profile: LoadProfile, at_ns: int) -> tuple[float, float]:
    """CPU use at an instant, in cores; and the integral of its waves, in core-nanoseconds.

    CPU time used between `a` and `b` is `mean_cores * (b - a)` plus the difference of the two integrals.
    """
    slow, slow_ns = wave(at_ns + profile.slow_phase_ns, profile.slow_period_ns)
    fast, fast_ns = wave(at_ns + profile.fast_phase_ns, profile.fast_period_ns)
    cores = profile.mean_cores + profile.slow_cores * slow + profile.fast_cores * fast
    return cores, profile.slow_cores * slow_ns + profile.fast_cores * fast_ns


# A guest has a disk and a NIC to speak of even where its spec names none.
DEFAULT_DISKS = (DiskSpec(name="vda", size_bytes=20 * 1024**3),)
DEFAULT_NICS = (NicSpec(name="eth0"),)


class GuestIdentity:
    """What stays the same in a guest's facts and statistics; made once, when first sampled."""

    __slots__ = (
        "applications",
        "disk_share",
        "disks",
        "fqdn",
        "idle_disks",
        "idle_nics",
        "ips",
        "memory_kib",
        "nic_share",
        "nics",
        "profile",
        "users",
    )

    def __init__(self, seed: int, vm_id: str, spec: DomainSpec, mean_percent: tuple[float, float]) -> None:
        self.profile: LoadProfile = load_profile(seed, vm_id, spec.vcpus, mean_percent)
        self.disks = spec.hardware.disks or DEFAULT_DISKS
        self.nics = spec.hardware.nics or DEFAULT_NICS
        # Of the load, for each device that it was first seen with. One that is plugged later idles: counters of the
        # others would go back if it took a share of what is past.
        self.disk_share = 1.0 / len(self.disks)
        self.nic_share = 1.0 / len(self.nics)
        self.idle_disks: tuple[DiskSpec, ...] = ()
        self.idle_nics: tuple[NicSpec, ...] = ()
        u = draws(seed, 5, "guest", vm_id)
        x, y, z = int(u[0] * 256), int(u[1] * 256), 1 + int(u[2] * 254)
        self.ips = tuple(f"10.{x}.{(y + n) % 256}.{z}" for n in range(len(self.nics)))
        self.fqdn = f"{spec.name}.simulated.example"
        server = ("nginx-1.26.3", "postgresql-17.2", "redis-7.4.1", "openjdk-21.0.5")[int(u[3] * 4)]
        self.applications = ("kernel-6.12.0", "olvm-guest-agent-1.0", server)
        self.users = ("root",) if u[4] < 0.125 else ()
        self.memory_kib = spec.memory_bytes // 1024

    def set_vcpus(self, seed: int, vm_id: str, vcpus: int, mean_percent: tuple[float, float]) -> None:
        self.profile = load_profile(seed, vm_id, vcpus, mean_percent)

    def set_devices(self, spec: DomainSpec, memory_bytes: int) -> None:
        """What it has now; the load stays with the devices that it was first seen with."""
        self.memory_kib = memory_bytes // 1024
        disks, nics = spec.hardware.disks, spec.hardware.nics
        busy_disks = {disk.name for disk in self.disks}
        if self.disks is not DEFAULT_DISKS:
            self.disks = tuple(disk for disk in disks if disk.name in busy_disks)
        self.idle_disks = tuple(disk for disk in disks if disk.name not in busy_disks)
        busy_nics = {nic.name for nic in self.nics}
        if self.nics is not DEFAULT_NICS:
            self.nics = tuple(nic for nic in nics if nic.name in busy_nics)
        self.idle_nics = tuple(nic for nic in nics if nic.name not in busy_nics)

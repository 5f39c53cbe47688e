"""Statistics of machines: one bulk call to libvirt, and its numbers in oVirt's words.

Decides what is asked of libvirt, and how a counter becomes a rate. The functions that take a connection run on a
worker, and the bulk call can hang for ever behind one QEMU that does not answer (measured: 562 s, until it was
continued): so it has a worker and a connection of its own, whoever calls gives it seconds and not more, finds the
culprits by `hung_uuids`, which waits for nobody, and leaves them out until they answer again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import libvirt
import msgspec

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_errors import is_missing
from hypervisor_backends.measurements import DiskStatistics, DomainStatistics, GuestFacts, NicStatistics
from olvm.model.limits import NS_PER_S

Numbers: TypeAlias = Mapping[str, int | str]

# A monitor that is busy for so long with one command is taken for hung; QEMU answers in milliseconds.
MONITOR_BUSY_MS_MAX = 2_000
PAGES_PER_KIB = 1 / 4
_WANTED = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    at_ns: int
    numbers: dict[str, int | str]


# ------------------------------------------------------------------------------------------------ on a worker


def read_all(connection: libvirt.virConnect, left_out: frozenset[str]) -> dict[str, dict[str, int | str]]:
    """By UUID, of all that are active. A domain that another call holds gives what needs no monitor."""
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    if connection.getType() == "TEST":
        answers = connection.getAllDomainStats(0, flags)
    elif not left_out:
        flags |= libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        answers = connection.getAllDomainStats(_WANTED, flags)
    else:
        active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        asked = [domain for domain in active if domain.UUIDString() not in left_out]
        if not asked:
            return {}
        nowait = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        answers = connection.domainListGetStats(asked, _WANTED, nowait)
    return {domain.UUIDString(): numbers for domain, numbers in answers}


def hung_uuids(connection: libvirt.virConnect) -> frozenset[str]:
    """Those whose monitor has not answered for long; libvirt says so without asking it."""
    hung = set()
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        if monitor_is_hung(domain):
            hung.add(domain.UUIDString())
    return frozenset(hung)


def monitor_is_hung(domain: libvirt.virDomain) -> bool:
    try:
        state, _, busy_ms = domain.controlInfo(0)
    except libvirt.libvirtError as error:
        if is_missing(error) or error.get_error_code() in (
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_NO_SUPPORT,
        ):
            return False
        raise
    return bool(state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED and busy_ms > MONITOR_BUSY_MS_MAX)


# ------------------------------------------------------------------------------------------------ pure


def domain_statistics(
    life: Life, now: Reading, before: Reading | None, guest: GuestFacts | None
) -> DomainStatistics:
    """`before` is of the same life; without it rates are zero."""
    numbers = now.numbers
    rate = _Rate(now, before)
    used_ns = _int(numbers, "cpu.user") + _int(numbers, "cpu.system")
    total_kib = _int(numbers, "balloon.current") or life.memory_bytes // 1024
    unused_kib = _unused_kib(numbers, total_kib, guest)
    return DomainStatistics(
        vm_id=life.vm_id,
        epoch=life.epoch,
        name=life.spec.name,
        status=life.shown(),
        status_ns=now.at_ns,
        elapsed_time_s=max(now.at_ns - life.powered_on_ns, 0) // NS_PER_S,
        cpu_user_percent=100.0 * rate.per_s("cpu.user") / NS_PER_S,
        cpu_sys_percent=100.0 * rate.per_s("cpu.system") / NS_PER_S,
        cpu_usage_ns=used_ns or _int(numbers, "cpu.time"),
        vcpu_count=_int(numbers, "vcpu.current") or life.vcpus,
        mem_usage_percent=100.0 * (total_kib - unused_kib) / total_kib if total_kib else 0.0,
        mem_total_kib=total_kib,
        mem_unused_kib=unused_kib,
        swap_in_pages_per_s=int(rate.per_s("balloon.swap_in") * PAGES_PER_KIB),
        swap_out_pages_per_s=int(rate.per_s("balloon.swap_out") * PAGES_PER_KIB),
        major_faults_pages_per_s=int(rate.per_s("balloon.major_fault")),
        minor_faults_pages_per_s=int(rate.per_s("balloon.minor_fault")),
        balloon_cur_kib=total_kib,
        balloon_max_kib=_int(numbers, "balloon.maximum") or total_kib,
        balloon_min_kib=0,
        balloon_target_kib=total_kib,
        disks=tuple(_disk(numbers, rate, index) for index in _indices(numbers, "block")),
        nics=tuple(_nic(numbers, index) for index in _indices(numbers, "net")),
        pause_code=life.state().pause_code,
        monitor_response=0 if life.responds else -1,
        guest=guest,
    )


def _unused_kib(numbers: Numbers, total_kib: int, guest: GuestFacts | None) -> int:
    """As the guest says it, by its balloon driver or its agent; else what QEMU has never touched."""
    for name in ("balloon.usable", "balloon.unused"):
        if name in numbers:
            return min(_int(numbers, name), total_kib)
    if guest is not None and guest.memory_free_kib:
        return min(guest.memory_free_kib, total_kib)
    return max(total_kib - _int(numbers, "balloon.rss"), 0)


class _Rate:
    def __init__(self, now: Reading, before: Reading | None) -> None:
        self._now = now.numbers
        self._before = {} if before is None else before.numbers
        self._seconds = 0.0 if before is None else (now.at_ns - before.at_ns) / NS_PER_S

    def grown(self, name: str) -> int:
        """A counter that went back is of a device that was plugged anew: it has grown from zero."""
        if name not in self._before:
            return 0
        now, before = _int(self._now, name), _int(self._before, name)
        return now - before if now >= before else now

    def per_s(self, name: str) -> float:
        return self.grown(name) / self._seconds if self._seconds > 0 else 0.0


def _disk(numbers: Numbers, rate: _Rate, index: int) -> DiskStatistics:
    at = f"block.{index}"

    def latency_ns(kind: str) -> int:
        count = rate.grown(f"{at}.{kind}.reqs")
        return rate.grown(f"{at}.{kind}.times") // count if count else 0

    return DiskStatistics(
        name=str(numbers.get(f"{at}.name", index)),
        read_rate_bytes_per_s=rate.per_s(f"{at}.rd.bytes"),
        write_rate_bytes_per_s=rate.per_s(f"{at}.wr.bytes"),
        read_ops=_int(numbers, f"{at}.rd.reqs"),
        write_ops=_int(numbers, f"{at}.wr.reqs"),
        read_bytes=_int(numbers, f"{at}.rd.bytes"),
        written_bytes=_int(numbers, f"{at}.wr.bytes"),
        read_latency_ns=latency_ns("rd"),
        write_latency_ns=latency_ns("wr"),
        flush_latency_ns=latency_ns("fl"),
        true_size_bytes=_int(numbers, f"{at}.allocation"),
        apparent_size_bytes=_int(numbers, f"{at}.capacity"),
    )


def _nic(numbers: Numbers, index: int) -> NicStatistics:
    """libvirt counts as the host's tap does, and says it from the guest's side."""
    at = f"net.{index}"
    return NicStatistics(
        name=str(numbers.get(f"{at}.name", index)),
        rx_bytes=_int(numbers, f"{at}.rx.bytes"),
        tx_bytes=_int(numbers, f"{at}.tx.bytes"),
        rx_errors=_int(numbers, f"{at}.rx.errs"),
        tx_errors=_int(numbers, f"{at}.tx.errs"),
        rx_dropped=_int(numbers, f"{at}.rx.drop"),
        tx_dropped=_int(numbers, f"{at}.tx.drop"),
    )


def _indices(numbers: Numbers, kind: str) -> Iterable[int]:
    return range(_int(numbers, f"{kind}.count"))


def _int(numbers: Numbers, name: str) -> int:
    value = numbers.get(name, 0)
    return value if isinstance(value, int) else 0

"""What is asked of the scheduler, and how much memory a VM really takes from its host.

Rule: memory is compared and reserved as *need*, never as bare RAM, and only this module computes it, so the
filter that admits a VM and the table that books it cannot disagree.
"""

from __future__ import annotations

import msgspec

from olvm.model.errors import BadInput
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling.affinity import Affinity

MIB = 2**20
GIB = 2**30

FIXED_OVERHEAD_BYTES = 64 * MIB  # QEMU's own code, libraries and structures, x86
PAGE_TABLE_SHARE = 512  # one 8-byte entry for each 4 KiB page
PER_VCPU_OVERHEAD_BYTES = 8 * MIB
PER_IO_THREAD_OVERHEAD_BYTES = 8 * MIB
PPC_FIXED_OVERHEAD_BYTES = 100 * MIB
PPC_HASH_TABLE_SHARE = 64  # of the RAM rounded up to a power of two


class VmRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One VM that looks for a host.

    `vcpus` are whole and > 0; `memory_bytes` is the guest's RAM and > 0. `pinned_hosts` empty means any
    host. `current_host` is where the VM runs now (a migration); `excluded_hosts` are those already tried,
    `held_hosts` those where a copy of it has not ended. `live`: it is to run on without a stop, so its host must
    do migration and have the CPU model `cpu_model`. `leased`: its host must have a watchdog. `affinity` None: it
    is in no group. `needs` None: it asks for CPUs and memory alone. `priority` and `arrival_s` are for policies of
    one's own.
    `name` is only used in sentences.
    """

    vm_id: str
    vcpus: int
    memory_bytes: int
    pinned_hosts: tuple[str, ...] = ()
    current_host: str | None = None
    excluded_hosts: tuple[str, ...] = ()
    high_availability: bool = False
    name: str = ""
    held_hosts: tuple[str, ...] = ()
    live: bool = False
    cpu_model: str = ""
    leased: bool = False
    affinity: Affinity | None = None
    needs: PlacementNeeds | None = None
    priority: int = 50
    arrival_s: float = 0.0

    def __post_init__(self) -> None:
        if self.vcpus <= 0 or self.memory_bytes <= 0:
            raise BadInput(
                f"VM {self.title} asks for {self.vcpus} vCPUs and {self.memory_bytes} bytes of memory: "
                "give both a value above zero"
            )

    @property
    def title(self) -> str:
        """The VM as a person knows it."""
        return self.name or self.vm_id


def memory_need_of(
    *, vcpus: int, memory_bytes: int, needs: PlacementNeeds | None = None, architecture: str = "x86_64"
) -> int:
    """Bytes that a VM takes from its host's schedulable memory.

    Counted: the RAM, unless it is backed by huge pages, which come from another pool; page tables (RAM / 512) and
    64 MiB for QEMU; 8 MiB for each vCPU and I/O thread; video memory. On ppc64 the static part is 100 MiB and a
    64th of the RAM rounded up to a power of two. Not counted is the 65 MiB `guest_ram_overhead` of older engines:
    the static overhead replaced it, and both would count QEMU twice.

    Source: oVirt VmOverheadCalculatorImpl.
    """
    if architecture == "ppc64":
        static_bytes = (
            PPC_FIXED_OVERHEAD_BYTES + (1 << (memory_bytes - 1).bit_length()) // PPC_HASH_TABLE_SHARE
        )
    else:
        static_bytes = FIXED_OVERHEAD_BYTES + memory_bytes // PAGE_TABLE_SHARE
    need_bytes = memory_bytes + static_bytes + vcpus * PER_VCPU_OVERHEAD_BYTES
    if needs is None:
        return need_bytes
    if needs.huge_page_bytes:
        need_bytes -= memory_bytes
    return need_bytes + needs.video_bytes + needs.io_threads * PER_IO_THREAD_OVERHEAD_BYTES


def memory_need_bytes(request: VmRequest) -> int:
    """`memory_need_of` the VM that `request` describes."""
    return memory_need_of(vcpus=request.vcpus, memory_bytes=request.memory_bytes, needs=request.needs)


def gib_needed(amount_bytes: int) -> str:
    """A need in GiB, rounded up, so that it never reads as equal to the smaller amount that is free."""
    return _tenths(-(-amount_bytes * 10 // GIB))


def gib_free(amount_bytes: int) -> str:
    """An amount on offer in GiB, rounded down; an overdrawn host offers nothing."""
    return _tenths(max(0, amount_bytes) * 10 // GIB)


def _tenths(tenths: int) -> str:
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} GiB" if tenth else f"{whole} GiB"

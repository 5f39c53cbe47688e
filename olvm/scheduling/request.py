"""What is asked of the scheduler, and how much memory a VM really takes from its host.

Rule: memory is compared and reserved as *need*, never as bare RAM, and only this module computes it, so the
filter that admits a VM and the table that books it cannot disagree.
"""

from __future__ import annotations

import msgspec

from olvm.model.errors import BadInput
from olvm.scheduling.affinity import Affinity

MIB = 2**20
GIB = 2**30

FIXED_OVERHEAD_BYTES = 64 * MIB  # QEMU's own code, libraries and structures, x86
PAGE_TABLE_SHARE = 512  # one 8-byte entry for each 4 KiB page
PER_VCPU_OVERHEAD_BYTES = 8 * MIB


class VmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One VM that looks for a host.

    `vcpus` are whole and > 0; `memory_bytes` is the guest's RAM and > 0. `pinned_hosts` empty means any
    host. `current_host` is where the VM runs now (a migration); `excluded_hosts` are those already tried,
    `held_hosts` those where a copy of it has not ended. `live`: it is to run on without a stop, so its host must
    do migration and have the CPU model `cpu_model`. `leased`: its host must have a watchdog. `affinity` None: it
    is in no group.
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


def memory_need_of(*, vcpus: int, memory_bytes: int) -> int:
    """Bytes that a VM takes from its host's schedulable memory.

    Counted: the RAM, page tables (RAM / 512), 64 MiB for QEMU, 8 MiB for each vCPU. Not counted, because a
    request does not carry them: video memory, 8 MiB for each I/O thread, huge pages (they come from another
    pool). Nor the 65 MiB `guest_ram_overhead` of older engines: the static overhead replaced it, and both
    would count QEMU twice.

    Source: oVirt VmOverheadCalculatorImpl, x86 branch.
    """
    return (
        memory_bytes
        + memory_bytes // PAGE_TABLE_SHARE
        + FIXED_OVERHEAD_BYTES
        + vcpus * PER_VCPU_OVERHEAD_BYTES
    )


def memory_need_bytes(request: VmRequest) -> int:
    """`memory_need_of` the VM that `request` describes."""
    return memory_need_of(vcpus=request.vcpus, memory_bytes=request.memory_bytes)


def gib_needed(amount_bytes: int) -> str:
    """A need in GiB, rounded up, so that it never reads as equal to the smaller amount that is free."""
    return _tenths(-(-amount_bytes * 10 // GIB))


def gib_free(amount_bytes: int) -> str:
    """An amount on offer in GiB, rounded down; an overdrawn host offers nothing."""
    return _tenths(max(0, amount_bytes) * 10 // GIB)


def _tenths(tenths: int) -> str:
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} GiB" if tenth else f"{whole} GiB"

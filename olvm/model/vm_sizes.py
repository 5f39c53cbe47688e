"""How large a machine is, and how a task changes that while it runs: vCPUs and memory. Pure.

Ballooning is not here: a guest may take back what it gave, so its host keeps room for all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from olvm.model.errors import BadInput, Conflict
from olvm.model.limits import VCPUS_MAX, VM_MEMORY_BYTES_MAX
from olvm.model.sizes import format_size

SIZE_TASKS = frozenset({"set_vcpus", "plug_memory", "unplug_memory"})

ResizePhase = Literal["reserving", "asked", "unknown"]


class Size(NamedTuple):
    """What a machine takes of a host. `memory_bytes` includes what was plugged."""

    vcpus: int
    memory_bytes: int

    def or_more(self, other: Size) -> Size:
        return Size(max(self.vcpus, other.vcpus), max(self.memory_bytes, other.memory_bytes))

    def exceeds(self, other: Size) -> bool:
        """In vCPUs, in memory, or both."""
        return self.vcpus > other.vcpus or self.memory_bytes > other.memory_bytes


class Resize(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of size that was begun and whose end is not known.

    `phase`: "reserving", the cluster is asked for room and the host is not asked yet; "asked", the host is; "unknown",
    the host did not say what came of it, and is asked how large the machine is. `vcpus` and `memory_bytes` are what
    the machine has if it is done.
    """

    operation_id: str
    verb: str
    arguments: dict[str, str | int | float | bool]
    phase: ResizePhase
    vcpus: int
    memory_bytes: int

    @property
    def size(self) -> Size:
        return Size(self.vcpus, self.memory_bytes)


def size_after(
    size: Size, plugged: Mapping[str, int], verb: str, arguments: Mapping[str, str | int | float | bool]
) -> Size:
    """What a machine of that size has when the task is done. `plugged`: bytes of its memory devices, by name.

    Raises:
        BadInput: no machine is as large, or it is no size at all.
        Conflict: another memory device has that name.
    """
    if verb == "set_vcpus":
        vcpus = int(arguments["vcpus"])
        if not 1 <= vcpus <= VCPUS_MAX:
            raise BadInput(f"vcpus must be 1 to {VCPUS_MAX}, got {vcpus}")
        return size._replace(vcpus=vcpus)
    name = str(arguments["name"])
    if verb == "unplug_memory":
        return size._replace(memory_bytes=size.memory_bytes - plugged.get(name, 0))
    more_bytes = int(arguments["size_bytes"])
    if name in plugged:
        if plugged[name] != more_bytes:
            raise Conflict(
                f"it has a memory device {name} of {format_size(plugged[name])} already; take another name"
            )
        return size  # asked twice: no second one
    if not 0 < more_bytes <= VM_MEMORY_BYTES_MAX - size.memory_bytes:
        raise BadInput(
            f"size_bytes must be above 0 and leave it {format_size(VM_MEMORY_BYTES_MAX)} at most, got {more_bytes}"
        )
    return size._replace(memory_bytes=size.memory_bytes + more_bytes)


def plugged_after(plugged: Mapping[str, int], resize: Resize) -> dict[str, int]:
    """The memory devices by name, in bytes, once the change is done."""
    after = dict(plugged)
    name = str(resize.arguments.get("name", ""))
    if resize.verb == "plug_memory":
        after[name] = int(resize.arguments["size_bytes"])
    elif resize.verb == "unplug_memory":
        after.pop(name, None)
    return after


def was_done(before: Size, after: Size, measured: Size) -> bool:
    """Which of the two a machine of the measured size is. Hosts round memory, so the nearer one counts."""
    if before.vcpus != after.vcpus:
        return abs(measured.vcpus - after.vcpus) < abs(measured.vcpus - before.vcpus)
    more = abs(measured.memory_bytes - after.memory_bytes)
    return more < abs(measured.memory_bytes - before.memory_bytes)

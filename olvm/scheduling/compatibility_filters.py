"""The filters of what a host is: versions, CPU, machine types, networks, hooks, clocks.

Rule: a fact that the host's profile does not tell drops nobody (`olvm.model.host_profile`).
"""

# Every unit has the same signature and few need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from typing import ClassVar

from olvm.model.host_profile import HostProfile
from olvm.model.placement_needs import NO_NEEDS
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest
from olvm.scheduling.units import Filter, Reads, filter_unit


class GroupFilter(Filter):
    """Of facts by which hosts are grouped: `olvm.scheduling.host_groups.FACTS` must hold what it reads."""

    READS: ClassVar[Reads] = "group"


@filter_unit("Compatibility-Version")
class CompatibilityVersion(GroupFilter):
    """Drops hosts that do not know the compatibility version of the VM."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.compatibility_version)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        assert request.needs is not None, "it does not apply"
        version, known = request.needs.compatibility_version, table.profile[slot].compatibility_versions
        if known is None or version in known:
            return None
        return f"the VM is of version {version}, the host knows {', '.join(known) or 'none'}"

    def lacking(self, request: VmRequest) -> str:
        return f"version {(request.needs or NO_NEEDS).compatibility_version}"


@filter_unit("CPU-Level")
class CpuLevel(GroupFilter):
    """Drops hosts that cannot give the VM its CPU: another model than where it runs, no such model, lacking flags.

    A guest's CPU cannot change under it, so a VM that is to run on without a stop stays among equal models.
    """

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        needs = request.needs
        return bool(request.cpu_model) or (needs is not None and bool(needs.cpu_model or needs.cpu_flags))

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        model, needs, profile = request.cpu_model, request.needs or NO_NEEDS, table.profile[slot]
        if model and table.cpu_model[slot] != model:
            return f"the VM runs on a {model}, the host has a {table.cpu_model[slot] or 'CPU not told'}"
        if needs.cpu_model and profile.cpu_models is not None and needs.cpu_model not in profile.cpu_models:
            return f"the host cannot give it a {needs.cpu_model}"
        missing = [] if profile.cpu_flags is None else _missing(needs.cpu_flags, profile.cpu_flags)
        return f"the host's CPU lacks {', '.join(missing)}" if missing else None

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        has, needs = "has" if len(slots) == 1 else "have", request.needs or NO_NEEDS
        if request.cpu_model:
            return f"{len(slots)} {has} another CPU than {request.cpu_model}"
        wanted = ", ".join([needs.cpu_model, *needs.cpu_flags] if needs.cpu_model else needs.cpu_flags)
        return f"{len(slots)} cannot give it the CPU that it needs ({wanted})"


@filter_unit("CPUTopology")
class CpuTopology(GroupFilter):
    """Drops hosts with fewer sockets, cores or threads than the VM's own topology has, where it asks for one."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        needs = request.needs
        return needs is not None and bool(
            needs.cpu_sockets or needs.cpu_cores_per_socket or needs.cpu_threads_per_core
        )

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        needs, profile = request.needs or NO_NEEDS, table.profile[slot]
        pairs = (
            ("sockets", needs.cpu_sockets, profile.cpu_sockets),
            ("cores in a socket", needs.cpu_cores_per_socket, profile.cpu_cores_per_socket),
            ("threads in a core", needs.cpu_threads_per_core, profile.cpu_threads_per_core),
        )
        for what, wanted, had in pairs:
            if had and wanted > had:
                return f"the VM has {wanted} {what}, the host has {had}"
        return None

    def lacking(self, request: VmRequest) -> str:
        needs = request.needs or NO_NEEDS
        shape = (needs.cpu_sockets, needs.cpu_cores_per_socket, needs.cpu_threads_per_core)
        return f"the VM's topology ({' × '.join(str(count or 'any') for count in shape)})"


@filter_unit("Emulated-Machine")
class EmulatedMachine(GroupFilter):
    """Drops hosts that do not emulate the VM's machine type."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.emulated_machine)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        machine = (request.needs or NO_NEEDS).emulated_machine
        known = table.profile[slot].emulated_machines
        return None if known is None or machine in known else f"the host does not emulate machine {machine}"

    def lacking(self, request: VmRequest) -> str:
        return f"machine {(request.needs or NO_NEEDS).emulated_machine}"


@filter_unit("Network")
class Network(GroupFilter):
    """Drops hosts without a network that the VM's cards or its display need."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        needs = request.needs
        return needs is not None and bool(needs.networks or needs.display_network)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        needs, known = request.needs or NO_NEEDS, table.profile[slot].networks
        if known is None:
            return None
        missing = _missing(needs.networks, known)
        if missing:
            return f"the host has no network {', '.join(missing)}"
        if needs.display_network and needs.display_network not in known:
            return f"the host has no network {needs.display_network} for the VM's display"
        return None

    def lacking(self, request: VmRequest) -> str:
        needs = request.needs or NO_NEEDS
        names = [*needs.networks, *([needs.display_network] if needs.display_network else [])]
        return f"a network of {', '.join(dict.fromkeys(names))}"


@filter_unit("Host-hooks")
class HostHooks(GroupFilter):
    """Drops hosts without a hook that the VM needs."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        return request.needs is not None and bool(request.needs.hooks)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        known = table.profile[slot].hooks
        missing = [] if known is None else _missing((request.needs or NO_NEEDS).hooks, known)
        return f"the host lacks hook {', '.join(missing)}" if missing else None

    def lacking(self, request: VmRequest) -> str:
        return f"a hook of {', '.join((request.needs or NO_NEEDS).hooks)}"


@filter_unit("Migration-Tsc-Frequency")
class MigrationTscFrequency(Filter):
    """Drops hosts whose time stamp counter runs at another speed, for a running VM that was promised a constant one.

    A host that scales the counter takes any; so does one whose frequency, or the present host's, is not known.
    """

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        needs = request.needs
        return (
            request.live and needs is not None and needs.invariant_tsc and _here(table, request) is not None
        )

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        here, there = _here(table, request), table.profile[slot]
        assert here is not None, "it does not apply"
        before, after = here.tsc_frequency_hz, there.tsc_frequency_hz
        if there.tsc_scaling or not before or not after or before == after:
            return None
        return f"its time stamp counter runs at {after} Hz, the VM was started at {before} Hz"

    def lacking(self, request: VmRequest) -> str:
        return "the frequency of its time stamp counter"


@filter_unit("InClusterUpgrade")
class InClusterUpgrade(Filter):
    """Drops hosts whose system is older than that of the host where the VM runs."""

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        here = _here(table, request)
        return here is not None and bool(here.os_version)

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        here, there = _here(table, request), table.profile[slot].os_version
        assert here is not None, "it does not apply"
        if not there or version_key(there) >= version_key(here.os_version):
            return None
        return f"the host has {there}, older than {here.os_version} where the VM runs"

    def lacking(self, request: VmRequest) -> str:
        return "a system as new as where it runs"


def version_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Orders "8.10" after "8.9", and words after numbers."""
    words = text.replace("-", ".").replace(" ", ".").split(".")
    return tuple((0, int(word)) if word.isdecimal() else (1, word) for word in words)


def _here(table: HostTable, request: VmRequest) -> HostProfile | None:
    current = request.current_host
    return table.profile[table.slot_of(current)] if current is not None and current in table else None


def _missing(wanted: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    return [word for word in wanted if word not in known]

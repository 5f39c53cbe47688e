"""Live migration in libvirt: the calls of both sides, each a function that a worker runs.

Decides flags and parameters, and what is checked before anything moves. What an end of the call means for the machine
is the backend's to find out by a look: libvirt's error alone does not say where it runs.

The target's room is a definition of the machine there, with the epoch that it will have: it is what the source checks
before it begins, what the arriving domain joins, and what tells a restarted agent that something was expected. libvirt
itself would take in whatever comes; the target's backend ends what it has not prepared.

QEMU's TCG loses writes of the guest when pre-copy is throttled (measured: 1 machine in 20 to 40 that dirty memory
beneath a limit of 30 MiB/s; none of 230 without one; none of 75 by post-copy). So under TCG a bandwidth limit is not
passed on unless the migration may become post-copy, or the host's setting `throttle_tcg` insists.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.domain_metadata import metadata_of, with_epoch
from hypervisor_backends.libvirt_domain import Found, found_of
from hypervisor_backends.libvirt_lifecycle import define, destroy, find, forget, lookup
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import MigrateDomain, MigrationStatistics
from olvm.model.errors import Conflict, OlvmError

log = logging.getLogger("olvm.libvirt")

MIB = 1024 * 1024
PAGE_BYTES = 4096
_CLONE_NEWNET = 0x40000000


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """A migration that went well."""

    statistics: MigrationStatistics | None


class TargetNotReady(Conflict):
    """Nothing was begun: the target does not expect the machine, or does not answer."""

    code = "target_not_ready"


# ------------------------------------------------------------------------------------------------ the target


def prepare(connection: libvirt.virConnect, uuid: str, xml: str) -> None:
    define(connection, uuid, xml)


def is_expected(connection: libvirt.virConnect, uuid: str, epoch: int) -> bool:
    domain = find(connection, uuid)
    if domain is None or domain.isActive():
        return False
    metadata = metadata_of(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    return metadata is not None and metadata.epoch == epoch


def stop_expecting(connection: libvirt.virConnect, uuid: str) -> bool:
    """Take the target's definition away, unless the machine has begun to arrive; says whether nothing is there."""
    forget(connection, uuid)
    return find(connection, uuid) is None


def end_unprepared(connection: libvirt.virConnect, uuid: str) -> Found | bool:
    """End a machine of ours that arrives without having been expected, as long as it does not run. True: it was one.

    One that runs is returned: its source has handed it over, and no other copy of it may be left.
    """
    domain = find(connection, uuid)
    # It has begun here just now: since when its process runs need not be looked for.
    found = None if domain is None else found_of(domain, {})
    if found is None or found.seen.execution == "off":
        return False
    if found.seen.is_arriving:
        destroy(connection, uuid, "/", by_force=False)
        return True
    return found


def end_unlisted(connection: libvirt.virConnect, uuid: str, root: str) -> None:
    """End what libvirt has of a machine of ours that is on no book: it came unprepared, and its event is on the way."""
    domain = find(connection, uuid)
    if domain is not None and domain.isActive() and metadata_of(domain.XMLDesc(0)) is not None:
        destroy(connection, uuid, root, by_force=False)


# ------------------------------------------------------------------------------------------------ the source


def migrate(
    connection: libvirt.virConnect,
    uuid: str,
    request: MigrateDomain,
    settings: LibvirtSettings,
    accelerator: str,
) -> Handed:
    """Blocks until it is over. Raises `TargetNotReady` or libvirt's error; where the machine is then, a look tells."""
    domain = lookup(connection, uuid)
    target = open_target(request.to_uri, settings)
    try:
        if request.copy_storage:
            make_pools(target, domain)
        parameters = parameters_of(domain, request, settings, accelerator)
        # Last of all: what comes to a target after it has stopped waiting is ended there.
        if not is_expected(target, uuid, request.to_epoch):
            raise TargetNotReady(
                f"the target {request.to_uri} does not expect machine {request.vm_id} with epoch "
                f"{request.to_epoch}; prepare it again"
            )
        try:
            _run(domain, target, request, parameters)
        except libvirt.libvirtError:
            _withdraw(target, uuid, request.to_epoch)
            raise
        return Handed(statistics=_last_statistics(target, uuid, request))
    finally:
        close_quietly(target)


def _withdraw(target: libvirt.virConnect, uuid: str, epoch: int) -> None:
    """Let the target know that nothing comes, if nothing has come: it would wait for its time otherwise."""
    try:
        if is_expected(target, uuid, epoch):
            forget(target, uuid)
    except libvirt.libvirtError as error:
        log.info("the target of machine %s was not told that its migration failed: %s", uuid, error)


def _run(
    domain: libvirt.virDomain,
    target: libvirt.virConnect,
    request: MigrateDomain,
    parameters: dict[str, object],
) -> None:
    if request.downtime_ms > 0:
        domain.migrateSetMaxDowntime(request.downtime_ms, 0)
    flags = flags_of(request)
    if request.managed:
        domain.migrate3(target, parameters, flags)
    else:
        domain.migrateToURI3(request.to_uri, parameters, flags | libvirt.VIR_MIGRATE_PEER2PEER)


def flags_of(request: MigrateDomain) -> int:
    """The definition stays at the source until its end was told: it says why the domain is off."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    if request.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if request.post_copy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    if request.copy_storage:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    return int(flags)


def parameters_of(
    domain: libvirt.virDomain, request: MigrateDomain, settings: LibvirtSettings, accelerator: str
) -> dict[str, object]:
    live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
    stored = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    parameters: dict[str, object] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: with_epoch(live, request.to_epoch),
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: with_epoch(stored, request.to_epoch),
    }
    if settings.migration_data_uri:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = settings.migration_data_uri
    limit_mib_s = int(request.bandwidth_bytes_per_s // MIB)
    if request.bandwidth_bytes_per_s > 0 and is_limited(request, settings, accelerator):
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(limit_mib_s, 1)
    return parameters


def is_limited(request: MigrateDomain, settings: LibvirtSettings, accelerator: str) -> bool:
    """Whether the bandwidth that was asked for is passed on; see the module."""
    return accelerator != "tcg" or request.post_copy or settings.throttle_tcg


def make_pools(target: libvirt.virConnect, domain: libvirt.virDomain) -> None:
    """A target makes the files of disks that are copied in the pool of their directory: see that there is one."""
    xml = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own words
    sources = [source.get("file", "") for source in xml.iterfind("devices/disk/source")]
    for directory in sorted({os.path.dirname(source) for source in sources if source}):
        try:
            target.storagePoolLookupByTargetPath(directory)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                raise
            target.storagePoolCreateXML(_pool_xml(directory), libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)


def _pool_xml(directory: str) -> str:
    pool = ET.Element("pool", {"type": "dir"})
    ET.SubElement(pool, "name").text = "olvm" + directory.replace("/", "-")
    ET.SubElement(ET.SubElement(pool, "target"), "path").text = directory
    return ET.tostring(pool, encoding="unicode")


def cancel(connection: libvirt.virConnect, uuid: str) -> None:
    lookup(connection, uuid).abortJob()


def start_post_copy(connection: libvirt.virConnect, uuid: str) -> None:
    lookup(connection, uuid).migrateStartPostCopy(0)


def set_downtime(connection: libvirt.virConnect, uuid: str, downtime_ms: int) -> None:
    lookup(connection, uuid).migrateSetMaxDowntime(downtime_ms, 0)


def job_statistics(connection: libvirt.virConnect, uuid: str) -> dict[str, int]:
    return dict(lookup(connection, uuid).jobStats(0))


def _last_statistics(
    target: libvirt.virConnect, uuid: str, request: MigrateDomain
) -> MigrationStatistics | None:
    """What the target kept of the migration; the machine is there whether this can be read or not."""
    try:
        job = lookup(target, uuid).jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError:
        return None
    return statistics_of(job, request.downtime_ms, post_copy=False, is_over=True)


def statistics_of(
    job: dict[str, int], downtime_ms: int, *, post_copy: bool, is_over: bool = False
) -> MigrationStatistics:
    """libvirt's job statistics in the port's words; `downtime` is measured once it is over, expected before."""
    total = job.get(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL, job.get("memory_total", 0))
    done = job.get(libvirt.VIR_DOMAIN_JOB_DATA_PROCESSED, job.get("memory_processed", 0))
    left = 0 if is_over else job.get(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING, job.get("memory_remaining", 0))
    page_bytes = job.get("memory_page_size", PAGE_BYTES)
    percent = 100 if is_over else 0
    if not is_over and total > 0:
        percent = min(max(int(100 * (total - left) / total), 0), 99)
    return MigrationStatistics(
        progress_percent=percent,
        data_total_bytes=total,
        data_processed_bytes=done,
        data_remaining_bytes=left,
        memory_iteration=job.get("memory_iteration", 0),
        dirty_bytes_per_s=float(job.get("memory_dirty_rate", 0) * page_bytes),
        bandwidth_bytes_per_s=float(job.get("memory_bps", 0)),
        downtime_ms=downtime_ms,
        expected_downtime_ms=job.get("downtime_net", job.get("downtime", 0)),
        post_copy=post_copy,
    )


# ------------------------------------------------------------------------------------------------ the way there


def open_target(uri: str, settings: LibvirtSettings) -> libvirt.virConnect:
    """From where this host is: a host in namespaces of this machine reaches others by its own network."""
    opened: list[libvirt.virConnect | libvirt.libvirtError | OSError] = []
    thread = threading.Thread(target=_open_from, args=(uri, settings.root, opened), daemon=True)
    thread.start()
    thread.join(settings.call_timeout_s)
    if not opened:
        raise TargetNotReady(f"the target {uri} did not answer within {settings.call_timeout_s:g} s")
    connection = opened[0]
    if isinstance(connection, Exception):
        raise TargetNotReady(f"the target {uri} cannot be reached: {connection}") from connection
    return connection


def _open_from(
    uri: str, root: str, opened: list[libvirt.virConnect | libvirt.libvirtError | OSError]
) -> None:
    """In a thread of its own, which ends with it: a thread's network namespace is its own."""
    try:
        if root != "/":
            _enter_network_of(root)
        connection = libvirt.open(uri)
        connection.setKeepAlive(5, 3)
    except (libvirt.libvirtError, OSError) as error:
        opened.append(error.with_traceback(None))  # which holds `opened`
        return
    opened.append(connection)


def _enter_network_of(root: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"{root}/proc/1/ns/net", "rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(
                number, f"the network of the host below {root} cannot be entered: {os.strerror(number)}"
            )


def close_quietly(connection: libvirt.virConnect) -> None:
    try:
        connection.close()
    except libvirt.libvirtError:
        return  # it was lost already


def was_not_begun(error: object) -> bool:
    """The machine has not been touched by the migration that ended so."""
    return isinstance(error, OlvmError)

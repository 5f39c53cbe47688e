"""What one connection's host has and can do: libvirt's word, and what this backend does with machines beside the tasks.

Decides what is declared of a machine's life; devices, snapshots, storage and networks are `libvirt_capabilities.py`.
Runs on a worker.
"""

from __future__ import annotations

import libvirt
import msgspec

from hypervisor_backends.libvirt_capabilities import capabilities_of
from hypervisor_backends.libvirt_lifecycle import TEST_DRIVER
from hypervisor_backends.libvirt_processes import boot_id_of
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import Capabilities, Feature

# libvirt's test driver keeps states and has no hardware, no guest and nobody to migrate to.
OF_ANY_DRIVER: tuple[Feature, ...] = ("graceful_shutdown", "reboot", "reset", "suspend", "pause")
OF_GUESTS: tuple[Feature, ...] = ("guest_facts", "guest_channel")
OF_MIGRATION: tuple[Feature, ...] = ("migration", "managed_migration", "post_copy", "storage_copy")


def capabilities_of_host(
    connection: libvirt.virConnect,
    settings: LibvirtSettings,
    host: str,
    *,
    has_guests: bool,
    has_watchdog: bool,
) -> Capabilities:
    features = list(OF_ANY_DRIVER)
    if connection.getType() != TEST_DRIVER:
        features += OF_GUESTS if has_guests else ()
        features += OF_MIGRATION if settings.migration_uri_of(host) else ()
        features += ("watchdog",) if has_watchdog else ()
    have = capabilities_of(connection, settings, features)
    return msgspec.structs.replace(have, boot_id=boot_id_of(settings.root))

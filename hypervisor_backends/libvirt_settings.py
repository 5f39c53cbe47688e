"""How one host's libvirt is reached and used: what `backend_settings` of a host may say, and the defaults.

Decides names, defaults and bounds of the settings. Must not know libvirt itself: a setting is checked as far as that
is possible without a connection, so that a typing error is told when the host is added and not when it is first used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from olvm.model.errors import BadInput

Accelerator = Literal["auto", "kvm", "tcg"]
LockManager = Literal["", "lockd", "sanlock"]

SANLOCK_LOCKSPACE_FILE = "lockspace"
# A directory, and a name in sanlock's 48 bytes.
_LOCKSPACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,46}")

_POSITIVE = (
    "guest_wait_timeout_s",
    "guest_hooks_timeout_s",
    "call_timeout_s",
    "migration_timeout_s",
    "statistics_period_s",
    "pools_period_s",
    "incoming_timeout_s",
    "workers_lost_max",
    "keepalive_interval_s",
    "keepalive_count",
    "memory_overcommit_percent",
)
_DIRECTORIES = (
    "root",
    "lease_directory",
    "saved_memory_directory",
    "pool_directory",
    "console_log_directory",
    "seed_directory",
    "watchdog_directory",
)


class LibvirtSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain scalars, as `backend_settings` carries them. Paths are the host's own; `root` is where they begin here."""

    uri: str = "qemu:///system"
    # How the libvirt of other hosts reaches this one, as in qemu+tcp://10.0.0.7/system; `{host}` stands for its name.
    # Empty: nobody can migrate here.
    migration_uri: str = "qemu+tcp://{host}/system"
    # Where the data of a migration arrive, as in tcp://10.0.0.7; empty: what the host's libvirt says itself.
    migration_data_uri: str = ""
    accelerator: Accelerator = "auto"
    cpu_model: str = ""  # empty: host-model on KVM, a model that TCG is quick with otherwise
    machine: str = "q35"
    emulator: str = ""  # empty: libvirt's own choice
    # Where the host's files are seen from here: a host in namespaces of this machine is below /proc/<its init>/root.
    root: str = "/"
    lock_manager: LockManager = ""
    lease_directory: str = ""  # shared; of the agents' leases, and of the lock manager's lockspace
    lockspace: str = "area"  # sanlock's must have been made, and be joined on this host: docs/leases.md
    saved_memory_directory: str = "/var/lib/libvirt/qemu/save"  # shared: restored on any host
    pool_directory: str = "/var/lib/libvirt/images"  # of the pool that is made where a host has none
    console_log_directory: str = "/var/log/libvirt/qemu"
    # Of cloud-init seeds that the backend makes; a directory of their own, for a pool would list them.
    seed_directory: str = "/var/lib/libvirt/olvm-seeds"
    watchdog_directory: str = "/run/olvm"  # of this machine, not below `root`
    bridge: str = "br0"  # of network cards that name no network
    vnc_listen: str = "127.0.0.1"
    memory_overcommit_percent: int = 100
    guest_wait_timeout_s: float = 60.0  # a guest that no agent speaks for is taken to be up after it
    # How long a migration or a suspend waits for the guest's hooks; below the target's `incoming_timeout_s`.
    guest_hooks_timeout_s: float = 10.0
    call_timeout_s: float = 60.0
    # Of the calls that move all of a machine's memory: save, restore, and the time a migration may make no progress.
    migration_timeout_s: float = 3600.0
    incoming_timeout_s: float = 300.0  # how long a prepared target waits for its source
    statistics_period_s: float = 15.0
    pools_period_s: float = 60.0  # how often the room in storage pools is read, at most
    workers_lost_max: int = 32  # threads that hang in libvirt at once, before the connection is given up
    keepalive_interval_s: int = 5
    keepalive_count: int = 3
    # A bandwidth limit makes pre-copy last, and QEMU's TCG may then lose writes of the guest: see libvirt_migration.
    throttle_tcg: bool = False

    def __post_init__(self) -> None:
        for field in _POSITIVE:
            if not getattr(self, field) > 0:  # not a number, too
                raise BadInput(f"backend setting {field} must be above 0, got {getattr(self, field)}")
        for field in _DIRECTORIES:
            path: str = getattr(self, field)
            if path and not path.startswith("/"):
                raise BadInput(f"backend setting {field} must be an absolute path, got {path!r}")
        if "://" not in self.uri and not self.uri.startswith(("qemu:", "test:")):
            raise BadInput(f"backend setting uri is no libvirt URI: {self.uri!r}; write it as qemu:///system")
        if not _LOCKSPACE.fullmatch(self.lockspace):
            raise BadInput(
                f"backend setting lockspace must be up to 47 letters, digits, dots, hyphens and underscores, "
                f"got {self.lockspace!r}"
            )
        if self.lock_manager and not self.lease_directory:
            raise BadInput(
                f"backend setting lock_manager is {self.lock_manager} and lease_directory is empty; "
                "name the shared directory of its lockspace"
            )

    def migration_uri_of(self, host: str) -> str:
        return self.migration_uri.replace("{host}", host)

    @property
    def lockspace_directory(self) -> str:
        """Where the lock manager has a file for each machine. Neither can read what the other wrote."""
        suffix = "-sanlock" if self.lock_manager == "sanlock" else ""
        return f"{self.lease_directory.rstrip('/')}/{self.lockspace}{suffix}"

    @property
    def sanlock_lockspace_path(self) -> str:
        """The file in which hosts show sanlock that they live."""
        return f"{self.lockspace_directory}/{SANLOCK_LOCKSPACE_FILE}"

    def path_here(self, path: str) -> str:
        """Where a file of the host is seen from this process."""
        return path if self.root == "/" else self.root.rstrip("/") + path


def sanlock_escaped(path: str) -> str:
    """As sanlock's command line takes a path: a colon ends it."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def libvirt_settings_from(fields: Mapping[str, object]) -> LibvirtSettings:
    """Raises `BadInput`, which names the field."""
    try:
        return msgspec.convert(dict(fields), LibvirtSettings, strict=True)
    except msgspec.ValidationError as error:
        names = ", ".join(LibvirtSettings.__struct_fields__)
        raise BadInput(f"backend settings of libvirt: {error}; there are {names}") from error

"""What libvirt's lock manager must find on disk before a leased machine begins: a file for each machine.

Decides where those files are and how one is made. virtlockd locks an empty file; sanlock keeps in it who holds the
lease, in a format of its own, which its own program writes. The lockspace of sanlock is *not* made here: docs/leases.md
says who does. Blocks: on workers alone.

Rule: a lease of sanlock that is there is never written again. Writing it anew would take it from whoever holds it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.libvirt_settings import LibvirtSettings, sanlock_escaped
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused
from hypervisor_backends.sanlock_program import run_sanlock


def make_lock_file(vm_id: str, context: TaskContext) -> None:
    """Without effect where it is there already. Raises `TaskRefused`, `OSError`."""
    settings = context.settings
    if settings.lock_manager == "lockd":
        _make_empty(Path(settings.path_here(settings.lockspace_directory)) / domain_uuid(vm_id))
    elif settings.lock_manager == "sanlock":
        _make_resource(domain_uuid(vm_id), context.host, settings)


def _make_empty(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _make_resource(uuid: str, host: str, settings: LibvirtSettings) -> None:
    """Written beside, then linked: of two hosts that make it at once one wins, and the other's is thrown away."""
    lockspace = Path(settings.path_here(settings.sanlock_lockspace_path))
    if not lockspace.exists():
        raise TaskRefused(
            "call_failed",
            f"host {host}: the lockspace {settings.lockspace} of sanlock is not there "
            f"({settings.sanlock_lockspace_path}); make it once and join it on each host, as "
            "`olvm host check --lock-manager sanlock` says",
            can_retry=True,
        )
    path = lockspace.parent / uuid
    if path.exists():
        return
    fresh = path.with_name(f"{uuid}.{host}.new")
    try:
        _write_resource(fresh, uuid, host, settings)
        # The daemon reads and writes it, as whoever it runs as.
        owner = lockspace.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.chmod(owner.st_mode & 0o777)
        _sync(fresh)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        # A file whose name a crash of the storage undid would be made, and given away, once more.
        _sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def _write_resource(path: Path, uuid: str, host: str, settings: LibvirtSettings) -> None:
    """By sanlock's own program, which writes to the storage past its daemon; the file must be there."""
    path.unlink(missing_ok=True)  # of one that was killed; whatever it is linked to, it is not written
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    resource = f"{settings.lockspace}:{uuid}:{sanlock_escaped(str(path))}:0"
    code, said = run_sanlock(("direct", "init", "-r", resource), settings)
    if code != 0:
        words = said if code is None else f"sanlock direct init said {said!r}; look at the shared storage"
        raise TaskRefused(
            "call_failed",
            f"host {host}: the lease of {uuid} cannot be made in {path.parent}: {words}",
            can_retry=True,
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The files of cloud-init seeds on a host: made for a start, taken away when the machine's life there is over.

A seed may hold passwords, so it lies about for no longer than it is needed: while a machine runs, or waits as saved
memory, whose XML names the file. The directory may be shared: a migration's target then has the file of its source. So
each host that needs a file notes that (`claims/<host>/<file>`), and whoever lets go of it last removes it. A note is
written before the file is looked for. Between the last note and the removal another host may yet note it, and finds no
file when it starts: that start fails, and can be repeated.

Blocks: on workers alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection
from hashlib import blake2b
from pathlib import Path

import libvirt
import msgspec

from hypervisor_backends.cloud_init import seed_iso
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.libvirt_errors import is_missing
from hypervisor_backends.libvirt_lifecycle import find, forget, saved_path
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import DomainSpec

log = logging.getLogger("olvm.libvirt")

CLAIMS = "claims"
_NAME_CHARS = 36 + len("-seed-") + 12 + len(".iso")
_SEED = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-seed-[0-9a-f]{12}\.iso")


def write_seed(vm_id: str, spec: DomainSpec, host: str, settings: LibvirtSettings) -> str:
    """The host's path of the machine's seed; empty: it has none.

    Its name holds a digest of what is in it, so one that is there is right. Raises `OSError`, `NotSupportedYet`.
    """
    cloud_init = spec.hardware.cloud_init
    if cloud_init is None:
        return ""
    digest = blake2b(spec.name.encode() + msgspec.msgpack.encode(cloud_init), digest_size=6).hexdigest()
    name = f"{domain_uuid(vm_id)}-seed-{digest}.iso"
    here = _directory(settings)
    claim = here / CLAIMS / host / name
    claim.parent.mkdir(parents=True, exist_ok=True)
    claim.touch()
    if not (here / name).exists():
        fresh = here / f"{name}.new"
        with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(seed_iso(vm_id, spec.name, cloud_init))
        fresh.replace(here / name)
    return f"{settings.seed_directory.rstrip('/')}/{name}"


def forget_with_seed(connection: libvirt.virConnect, uuid: str, host: str, settings: LibvirtSettings) -> bool:
    """Take away what a machine that has ended leaves here, unless another life of it runs or its memory is saved.

    False: it runs, so nothing was done. Raises libvirt's error, `OSError`.
    """
    try:
        domain = find(connection, uuid)
        if domain is not None and domain.isActive():
            return False
        forget(connection, uuid)
    except libvirt.libvirtError as error:
        if not is_missing(error):  # whoever ends it at this moment may have taken it away first
            raise
    if not _is_saved(uuid, settings):
        _drop(lambda one: one == uuid, host, settings)
    return True


def sweep_seeds(needed: Collection[str], host: str, settings: LibvirtSettings) -> None:
    """Take away what was left by machines that ended while nobody looked; `needed` are those that are here, by UUID.

    What cannot be removed is left to the next time, with a warning.
    """
    try:
        _drop(lambda uuid: uuid not in needed and not _is_saved(uuid, settings), host, settings)
    except OSError as error:
        log.warning("seeds of cloud-init on host %s are left behind: %s", host, error)


def _drop(is_over: Callable[[str], bool], host: str, settings: LibvirtSettings) -> None:
    here = _directory(settings)
    for claim in list((here / CLAIMS / host).glob("*")):
        if is_over(_uuid_of(claim.name)):
            claim.unlink(missing_ok=True)
    claimed = {claim.name for claim in here.glob(f"{CLAIMS}/*/*")}
    for path in list(here.glob("*-seed-*")):
        uuid, name = _uuid_of(path.name), path.name[:_NAME_CHARS]
        if uuid and name not in claimed and is_over(uuid):
            path.unlink(missing_ok=True)


def _directory(settings: LibvirtSettings) -> Path:
    return Path(settings.path_here(settings.seed_directory))


def _uuid_of(name: str) -> str:
    """Also of a file that was being written; empty: it is no seed of ours."""
    found = _SEED.match(name)
    return "" if found is None else found[1]


def _is_saved(uuid: str, settings: LibvirtSettings) -> bool:
    return os.path.exists(settings.path_here(saved_path(settings, uuid)))

"""What every task of a libvirt host is given, and how one is refused or waits.

Decides the bounds of waiting. Tasks run on worker threads and may block; each is over before the budget that
`libvirt_tasks.task_budget_s` names, unless libvirt itself hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.domain_metadata import (
    NAMESPACE,
    PREFIX,
    DomainMetadata,
    metadata_of,
    metadata_text,
)
from hypervisor_backends.domain_xml import XmlContext
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.protocol import CallFailed, DomainSpec, FailureCode, Feature
from olvm.model.errors import BadInput

END_S_MAX = 20.0  # for libvirt to notice that a QEMU has ended
_LOOK_AGAIN_S = 0.1
T = TypeVar("T")


class TaskContext(msgspec.Struct, frozen=True, kw_only=True):
    """`now_ns` is the wall clock. `guest_wait_s`: how long a guest may take to let go of a device."""

    host: str
    settings: LibvirtSettings
    xml: XmlContext
    features: frozenset[Feature]
    now_ns: Callable[[], int]
    guest_wait_s: float = 20.0


class TaskRefused(Exception):
    """Ends a task with this answer; never leaves `libvirt_tasks`."""

    def __init__(
        self, code: FailureCode, message: str, *, can_retry: bool = False, outcome_known: bool = True
    ) -> None:
        super().__init__(message)
        self.failure = CallFailed(
            code=code, message=message, can_retry=can_retry, outcome_known=outcome_known
        )


def bad_request_of(make: Callable[[], T], what: str = "") -> T:
    """What `make` returns; its `BadInput` refuses the task, in a sentence that `what` begins."""
    try:
        return make()
    except BadInput as error:
        raise TaskRefused("bad_request", f"{what}: {error.message}" if what else error.message) from error


def who(domain: libvirt.virDomain, context: TaskContext) -> str:
    return f"domain {domain.name()} on host {context.host}"


def live_xml(domain: libvirt.virDomain) -> ET.Element:
    return ET.fromstring(domain.XMLDesc(0))  # noqa: S314  (libvirt's own words)


def waited_for(check: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `check` became true in time; it is called once at least, and once more at the very end."""
    end_s = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() >= end_s:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def metadata_of_domain(domain: libvirt.virDomain, context: TaskContext) -> DomainMetadata:
    metadata = metadata_of(domain.XMLDesc(0))
    if metadata is None:
        raise TaskRefused("unknown_domain", f"{who(domain, context)} is no machine of olvm; leave it alone")
    return metadata


def remember(
    domain: libvirt.virDomain, context: TaskContext, change: Callable[[DomainSpec], DomainSpec]
) -> None:
    """Keep the spec in the domain's own XML true, so that an agent without memory learns what it has now."""
    metadata = metadata_of_domain(domain, context)
    changed = msgspec.structs.replace(metadata, spec=change(metadata.spec))
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        metadata_text(changed),
        PREFIX,
        NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )

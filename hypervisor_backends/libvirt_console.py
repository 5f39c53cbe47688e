"""Tickets for the screen of a machine of libvirt: a VNC password that is valid for a short time.

Decides nothing about who may have one. The password goes to QEMU and is kept nowhere here.
"""

from __future__ import annotations

from datetime import UTC, datetime

import libvirt

from hypervisor_backends.device_xml import text_of
from hypervisor_backends.libvirt_task_context import (
    TaskContext,
    TaskRefused,
    bad_request_of,
    live_xml,
    who,
)
from hypervisor_backends.protocol import ConsoleAddress, SetConsoleTicket
from hypervisor_backends.task_rules import check_ticket
from olvm.model.limits import NS_PER_S

_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  (recognised, not listened on)


def set_console_ticket(
    domain: libvirt.virDomain, request: SetConsoleTicket, context: TaskContext
) -> ConsoleAddress:
    bad_request_of(lambda: check_ticket(request))
    what = who(domain, context)
    graphics = next(
        (each for each in live_xml(domain).findall("devices/graphics") if each.get("type") == "vnc"), None
    )
    if graphics is None:
        raise TaskRefused("not_found", f"{what} has no VNC screen; start it with vnc")
    expires_ns = context.now_ns() + request.valid_s * NS_PER_S
    # libvirt counts whole seconds; a ticket never outlives what is told.
    expires = datetime.fromtimestamp(expires_ns // NS_PER_S, UTC)
    graphics.set("passwd", request.password)
    graphics.set("passwdValidTo", expires.strftime("%Y-%m-%dT%H:%M:%S"))
    graphics.set("connected", "keep")
    domain.updateDeviceFlags(text_of(graphics), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    listen = graphics.get("listen", "")
    host = str(domain.connect().getHostname()) if listen in _EVERYWHERE else listen
    return ConsoleAddress(kind="vnc", host=host, port=int(graphics.get("port", "-1")), expires_ns=expires_ns)

"""A migration from a libvirt host, from its acceptance to its end; plain state that `Book` and `Departures` change."""

from __future__ import annotations

from hypervisor_backends.protocol import Done, MigrateDomain


class Outgoing:
    """A migration from here. `end` is the request's `done`."""

    __slots__ = (
        "begun",
        "cancelled",
        "downtime_ms",
        "end",
        "guest_told",
        "no_way_back",
        "post_copy",
        "request",
        "unknown",
    )

    def __init__(self, request: MigrateDomain, end: Done) -> None:
        self.request = request
        self.end: Done | None = end  # None once it was answered
        self.downtime_ms = request.downtime_ms
        self.guest_told = False  # that it is about to move
        self.begun = False  # libvirt was asked; before that the guest runs its hooks
        self.post_copy = False  # the target has been seen to run
        self.no_way_back = False  # it was told to run
        self.cancelled = False  # asked to be given up
        self.unknown = False  # its call ended without an answer; the next look decides

"""The guests of one host as the libvirt backend uses them: whether an agent speaks, what it said, and asking it.

A port with one implementation that has nobody to speak to; `LibvirtGuests` puts the channels behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed, CallGuest, Done


class Guests(Protocol):
    """Owner's thread alone; nothing here blocks."""

    def opened(self, life: Life) -> None:
        """The machine runs here: its channel is at `life.channel`."""

    def closed(self, life: Life) -> None:
        """It does not run here any more."""

    def booting(self, life: Life) -> None:
        """It begins anew: what it said before does not count as heard."""

    def qemu_agent_connected(self, life: Life) -> None:
        """QEMU's own agent has opened its port: it can be asked."""

    def speaks(self, vm_id: str) -> bool:
        """Its agent was heard lately."""

    def facts(self, vm_id: str) -> GuestFacts | None: ...

    def ask_shutdown(self, vm_id: str, message: str, *, reboot: bool) -> None: ...

    def call(self, request: CallGuest, done: Done) -> None:
        """`done` comes on the owner's thread."""

    def prepare(self, life: Life, event: str, then: Callable[[], None]) -> None:
        """Let the guest run its hooks of `before_…`; `then` comes once, on the owner's thread.

        It comes when they are done, at once when nobody there can run them, and in `guest_hooks_timeout_s` at the
        latest. It does not come when the backend is closed; whoever is called looks whether the life is still there.
        """

    def tell_after(self, life: Life, event: str, *, failure: bool = False) -> None:
        """The same with `after_…`, as soon as the guest is heard; nobody waits for it."""

    def poll(self) -> None:
        """Now and then: whatever must be asked of guests that do not speak by themselves."""

    def close(self) -> None: ...


class NoGuests:
    """Where no channel is: libvirt's test driver, or a host whose machines have none."""

    def opened(self, life: Life) -> None:
        """Nobody is there."""

    def closed(self, life: Life) -> None:
        """Nobody was there."""

    def booting(self, life: Life) -> None:
        """Nobody will be heard."""

    def qemu_agent_connected(self, life: Life) -> None:
        """Nobody is there."""

    def speaks(self, vm_id: str) -> bool:  # noqa: ARG002
        return False

    def facts(self, vm_id: str) -> GuestFacts | None:  # noqa: ARG002
        return None

    def ask_shutdown(self, vm_id: str, message: str, *, reboot: bool) -> None:  # noqa: ARG002
        raise AssertionError(f"nobody speaks for {vm_id}: the caller has not asked")

    def call(self, request: CallGuest, done: Done) -> None:
        done(CallFailed(code="guest_silent", message=f"no agent of machine {request.vm_id} can be heard"))

    def prepare(self, life: Life, event: str, then: Callable[[], None]) -> None:  # noqa: ARG002
        then()

    def tell_after(self, life: Life, event: str, *, failure: bool = False) -> None:
        """Nobody would hear it."""

    def poll(self) -> None:
        """Nobody is there."""

    def close(self) -> None:
        """Nothing is open."""

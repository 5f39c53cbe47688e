"""The port to fence devices: what switches a computer's power from outside, and says whether it is on.

Rules: an answer to `on` or `off` says that the device took the order; only a `status` of "off" that was asked after
the order proves that the computer is off. `done` is called at most once, within the device's own time or with
`ok=False`; a call whose answer says `ok=False` may still have worked.

Settings of a device are plain scalars with a "type"; "simulated" is the one of simulated hosts. The fence agents of
real computers (`fence_ipmilan` and its family) come with the libvirt backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias

import msgspec

FenceAction = Literal["on", "off", "status"]
Power = Literal["on", "off", "unknown"]


class FenceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    power: Power = "unknown"
    message: str = ""


FenceDone: TypeAlias = Callable[[FenceAnswer], None]


class FenceDevices(Protocol):
    """All fence devices that one host can reach. Called from one thread; calls back on that thread."""

    def submit(
        self, device: Mapping[str, str | int | float | bool], host: str, action: FenceAction, done: FenceDone
    ) -> None:
        """Ask `device` to act on `host`. Does not block and does not raise; an unknown type answers `ok=False`."""

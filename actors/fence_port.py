"""A proxy's way to fence devices: asks one device about one host and turns its answer into a message."""

from __future__ import annotations

import msgspec

from actors.silo import Silo, deliver_result
from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDevices
from olvm.model.messages import CallEnded


class Fence(msgspec.Struct, frozen=True):
    """Answered with a `FenceAnswer` as value, also when the device refused.

    Not sent after `not_after_ns` of the silo's clock: a commit that took long may have kept it. 0: whenever.
    """

    device: dict[str, str | int | float | bool]
    host: str
    action: FenceAction
    not_after_ns: int = 0


class FencePort:
    """Serves all agents of one host silo. Runs in the silo's thread."""

    def __init__(self, silo: Silo, devices: FenceDevices) -> None:
        self._silo = silo
        self._devices = devices

    def submit(self, caller: str, request: object, tag: str) -> None:
        assert isinstance(request, Fence), f"{caller} asks the fence port for {request}"

        def answer(told: FenceAnswer) -> None:
            message = CallEnded(tag, told.ok, msgspec.msgpack.encode(told), "" if told.ok else "fence_failed")
            deliver_result(self._silo, caller, message, "fence")

        if request.not_after_ns and self._silo.now_ns() > request.not_after_ns:
            words = f"{request.action} of host {request.host} was not sent: the order is too old by now"
            answer(FenceAnswer(ok=False, message=words))
            return
        self._devices.submit(request.device, request.host, request.action, answer)

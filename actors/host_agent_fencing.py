"""What a host does for another one: switch its power through a fence device, and watch its lease.

The agent is a pair of hands here: the host actor that asks decides what an answer proves. Its own state is not touched.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.fence_port import Fence
from actors.host_agent_domains import LEASES
from actors.lease_port import CheckLease
from hypervisor_backends.fencing import FenceAnswer
from olvm.model import messages as m


class AgentProxy:
    def __init__(self, host: str) -> None:
        self.host = host

    def ask(self, message: m.FenceHost | m.CheckHostLease, turn: Turn) -> None:
        if isinstance(message, m.FenceHost):
            request = Fence(message.device, message.host, message.action)
            turn.call("fence", request, f"fence/{message.seq}/{message.action}/{message.host}")
        else:
            turn.call(LEASES, CheckLease(self.host, message.host), f"check/{message.seq}/{message.host}")

    def on_fenced(self, message: m.CallEnded, turn: Turn) -> None:
        _, seq, action, host = message.tag.split("/", 3)
        told = msgspec.msgpack.decode(message.value, type=FenceAnswer)
        turn.tell(f"host/{host}", m.FenceResult(host, int(seq), action, told.ok, told.power, told.message))

    def on_checked(self, message: m.CallEnded, turn: Turn) -> None:
        _, seq, host = message.tag.split("/", 2)
        word = message.value.decode() if message.ok else ""
        match word:
            case "live" | "dead":
                answer = m.HostLeaseChecked(host, int(seq), word)
            case _:
                reason = f"host {self.host} cannot read the storage of leases"
                answer = m.HostLeaseChecked(host, int(seq), "unknown", reason)
        turn.tell(f"host/{host}", answer)

"""What a host does for another one: switch its power through a fence device, and watch its lease.

The agent is a pair of hands here: the host actor that asks decides what an answer proves. Its own state is not touched.
Rule: power is switched only by an order that was repeated within `fence_poll_period_s` of this agent's own question.
An order may have waited for hours in front of an agent that stood still; what it was about is over by then, and the
host that it would strike may be well. What is repeated late counts as an answer that never came; what this agent's own
commit keeps for longer is not sent either (`fence_port`).
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.fence_port import Fence
from actors.host_agent_domains import LEASES
from actors.lease_port import CheckLease
from hypervisor_backends.fencing import FenceAnswer
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S


class AgentProxy:
    def __init__(self, host: str) -> None:
        self.host = host

    def ask(self, message: m.FenceHost | m.CheckHostLease, host_epoch: int, turn: Turn) -> None:
        if isinstance(message, m.FenceHost):
            not_after_ns = 0
            if message.action != "status":
                if not self._still_holds(message, host_epoch, turn):
                    return
                not_after_ns = message.asked_ns + self._patience_ns(turn)
            request = Fence(message.device, message.host, message.action, not_after_ns)
            turn.call("fence", request, f"fence/{message.seq}/{message.action}/{message.host}")
        else:
            turn.call(LEASES, CheckLease(self.host, message.host), f"check/{message.seq}/{message.host}")

    def _still_holds(self, order: m.FenceHost, host_epoch: int, turn: Turn) -> bool:
        if not order.asked_ns:
            assert order.action != "status"
            ready = m.FenceReady(order.host, order.seq, order.action, host_epoch, turn.now_ns)
            turn.tell(f"host/{order.host}", ready)
            return False
        age_ns = turn.now_ns - order.asked_ns
        if order.host_epoch == host_epoch and 0 <= age_ns <= self._patience_ns(turn):
            return True
        turn.sometimes("fence_order_repeated_too_late_is_not_obeyed")
        return False

    @staticmethod
    def _patience_ns(turn: Turn) -> int:
        return int(turn.config.fence_poll_period_s * NS_PER_S)

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

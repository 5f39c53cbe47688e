"""A conversation with a guest on the bench: what the host says, what is told of the guest, and time by hand."""

from __future__ import annotations

import json

from guest_agent import protocol as g
from hypervisor_backends.guest_conversation import GuestConversation
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed, CallResult
from olvm.model.limits import NS_PER_S

OURS = {"apiVersion": 3, "olvm": 1, "memory-stat": {"mem_total": 100}}


class Talk:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.words: list[str] = []
        self.takes_more = True
        self.now_ns = NS_PER_S
        self.talk = GuestConversation("v1", self._say, self.words.append)
        self.talk.connected()

    def _say(self, line: bytes) -> bool:
        if self.takes_more:
            message = json.loads(line)
            self.said.append((message.pop("__name__"), message))
        return self.takes_more

    def hear(self, name: str, /, **arguments: object) -> None:
        self.talk.feed(g.encode(name, arguments), self.now_ns)

    def beat(self, **more: object) -> None:
        """As our agent does it."""
        self.talk.feed(g.encode("heartbeat", {**OURS, **more}), self.now_ns)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * NS_PER_S)
        self.talk.expire(self.now_ns)

    def call(self, message: str, arguments: dict[str, object] | None = None) -> list[CallResult]:
        results: list[CallResult] = []
        self.talk.call(message, arguments or {}, self.now_ns, 10.0, results.append)
        return results

    @property
    def facts(self) -> GuestFacts:
        facts = self.talk.facts()
        assert facts is not None
        return facts


def code(results: list[CallResult]) -> str:
    """What became of a call: "ok", the code of its failure, or "open"."""
    if not results:
        return "open"
    (result,) = results
    return result.code if isinstance(result, CallFailed) else "ok"

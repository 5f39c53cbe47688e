"""The actors `agents` and `vms`: they stand in a silo that others fill, and start an actor there when told to.

A command for an actor that does not exist yet needs somebody to receive it; that is all they do.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from actors.host_agent import HostAgent, epoch_above
from actors.vm import Vm
from olvm.model import messages as m
from olvm.model.records import AgentRecord


class AgentRoster:
    address = "agents"

    def __init__(self, hosts: set[str]) -> None:
        self.hosts = hosts

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.StartAgent():
                if message.host not in self.hosts:
                    self.hosts.add(message.host)
                    turn.spawn(HostAgent(_new_record(message), {}))
                turn.send(f"agent/{message.host}@{turn.silo}", message)
            case m.RestartAgent() if message.host in self.hosts:
                turn.send(f"agent/{message.host}@{turn.silo}", message)
            case m.StopAgent():
                self.hosts.discard(message.host)
            case m.Recovered() | m.RestartAgent():
                pass
            case _:
                raise AssertionError(f"agents cannot handle {type(message).__name__}")


def _new_record(order: m.StartAgent) -> AgentRecord:
    """Of an agent that the engine may know from a life whose journal is gone."""
    epoch = epoch_above(order.host_epoch_min)
    return AgentRecord(host=order.host, cluster=order.cluster, host_epoch=epoch)


class VmRoster:
    address = "vms"

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.RegisterVm():
                turn.spawn(Vm.new(message, turn.now_ns))
                turn.send(f"vm/{message.vm_id}@{turn.silo}", message)
            case m.Recovered():
                pass
            case _:
                raise AssertionError(f"vms cannot handle {type(message).__name__}")

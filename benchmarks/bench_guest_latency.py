"""How soon what a guest's agent sends stands in SQL: agent, channel, host's agent, engine and history, all of them.

`socket`: the agent's one file as processes of this machine, each with a host name of its own and a terminal for its
port. The host is a simulated one, but its guests are heard by the reader of real hosts, over sockets. `guest`: in real
guests, on a libvirt host of the laboratory. A guest gets a new name and is asked for its facts; the time runs from the
agent's write until `vms`, and until history's `guest_facts`, answer with that name. In a guest the write is stamped by
the guest's clock, which is compared with ours over QEMU's agent: `clock_error` is by how much that may be wrong.

Root and Linux; `guest` wants what tests/libvirt want. The local runtime, JSON lines.

python benchmarks/bench_guest_latency.py [--rigs socket,guest] [--rounds 20] [--guests 4]
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import pty
import random
import select
import socket
import subprocess
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import msgspec
from measuring import Teller, add_hosts, instant

import actors.hosts
import olvm
from actors.hypervisor_port import OpenHost
from actors.silo import Silo
from actors.simulated_hosts import SimulatedHosts
from guest_agent import protocol as g
from hypervisor_backends.guest_channels import GuestChannels
from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    CallGuest,
    CallResult,
    DomainEvent,
    Done,
    HypervisorBackend,
    HypervisorRequest,
    Listener,
)
from olvm.api.vms import Vm
from olvm.lab.guest import build_guest, build_guest_agent
from olvm.model.limits import GUEST_NEWS_PERIOD_S

MEMORY_BYTES = 192 * 1024**2
HEARD_S_MAX = 120.0
POLL_S = 0.002
CLOCK_ROUNDS = 30
QUERIES = {
    "vms": "select guest_hostname from vms where name = '{}'",
    "guest_facts": "select guest_host_name from guest_facts where vm_name = '{}'",
}
AGENT = "/olvm-guest-agent.pyz"  # where the laboratory's guest has it, and starts it again when it ends
# The agent itself, with a clock beside its one way out.
STAMPED = """
import os, runpy, sys, time
write = os.write
def stamped(fd, data):
    if b'"host-name"' in data:
        with open("/run/sent", "a") as sent:
            sent.write("%d %s\\n" % (time.time_ns(), os.uname().nodename))
    return write(fd, data)
os.write = stamped
sys.argv = ["/agent"]
runpy.run_path("/agent", run_name="__main__")
"""


class Guest(Protocol):
    def rename(self, name: str) -> None: ...

    def sent_ns(self, name: str) -> int:
        """When its agent sent that name, on this machine's clock of `time.time_ns`."""
        ...


# ---------------------------------------------------------------- agents on sockets


def relay(terminal: int, path: str, stamps: Connection) -> None:
    """Between an agent's terminal and whoever is connected to the socket; says when a host name went by."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    stamps.send(("listens", 0))
    host: socket.socket | None = None
    decoder = g.LineDecoder()
    while True:
        ready, _, _ = select.select([terminal, listening, *([host] if host else [])], [], [])
        if terminal in ready:
            data, at_ns = os.read(terminal, 65536), time.time_ns()
            if host is not None:
                with suppress(OSError):
                    host.sendall(data)
            for name, arguments in decoder.feed(data):
                if name == "host-name":
                    stamps.send((arguments["name"], at_ns))
        if listening in ready:
            host, _ = listening.accept()
        elif host is not None and host in ready:
            try:
                asked = host.recv(4096)
            except OSError:
                asked = b""
            if asked:
                os.write(terminal, asked)
            else:
                host = None


class AgentOnSocket:
    def __init__(self, program: Path, path: Path) -> None:
        ours, theirs = pty.openpty()
        for end in (ours, theirs):
            tty.setraw(end)
        # A /run of its own too: its desk for logons is a socket there.
        script = 'mount -t tmpfs tmpfs /run && exec python3 -I -S "$0" agent "$1"'
        command = ["unshare", "--uts", "--mount", "sh", "-c", script, str(program), os.ttyname(theirs)]
        self._agent = subprocess.Popen(command)
        self._stamps, told = multiprocessing.Pipe()
        self._relay = multiprocessing.get_context("fork").Process(
            target=relay, args=(ours, str(path), told), daemon=True
        )
        self._relay.start()
        self._stamps.recv()

    def rename(self, name: str) -> None:
        command = ["nsenter", "--uts", "--target", str(self._agent.pid), "hostname", name]
        subprocess.run(command, check=True)

    def sent_ns(self, name: str) -> int:
        while True:
            said, at_ns = self._stamps.recv()
            if said == name:
                return int(at_ns)

    def close(self) -> None:
        self._agent.terminate()
        self._agent.wait(10)
        self._relay.terminate()
        self._relay.join(10)


class HeardHypervisor:
    """A simulated hypervisor, whose guests are heard on sockets: `paths` has one for each machine's name."""

    def __init__(self, inner: HypervisorBackend, silo: Silo, paths: dict[str, str]) -> None:
        self._inner = inner
        self._silo = silo
        self._paths = paths
        self._listener: Listener | None = None
        self._channels = GuestChannels("bench", lambda _: None, self._on_word, silo.now_ns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_listener(self, listener: Listener | None) -> None:
        self._listener = listener
        self._inner.set_listener(None if listener is None else self._on_event)

    def _on_event(self, event: DomainEvent) -> None:
        if event.kind == "started":
            name = next(one.name for one in self._inner.statistics()[1] if one.vm_id == event.vm_id)
            self._channels.open(event.vm_id, self._paths[name])
        if event.kind != "guest_event" and self._listener is not None:  # the simulated guest has no say
            self._listener(event)

    def _on_word(self, vm_id: str, word: str) -> None:
        self._silo.run_soon(lambda: self._tell(vm_id, word))

    def _tell(self, vm_id: str, word: str) -> None:
        for state in self._inner.domains():
            if state.vm_id == vm_id and self._listener is not None:
                at_ns = self._silo.now_ns()
                self._listener(
                    DomainEvent(vm_id=vm_id, epoch=state.epoch, kind="guest_event", at_ns=at_ns, message=word)
                )

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        def answered(result: CallResult) -> None:
            self._silo.run_soon(lambda: done(result))

        if isinstance(request, CallGuest):
            said = request.vm_id, request.message, request.arguments
            self._channels.call(*said, request.timeout_s, answered)
        else:
            self._inner.submit(request, done)

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        host, domains = self._inner.statistics()
        heard = self._channels.facts
        return host, [msgspec.structs.replace(one, guest=heard(one.vm_id)) for one in domains]

    def close(self) -> None:
        self._channels.close()
        self._inner.close()


@contextmanager
def guests_on_sockets(directory: Path, names: list[str]) -> Iterator[tuple[list[Vm], list[Guest]]]:
    paths = {name: str(directory / name) for name in names}

    class HeardHosts(SimulatedHosts):
        def open(self, request: OpenHost) -> HypervisorBackend:
            return HeardHypervisor(super().open(request), self._silo, paths)

    program = build_guest_agent(directory)
    agents = [AgentOnSocket(program, Path(path)) for path in paths.values()]
    actors.hosts.SimulatedHosts = HeardHosts  # type: ignore[misc]
    try:
        with olvm.DataCenter.open(directory / "dc", runtime="local", simulated=instant()) as dc:
            add_hosts(dc, "bench", count=1, vm_count=len(names))
            yield [started(dc, name, memory="1GiB") for name in names], list(agents)
    finally:
        actors.hosts.SimulatedHosts = SimulatedHosts  # type: ignore[misc]
        for agent in agents:
            agent.close()


# ---------------------------------------------------------------- agents in guests


class AgentInGuest:
    """Asked through QEMU's own agent, a way beside the one that is measured."""

    def __init__(self, uri: str, name: str) -> None:
        import libvirt

        self._connection = libvirt.open(uri)
        self._domain = self._connection.lookupByName(name)
        program = base64.b64encode(STAMPED.encode()).decode()
        self._run(f"mv {AGENT} /agent; echo {program} | base64 -d > {AGENT}; killall python3")
        self._ahead_ns, self.clock_error_ns = 0, 0
        self.set_clock()

    def _ask(self, name: str, **arguments: object) -> Any:
        import libvirt_qemu

        asked = json.dumps({"execute": name, **({"arguments": arguments} if arguments else {})})
        return json.loads(libvirt_qemu.qemuAgentCommand(self._domain, asked, 10, 0))["return"]

    def _run(self, script: str) -> str:
        command = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self._ask("guest-exec", **command)["pid"]
        while not (status := self._ask("guest-exec-status", pid=pid))["exited"]:
            time.sleep(0.02)
        return base64.b64decode(status.get("out-data", "")).decode()

    def set_clock(self) -> None:
        """How far the guest's clock is ahead, by the shortest of many questions, half of which it may be wrong."""
        shortest_ns = None
        for _ in range(CLOCK_ROUNDS):
            asked_ns = time.time_ns()
            said_ns = self._ask("guest-get-time")
            took_ns = time.time_ns() - asked_ns
            if shortest_ns is None or took_ns < shortest_ns:
                shortest_ns = took_ns
                self._ahead_ns = said_ns - asked_ns - took_ns // 2
        self.clock_error_ns = (shortest_ns or 0) // 2

    def rename(self, name: str) -> None:
        self._run(f"hostname {name}")

    def sent_ns(self, name: str) -> int:
        self.set_clock()
        lines = [line.split() for line in self._run("cat /run/sent").splitlines()]
        return next(int(at_ns) for at_ns, said in lines if said == name) - self._ahead_ns

    def close(self) -> None:
        self._connection.close()


@contextmanager
def guests_of_the_laboratory(directory: Path, names: list[str]) -> Iterator[tuple[list[Vm], list[Guest]]]:
    from olvm.lab.hosts import Lab
    from olvm.model.hardware import Hardware

    image = build_guest(Path.home() / ".cache" / "olvm")
    hardware = Hardware(kernel=str(image.kernel), initrd=str(image.initrd), cmdline=image.cmdline, vnc=False)
    with (
        Lab("glat", directory / "lab", hosts=1, subnet="10.99.93") as lab,
        olvm.DataCenter.open(directory / "dc", backend="libvirt", runtime="local") as dc,
    ):
        host = lab.host("h1")
        cluster = dc.clusters.create("bench")
        cluster.hosts.add(host.name, backend="libvirt", backend_settings=host.settings)
        vms = [started(dc, name, memory=MEMORY_BYTES, hardware=hardware) for name in names]
        guests: list[Guest] = []
        for name in names:
            wait_for(lambda name=name: bool(answer(dc, "vms", name)))
            guests.append(AgentInGuest(host.uri, name))
        yield vms, guests


# ---------------------------------------------------------------- what is measured


def started(dc: olvm.DataCenter, name: str, **of: Any) -> Vm:
    vm = dc.vms.create(name, cluster="bench", vcpus=1, **of)
    vm.start().wait(HEARD_S_MAX)
    return vm


def answer(dc: olvm.DataCenter, table: str, name: str) -> object:
    rows = list(dc.sql(QUERIES[table].format(name)))
    return rows[0][0] if rows else None


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + HEARD_S_MAX
    while not holds():
        assert time.monotonic() < end_s, "a guest is not heard"
        time.sleep(0.1)


def heard_ns(vm: Vm, word: str) -> dict[str, int]:
    """By table, when it answered with the guest's new name; what a question takes is in it."""
    found: dict[str, int] = {}
    end_s = time.monotonic() + HEARD_S_MAX
    while len(found) < len(QUERIES):
        assert time.monotonic() < end_s, f"{vm.name} is not heard as {word}"
        for table in QUERIES.keys() - found.keys():
            if answer(vm._dc, table, vm.name) == word:
                found[table] = time.time_ns()
        time.sleep(POLL_S)
    return found


def measure(rig: str, vms: list[Vm], guests: list[Guest], rounds: int, teller: Teller) -> None:
    latencies_s: dict[str, list[float]] = {table: [] for table in QUERIES}
    for number in range(rounds):
        # What a guest tells is news once in fifteen seconds, when it goes on so; and each time at another moment.
        time.sleep((GUEST_NEWS_PERIOD_S + random.random()) / len(vms))
        vm, guest, word = vms[number % len(vms)], guests[number % len(vms)], f"renamed-{number}"
        guest.rename(word)
        vm.task("refresh_guest")
        found = heard_ns(vm, word)
        sent_ns = guest.sent_ns(word)
        for table, at_ns in found.items():
            latencies_s[table].append((at_ns - sent_ns) / 1e9)
    for table, seconds in latencies_s.items():
        teller.tell_percentiles(f"{rig}_to_{table}", seconds)
        teller.tell(f"{rig}_to_{table}_max", max(seconds) * 1e3, "ms")
    errors_ns = [guest.clock_error_ns for guest in guests if isinstance(guest, AgentInGuest)]
    if errors_ns:
        teller.tell(f"{rig}_clock_error", max(errors_ns) / 1e6, "ms")


RIGS = {"socket": guests_on_sockets, "guest": guests_of_the_laboratory}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rigs", default="socket,guest")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--guests", type=int, default=4)
    arguments = parser.parse_args()
    teller = Teller("guest_latency", {"rounds": arguments.rounds, "guests": arguments.guests})
    for rig in arguments.rigs.split(","):
        names = [f"guest-{number}" for number in range(arguments.guests)]
        with (
            tempfile.TemporaryDirectory(prefix="olvm-bench-", dir="/var/tmp") as directory,
            RIGS[rig](Path(directory), names) as (vms, guests),
        ):
            measure(rig, vms, guests, arguments.rounds, teller)


if __name__ == "__main__":
    main()

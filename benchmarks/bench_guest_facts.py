"""One reader with the agents of many guests: what it costs, how much it takes, and how soon a fact is there.

The guests are sockets of another process, which speaks for all of them; nothing of libvirt or QEMU is in it. `idle`:
each guest beats every five seconds, as a real one does. `busy`: five times a second. `flood`: as often as it is heard,
up to what one guest may say. A fact's way is measured from the guest's write to the event that tells of it, alone and
beside a tenth of the guests flooding. JSON lines.

python benchmarks/bench_guest_facts.py [--guests 1000] [--seconds 10]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from measuring import Teller

from guest_agent import protocol as g
from hypervisor_backends.guest_channels import GuestChannels
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import GUEST_FACTS

APPLICATIONS = [f"a-package-of-a-distribution-{number}-1.0.{number}" for number in range(400)]
NAME_GAP_S = 0.6  # news of one guest go together when they come faster
NAMES_EACH = 6
START_S_MAX = 60.0


# ---------------------------------------------------------------- the guests, in a process of their own


class Guests:
    def __init__(self, directory: Path, count: int) -> None:
        self._listening = []
        for number in range(count):
            line = socket.socket(socket.AF_UNIX)
            line.bind(str(directory / str(number)))
            line.listen()
            self._listening.append(line)
        self.lines: list[socket.socket] = []
        self._beats = [0] * count

    def accept(self) -> None:
        for listening in self._listening:
            line, _ = listening.accept()
            line.setblocking(False)
            self.lines.append(line)

    def beat(self, number: int) -> None:
        """Its uptime counts the heartbeats that it has written."""
        memory = {"mem_total": 2_048_000, "mem_free": 1_000_000, "mem_unused": 900_000, "swap_total": 0}
        said = {"apiVersion": 3, "olvm": 1, "free-ram": "976", "memory-stat": memory}
        if self._write(number, g.encode("heartbeat", {**said, "uptime": self._beats[number] + 1})):
            self._beats[number] += 1

    def _write(self, number: int, line: bytes) -> bool:
        """Whole or not at all: a stream socket of this kind takes a line this short in one piece, or refuses it."""
        try:
            return self.lines[number].send(line) == len(line)
        except BlockingIOError:
            return False

    def say_facts(self) -> None:
        for number in range(len(self.lines)):
            self.beat(number)
            self._write(number, g.encode("applications", {"applications": APPLICATIONS}))

    def beat_for(self, seconds: float, each_per_s: float) -> None:
        """Spread over the time, as guests that know nothing of each other."""
        count = len(self.lines)
        began_s, done = time.monotonic(), 0
        while (passed_s := time.monotonic() - began_s) < seconds:
            due = int(passed_s * each_per_s * count)
            for number in range(done, min(due, done + count)):
                self.beat(number % count)
            done = min(due, done + count)
            time.sleep(0.001)

    def flood_for(self, seconds: float, share: float) -> None:
        count = int(len(self.lines) * share)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for number in range(count):
                self.beat(number)
            time.sleep(0.002)

    def say_names(self, floods: float) -> None:
        """Each name is the time at which it was said; the last guests say them, while the first may flood."""
        first = int(len(self.lines) * floods)
        for _ in range(NAMES_EACH):
            end_s = time.monotonic() + NAME_GAP_S
            for number in range(first, len(self.lines)):
                self._write(number, g.encode("host-name", {"name": str(time.monotonic_ns())}))
                if number % 50 == 0:
                    self.flood_for(0, floods)
                time.sleep(0.0002)
            self.flood_for(end_s - time.monotonic(), floods)


def run_guests(directory: str, count: int, orders: Connection) -> None:
    guests = Guests(Path(directory), count)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        name, arguments = order
        getattr(guests, name)(*arguments)
        orders.send("done")


# ---------------------------------------------------------------- the host


class Host:
    def __init__(self, orders: Connection) -> None:
        self._orders = orders
        self.latencies_s: list[float] = []
        self.up: set[str] = set()
        self.channels = GuestChannels("bench", self.up.add, self._on_event, time.time_ns)
        self._measures = threading.Event()

    def _on_event(self, vm_id: str, word: str) -> None:
        facts = self.channels.facts(vm_id)
        if word == GUEST_FACTS and facts is not None and facts.hostname and self._measures.is_set():
            self.latencies_s.append((time.monotonic_ns() - int(facts.hostname)) / 1e9)

    def order(self, name: str, *arguments: float) -> None:
        self._orders.send((name, arguments))
        self._orders.recv()

    def facts(self, count: int) -> list[GuestFacts]:
        found = [self.channels.facts(str(number)) for number in range(count)]
        return [one for one in found if one is not None]

    def beats(self, count: int) -> int:
        return sum(one.uptime_s for one in self.facts(count))

    def latency(self, floods: float) -> list[float]:
        self.latencies_s.clear()
        self._measures.set()
        self.order("say_names", floods)
        time.sleep(1)
        self._measures.clear()
        return list(self.latencies_s)


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + START_S_MAX
    while not holds():
        assert time.monotonic() < end_s, "the guests are not all heard"
        time.sleep(0.05)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(host: Host, count: int, teller: Teller, name: str, *order: str | float) -> None:
    beats, cpu_s, wall_s = host.beats(count), time.process_time(), time.monotonic()
    host.order(str(order[0]), *[float(one) for one in order[1:]])
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    heard = host.beats(count) - beats
    teller.tell(f"{name}_messages", heard / wall_s, "1/s")
    teller.tell(f"{name}_cpu", cpu_s / wall_s * 100, "% of a core")
    if heard:
        teller.tell(f"{name}_cpu_per_message", cpu_s / heard * 1e6, "us")


def measure(host: Host, directory: Path, count: int, seconds: float, teller: Teller) -> None:
    before_bytes = resident_bytes()
    for number in range(count):
        host.channels.open(str(number), str(directory / str(number)))
    host.order("accept")
    host.order("say_facts")
    wait_for(lambda: len(host.up) == count and all(one.applications for one in host.facts(count)))
    teller.tell("memory_per_guest", (resident_bytes() - before_bytes) / count / 1024, "KiB")
    time.sleep(1)  # what they said first is told
    teller.tell_percentiles("fact", host.latency(0.0))
    measured(host, count, teller, "idle", "beat_for", seconds, 0.2)
    measured(host, count, teller, "busy", "beat_for", seconds, 5.0)
    teller.tell_percentiles("fact_beside_floods", host.latency(0.1))
    measured(host, count, teller, "flood", "flood_for", seconds, 1.0)
    teller.tell(
        "flood_guests_held_back", sum(one.messages_delayed > 0 for one in host.facts(count)), "guests"
    )
    teller.tell("memory_per_guest_after", (resident_bytes() - before_bytes) / count / 1024, "KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    teller = Teller("guest_facts", {"guests": arguments.guests, "seconds": arguments.seconds})
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        process = multiprocessing.get_context("fork").Process(
            target=run_guests, args=(directory, arguments.guests, theirs), daemon=True
        )
        process.start()
        ours.recv()
        host = Host(ours)
        try:
            measure(host, Path(directory), arguments.guests, arguments.seconds, teller)
        finally:
            host.channels.close()
            ours.send(None)
            process.join(10)


if __name__ == "__main__":
    main()

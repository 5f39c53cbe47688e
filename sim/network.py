"""What happens to each thing that one node sends another: loss, delay, repetition, cuts, clogs.

Nodes are names: silos (`engine`, `host-3`), `storage`, `fence/H3`, `client`, and hosts (`H3`) for migrations.

Rules:
1. Never stronger than the weakest transport: a frame may be lost, late, repeated, or arrive after its sender died.
2. Each link has a stream of its own, keyed by (seed, link), and takes one draw for each frame whether a fault is on
   or not. So leaving a fault out changes nothing on any other link, and nothing of the others on this one.
3. A cut loses what is sent while it holds and what is on the way when it begins. A clog holds and releases in order.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import msgspec

from olvm.model.limits import NS_PER_S
from sim.clock import FOR_EVER_NS, Timeline
from sim.digest import Digest
from sim.plan import Knobs

Direction = Literal["both", "a_to_b", "b_to_a"]
Deliver: TypeAlias = Callable[["Link", Any], None]
# What a test or a sweep makes of one frame: None, nothing special; else one delay in ns for each copy that arrives.
Fate: TypeAlias = Callable[["Link", bytes], "tuple[int, ...] | None"]

CLIENT = "client"
HOP_NS = 500_000
RECENT_MAX = 16
_ODDS = 1 << 14  # one field of a draw


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What a link does to frames, in each 10,000; delays in microseconds."""

    loss_per_10k: int = 0
    duplicate_per_10k: int = 0
    late_duplicate_per_10k: int = 0
    tail_per_10k: int = 0
    latency_us: int = 0
    jitter_us: int = 0


QUIET = Noise()


def stream(seed: int, *key: object) -> random.Random:
    """The random stream of one purpose: independent of every other, and the same in every process."""
    text = "\x1f".join(map(str, (seed, *key))).encode()
    return random.Random(int.from_bytes(blake2b(text, digest_size=8).digest(), "big"))


class Link:
    """One direction between two nodes."""

    __slots__ = (
        "busy_until_ns",
        "clog_until_ns",
        "cut_until_ns",
        "deliver",
        "duplicate",
        "is_noisy",
        "is_ordered",
        "jitter_ns",
        "key",
        "last_due_ns",
        "late_duplicate",
        "latency_ns",
        "loss",
        "next_draw",
        "recent",
        "source",
        "tail",
        "to",
        "windows",
    )

    def __init__(self, seed: int, source: str, to: str, deliver: Deliver) -> None:
        self.source = source
        self.to = to
        self.key = f"{source}>{to}".encode()
        self.deliver = deliver
        draws = stream(seed, "link", source, to)
        self.next_draw: Callable[[int], int] = draws.getrandbits
        # Half of the links keep their order under jitter; all keep it without.
        self.is_ordered = bool(draws.getrandbits(1))
        self.cut_until_ns = 0
        self.clog_until_ns = 0
        self.last_due_ns = 0
        self.busy_until_ns = 0  # until then something is on the way
        # The newest frames, for reports that come again; and the noises that hold now, by their number.
        self.recent: deque[bytes] = deque(maxlen=RECENT_MAX)
        self.windows: dict[int, Noise] = {}
        self.tune(QUIET)

    def tune(self, base: Noise) -> None:
        """The worst of `base` and of the noises that hold."""
        # A client's connection is a stream: it breaks or is slow, and repeats and reorders nothing.
        noises = [QUIET] if CLIENT in (self.source, self.to) else [base, *self.windows.values()]

        def odds(name: str) -> int:
            worst: int = max(getattr(noise, name) for noise in noises)
            return worst * _ODDS // 10_000

        self.loss = odds("loss_per_10k")
        self.duplicate = self.loss + odds("duplicate_per_10k")
        self.late_duplicate = self.duplicate + odds("late_duplicate_per_10k")
        self.tail = self.late_duplicate + odds("tail_per_10k")
        self.is_noisy = self.tail > 0
        self.latency_ns = HOP_NS + 1_000 * max(noise.latency_us for noise in noises)
        self.jitter_ns = 1_000 * max(noise.jitter_us for noise in noises)


class Network:
    """All links; each is made when it is first used or cut."""

    def __init__(self, timeline: Timeline, seed: int, digest: Digest) -> None:
        self.seed = seed
        self.fate: Fate | None = None
        self.links: dict[tuple[str, str], Link] = {}
        self.counts: Counter[str] = Counter()
        self.frame_count = 0
        self._timeline = timeline
        self._digest = digest
        self._base = QUIET
        self._window_count = 0

    # ------------------------------------------------------------------ sending

    def link(self, source: str, to: str, deliver: Deliver) -> Link:
        """The link between two nodes; `deliver` is who takes what arrives on it."""
        link = self.links.get((source, to))
        if link is None:
            link = self.links[source, to] = Link(self.seed, source, to, deliver)
            link.tune(self._base)
        elif link.deliver is nobody:  # it was cut before it was first used
            link.deliver = deliver
        return link

    def send(self, link: Link, payload: bytes, delay_ns: int = 0) -> None:
        """One frame, `delay_ns` from now; bytes, so that the digest knows what it was."""
        self.frame_count += 1
        now_ns = self._timeline.time_ns
        draw = link.next_draw(48)
        if link.cut_until_ns > now_ns:
            self.counts["cut"] += 1
            return
        link.recent.append(payload)
        if self.fate is not None:
            delays = self.fate(link, payload)
            if delays is not None:
                for extra_ns in delays:
                    self._put(link, payload, now_ns + delay_ns + link.latency_ns + extra_ns)
                return
        due_ns = now_ns + delay_ns + link.latency_ns
        if link.jitter_ns:
            due_ns += ((draw & 0xFFFF) * link.jitter_ns) >> 16
        if link.is_noisy:
            self._send_noisy(link, payload, due_ns, draw)
            return
        due_ns = max(due_ns, link.clog_until_ns)
        if (link.is_ordered or not link.jitter_ns) and due_ns < link.last_due_ns:
            due_ns = link.last_due_ns
        link.last_due_ns = link.busy_until_ns = due_ns
        self._timeline.put(due_ns, self._arrive, link, payload)

    def _send_noisy(self, link: Link, payload: bytes, due_ns: int, draw: int) -> None:
        odds, share = (draw >> 16) & (_ODDS - 1), draw >> 30  # share: 18 bits
        if odds < link.loss:
            self.counts["lost"] += 1
            return
        if odds < link.late_duplicate:
            is_late = odds >= link.duplicate
            late_s = 120 if is_late else 1
            self.counts["late_duplicate" if is_late else "repeated"] += 1
            self._put(link, payload, due_ns + ((share * late_s * NS_PER_S) >> 18))
        elif odds < link.tail:
            # Nearly always a little, rarely by seconds; it does not hold up what follows.
            self.counts["late"] += 1
            self._put(link, payload, due_ns + ((share**4 * 8 * NS_PER_S) >> 72) + 20_000_000)
            return
        link.last_due_ns = max(due_ns, link.last_due_ns)
        self._put(link, payload, due_ns)

    def _put(self, link: Link, payload: bytes, due_ns: int) -> None:
        due_ns = max(due_ns, link.clog_until_ns)
        link.busy_until_ns = max(link.busy_until_ns, due_ns)
        self._timeline.put(due_ns, self._arrive, link, payload)

    def _arrive(self, link: Link, payload: bytes) -> None:
        now_ns = self._timeline.time_ns
        if link.cut_until_ns > now_ns:
            self.counts["cut"] += 1
            return
        self._digest.note(now_ns, link.key, payload)
        link.deliver(link, payload)

    def is_cut(self, source: str, to: str) -> bool:
        link = self.links.get((source, to))
        return link is not None and link.cut_until_ns > self._timeline.time_ns

    # ------------------------------------------------------------------ faults

    def _directions(self, a: str, b: str, direction: Direction) -> list[Link]:
        pairs = {"both": [(a, b), (b, a)], "a_to_b": [(a, b)], "b_to_a": [(b, a)]}[direction]
        return [self.link(source, to, nobody) for source, to in pairs]

    def cut(self, a: str, b: str, direction: Direction = "both", seconds: float | None = None) -> None:
        """Nothing passes for so long; None: until `heal`."""
        until_ns = self._until(seconds)
        for link in self._directions(a, b, direction):
            link.cut_until_ns = max(link.cut_until_ns, until_ns)

    def clog(self, a: str, b: str, seconds: float, direction: Direction = "both") -> None:
        until_ns = self._until(seconds)
        for link in self._directions(a, b, direction):
            link.clog_until_ns = max(link.clog_until_ns, until_ns)

    def noise(self, a: str, b: str, noise: Noise, seconds: float, direction: Direction = "both") -> None:
        """A window in which a link is at least as bad as `noise`."""
        self._window_count += 1
        number = self._window_count
        links = self._directions(a, b, direction)
        for link in links:
            link.windows[number] = noise
            link.tune(self._base)
        self._timeline.put(self._until(seconds), self._end_noise, links, number)

    def _end_noise(self, links: list[Link], number: int) -> None:
        for link in links:
            if link.windows.pop(number, None) is not None:
                link.tune(self._base)

    def rewind(self, source: str, to: str, count: int = RECENT_MAX) -> None:
        """The newest frames of a link arrive once more, in their order, one each 10 ms."""
        link = self.links.get((source, to))
        if link is None:
            return
        for index, payload in enumerate(list(link.recent)[-count:]):
            self._put(link, payload, self._timeline.time_ns + HOP_NS + index * 10_000_000)

    def tune(self, knobs: Knobs) -> None:
        """From now on every link is as the knobs say."""
        self._set_base(
            Noise(
                loss_per_10k=knobs.loss_per_10k,
                duplicate_per_10k=knobs.duplicate_per_10k,
                late_duplicate_per_10k=knobs.late_duplicate_per_10k,
                tail_per_10k=knobs.tail_per_10k,
                latency_us=knobs.latency_us,
                jitter_us=knobs.jitter_us,
            )
        )

    def heal(self) -> None:
        """End every cut and clog and noise, and lose nothing more."""
        for link in self.links.values():
            link.cut_until_ns = link.clog_until_ns = 0
            link.windows.clear()
        self._set_base(QUIET)

    def _set_base(self, base: Noise) -> None:
        self._base = base
        for link in self.links.values():
            link.tune(base)

    def _until(self, seconds: float | None) -> int:
        return FOR_EVER_NS if seconds is None else self._timeline.time_ns + int(seconds * NS_PER_S)


def nobody(link: Link, payload: Any) -> None:
    """Stands where a link was cut before anything was sent on it."""
    raise AssertionError(f"nobody takes what arrives on {link.key.decode()}: {payload!r}")

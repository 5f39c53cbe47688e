"""What a guest might say, for Hypothesis: any JSON, messages with absurd values, and bytes."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from guest_agent import protocol as g

ABSURD = st.sampled_from(
    [
        *(-1, 2**63, -(2**63), 10**40, 1e308, -0.0, float("nan"), float("inf"), True, None),
        *("", "\x00", "\ud800", "\x1b]0;x\x07", "\u2028", "1" * 30, "-1", "²", "٣", "x" * 5000, "fe80::1%x"),
        *([], {}, [[]], [{}], {"": ""}, ["a"] * 300, [None] * 300, [[["a"]]]),
    ]
)
JSON = st.recursive(
    ABSURD | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
# Every name of a field in the protocol, at any depth.
FIELDS = (
    *("name", "list", "count", "zone", "offset", "disks", "mapping", "interfaces", "applications"),
    *("apiVersion", "memory-stat", "olvm", "uptime", "bootId", "fqdn", "users", "reply_id", "ok", "reason"),
    *("version", "user", "free-ram", "distribution", "kernel", "type", "mem_total", "path", "total", "used"),
    *("fs", "hw", "inet", "inet6", "id", "names", "image", "status", "command"),
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
MEMBERS = OBJECTS | st.lists(OBJECTS, max_size=3) | JSON
NAMES = st.sampled_from(sorted(g.FROM_GUEST)) | st.text(max_size=8)


def _line(name: str, fields: dict[str, object]) -> bytes:
    return json.dumps({**fields, "__name__": name}).encode() + b"\n"


MESSAGES = st.builds(_line, NAMES, st.dictionaries(st.sampled_from(FIELDS), MEMBERS, max_size=6))
NO_MESSAGES = (
    st.binary(max_size=200)
    | st.builds(lambda value: json.dumps(value).encode() + b"\n", JSON)
    | st.sampled_from([b"\n", b"\r\n", b"{}\n", b"[" * 3000 + b"\n", b"9" * 5000 + b"\n", b"\xff\xfe\n"])
)
LINES = st.lists(MESSAGES | NO_MESSAGES, max_size=12)

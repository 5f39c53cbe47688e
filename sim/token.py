"""One word that is a whole plan: what a failure prints and `olvm sim replay` takes.

The plan is carried whole (`p-…`, compressed), so that a later release, which draws other plans from the same seeds,
replays it. It begins with a checksum, so that a token that was cut off by a terminal is refused.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from olvm.model.errors import BadInput
from sim.plan import Plan


def encode_plan(plan: Plan) -> str:
    data = zlib.compress(msgspec.msgpack.encode(plan), 9)
    check = zlib.crc32(data).to_bytes(4, "big")
    return "p-" + base64.urlsafe_b64encode(check + data).decode().rstrip("=")


def decode_plan(token: str) -> Plan:
    """The plan, or `BadInput` that says what is wrong with the token."""
    if not token.startswith("p-"):
        raise BadInput(f"{token[:20]} is no token of a plan: it begins with p-")
    try:
        raw = base64.urlsafe_b64decode(token[2:] + "=" * (-(len(token) - 2) % 4))
    except (ValueError, binascii.Error) as error:
        raise BadInput(f"token {token[:20]}… is damaged or cut off ({error}); copy it whole") from error
    data = raw[4:]
    if len(raw) < 5 or zlib.crc32(data).to_bytes(4, "big") != raw[:4]:
        raise BadInput(f"token {token[:20]}… is damaged or cut off; copy it whole")
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=Plan)
    except (zlib.error, msgspec.DecodeError) as error:
        raise BadInput(f"token {token[:20]}… is of another release: {error}") from error

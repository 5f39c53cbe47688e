"""The bytes between silos: envelopes, and frames that carry many of them.

An address is `<kind>/<name>[@<silo>]`; without a silo it is the engine's. Routing reads nothing but the address.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from olvm.model.messages import AnyMessage

ENGINE_SILO = "engine"
TELEMETRY_SILO = "telemetry"


class Envelope(NamedTuple):
    to: str
    sender: str
    message_id: str
    cause_id: str
    message: AnyMessage


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One hop between two silos.

    `durable[i]` is message number `first_seq + i` of the ordered channel from `source` to the receiver; the
    receiver takes only the next number it expects. `base_seq` is the lowest number that is not acknowledged: where a
    receiver that has never met this journal begins. `acked_seq` says how far the sender of this frame has
    committed the receiver's own channel, and `acked_id` for which journal of the receiver that holds.
    """

    source: str
    source_id: str
    base_seq: int
    first_seq: int
    durable: list[bytes]
    volatile: list[bytes]
    acked_seq: int
    acked_id: str


_ENVELOPE = msgspec.msgpack.Decoder(tuple[str, str, str, str, AnyMessage])
_FRAME = msgspec.msgpack.Decoder(Frame)
_ENCODER = msgspec.msgpack.Encoder()

encode = _ENCODER.encode


def decode_envelope(data: bytes) -> Envelope:
    # Past the generated constructor, which costs as much as the decoding.
    return tuple.__new__(Envelope, _ENVELOPE.decode(data))


def decode_frame(data: bytes) -> Frame:
    return _FRAME.decode(data)


def silo_of(address: str) -> str:
    """The silo that hosts an address."""
    at = address.find("@")
    return ENGINE_SILO if at < 0 else address[at + 1 :] or ENGINE_SILO


def local_name(address: str) -> str:
    at = address.find("@")
    return address if at < 0 else address[:at]


def at_silo(address: str, silo: str) -> str:
    """Complete a local address so that another silo can answer it."""
    return address if "@" in address or silo == ENGINE_SILO else f"{address}@{silo}"

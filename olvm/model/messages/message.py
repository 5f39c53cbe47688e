"""The base of all messages: frozen values, encoded as msgpack arrays with the class name as their tag.

A field may only be appended, with a default, so that an older silo's messages stay readable.
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages; the tag is the class name."""

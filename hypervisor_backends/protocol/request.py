"""What every request to a hypervisor has in common, so that each kind can stand in a module of its own.

Decides how requests are told apart on the wire: by the name of their class. Must not know any of them.
"""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Base of all requests; the tag is the class name."""


class DomainRequest(Request, frozen=True, kw_only=True):
    """Base of the requests about one domain."""

    vm_id: str

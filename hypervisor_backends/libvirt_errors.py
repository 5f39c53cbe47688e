"""What libvirt's errors mean: the one place where they become a `CallFailed`.

Decides the code, whether the call may be repeated, and whether its outcome is known. Must not know which call it was
beyond the words that are handed in. libvirt tells many things by one code and a text; the texts here are of libvirt 9
and QEMU 7.2, and one that nobody knows becomes `call_failed` with the text itself.
"""

from __future__ import annotations

import libvirt

from hypervisor_backends.protocol import CallFailed, FailureCode

# Constants that an older or newer binding lacks are left out of the tables.
_ABSENT = -1

_CODES: tuple[tuple[FailureCode, tuple[str, ...]], ...] = (
    ("unknown_domain", ("NO_DOMAIN",)),
    (
        "not_found",
        (
            "NO_STORAGE_POOL",
            "NO_STORAGE_VOL",
            "NO_NETWORK",
            "NO_DOMAIN_SNAPSHOT",
            "DEVICE_MISSING",
            "NO_DOMAIN_METADATA",
        ),
    ),
    ("exists", ("STORAGE_VOL_EXIST", "STORAGE_POOL_BUILT", "NETWORK_EXIST", "SNAPSHOT_EXIST")),
    ("duplicate_domain", ("DOM_EXIST",)),
    ("wrong_state", ("OPERATION_INVALID", "BLOCK_COPY_ACTIVE", "SNAPSHOT_REVERT_RISKY")),
    ("not_supported", ("NO_SUPPORT", "OPERATION_UNSUPPORTED", "ARGUMENT_UNSUPPORTED")),
    (
        "bad_request",
        (
            "XML_ERROR",
            "XML_DETAIL",
            "XML_INVALID_SCHEMA",
            "INVALID_ARG",
            "CONFIG_UNSUPPORTED",
            "MIGRATE_UNSAFE",
        ),
    ),
    ("lease_held", ("RESOURCE_BUSY",)),
    ("guest_silent", ("AGENT_UNRESPONSIVE", "AGENT_UNSYNCED", "AGENT_COMMAND_TIMEOUT")),
    ("guest_refused", ("AGENT_COMMAND_FAILED",)),
    ("migration_cancelled", ("OPERATION_ABORTED",)),
    ("monitor_hung", ("OPERATION_TIMEOUT",)),
    ("out_of_memory", ("NO_MEMORY",)),
)
CODE_BY_NUMBER: dict[int, FailureCode] = {
    getattr(libvirt, f"VIR_ERR_{name}", _ABSENT): code for code, names in _CODES for name in names
}
CODE_BY_NUMBER.pop(_ABSENT, None)

# Looked for before the number is: what QEMU says comes as an internal error or a failed operation.
_TEXTS: tuple[tuple[FailureCode, str], ...] = (
    # sanlock's; all else that keeps it from a lease comes with the same number, and is no other host's doing.
    ("lease_held", "lease is held by another host"),
    ("lease_held", "lease is owned by another host"),
    ("lease_held", "lease was acquired by another host"),
    ("call_failed", "failed to acquire lock: "),
    ("call_failed", "failed to open socket to sanlock daemon"),
    ("call_failed", "is not locked"),  # virtlockd's, of a lock that was to be given back
    ("lease_held", "resource busy"),  # virtlockd's
    ("lease_held", 'failed to get "write" lock'),
    ("lease_held", 'failed to get shared "write" lock'),
    ("no_space", "no space left on device"),
    ("out_of_memory", "cannot allocate memory"),
    ("out_of_memory", "cannot set up guest memory"),
    ("guest_silent", "guest agent is not responding"),
    ("guest_silent", "guest agent is not connected"),
    ("guest_silent", "qemu guest agent is not configured"),
    ("duplicate_domain", "is already defined with uuid"),
    ("duplicate_domain", "already exists with uuid"),
    ("duplicate_domain", "is already active as"),
    ("monitor_hung", "cannot acquire state change lock"),
    ("domain_ended", "domain is not running"),
    ("domain_ended", "domain is no longer running"),
)
# libvirtd's words for the end of a QEMU that it has just asked something. What was asked may have been done before.
_MONITOR_TEXTS = (
    "unable to read from monitor",
    "unable to write to monitor",
    "end of file from qemu monitor",
)
# What virtlockd refuses reaches us as an error of RPC too: libvirtd's with it, not ours with libvirtd.
_LOCK_DAEMON_TEXTS = ("lockspace for path", "virtlockd-sock")
_CONNECTION_TEXTS = (
    "client socket is closed",
    "cannot recv data",
    "cannot write data",
    "end of file while reading data",
    "keepalive timeout",
    "connection reset by peer",
    "broken pipe",
    "internal error: client socket",
    "connection was closed",
)
_CAN_RETRY: frozenset[FailureCode] = frozenset(
    {
        "monitor_hung",
        "out_of_memory",
        "lease_held",
        "guest_silent",
        "call_failed",
        "wrong_state",
        "in_use",
        "no_space",
    }
)


def text_of(error: libvirt.libvirtError) -> str:
    return str(error.get_error_message() or error)


def is_connection_lost(error: libvirt.libvirtError) -> bool:
    """The connection broke before the answer: what was asked may have been done."""
    text = text_of(error).lower()
    if is_monitor_lost(error) or any(part in text for part in _LOCK_DAEMON_TEXTS):
        return False  # QEMU's or virtlockd's, not ours
    return error.get_error_domain() == libvirt.VIR_FROM_RPC or any(part in text for part in _CONNECTION_TEXTS)


def is_monitor_lost(error: libvirt.libvirtError) -> bool:
    """The machine's QEMU ended before it answered libvirt."""
    return any(part in text_of(error).lower() for part in _MONITOR_TEXTS)


def is_machine_over(error: libvirt.libvirtError) -> bool:
    """The machine ended while libvirt was at it, or had ended before."""
    return is_monitor_lost(error) or code_of(error) in ("domain_ended", "unknown_domain")


def is_missing(error: libvirt.libvirtError) -> bool:
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def code_of(error: libvirt.libvirtError) -> FailureCode:
    text = text_of(error).lower()
    for code, part in _TEXTS:
        if part in text:
            return code
    return CODE_BY_NUMBER.get(error.get_error_code(), "call_failed")


def failure_of(error: libvirt.libvirtError, what: str) -> CallFailed:
    """`what` names the call and its object, as in "PauseDomain of domain web-1 (…) on host h1"."""
    text = text_of(error)
    if is_connection_lost(error):
        message = f"{what}: the connection to libvirt broke before its answer ({text}); list what is there"
        return CallFailed(code="call_failed", message=message, can_retry=True, outcome_known=False)
    if is_monitor_lost(error):
        message = f"{what}: its QEMU ended before it answered ({text}); it may have been done"
        return CallFailed(code="domain_ended", message=message, outcome_known=False)
    code = code_of(error)
    return CallFailed(code=code, message=f"{what}: {text}{_advice(code, text)}", can_retry=code in _CAN_RETRY)


def _advice(code: FailureCode, text: str) -> str:
    if code != "lease_held":
        for part, advice in _ADVICE_BY_TEXT:
            if part in text.lower():
                return advice
    return _ADVICE.get(code, "")


_ADVICE: dict[FailureCode, str] = {
    "lease_held": (
        "; another host has its lease or its disk open: end it there first (virtlockd may keep it for a QEMU that is "
        "gone: docs/leases.md)"
    ),
    "monitor_hung": "; its QEMU does not answer: look at it, or destroy it",
    "guest_silent": "; install or restart the agent in the guest",
    "not_supported": "; this libvirt or hypervisor cannot do it",
    "no_space": "; make room on the host's storage",
}

_SANLOCK_CHECK = "`olvm host check --lock-manager sanlock` there says how"
_ADVICE_BY_TEXT: tuple[tuple[str, str], ...] = (
    ("virtlockd-sock", "; virtlockd does not run on the host: start it there, and then restart libvirtd"),
    (
        "lockspace for path",
        "; virtlockd was started again and has forgotten it: restart libvirtd there, its machines go on",
    ),
    (
        "failed to acquire lock: no space left on device",
        f"; these are sanlock's words for a lockspace that the host has not joined: {_SANLOCK_CHECK} it does",
    ),
    (
        "failed to acquire lock: ",
        "; sanlock cannot read or write its lease: look at its file in the lockspace's directory, and at what "
        "`sanlock client log_dump` says",
    ),
    ("sanlock daemon", f"; sanlock does not run on the host: {_SANLOCK_CHECK} it is started"),
    (
        "no leases specified",
        "; set require_lease_for_disks = 0 in /etc/libvirt/qemu-sanlock.conf of the host",
    ),
)

"""What libvirt's errors mean, by number, by text, and by where they come from."""

from __future__ import annotations

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_errors import failure_of, is_connection_lost, is_machine_over, is_missing  # noqa: E402


def error_of(code: int, text: str, domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, domain, text, libvirt.VIR_ERR_ERROR, "", None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "text", "meant"),
    [
        ("NO_DOMAIN", "Domain not found", "unknown_domain"),
        ("OPERATION_INVALID", "Requested operation is not valid: domain is already running", "wrong_state"),
        ("OPERATION_INVALID", "Requested operation is not valid: domain is not running", "domain_ended"),
        ("RESOURCE_BUSY", "resource busy: Lockspace resource 'vm1' is locked", "lease_held"),
        ("RESOURCE_BUSY", "resource busy: Lockspace resource 'vm1' is not locked", "call_failed"),
        ("INTERNAL_ERROR", "Failed to acquire lock: Lease is held by another host", "lease_held"),
        (
            "RESOURCE_BUSY",
            "resource busy: Failed to acquire lock: Lease is held by another host",
            "lease_held",
        ),
        (
            "RESOURCE_BUSY",
            "resource busy: Failed to acquire lock: Lease was acquired by another host in other ballot",
            "lease_held",
        ),
        (
            "RESOURCE_BUSY",
            "resource busy: Failed to acquire lock: Lease does not exist on storage",
            "call_failed",
        ),
        ("SYSTEM_ERROR", "Failed to acquire lock: No space left on device", "call_failed"),
        ("SYSTEM_ERROR", "Failed to open socket to sanlock daemon: Connection refused", "call_failed"),
        ("INTERNAL_ERROR", 'Failed to get "write" lock. Is another process using the image?', "lease_held"),
        ("OPERATION_TIMEOUT", "cannot acquire state change lock (held by monitor=x)", "monitor_hung"),
        ("CONFIG_UNSUPPORTED", "unsupported configuration: no such machine", "bad_request"),
        ("NO_SUPPORT", "this function is not supported by the connection driver", "not_supported"),
        (
            "AGENT_UNRESPONSIVE",
            "Guest agent is not responding: QEMU guest agent is not connected",
            "guest_silent",
        ),
        ("SYSTEM_ERROR", "cannot extend file '/x': No space left on device", "no_space"),
        (
            "INTERNAL_ERROR",
            "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            "out_of_memory",
        ),
        ("OPERATION_FAILED", "operation failed: domain 'a' already exists with uuid 1", "duplicate_domain"),
        ("INTERNAL_ERROR", "something nobody has seen", "call_failed"),
    ],
)
def test_error_of_libvirt_has_its_code_and_a_known_outcome(code: str, text: str, meant: str) -> None:
    failure = failure_of(error_of(getattr(libvirt, f"VIR_ERR_{code}"), text), "PauseDomain of domain a")

    assert (failure.code, failure.outcome_known) == (meant, True)
    assert failure.message.startswith(f"PauseDomain of domain a: {text}")


@pytest.mark.parametrize(
    ("code", "domain", "text"),
    [
        ("INTERNAL_ERROR", "RPC", "internal error: client socket is closed"),
        ("SYSTEM_ERROR", "RPC", "Cannot recv data: Connection reset by peer"),
        ("INTERNAL_ERROR", "NONE", "internal error: connection closed due to keepalive timeout"),
        ("SYSTEM_ERROR", "NONE", "End of file while reading data: Input/output error"),
    ],
)
def test_error_of_a_broken_connection_leaves_the_outcome_unknown(code: str, domain: str, text: str) -> None:
    error = error_of(getattr(libvirt, f"VIR_ERR_{code}"), text, getattr(libvirt, f"VIR_FROM_{domain}"))
    failure = failure_of(error, "x")

    assert is_connection_lost(error)
    assert (failure.outcome_known, failure.can_retry) == (False, True)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Failed to acquire lock: No space left on device", "has not joined"),
        ("resource busy: Failed to acquire lock: Lease does not exist on storage", "log_dump"),
        ("Failed to open socket to sanlock daemon: Connection refused", "does not run on the host"),
        ("Read/write, exclusive access, disks were present, but no leases specified", "qemu-sanlock.conf"),
        ("resource busy: Failed to acquire lock: Lease is held by another host", "end it there first"),
    ],
)
def test_error_of_sanlock_says_what_to_do(text: str, advice: str) -> None:
    assert advice in failure_of(error_of(libvirt.VIR_ERR_INTERNAL_ERROR, text), "x").message


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("internal error: Lockspace for path /leases/area does not exist", "restart libvirtd there"),
        ("Failed to connect socket to '/run/libvirt/virtlockd-sock': Connection refused", "does not run"),
    ],
)
def test_error_of_virtlockd_is_no_broken_connection_and_says_what_to_do(text: str, advice: str) -> None:
    error = error_of(libvirt.VIR_ERR_INTERNAL_ERROR, text, libvirt.VIR_FROM_RPC)
    failure = failure_of(error, "StartDomain of domain a")

    assert not is_connection_lost(error)
    assert failure.outcome_known
    assert advice in failure.message


@pytest.mark.parametrize(
    "text",
    ["Unable to read from monitor: Connection reset by peer", "Unable to write to monitor: Broken pipe"],
)
def test_qemu_that_ended_in_the_middle_is_no_broken_connection(text: str) -> None:
    error = error_of(libvirt.VIR_ERR_SYSTEM_ERROR, text, libvirt.VIR_FROM_QEMU)
    failure = failure_of(error, "PauseDomain of domain a")

    assert not is_connection_lost(error)
    assert is_machine_over(error)
    assert (failure.code, failure.outcome_known) == ("domain_ended", False)
    assert "its QEMU ended" in failure.message


def test_error_without_a_number_is_reported_with_its_text() -> None:
    error = libvirt.libvirtError("made up")

    assert "made up" in failure_of(error, "x").message
    assert not is_missing(error)

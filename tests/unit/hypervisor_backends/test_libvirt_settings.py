"""Settings of a libvirt host: what is refused is refused by the name of the field."""

from __future__ import annotations

import pytest

from hypervisor_backends.libvirt_settings import LibvirtSettings, libvirt_settings_from, sanlock_escaped
from olvm.model.errors import BadInput


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "qemu:///system"}, "url"),
        ({"uri": 7}, "uri"),
        ({"uri": "system"}, "uri"),
        ({"accelerator": "xen"}, "accelerator"),
        ({"call_timeout_s": 0}, "call_timeout_s"),
        ({"call_timeout_s": float("nan")}, "call_timeout_s"),
        ({"statistics_period_s": -1.0}, "statistics_period_s"),
        ({"root": "proc/1/root"}, "root"),
        ({"lock_manager": "lockd"}, "lease_directory"),
        ({"lockspace": "a/b"}, "lockspace"),
        ({"lockspace": "a:b"}, "lockspace"),
        ({"lockspace": ".."}, "lockspace"),
        ({"lockspace": "x" * 48}, "lockspace"),
    ],
)
def test_settings_that_cannot_hold_are_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        libvirt_settings_from(fields)


def test_settings_left_out_have_defaults() -> None:
    assert libvirt_settings_from({}) == LibvirtSettings()


def test_migration_uri_names_the_host_and_paths_begin_at_its_root() -> None:
    settings = libvirt_settings_from({"root": "/proc/7/root", "call_timeout_s": 5})

    assert settings.migration_uri_of("h1") == "qemu+tcp://h1/system"
    assert settings.path_here("/run/x") == "/proc/7/root/run/x"
    assert LibvirtSettings().path_here("/run/x") == "/run/x"


def test_lock_managers_keep_their_files_apart() -> None:
    lockd, sanlock = (
        libvirt_settings_from({"lock_manager": name, "lease_directory": "/leases/"})
        for name in ("lockd", "sanlock")
    )

    assert lockd.lockspace_directory == "/leases/area"
    assert sanlock.sanlock_lockspace_path == "/leases/area-sanlock/lockspace"


def test_path_is_escaped_for_sanlock() -> None:
    assert sanlock_escaped("/a:b\\c") == "/a\\:b\\\\c"

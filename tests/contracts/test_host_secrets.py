"""Passwords of fence devices reach no journal: a data center of the local runtime, and every byte that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from olvm import DataCenter
from olvm.model.errors import BadInput
from tests.contracts.test_users import places_of

PASSWORD = "Qv3-fence-battery-Lm"


def test_password_of_a_fence_device_is_refused_and_kept_nowhere(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    with DataCenter.open(directory, runtime="local") as dc:
        prod = dc.clusters.create("prod")
        device = {"type": "ipmilan", "ip": "10.0.0.7", "username": "root", "password": PASSWORD}
        with pytest.raises(BadInput, match=r"host kvm01: .* password_file") as caught:
            prod.hosts.add(
                "kvm01", backend="libvirt", backend_settings={"uri": "x:///"}, fence_devices=[device]
            )
        assert PASSWORD not in str(caught.value)
        assert [host["name"] for host in dc.sql("select name from hosts")] == []
        assert not list(directory.glob("*kvm01*"))  # no silo was started for it
    assert places_of("prod", directory)  # what was accepted is there
    assert places_of(PASSWORD, directory) == []

"""What is sent to history and cannot be is not believed in silence: it ends in events and views."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors import history_notices
from actors.local_runtime import LocalRuntime
from actors.wire import Envelope
from olvm import DataCenter
from olvm.model import messages as m
from tests.contracts.fault_driver import INSTANT, poll
from tests.unit.history.building import vm_report, vm_sample


def test_lies_and_noise_are_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_notices, "LOOK_EACH_S", 0)
    with DataCenter.open(tmp_path, runtime="local", simulated=INSTANT, history_flush_period_s=0.1) as dc:
        runtime = dc._runtime
        assert isinstance(runtime, LocalRuntime)
        silo = runtime._nodes["telemetry"].runner.silo
        liar = vm_sample("vm-9", vm_name="liar", vm_status="x" * 2**20, memory_used_mb=2**90)
        for payload in (b"\xffnoise", b"n" * 2**20, vm_report(liar, host="kvm09")):
            silo.post(Envelope("telemetry", "agent/kvm09", "lies", "", m.Samples(payload, 1, 1)))
        codes = (
            "select code from history.events where code in ('values_clipped', 'reports_refused') order by 1"
        )
        poll(lambda: len(dc.sql(codes).rows()) == 2)
        ((message,),) = dc.sql("select message from history.events where code = 'values_clipped'").rows()
        assert "VM liar on host kvm09 told 1 values that cannot be (memory_used_mb)" in message
        stored = dc.sql(
            "select vm_name, memory_used_mb, length(vm_status) from history.statistics_vms_resources_usage_samples"
        )
        assert stored.rows() == [("liar", 2**33, 255)]
        assert dc.sql("select vm_name, clipped_values from history.untrusted_guests").rows() == [("liar", 1)]

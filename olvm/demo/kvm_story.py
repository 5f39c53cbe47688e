"""The demo on real KVM, from its first line to its last: three real machines on two hosts, moved, killed, brought back.

Each step says what it saw, with its time; a step that does not see it fails, and the exit code says so. Nothing that
it made is left afterwards.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from hypervisor_backends.domain_metadata import domain_uuid
from olvm.api.data_center import DataCenter
from olvm.demo.kvm_stage import Stage
from olvm.lab import requirements
from olvm.model.errors import BadInput
from olvm.model.hardware import Hardware, NicSpec

# Laboratory periods, as in the other demo: what is shown takes seconds in place of minutes.
SETTINGS: dict[str, Any] = {
    "heartbeat_period_s": 1.0,
    "report_period_s": 3.0,
    "sample_period_s": 2.0,
    "host_connecting_after_s": 3.0,
    "host_grace_s": 8.0,
    "lease_renew_period_s": 2.0,
    "lease_expiry_s": 8.0,
    "lease_takeover_after_s": 5.0,
    "fence_quiet_at_start_s": 1.0,
    "soft_fence_timeout_s": 5.0,
    "fence_poll_period_s": 1.0,
    "migration_monitor_period_s": 1.0,
    "migration_bandwidth_mib_s": 2000.0,
    "query_period_s": 2.0,
    "auto_recovery_period_s": 5.0,
}
VMS = ("web", "db", "mail")
MEMORY = "192MiB"
POLL_S = 0.2
SUBNET = "10.99.91"


def tell_kvm_story(*, directory: Path | None, cache: Path | None, keep: bool) -> int:
    """Needs root on a Debian with apt, or a machine that has everything.

    Args:
        directory: where the data center and the laboratory are; None makes a temporary one.
        cache: where the guest's image is kept between runs; None: in the user's cache directory.
        keep: leave the data center's files for plain DuckDB.
    """
    if os.geteuid() != 0:
        raise BadInput("the demo on KVM makes hosts out of namespaces, which only root may; run it as root")
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    began_s = time.monotonic()
    _install(console)
    # Short: sockets stand below it, and the path of one has room for 107 bytes.
    home = (
        Path(tempfile.mkdtemp(prefix="olvm-kvm-", dir="/var/tmp"))
        if directory is None
        else directory.absolute()
    )
    home.mkdir(parents=True, exist_ok=True)
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "olvm"
    story = KvmStory(console, home, cache)
    with _Interruptible():
        try:
            story.play()
        finally:
            if directory is None and not keep:
                shutil.rmtree(home, ignore_errors=True)
    console.print(f"\n{story.verdict()} {time.monotonic() - began_s:.0f} s in all; nothing is left behind.")
    return 1 if story.failed else 0


def _install(console: Console) -> None:
    missing = requirements.missing()
    if missing:
        console.print(f"installing what this machine lacks: {', '.join(missing)}")
        requirements.install()


class _Interruptible:
    """A termination ends the story as Ctrl-C does, so that its stage is cleared."""

    def __enter__(self) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        self._before = signal.signal(signal.SIGTERM, stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


class KvmStory:
    def __init__(self, console: Console, home: Path, cache: Path) -> None:
        self._console = console
        self._home = home
        self._cache = cache
        self._began_s = time.monotonic()
        self.failed: list[str] = []

    # ------------------------------------------------------------------ telling

    def say(self, text: str) -> None:
        self._console.print(f"  {time.monotonic() - self._began_s:6.1f} s  {text}")

    def check(self, holds: bool, text: str) -> None:
        self.say(f"{'ok ' if holds else '!! '} {text}")
        if not holds:
            self.failed.append(text)

    def verdict(self) -> str:
        return (
            f"{len(self.failed)} steps FAILED:\n  " + "\n  ".join(self.failed)
            if self.failed
            else "All is well."
        )

    # ------------------------------------------------------------------ the story

    def play(self) -> None:
        self._console.print("Two KVM hosts on this machine, and one olvm over them\n")
        with Stage("demo", self._home, subnet=SUBNET) as stage:
            self.say(f"two hosts are up: {', '.join(host.uri for host in stage.lab.hosts.values())}")
            stage.build_guest(self._cache)
            self.say("the guest is built of Debian's packages, with the guest agent in it")
            stage.start_head()
            stage.wait_for_nodes()
            self.say("Ray: a head, and a node on each host")
            with DataCenter.open(self._home / "dc", backend="libvirt", runtime="ray", **SETTINGS) as dc:
                self._run(dc, stage)

    def _run(self, dc: DataCenter, stage: Stage) -> None:
        self._add_hosts(dc, stage)
        self._boot(dc, stage)
        self._show(dc)
        self._migrate(dc)
        self._kill_qemu(dc, stage)
        self._kill_host(dc, stage)
        self._believe(dc)

    def _add_hosts(self, dc: DataCenter, stage: Stage) -> None:
        cluster = dc.clusters.create("kvm", policy="evenly_distributed")
        for host in stage.lab.hosts.values():
            cluster.hosts.add(
                host.name,
                backend_settings={**host.inner_settings, "statistics_period_s": SETTINGS["sample_period_s"]},
                fence_devices=[stage.lab.fence_device(host.name)],
            )
        rows = dc.sql("select name, status, cpus, cpu_model, silo from hosts order by name").rows()
        for row in rows:
            self.say("host {}: {}, {} CPUs, {}, agent in silo {}".format(*row))
        self.check(all(row[1] == "up" for row in rows), "both hosts are up, each agent on its own node")

    def _boot(self, dc: DataCenter, stage: Stage) -> None:
        assert stage.guest is not None
        hardware = Hardware(
            kernel=str(stage.guest.kernel),
            initrd=str(stage.guest.initrd),
            cmdline=stage.guest.cmdline,
            nics=(NicSpec(name="eth0", network="br0"),),
        )
        cluster = dc.clusters.get("kvm")
        for name in VMS:
            cluster.vms.create(name, vcpus=1, memory=MEMORY, high_availability=True, hardware=hardware)
        started = [dc.vms.get(name).start(timeout=120) for name in VMS]
        dc.wait_all(started, timeout=150)
        rows = dc.sql("select name, status, host from vms order by name").rows()
        self.check(
            all(row[1] == "up" for row in rows),
            "booted: " + ", ".join(f"{row[0]} on {row[2]}" for row in rows),
        )

    def _show(self, dc: DataCenter) -> None:
        facts = self._until(
            20,
            lambda: dc.sql(
                "select name, guest_hostname, guest_os, guest_agents, guest_applications from vms "
                "where guest_hostname <> '' order by name"
            ).rows(),
            lambda rows: len(rows) == len(VMS),
        )
        for row in facts:
            self.say("guest of {}: calls itself {}, runs {}, speaks through {}".format(*row[:4]))
        self.check(len(facts) == len(VMS), "every guest told who it is, through engine.duckdb")
        # The first sample of a machine has nothing before it to tell a rate from.
        samples = self._until(
            20,
            lambda: dc.sql(
                "select vm_name, round(max(cpu_usage_percent)::double, 1), max(memory_used_mb) "
                "from statistics_vms_resources_usage_samples group by vm_name "
                "having max(cpu_usage_percent) > 0 order by vm_name"
            ).rows(),
            lambda rows: len(rows) == len(VMS),
        )
        for row in samples:
            self.say("live: {} uses {} % CPU and {} MB".format(*row))
        self.check(len(samples) == len(VMS), "live statistics of every machine are in history.duckdb")

    def _migrate(self, dc: DataCenter) -> None:
        vm = dc.vms.get(VMS[0])
        before, uptime_s = vm.host, self._uptime_s(dc, VMS[0])
        boot_id = self._until(30, lambda: vm.record.guest_boot_id, bool)  # our agent may begin after QEMU's
        began_s = time.monotonic()
        vm.migrate().wait(timeout=90)
        took_s = time.monotonic() - began_s
        handed_over = dc.sql(
            "select details from events where code = 'vm_handed_over' order by seq desc limit 1"
        ).rows()
        self.check(
            vm.host not in (None, before),
            f"{vm.name} moved from {before} to {vm.host} in {took_s:.1f} s while it ran",
        )
        if handed_over:
            self.say(f"measured by its source: {handed_over[0][0]}")
        later_s = self._until(20, lambda: self._uptime_s(dc, VMS[0]), lambda now_s: now_s > uptime_s)
        self.check(later_s > uptime_s, f"its uptime went on: {uptime_s} s before, {later_s} s after")
        told = self._until(15, lambda: vm.record.guest_boot_id, bool)
        self.check(
            bool(boot_id) and told == boot_id, f"and its guest says that it is the same boot, {told[:8]}…"
        )

    def _uptime_s(self, dc: DataCenter, name: str) -> int:
        rows = dc.sql(
            "select uptime_seconds from statistics_vms_resources_usage_samples where vm_name = ? "
            "order by history_datetime desc limit 1",
            [name],
        ).rows()
        return int(rows[0][0]) if rows else 0

    def _kill_qemu(self, dc: DataCenter, stage: Stage) -> None:
        victim = dc.vms.get(VMS[1])
        assert victim.host is not None
        pid = stage.host(victim.host).qemu_pid(domain_uuid(victim.record.id))
        epoch = victim.record.epoch
        os.kill(pid, signal.SIGKILL)
        self.say(f"kill -9 of the QEMU of {victim.name} on {victim.host} (process {pid})")
        self._comes_back(dc, victim.name, epoch, 60, "after its QEMU was killed")

    def _kill_host(self, dc: DataCenter, stage: Stage) -> None:
        lost = dc.vms.get(VMS[0]).host
        assert lost is not None
        victims = {
            row[0]: row[1] for row in dc.sql("select name, epoch from vms where host = ?", [lost]).rows()
        }
        stage.host(lost).crash()
        self.say(f"host {lost} loses its power with {', '.join(sorted(victims))} on it")
        for name, epoch in sorted(victims.items()):
            self._comes_back(dc, name, epoch, 90, f"after {lost} was lost")
        codes = dc.sql("select distinct code from events where host = ? order by code", [lost]).rows()
        self.say(f"events of {lost}: {', '.join(row[0] for row in codes)}")

    def _believe(self, dc: DataCenter) -> None:
        """Nobody lied here: whatever history holds for impossible is a fault of ours."""
        doubted = dc.sql("select vm_name, host_name, column_name, most_told from untrusted_values").rows()
        for row in doubted:
            self.say("history doubts: machine {} on {} told {} as {}".format(*row))
        self.check(not doubted, "history had no value to doubt")

    def _comes_back(self, dc: DataCenter, name: str, epoch: int, within_s: float, when: str) -> None:
        began_s = time.monotonic()
        rows = self._until(
            within_s,
            lambda: dc.sql(
                "select status, host, status_reason from vms where name = ? and epoch > ? and status = 'up'",
                [name, epoch],
            ).rows(),
            bool,
        )
        took_s = time.monotonic() - began_s
        where = f"on {rows[0][1]} " if rows else ""
        self.check(bool(rows), f"{name} is up again {where}{took_s:.1f} s {when}")

    def _until(self, within_s: float, look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
        deadline_s = time.monotonic() + within_s
        while True:
            found = look()
            if holds(found) or time.monotonic() > deadline_s:
                return found
            time.sleep(POLL_S)

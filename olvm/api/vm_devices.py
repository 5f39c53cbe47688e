"""What a driver script may do to a machine that runs: devices, snapshots, its guest, its screen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from olvm.api.operation import Operation
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec, Hardware, NicSpec, hardware_from
from olvm.model.sizes import parse_size
from olvm.model.user_names import check_password, check_session

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

HardwareLike = Hardware | Mapping[str, Any]


def hardware_of(given: HardwareLike | None) -> Hardware | None:
    """Raises `BadInput`, which names the field."""
    if given is None or isinstance(given, Hardware):
        return given
    return hardware_from(dict(given))


def _arguments(spec: DiskSpec | NicSpec) -> m.Arguments:
    return dict(msgspec.to_builtins(spec))


class VmDevices:
    """Mixed into `Vm`. Calls return durable operations; a machine that is down has its devices when it starts."""

    _dc: DataCenter
    name: str

    def task(
        self,
        verb: str,
        arguments: Mapping[str, str | int | float | bool] | None = None,
        *,
        timeout: float | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """Any task of `olvm.model.vm_tasks` by its name; what it answered is `operation.result` after `wait`.

        Raises:
            NotFound: there is no such task.
            BadInput: its arguments are wrong; nothing has changed.
            Conflict: from `wait`; refused in the machine's present state, or by its host or guest.
        """
        command = m.VmTask(self.name, verb, dict(arguments or {}), timeout)
        return self._dc.submit(command, f"{verb} {self.name}", client_request_id)

    # ------------------------------------------------------------------ devices

    def attach_disk(self, disk: DiskSpec | Mapping[str, Any]) -> Operation:
        """Plug a disk in; `DiskSpec` says what it takes."""
        spec = disk if isinstance(disk, DiskSpec) else _converted(disk, DiskSpec)
        return self.task("attach_disk", _arguments(spec))

    def detach_disk(self, name: str) -> Operation:
        """Unplug it; its data stay."""
        return self.task("detach_disk", {"name": name})

    def change_medium(self, name: str, source: str = "") -> Operation:
        """Put another medium into a CD drive; an empty source takes it out."""
        return self.task("change_medium", {"name": name, "source": source})

    def attach_nic(self, nic: NicSpec | Mapping[str, Any]) -> Operation:
        spec = nic if isinstance(nic, NicSpec) else _converted(nic, NicSpec)
        return self.task("attach_nic", _arguments(spec))

    def detach_nic(self, name: str) -> Operation:
        return self.task("detach_nic", {"name": name})

    def set_nic_link(self, name: str, up: bool) -> Operation:
        """Plug the cable of a network card in, or out."""
        return self.task("set_nic_link", {"name": name, "up": up})

    def set_vcpus(self, vcpus: int) -> Operation:
        """Plug CPUs in or out, up to the hardware's `vcpus_max`; kept for its next start.

        Raises:
            NoCapacity: from `wait`; its host has not so many. Nothing was done.
        """
        return self.task("set_vcpus", {"vcpus": vcpus})

    def set_balloon(self, memory: str | int) -> Operation:
        """Ask the guest to keep to so much memory: bytes, or text as "2GiB"."""
        return self.task("set_balloon", {"memory_bytes": parse_size(memory)})

    def plug_memory(self, name: str, size: str | int, *, node: int = 0) -> Operation:
        """Add a memory device, within the hardware's `memory_bytes_max`; kept as memory of its next start.

        Raises:
            NoCapacity: from `wait`; its host has no room. Nothing was done.
        """
        return self.task("plug_memory", {"name": name, "size_bytes": parse_size(size), "node": node})

    def unplug_memory(self, name: str) -> Operation:
        """Take a device out that was plugged in since the machine was started; the guest may refuse."""
        return self.task("unplug_memory", {"name": name})

    def set_cpu_quota(self, percent: int) -> Operation:
        """At most so many percent of one CPU for each vCPU; 0: no limit."""
        return self.task("set_cpu_quota", {"percent": percent})

    # ------------------------------------------------------------------ snapshots

    def create_snapshot(self, name: str, *, with_memory: bool = False, quiesce: bool = False) -> Operation:
        return self.task("create_snapshot", {"name": name, "with_memory": with_memory, "quiesce": quiesce})

    def commit_snapshot(self, name: str) -> Operation:
        """Write what came since the newest snapshot back into the disks, and forget it; the guest runs on."""
        return self.task("commit_snapshot", {"name": name})

    def revert_snapshot(
        self, name: str, *, with_memory: bool = False, discard_later: bool = False
    ) -> Operation:
        """Put its disks back to what they held at the snapshot. **All that was written to them since is lost.**

        The machine must be running. It is stopped at once, as by a loss of power, and boots from the old state on the
        same host. The snapshot stays: one can revert to it again. Disks that were attached later are left as they are.

        Args:
            with_memory: do not boot, but go on where the guest was when the snapshot was taken; the snapshot must have
                been made with memory, and the machine must have the hardware of then.
            discard_later: also delete the snapshots that were taken after this one; without it they are a refusal.

        Raises:
            NotFound: from `wait`; there is no such snapshot. Nothing has changed.
            Conflict: from `wait`; the machine is not running. Nothing has changed.
            OlvmError: from `wait`; later snapshots stand on it (`in_use`), it has no memory (`bad_request`), one of its
                disks is not attached or its memory is of another hardware (`wrong_state`): nothing has changed. Or the
                machine was stopped and does not run again (`start_failed`): it is down, and the message says how its
                disks are.
            OperationFailed: from `wait`; it may have been done.
        """
        arguments: m.Arguments = {"name": name, "with_memory": with_memory, "discard_later": discard_later}
        return self.task("revert_snapshot", arguments)

    def snapshots(self, *, timeout: float = 60.0) -> list[dict[str, Any]]:
        """Oldest first."""
        listed = self.task("list_snapshots").wait(timeout).result
        return list(listed["snapshots"])

    # ------------------------------------------------------------------ guest and screen

    def notify(self, message: str) -> Operation:
        """Show a message to who is logged on in the guest."""
        return self.task("notify", {"message": message})

    def log_on(
        self,
        user: str,
        password: str,
        *,
        session: str = "",
        timeout: float | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """Log a user of `dc.users` on inside the guest, if that is the user's password.

        Args:
            session: of the guest, as in "ttyS0"; empty: its own choice.

        Raises:
            Denied: no such user, or not its password, or too many wrong ones just now; no more is said.
            NotFound: there is no such machine.
            Conflict, OperationFailed: from `wait`; the machine is not up, or its guest refused or did not answer.
        """
        check_password(password)
        check_session(session)
        request_id = client_request_id or os.urandom(16).hex()
        ask = p.LogOn(self.name, user, password, request_id, session, timeout)
        return self._dc.submit_ask(ask, f"log {user} on to {self.name}")

    def log_off(self, session: str = "") -> Operation:
        """End the session of who is logged on in the guest; empty: the one that it is about."""
        return self.task("log_off", _of_session(session))

    def lock_screen(self, session: str = "") -> Operation:
        return self.task("lock_screen", _of_session(session))

    def freeze(self) -> Operation:
        """Stop the guest's file systems in a consistent state, until `thaw`."""
        return self.task("freeze_guest")

    def thaw(self) -> Operation:
        return self.task("thaw_guest")

    def console(self, *, valid: int = 120, timeout: float = 30.0) -> m.ConsoleTicket:
        """Where its screen is seen, and a password that is good for `valid` seconds. Nothing of it is kept."""
        if not 1 <= valid <= 7200:
            raise BadInput(f"a console ticket is good for 1 to 7200 s, got {valid}")
        ticket: m.ConsoleTicket = self._dc.ask(
            p.Console(self.name, valid), f"console of {self.name}", timeout
        )
        return ticket


def _of_session(session: str) -> dict[str, str]:
    check_session(session)
    return {"session": session} if session else {}


def _converted(fields: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(dict(fields), kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{kind.__name__}: {error}; see olvm.model.hardware for the names") from error

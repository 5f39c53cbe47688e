"""The stage of the demo on real KVM: two laboratory hosts on this machine, each a node of one Ray cluster.

Decides nothing of the story. The head of the cluster and the driver stand in the laboratory's fabric namespace, the
agents run on the hosts, as they would on computers of their own: a host that loses its power takes its Ray node, its
agent, its libvirt and its machines with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from olvm.lab.guest import GuestImage, build_guest
from olvm.lab.hosts import Lab, LabHost
from olvm.model.errors import OlvmError

RAY_PORT = 6379
RAY_UP_WITHIN_S = 120.0  # beside other work on two processors a node has taken more than 60 s
HEAD_ENDS_WITHIN_S = 20.0
LAST_WORDS = 5  # lines of a log in an error: the log itself is gone when the error is read
POLL_S = 0.1
CLONE_NEWNET = 0x40000000


def last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"(no word: {error})"
    return "\n".join(lines[-LAST_WORDS:]) or f"(no word in {log.name})"


class Stage:
    """A context: everything is gone afterwards, however it ends."""

    def __init__(self, name: str, directory: Path, *, subnet: str) -> None:
        self.directory = directory
        self._token = directory / "ray_token"
        self._head: subprocess.Popen[bytes] | None = None
        self._home_namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.lab = Lab(name, directory / "lab", hosts=2, subnet=subnet)
        self.head_address = f"{subnet}.254"
        self.guest: GuestImage | None = None
        # Nodes keep their sockets at the same paths below it: each host has a /tmp of its own, and shares /var/tmp.
        self._ray_directory = Path(tempfile.mkdtemp(prefix="olvm-ray-", dir="/tmp"))

    def __enter__(self) -> Stage:
        try:
            self._token.write_text(secrets.token_hex(32))
            self._token.chmod(0o600)
            self._set_boot_scripts()
            self.lab.up()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _enter_namespace(self._home_namespace)
        if self._head is not None:
            self._head.terminate()
            try:
                self._head.wait(timeout=HEAD_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._head.kill()
        self.lab.close()  # and whatever is left in its namespaces
        shutil.rmtree(self._ray_directory, ignore_errors=True)

    # ------------------------------------------------------------------ Ray

    def _set_boot_scripts(self) -> None:
        """What each host does at each boot: join the Ray cluster as itself. A service of the host would do the same."""
        for host in self.lab.hosts.values():
            command = [
                *_ray("start"),
                f"--address={self.head_address}:{RAY_PORT}",
                f"--node-ip-address={host.address}",
                "--num-cpus=1",
                "--labels",
                f"olvm-host={host.name}",
                "--disable-usage-stats",
                "--block",
            ]
            words = " ".join(f"'{word}'" for word in command)
            exports = "".join(f"export {key}='{value}'\n" for key, value in self._environment().items())
            # Again when it ends: the head may come up later than its hosts, as a supervisor would see to.
            host.set_boot_script(f"#!/bin/sh\n{exports}while :; do {words}; sleep 1; done\n")

    def _environment(self) -> dict[str, str]:
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def start_head(self) -> None:
        """In the fabric namespace, which this thread enters too, and all that it starts from now on."""
        os.environ.update(self._environment())
        os.environ["RAY_ADDRESS"] = f"{self.head_address}:{RAY_PORT}"
        descriptor = os.open(f"/run/netns/{self.lab.fabric}", os.O_RDONLY)
        try:
            _enter_namespace(descriptor)
        finally:
            os.close(descriptor)
        log = (self.directory / "ray-head.log").open("wb")
        command = [
            *_ray("start"),
            "--head",
            f"--node-ip-address={self.head_address}",
            f"--port={RAY_PORT}",
            "--num-cpus=1",
            "--include-dashboard=false",
            "--disable-usage-stats",
            f"--temp-dir={self._ray_directory}",
            "--block",
        ]
        # Ctrl-C at the terminal is for the driver: without its head it could not stop the silos, and Ray would end it.
        self._head = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        log.close()

    def wait_for_nodes(self) -> None:
        """Until the head knows a node for each host.

        Raises:
            OlvmError: they did not come in time; the message ends with their last words.
        """
        from actors.ray_runtime import wait_for_hosts

        deadline_s = time.monotonic() + RAY_UP_WITHIN_S
        wanted = set(self.lab.hosts)
        while not self._answers():
            if time.monotonic() > deadline_s or (self._head is not None and self._head.poll() is not None):
                said = last_words(self.directory / "ray-head.log")
                raise OlvmError(f"Ray's head did not start within {RAY_UP_WITHIN_S:.0f} s; it said:\n{said}")
            time.sleep(POLL_S)
        missing = wait_for_hosts(wanted, deadline_s - time.monotonic())
        if missing:
            said = "\n".join(last_words(self.host(name).directory / "boot.log") for name in sorted(missing))
            raise OlvmError(
                f"hosts {', '.join(sorted(missing))} did not join the Ray cluster within {RAY_UP_WITHIN_S:.0f} s: end "
                f"what else runs on this machine and try again; their nodes said:\n{said}"
            )

    def _answers(self) -> bool:
        import socket

        try:
            socket.create_connection((self.head_address, RAY_PORT), timeout=1).close()
        except OSError:
            return False
        return True

    # ------------------------------------------------------------------ what the story needs

    def build_guest(self, cache: Path) -> GuestImage:
        self.guest = build_guest(cache)
        return self.guest

    def host(self, name: str) -> LabHost:
        return self.lab.host(name)


def _ray(verb: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", verb]


def _enter_namespace(descriptor: int) -> None:
    """Of this thread; what it starts later is born there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot enter the network namespace: {os.strerror(code)}")

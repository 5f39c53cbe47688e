"""One guest in a QEMU of its own, without libvirt: the test holds the agent's port, the console and QEMU's monitor.

What is tried with it is the guest's end, and how a port behaves under it.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from guest_agent import protocol as p
from olvm.lab.debian import DebianImage
from olvm.lab.guest import GuestImage

WAIT_S = 60.0  # several times what a busy machine needs


class QemuGuest:
    """`incoming` is a file that a machine like it was saved to. The disk is written to a layer of its own."""

    def __init__(self, home: Path, image: GuestImage | DebianImage, incoming: Path | None = None) -> None:
        home.mkdir()
        self._home = home
        self.process = subprocess.Popen([*self._command(image), *self._arrival(incoming)])
        with self._connect("qmp") as line:
            self._qmp = line.makefile("rw")  # which keeps it open
        self._answer()
        self.qmp("qmp_capabilities")
        self._port: socket.socket | None = None
        self._ga: Any = None
        self.console = self._connect("console")
        self.seen = b""

    def _command(self, image: GuestImage | DebianImage) -> list[str]:
        home = self._home
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "384", "-smp", "2"]
        command += ["-display", "none", "-nodefaults"]
        command += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline]
        command += ["-qmp", f"unix:{home}/qmp,server=on,wait=off"]
        command += [
            "-chardev",
            f"socket,id=console,path={home}/console,server=on,wait=off,logfile={home}/log",
        ]
        command += ["-serial", "chardev:console", "-device", "virtio-serial-pci"]
        for name, port in (("port", p.PORT), ("ga", "org.qemu.guest_agent.0")):
            command += ["-chardev", f"socket,id={name},path={home}/{name},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev={name},name={port},id={name}"]
        if isinstance(image, DebianImage):
            layer = home / "disk"
            create = [
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "qcow2",
                "-b",
                str(image.disk),
                str(layer),
            ]
            subprocess.run(create, check=True)
            command += ["-drive", f"file={layer},if=none,id=disk,cache=unsafe"]
            command += ["-device", "virtio-blk-pci,drive=disk,serial=first"]
        return command

    def _arrival(self, incoming: Path | None) -> list[str]:
        return [] if incoming is None else ["-incoming", f"exec:cat {incoming}"]

    def _connect(self, name: str) -> socket.socket:
        end_s = time.monotonic() + WAIT_S
        while True:
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(WAIT_S)
            try:
                line.connect(str(self._home / name))
            except OSError:
                line.close()
                assert self.process.poll() is None, "QEMU has ended"
                assert time.monotonic() < end_s, f"QEMU does not open {name}"
                time.sleep(0.1)
            else:
                return line

    # ---------------------------------------------------------------- the monitor

    def _answer(self) -> Any:
        while True:
            said = json.loads(self._qmp.readline())
            if "event" not in said:
                return said

    def qmp(self, command: str, **arguments: object) -> Any:
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        said = self._answer()
        assert "error" not in said, said
        return said.get("return")

    def save(self, path: Path) -> None:
        self.qmp("migrate", uri=f"exec:cat > {path}")
        while (status := self.qmp("query-migrate")["status"]) != "completed":
            assert status in ("setup", "active", "device"), status
            time.sleep(0.2)

    def wait_for_status(self, status: str) -> None:
        end_s = time.monotonic() + WAIT_S
        while (now := self.qmp("query-status")["status"]) != status:
            assert time.monotonic() < end_s, now
            time.sleep(0.2)

    # ---------------------------------------------------------------- the agent's port

    def listen(self) -> None:
        """A host begins to listen at the port."""
        self._port = self._connect("port")
        self._decoder = p.LineDecoder()
        self._heard: list[tuple[str, dict[str, Any]]] = []

    def leave(self) -> None:
        assert self._port is not None
        self._port.close()
        self._port = None

    def say(self, name: str, /, **arguments: Any) -> None:
        assert self._port is not None
        self._port.sendall(p.encode(name, arguments))

    def hear(self, name: str, /, **expected: object) -> dict[str, Any]:
        """The next message of that name that has those arguments."""
        assert self._port is not None
        end_s = time.monotonic() + WAIT_S
        while True:
            while self._heard:
                said, arguments = self._heard.pop(0)
                if said == name and all(arguments.get(key) == value for key, value in expected.items()):
                    return arguments
            assert time.monotonic() < end_s, f"the agent does not say {name} {expected}"
            data = self._port.recv(65536)
            assert data, "the port was closed"
            self._heard += self._decoder.feed(data)

    def hear_any(self) -> str:
        """The name of the next message."""
        assert self._port is not None
        while not self._heard:
            self._heard += self._decoder.feed(self._port.recv(65536))
        return self._heard.pop(0)[0]

    def order(self, name: str, /, **arguments: Any) -> str:
        """Empty: it was done; else why not. What the agent says meanwhile is kept for `hear`."""
        reply_id = f"r{time.monotonic_ns()}"
        self.say(name, reply_id=reply_id, **arguments)
        kept, answer = [], None
        assert self._port is not None
        while answer is None:
            while self._heard:
                said = self._heard.pop(0)
                if said[0] == "completion" and said[1]["reply_id"] == reply_id:
                    answer = said[1]
                else:
                    kept.append(said)
            if answer is None:
                self._heard += self._decoder.feed(self._port.recv(65536))
        self._heard = kept
        assert answer["ok"] == (not answer["reason"])
        return str(answer["reason"])

    # ---------------------------------------------------------------- the console

    def type(self, text: str) -> None:
        self.console.sendall(text.encode())

    def see(self, text: str) -> str:
        """Wait for it on the console; returns all before it."""
        end_s = time.monotonic() + WAIT_S
        while text.encode() not in self.seen:
            left_s = max(0.0, end_s - time.monotonic())
            assert select.select([self.console], [], [], left_s)[0], (text, self.seen[-2000:])
            self.seen += self.console.recv(65536)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode(errors="replace")

    # ---------------------------------------------------------------- root in the guest, by QEMU's own agent

    def _ask(self, command: str, **arguments: object) -> Any:
        if self._ga is None:
            with self._connect("ga") as line:
                self._ga = line.makefile("rw")
        self._ga.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._ga.flush()
        said = json.loads(self._ga.readline())
        assert "error" not in said, said
        return said["return"]

    def begin(self, command: str) -> int:
        asked = {"path": "/bin/sh", "arg": ["-c", f"{command} 2>&1"], "capture-output": True}
        return int(self._ask("guest-exec", **asked)["pid"])

    def result(self, pid: int, timeout_s: float = WAIT_S) -> str | None:
        """What it printed; nothing if it has not ended in time."""
        end_s = time.monotonic() + timeout_s
        while not (said := self._ask("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > end_s:
                return None
            time.sleep(0.05)
        return base64.b64decode(said.get("out-data", "")).decode(errors="replace").strip()

    def sh(self, command: str) -> str:
        said = self.result(self.begin(command))
        assert said is not None, f"{command} does not end in the guest"
        return said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._qmp.close()
        self.console.close()
        if self._ga is not None:
            self._ga.close()
        if self._port is not None:
            self._port.close()

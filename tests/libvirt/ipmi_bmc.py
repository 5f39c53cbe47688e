"""OpenIPMI's simulator as a computer's management controller: IPMI 2.0 over loopback, one user, a power button."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UP_WITHIN_S = 15.0
PASSWORD = "s3cret"
LAN = """name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{chassis} 0x20"
  user 2 true "fence" "{password}" admin 10 none md2 md5 straight
"""
EMULATOR = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
# Called by the simulator: ADDRESS get NAME, or ADDRESS set NAME VALUE.
CHASSIS = """#!/bin/sh
power={directory}/power
shift
case "$1 $2" in
  "get power") echo "power:$(cat "$power")" ;;
  get*) echo "$2:0" ;;
  "set power") echo "$3" > "$power" ;;
esac
"""


class IpmiBmc:
    def __init__(self, port: int) -> None:
        self.device: dict[str, str | int | float | bool] = {
            "type": "ipmilan",
            "ip": "127.0.0.1",
            "ipport": port,
            "username": "fence",
            "password": PASSWORD,
            "lanplus": True,
            "cipher": "3",
            "power_wait": 0,
        }


@contextmanager
def ipmi_bmc(directory: Path) -> Iterator[IpmiBmc]:
    port = _free_port()
    chassis = directory / "chassis"
    chassis.write_text(CHASSIS.format(directory=directory))
    chassis.chmod(0o755)
    (directory / "power").write_text("1\n")
    (directory / "lan.conf").write_text(LAN.format(port=port, chassis=chassis, password=PASSWORD))
    (directory / "sim.emu").write_text(EMULATOR)
    command = ["ipmi_sim", "-n", "-c", str(directory / "lan.conf"), "-f", str(directory / "sim.emu")]
    with (directory / "sim.log").open("wb") as log:
        simulator = subprocess.Popen(
            [*command, "-s", str(directory / "state")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_for(port)
        yield IpmiBmc(port)
    finally:
        simulator.kill()
        simulator.wait()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    """Until somebody has the port, as /proc shows it."""
    wanted = f"0100007F:{port:04X}"
    deadline_s = time.monotonic() + UP_WITHIN_S
    while wanted not in Path("/proc/net/udp").read_text():
        assert time.monotonic() < deadline_s, "ipmi_sim did not come up"
        time.sleep(0.05)

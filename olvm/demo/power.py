"""Takes processes and power away from the fleet: what the demo's crashes and its lost rack have in common."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from actors.local_runtime import LocalRuntime
from actors.simulated_hosts import PLANT_FILE
from hypervisor_backends.fencing import FenceAnswer
from hypervisor_backends.shared_plant import SharedPlant
from olvm.api.data_center import DataCenter
from olvm.demo.plan import RuntimeName
from olvm.model.client_protocol import SiloStatus
from olvm.model.errors import Conflict, NotFound


def running_silo(dc: DataCenter, name: str) -> SiloStatus:
    """Raises `NotFound` when it does not run."""
    for silo in dc.status().silos:
        if silo.name == name and silo.alive:
            return silo
    raise NotFound(f"silo {name} does not run, so it cannot be killed; see `olvm status`")


def kill_silo(dc: DataCenter, runtime: RuntimeName, silo: SiloStatus) -> None:
    """On Ray SIGKILL: nobody helps it back but Ray. In one process the silo is dropped and opened again."""
    if runtime == "local":
        local = cast("LocalRuntime", dc._runtime)
        local.crash(silo.name)
        local.ensure(silo.name)
    else:
        os.kill(silo.pid, signal.SIGKILL)


def cut_power(directory: Path, hosts: Iterable[str]) -> None:
    """Switch their sockets off, as nobody in the data center asked for. What comes back there finds no power.

    Raises:
        Conflict: the plant's file did not take it.
    """
    plant = SharedPlant(directory / PLANT_FILE)
    try:
        answers: list[FenceAnswer] = []
        devices = plant.fence_devices()
        for host in hosts:
            devices.submit({"type": "simulated"}, host, "off", answers.append)
        refused = next((answer for answer in answers if not answer.ok), None)
        if refused is not None:
            raise Conflict(f"the power of the rack was not cut: {refused.message}")
    finally:
        plant.close()

"""A grid on a Ray cluster of two nodes, on this machine: both work, and one that is lost costs no run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.ray_runtime import own_token
from olvm.experiments import run_grid
from olvm.experiments.grids.progress import Progress
from tests.unit.experiments.grids.small import write_trace

RAY = Path(sys.executable).with_name("ray")
WAIT_S = 120.0
# Each run notes its node; the first ones wait until two nodes have, so that both are known to work.
POLICY = """
import os, time
from pathlib import Path

import ray

NODES = Path(__file__).with_name("nodes")


class OnBothNodes:
    def choose(self, vm, hosts):
        if ray.is_initialized():
            (NODES / ray.get_runtime_context().get_node_id()).touch()
            until = time.monotonic() + 60
            while len(list(NODES.iterdir())) < 2 and time.monotonic() < until:
                time.sleep(0.05)
        fitting = [index for index in range(len(hosts)) if hosts.fits[index]]
        return fitting[-1] if fitting else None
"""
GRID = """
seeds = 24
policies = ["grid_policy_on_nodes:OnBothNodes"]

[[topologies]]
name = "equal"
hosts = "40x16c64g"

[[traces]]
name = "short"
path = "trace.csv"
window_vms = 100
"""


class Cluster:
    """A head and one more node, each with one CPU; on loopback. Each is a session of processes."""

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.write_text(own_token(), encoding="ascii")
        token.chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        self._start("--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false")
        self._start(f"--address={self.address}")

    def _start(self, *arguments: str) -> None:
        common = ("--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=80000000", "--block")
        self._nodes.append(
            subprocess.Popen(
                [str(RAY), "start", *arguments, *common],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def wait_for_nodes(self, count: int) -> None:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            told = subprocess.run(
                [str(RAY), "status", f"--address={self.address}"],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if f"/{count:.1f} CPU" in told.stdout:
                return
            time.sleep(0.5)
        raise AssertionError(f"the cluster has not come to {count} nodes: {told.stdout} {told.stderr}")

    def kill_second(self) -> None:
        self._end(self._nodes.pop())

    def close(self) -> None:
        while self._nodes:
            self._end(self._nodes.pop())

    @staticmethod
    def _end(node: subprocess.Popen[bytes]) -> None:
        """All of its session: `ray start --block` has its processes as children."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    # Paths of sockets have to be short.
    folder = tempfile.TemporaryDirectory(prefix="olvm-ray-", ignore_cleanup_errors=True)
    made = Cluster(Path(folder.name))
    try:
        made.wait_for_nodes(2)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", made.environment["RAY_AUTH_TOKEN_PATH"])
        yield made
    finally:
        made.close()
        folder.cleanup()


def test_grid_uses_all_nodes_of_a_cluster_and_survives_the_loss_of_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_trace(tmp_path / "trace.csv")
    (tmp_path / "grid_policy_on_nodes.py").write_text(POLICY, encoding="utf-8")
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID, encoding="utf-8")
    killed_after = []

    def kill_in_the_middle(progress: Progress) -> None:
        if progress.done_count >= 4 and not killed_after:
            killed_after.append(progress.done_count)
            cluster.kill_second()

    there = run_grid(grid, tmp_path / "there", address=cluster.address, on_progress=kill_in_the_middle)

    assert killed_after
    assert killed_after[0] < len(there.cells)
    assert len(list(nodes.iterdir())) == 2
    assert there.failures == []
    here = run_grid(grid, tmp_path / "here", workers=0)
    assert there.runs.rows() == here.runs.rows()

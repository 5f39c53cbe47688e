"""What is shown of a running data center: `olvm top`, `olvm metrics`, `olvm event follow`, `olvm report`."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from prometheus_client.parser import text_string_to_metric_families

from olvm import DataCenter
from tests.contracts.fault_driver import INSTANT, poll

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    with DataCenter.open(
        tmp_path_factory.mktemp("dc"), runtime="local", host_silos=1, simulated=INSTANT, sample_period_s=0.2
    ) as opened:
        prod = opened.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="16GiB")
        prod.vms.create("web-1", vcpus=1, memory="1GiB").start().wait(30)
        prod.vms.create("idle", vcpus=1, memory="1GiB")
        view = "statistics_vms_resources_usage_samples"
        poll(lambda: opened.sql(f"select count(cpu_usage_percent) from {view}").one() > 0)
        poll(lambda: opened.sql("select count(*) from history.events where code = 'vm_up'").one() == 1)
        yield opened


def command(dc: DataCenter, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "olvm.cli", *arguments, "-d", str(dc.directory)]


def olvm(dc: DataCenter, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(dc, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_top_once_or_into_a_pipe_is_one_plain_frame(dc: DataCenter) -> None:
    for arguments in (("--once",), ()):
        done = olvm(dc, "top", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        head, *rest = done.stdout.splitlines()
        assert "hosts 1 up of 1  vms 1 of 2 not down  by cpu" in head
        assert re.search(r"^kvm00 +up +\d+\.\d +\S+", "\n".join(rest), re.MULTILINE)
        assert re.search(r"^web-1 +up +\d+\.\d +\S+", "\n".join(rest), re.MULTILINE)
        assert "idle" not in done.stdout


def test_top_with_a_period_of_nothing_is_refused(dc: DataCenter) -> None:
    assert olvm(dc, "top", "--period", "0").returncode == 2
    assert olvm(dc, "top", "--sort", "luck").returncode == 2


def test_top_on_a_terminal_sorts_by_key_ends_by_q_and_gives_the_screen_back(dc: DataCenter) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, command(dc, "top", "--period", "0.3s"))
    seen = _read_until(terminal, "by cpu")
    os.write(terminal, b"m")
    seen += _read_until(terminal, "by memory")
    os.write(terminal, b"q")
    seen += _read_until(terminal, "\x1b[?1049l")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert seen.index("\x1b[?1049h") < seen.index("web-1")


def _read_until(terminal: int, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + DEADLINE_S
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_metrics_are_read_by_prometheus_own_parser(dc: DataCenter) -> None:
    arguments = command(dc, "metrics", "--listen", "127.0.0.1:0")
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        (url,) = re.findall(r"http://\S+/metrics", server.stderr.readline())
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.replace("/metrics", "/"), timeout=DEADLINE_S)
        server.send_signal(signal.SIGINT)
        assert server.wait(DEADLINE_S) == 130
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families.values())
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    host = (("cluster", "prod"), ("host", "kvm00"))
    assert values["olvm_host_cpus", *host] == 8
    assert values["olvm_host_memory_bytes", *host] == 16 * 2**30
    assert 0 <= values["olvm_host_cpu_usage_ratio", *host] <= 1
    assert values["olvm_host_vms_running", *host] == 1
    assert values["olvm_vm_cpus", *host, ("vm", "web-1")] == 1
    assert (
        values["olvm_vm_status", ("cluster", "prod"), ("host", ""), ("status", "down"), ("vm", "idle")] == 1
    )
    assert values["olvm_operations", ("kind", "start_vm"), ("status", "succeeded")] == 1
    assert values["olvm_silo_up", ("silo", "telemetry")] == 1
    assert values[("olvm_history_samples_total",)] > 0
    assert values[("olvm_events_total",)] >= 3
    # Every sample stands once: Prometheus refuses a scrape with a repeated one.
    assert len(values) == sum(len(family.samples) for family in families.values())


def test_metrics_on_no_address_are_refused(dc: DataCenter) -> None:
    for listen in ("9177", "127.0.0.1:x", "127.0.0.1:99999"):
        assert olvm(dc, "metrics", "--listen", listen).returncode == 2


def test_events_followed_go_on_after_a_kill_from_the_cursor_in_the_file(
    dc: DataCenter, tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor"
    newest = max(event["seq"] for event in dc.events())
    seen: list[int] = []
    arguments = command(dc, "event", "follow", "--after", "0", "--cursor-file", str(cursor))
    while len(seen) < newest:
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            for _ in range(min(2, newest - len(seen))):
                seen.append(json.loads(follower.stdout.readline())["seq"])
            last = seen[-1]
            poll(lambda last=last: cursor.exists() and int(cursor.read_text()) >= last)  # type: ignore[misc]
            follower.kill()
            seen += [json.loads(text)["seq"] for text in follower.stdout if text.endswith("\n")]
    # What was printed is in the cursor after it was printed: nothing is lost, and at most a page is repeated.
    assert sorted(set(seen)) == list(range(1, newest + 1))


def test_cursor_that_is_none_or_of_another_data_center_is_refused(dc: DataCenter, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    cursor.write_text("yesterday\n")
    assert olvm(dc, "event", "follow", "--cursor-file", str(cursor)).returncode == 2
    done = olvm(dc, "event", "follow", "--after", "999999999")
    assert (done.returncode, done.stdout) == (2, "")
    assert "another data center" in done.stderr


def test_report_is_a_summary_and_one_page_that_needs_nothing_else(dc: DataCenter, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = olvm(dc, "report", "--last", "1h", "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "hosts: 1 observed" in done.stdout
    assert re.search(r"^busiest: web-1 \(\d+\.\d vCPUs\)$", done.stdout, re.MULTILINE)
    text = page.read_text()
    assert not re.search(r"(?:src|href)=|@import|url\(|<script", text)
    for words in (
        "average of hosts, %",
        "prefers-color-scheme: dark",
        "width=device-width",
        "<td>web-1</td>",
    ):
        assert words in text
    charts = re.findall(r"<svg.*?</svg>", text)
    assert [ET.fromstring(chart).tag for chart in charts] == ["svg"]
    assert re.search(r'<path class="s0" d="M[\d.]+ [\d.]+', charts[0])


def test_report_of_no_span_or_to_no_place_is_refused(dc: DataCenter, tmp_path: Path) -> None:
    assert olvm(dc, "report", "--last", "0").returncode == 2
    assert olvm(dc, "report", "--html", str(tmp_path / "no" / "report.html")).returncode == 1
    assert list(tmp_path.iterdir()) == []

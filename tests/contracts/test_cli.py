"""What the command line promises: exit codes, what stands on stdout and on stderr, and what it loads.

One data center on the local runtime serves the whole module; each case runs the real program.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
Shape = Callable[[str], bool]


class Cli:
    """Runs `olvm` as a shell would, on one data center."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("OLVM_")},
            "OLVM_DIRECTORY": str(directory),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "olvm.cli", *arguments]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start(self, *arguments: str, **streams: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=streams.get("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("dc"))
    up = cli.run(
        "up",
        "--runtime",
        "local",
        "--set",
        "simulated.boot_time_s_min=0.05",
        "--set",
        "simulated.boot_time_s_max=0.1",
        "--set",
        "simulated.migration_bandwidth_bytes_per_s=2e9",
        "--set",
        "migration_bandwidth_mib_s=2000",
    )
    assert up.returncode == 0, up.stderr
    try:
        cli.ok("cluster", "create", "prod", "--policy", "evenly_distributed")
        cli.ok("host", "add", "kvm00", "kvm01", "--cpus", "32", "--memory", "256GiB")
        cli.ok("vm", "create", "web-1", "web-2", "--vcpus", "2", "--memory", "4GiB", "--description", "a, b")
        cli.ok("vm", "start", "web-1")
        yield cli
    finally:
        down = cli.run("down")
    assert down.returncode == 0, down.stderr


def empty(text: str) -> bool:
    return text == ""


def table(*headings: str) -> Shape:
    return lambda text: text.splitlines()[0].split() == list(headings)


def lines(count: int) -> Shape:
    return lambda text: len(text.splitlines()) == count


def json_of(check: Callable[[object], bool]) -> Shape:
    return lambda text: check(json.loads(text))


def has(*words: str) -> Shape:
    return lambda text: all(word in text for word in words)


VM_HEADINGS = ("NAME", "STATUS", "HOST", "CLUSTER", "VCPUS", "MEMORY", "HIGH_AVAILABILITY", "PRIORITY", "LEASE",
               "COPY_PHASE")  # fmt: skip
HOST_HEADINGS = ("NAME", "STATUS", "CLUSTER", "CPUS", "MEMORY", "FENCE_STEP", "FENCE_REASON", "PROBLEMS",
                 "STATUS_REASON")  # fmt: skip
OPERATION_HEADINGS = ("TARGET_NAME", "KIND", "STATUS", "ID")

CASES: list[tuple[str, int, Shape]] = [
    ("--help", 0, has("Usage: olvm", "cluster", "Exit codes: 0 ok")),
    ("--version", 0, lines(1)),
    ("version", 0, lines(1)),
    ("vm", 0, has("Usage: olvm vm", "start", "explain")),
    ("vm --help", 0, has("suspend")),
    ("status", 0, table("NAME", "ALIVE", "PID", "ACTORS", "QUEUE_LENGTH", "UNACKNOWLEDGED", "TURNS", "COMMITS",
                        "JOURNAL_SEQ", "JOURNAL", "RSS", "NOTE")),
    ("status -o json", 0, json_of(lambda v: v["runtime"] == "local" and v["silos"][0]["alive"])),  # type: ignore[index]
    ("status -o csv -c name,pid", 0, has("name,pid\nengine,")),
    ("cluster list", 0, has("prod", "evenly_distributed")),
    ("cluster show prod -o json -c name,policy", 0,
     json_of(lambda v: v == {"name": "prod", "policy": "evenly_distributed"})),
    ("cluster update prod --cpu-overcommit 400", 0, table(*OPERATION_HEADINGS)),
    ("cluster update prod --no-fencing --migration-policy post_copy", 0, table(*OPERATION_HEADINGS)),
    ("cluster show prod -o json -c fencing,migration_policy", 0,
     json_of(lambda v: v == {"fencing": False, "migration_policy": "post_copy"})),
    ("host list", 0, table(*HOST_HEADINGS)),
    ("affinity list", 0, table("NAME", "CLUSTER", "VMS_RULE", "VMS_ENFORCING", "VM_NAMES", "HOSTS_RULE",
                               "HOSTS_ENFORCING", "HOSTS", "PRIORITY", "BROKEN")),
    ("host list -o csv -c name,status", 0, lambda text: text == "name,status\nkvm00,up\nkvm01,up\n"),
    ("host show kvm00", 0, has("kvm00", "256GiB")),
    ("vm list", 0, table(*VM_HEADINGS)),
    ("vm list -o jsonl -c name,memory", 0,
     lambda text: text.splitlines()[0] == '{"name":"web-1","memory_bytes":4294967296}'),
    ("vm list --where status=down -o json -c name", 0, json_of(lambda v: v == [{"name": "web-2"}])),
    ("vm list --where name=nothing -o json", 0, json_of(lambda v: v == [])),
    ("vm list --limit 1 -o csv -c name", 0, lambda text: text == "name\nweb-1\n"),
    ("vm show web-1 -o json", 0, json_of(lambda v: v["status"] == "up" and v["vcpus"] == 2)),  # type: ignore[index]
    ("vm explain web-2", 0, table("HOST", "ACCEPTED", "CHOSEN", "SCORE", "REJECTED_BY", "REASON")),
    ("vm explain web-2 -o json", 0, json_of(lambda v: len(v["hosts"]) == 2)),  # type: ignore[index]
    ("vm update web-2 --vcpus 4", 0, has("web-2", "succeeded")),
    ("operation list --limit 3 -o json -c kind,status", 0, json_of(lambda v: len(v) == 3)),  # type: ignore[arg-type]
    ("event list --limit 3 -o jsonl", 0, lines(3)),
    ("event list --after 0 --limit 1 -o json -c seq,code", 0,
     json_of(lambda v: v == [{"seq": 1, "code": "engine_started"}])),
    ("event list --where code=host_up -o jsonl -c host", 0,
     lambda text: text == '{"host":"kvm00"}\n{"host":"kvm01"}\n'),
    ("up --runtime local", 0, empty),
    ("completion bash", 0, has("complete", "olvm")),
    ("completion zsh", 0, has("#compdef olvm")),
    ("completion fish", 0, has("complete -c olvm")),
    ("-d {dc} vm list", 0, table(*VM_HEADINGS)),
    ("--directory={dc} vm list -o csv -c name", 0, has("web-1")),
    # 1 and 2: failed, usage
    ("vm lst", 2, empty),
    ("nonsense", 2, empty),
    ("vm start", 2, empty),
    ("vm list --bogus", 2, empty),
    ("vm list -o yaml", 2, empty),
    ("vm list -c nonsense", 2, empty),
    ("vm list --limit 0", 2, empty),
    ("vm list --where (", 2, empty),
    ("vm list --where nonsense=1", 2, empty),
    ("vm create x --memory 5XB", 2, empty),
    ("vm create x/y", 2, empty),
    ("vm start web-1 --timeout 5z", 2, empty),
    ("vm remove web-2", 2, empty),
    ("vm create x --priority 0", 2, empty),
    ("vm create x --lease --resume-behavior auto_resume", 2, empty),
    ("vm create x --resume-behavior die", 2, empty),
    ("vm create x --migration-policy fastest", 2, empty),
    ("host add x --cpus 1 --memory 1GiB --fence-device simulated", 2, empty),
    ("host add x --cpus 1 --memory 1GiB --fence-device type=ipmi", 2, empty),
    ("host maintenance kvm00 --deadline 0", 2, empty),
    ("host fence kvm00 reset", 2, empty),
    ("host confirm-rebooted kvm00", 2, empty),
    ("cluster shutdown prod --deadline 0", 2, empty),
    ("affinity set apart", 2, empty),
    ("affinity remove apart", 2, empty),
    ("host remove kvm00", 2, empty),
    ("cluster remove prod", 2, empty),
    ("event list --follow -o json", 2, empty),
    ("event list --where name=x", 2, empty),
    ("completion tcsh", 2, empty),
    ("up --runtime docker", 2, empty),
    # 3: not found
    ("vm show nothing", 3, empty),
    ("vm start nothing", 3, empty),
    ("host maintenance nothing", 3, empty),
    ("host fence nothing restart", 3, empty),
    ("vm migrate web-1 --to nothing", 3, empty),
    ("affinity set apart --vm nothing --vms-rule negative", 3, empty),
    ("affinity remove nothing --yes", 3, has("nothing", "failed")),
    ("cluster remove nothing --yes", 3, empty),
    ("operation show nothing", 3, empty),
    ("operation wait nothing", 3, empty),
    ("vm create x --cluster nothing", 3, empty),
    # 4: conflict
    ("vm create web-1", 4, empty),
    ("cluster create prod", 4, empty),
    ("vm start web-1", 4, has("web-1", "failed")),
    ("vm suspend web-2", 4, has("web-2", "failed")),
    ("vm migrate web-2", 4, has("web-2", "failed")),
    ("vm cancel-migration web-1", 4, has("web-1", "failed")),
    ("host cancel-maintenance kvm00", 4, has("kvm00", "failed")),
    ("host confirm-rebooted kvm00 --yes", 4, has("kvm00", "failed")),
    ("host fence kvm00 off", 4, has("kvm00", "failed")),
    # 7: unreachable
    ("vm list -d {nowhere}", 7, empty),
    ("status -d {nowhere}", 7, empty),
    ("event list --follow -d {nowhere}", 7, empty),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "stdout"), CASES, ids=[case[0] for case in CASES])
def test_command_line_ends_with_its_exit_code_and_output(
    cli: Cli, arguments: str, code: int, stdout: Shape
) -> None:
    words = arguments.format(dc=cli.directory, nowhere=cli.directory / "nowhere").split()
    result = cli.run(*words)
    assert (result.returncode, stdout(result.stdout)) == (code, True), (result.stdout, result.stderr)
    if code:
        assert re.fullmatch(r"olvm: [^\n]+\n", result.stderr)


def test_affinity_group_is_set_shown_and_removed(cli: Cli) -> None:
    apart = ["affinity", "set", "apart", "--vm", "web-1", "--vm", "web-2", "--vms-rule", "negative"]
    cli.ok(*apart, "--vms-enforcing")
    shown = json.loads(cli.ok("affinity", "list", "-o", "json", "-c", "name,vm_names,vms_rule,vms_enforcing"))
    assert shown == [
        {"name": "apart", "vm_names": ["web-1", "web-2"], "vms_rule": "negative", "vms_enforcing": True}
    ]
    assert (
        cli.ok("sql", "select name, cluster from affinity_groups", "-o", "csv")
        == "name,cluster\napart,prod\n"
    )
    cli.ok("affinity", "remove", "apart", "--yes")
    assert cli.ok("affinity", "list", "-o", "jsonl") == ""


def test_machine_moves_from_host_to_host_and_back(cli: Cli) -> None:
    for host in ("kvm00", "kvm01", "kvm00"):
        if json.loads(cli.ok("vm", "show", "web-1", "-o", "json", "-c", "host")) != {"host": host}:
            cli.ok("vm", "migrate", "web-1", "--to", host, "--timeout", "60s")
        assert json.loads(cli.ok("vm", "show", "web-1", "-o", "json", "-c", "host,status")) == {
            "host": host,
            "status": "up",
        }


def test_host_in_maintenance_loses_its_power_and_gets_it_back(cli: Cli) -> None:
    cli.ok("host", "add", "bmc", "--cpus", "4", "--memory", "8GiB", "--power-management")
    cli.ok("host", "maintenance", "bmc", "--deadline", "30s")
    cli.ok("host", "fence", "bmc", "restart", "--timeout", "60s")
    cli.ok("host", "maintenance", "bmc")
    cli.ok("host", "remove", "bmc", "--yes")


def test_search_with_spaces_and_globs_finds_rows(cli: Cli) -> None:
    found = cli.ok(
        "vm", "list", "--where", "status=up and host=kvm* sortby name desc", "-o", "csv", "-c", "name"
    )
    assert found == "name\nweb-1\n"


def test_machine_goes_through_its_life(cli: Cli) -> None:
    cli.ok("vm", "create", "life", "--memory", "1GiB", "--cluster", "prod", "--high-availability")
    for verb, status in [("start", "up"), ("suspend", "suspended"), ("resume", "up"), ("reboot", "up"),
                         ("reset", "up"), ("shutdown", "down"), ("start", "up"), ("stop", "down")]:  # fmt: skip
        cli.ok("vm", verb, "life", "--timeout", "60s")
        assert json.loads(cli.ok("vm", "show", "life", "-o", "json", "-c", "status")) == {"status": status}
    cli.ok("vm", "remove", "life", "--yes")
    assert cli.run("vm", "show", "life").returncode == 3


def test_plugged_cpus_and_memory_are_shown_counted_and_kept(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "room.toml").write_text(f"vcpus_max = 8\nmemory_bytes_max = {64 * 1024**3}\n")
    cli.ok("vm", "create", "grow", "--memory", "1GiB", "--hardware", str(tmp_path / "room.toml"))
    cli.ok("vm", "start", "grow")
    cli.ok("vm", "task", "grow", "set_vcpus", "vcpus=4")
    cli.ok("vm", "task", "grow", "plug_memory", "name=m0", "size_bytes=2GiB")
    sizes = "select vcpus, memory_bytes, now_vcpus, now_memory_bytes from vms where name = 'grow'"
    assert json.loads(cli.ok("sql", sizes, "-o", "json")) == [
        {"vcpus": 4, "memory_bytes": 3 * 1024**3, "now_vcpus": 4, "now_memory_bytes": 3 * 1024**3}
    ]
    held = "select vcpus, memory_bytes from reservations where vm_name = 'grow'"
    assert json.loads(cli.ok("sql", held, "-o", "json")) == [{"vcpus": 4, "memory_bytes": 3 * 1024**3}]
    refused = cli.run("vm", "task", "grow", "set_vcpus", "vcpus=33")
    assert refused.returncode == 4
    assert "has 32 CPUs" in refused.stderr
    assert "next start" not in cli.ok("vm", "show", "grow")
    cli.ok("vm", "update", "grow", "--vcpus", "2")
    assert "grow has 4 vCPUs and 3GiB now, and 2 vCPUs and 3GiB at its next start." in cli.ok(
        "vm", "show", "grow"
    )
    cli.ok("vm", "stop", "grow")
    cli.ok("vm", "start", "grow")
    assert json.loads(cli.ok("sql", held, "-o", "json")) == [{"vcpus": 2, "memory_bytes": 3 * 1024**3}]
    cli.ok("vm", "stop", "grow")
    cli.ok("vm", "remove", "grow", "--yes")


def test_host_goes_out_of_service_and_away(cli: Cli) -> None:
    cli.ok("host", "add", "kvm09", "--cpus", "4", "--memory", "8GiB")
    for verb, status in [("maintenance", "maintenance"), ("activate", "up"), ("maintenance", "maintenance")]:
        cli.ok("host", verb, "kvm09")
        assert json.loads(cli.ok("host", "show", "kvm09", "-o", "json", "-c", "status")) == {"status": status}
    cli.ok("host", "remove", "kvm09", "--yes")
    assert cli.run("host", "show", "kvm09").returncode == 3


def test_several_names_each_get_their_answer_and_the_failures_agree_on_a_code(cli: Cli) -> None:
    result = cli.run("vm", "update", "nothing", "web-2", "nobody", "web-2", "--description", "x", "-o", "csv")
    assert result.returncode == 3
    assert [row["target_name"] for row in csv.DictReader(io.StringIO(result.stdout))] == ["web-2"]
    assert re.fullmatch(r"olvm: [^\n]*nothing[^\n]*\nolvm: [^\n]*nobody[^\n]*\n", result.stderr)


def test_accepted_operation_is_waited_for_by_another_process(cli: Cli) -> None:
    cli.ok("vm", "create", "later", "--memory", "1GiB")
    sent = json.loads(cli.ok("vm", "start", "later", "--no-wait", "-o", "json", "-c", "id,status"))
    waited = json.loads(cli.ok("operation", "wait", sent[0]["id"], "-o", "json", "-c", "id,status"))
    assert waited == [{"id": sent[0]["id"], "status": "succeeded"}]
    cli.ok("vm", "stop", "later")


def test_wait_that_times_out_names_the_operation_that_goes_on(cli: Cli) -> None:
    cli.ok("vm", "create", "slow", "--memory", "1GiB")
    result = cli.run("vm", "start", "slow", "--timeout", "0", "-o", "json", "-c", "id")
    assert result.returncode == 6, result.stderr
    operation_id = json.loads(result.stdout)[0]["id"]
    assert re.fullmatch(rf"olvm: start vm slow: not ended within 0 s; [^\n]*{operation_id}`\n", result.stderr)
    cli.ok("operation", "wait", operation_id)


def test_sql_answers_reads_and_refuses_writes(cli: Cli) -> None:
    assert cli.ok("sql", "select name, vcpus from vms where name = 'web-1'") == "NAME   VCPUS\nweb-1  2\n"
    piped = cli.run("sql", "-", "-o", "json", stdin="select 1 as a, 2 as a")
    assert json.loads(piped.stdout) == [{"a": 1, "a_2": 2}]
    for statement in ("delete from vms", "drop table vms", "selec 1", "copy vms to '/tmp/x'"):
        refused = cli.run("sql", statement)
        assert (refused.returncode, refused.stdout) == (2, ""), statement
        assert re.fullmatch(r"olvm: [^\n]+\n", refused.stderr)
    assert "web-1" in cli.ok("vm", "list")


def test_sql_cut_short_by_its_limit_says_so(cli: Cli) -> None:
    result = cli.run("sql", "select * from range(10)", "--limit", "2", "-o", "csv")
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 3)
    assert result.stderr == "olvm: these are the first 2 rows; there are more with --limit\n"


def test_failure_with_verbose_shows_the_traceback(cli: Cli) -> None:
    result = cli.run("vm", "show", "nothing", "-v")
    assert result.returncode == 3
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("olvm: vm nothing does not exist")


def test_events_followed_come_as_they_happen_and_end_with_interrupt(cli: Cli) -> None:
    last = int(json.loads(cli.ok("sql", "select max(seq) as seq from events", "-o", "json"))[0]["seq"])
    with cli.start(
        "event", "list", "--follow", "--after", str(last), "-o", "jsonl", "-c", "seq,code"
    ) as follower:
        cli.ok("cluster", "create", "followed")
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline()) == {"seq": last + 1, "code": "cluster_created"}
        follower.send_signal(signal.SIGINT)
        _, said = follower.communicate(timeout=TIMEOUT_S)
    assert (follower.returncode, said) == (130, "olvm: interrupted\n")
    cli.ok("cluster", "remove", "followed", "--yes")


def test_reader_that_goes_away_is_no_failure(cli: Cli) -> None:
    with cli.start("sql", "select * from range(100000)", "-o", "csv") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "range\n"
        writer.stdout.close()
        assert writer.stderr is not None
        said = writer.stderr.read()
    assert (writer.returncode, said) == (0, "")


def test_full_disk_under_stdout_is_a_failure(cli: Cli) -> None:
    with open("/dev/full", "w") as full, cli.start("vm", "list", stdout=full.fileno()) as writer:
        _, said = writer.communicate(timeout=TIMEOUT_S)
    assert (writer.returncode, said) == (1, "olvm: cannot write the output: No space left on device\n")


def test_names_are_completed_by_the_running_engine(cli: Cli) -> None:
    offered = cli.ok("__complete", "vm", "start", "web").split()
    assert {"web-1", "web-2"} <= set(offered)
    unreachable = Cli(cli.directory / "nowhere")
    assert "web-1" not in unreachable.ok("__complete", "vm", "start", "web")


def test_client_loads_nothing_heavy(cli: Cli) -> None:
    names = [f"many-{number}" for number in range(1000)]
    cli.ok("vm", "create", *names, "--memory", "64MiB", "--cluster", "prod")
    program = (
        "import sys; from olvm.cli import main; code = main(['vm', 'list']); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 1000
    assert (
        set(result.stderr.split()) & {"ray", "duckdb", "numpy", "actors", "rich", "hypervisor_backends"}
        == set()
    )


def test_daemon_keeps_its_files_to_its_owner(cli: Cli) -> None:
    modes = {name: (cli.directory / name).stat().st_mode & 0o777 for name in ("olvm.pid", "olvm.log")}
    assert modes == {"olvm.pid": 0o600, "olvm.log": 0o600}
    assert cli.directory.stat().st_mode & 0o777 == 0o700


def test_data_center_taken_down_is_gone_and_comes_back_with_everything(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "dc")
    assert cli.run("down").stderr == f"data center {cli.directory} is not up\n"
    for life in (1, 2):
        cli.ok("up", "--runtime", "local")
        try:
            assert json.loads(cli.ok("status", "-o", "json"))["engine_epoch"] == life
            if life == 1:
                cli.ok("cluster", "create", "kept")
            assert "kept" in cli.ok("cluster", "list")
        finally:
            cli.ok("down")
        assert cli.run("cluster", "list").returncode == 7
        assert not (cli.directory / "olvm.pid").exists()


def test_interrupted_wait_names_the_operation_and_loses_nothing(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "dc")
    cli.ok(
        "up",
        "--runtime",
        "local",
        "--set",
        "simulated.boot_time_s_min=300",
        "--set",
        "simulated.boot_time_s_max=300",
    )
    try:
        cli.ok("cluster", "create", "prod")
        cli.ok("host", "add", "h", "--cpus", "4", "--memory", "8GiB")
        cli.ok("vm", "create", "boots-long")
        with cli.start("event", "list", "--follow", "--after", "0", "-o", "jsonl", "-c", "code") as follower:
            with cli.start("vm", "start", "boots-long") as starter:
                assert follower.stdout is not None
                while json.loads(follower.stdout.readline())["code"] != "vm_created":
                    pass
                wait_for_operation(cli)
                starter.send_signal(signal.SIGINT)
                _, said = starter.communicate(timeout=TIMEOUT_S)
            follower.kill()
        assert starter.returncode == 130
        (operation_id,) = re.findall(r"^olvm: interrupted; [^\n]*olvm operation wait (\S+)`\n$", said)
        assert cli.run("operation", "wait", operation_id, "--timeout", "0").returncode == 6
    finally:
        cli.ok("down")


def wait_for_operation(cli: Cli) -> None:
    """Until the start is on record; each round is a whole process, so this is no busy loop."""
    query = "select count(*) as n from operations where kind = 'start_vm'"
    for _ in range(100):
        if json.loads(cli.ok("sql", query, "-o", "json")) == [{"n": 1}]:
            return
    raise AssertionError("the start was never accepted")

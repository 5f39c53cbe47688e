"""Writes the demo's summary: what was done, what crashes and trials cost, what the journals prove, what to ask next."""

from __future__ import annotations

import statistics
from pathlib import Path

from rich.console import Console

from olvm.api.data_center import DataCenter
from olvm.demo.copies import CopyProof
from olvm.demo.drills import CrashCost, Drills
from olvm.demo.plan import LABORATORY, POLICY_BY_CLUSTER, Plan
from olvm.demo.proof import REASON_CHARS_MAX, Proof, percentile
from olvm.demo.rack import Comeback
from olvm.demo.replay import Ledger, Replay
from olvm.demo.trials import Trials
from olvm.demo.watch import Watcher
from olvm.model.errors import OlvmError

SHOWN_MAX = 5
QUERIES = (
    (
        "What was asked, how it ended, and how long it took",
        """\
select kind, status, count(*) as n,
       round(quantile_cont((finished_ns - created_ns) / 1e6, 0.5), 1) as p50_ms,
       round(quantile_cont((finished_ns - created_ns) / 1e6, 0.99), 1) as p99_ms
from operations group by kind, status order by n desc limit 8""",
    ),
    (
        "The story of the killed host",
        """\
select date_trunc('second', make_timestamp(at_ns // 1000))::time as utc, code, count(*) as n,
       min(message) as for_example
from events where host = '{host}' and severity <> 'normal' or code = 'engine_started'
group by all order by utc limit 8""",
    ),
    (
        "History: machines and load of the fleet over time",
        """\
select time_bucket(interval '10 seconds', history_datetime) as utc, count(distinct host_name) as hosts,
       (sum(active_vms) * count(distinct host_name) / count(*))::integer as machines,
       round(avg(cpu_usage_percent), 1) as cpu_percent, round(avg(memory_usage_percent), 1) as memory_percent
from statistics_hosts_resources_usage_samples group by 1 order by 1 limit 10""",
    ),
)
NEXT_QUERY = "select status, count(*) from vms group by 1"


class Report:
    def __init__(self, console: Console) -> None:
        self._console = console

    def _say(self, text: str = "") -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # ------------------------------------------------------------------ what happened

    def opening(self, plan: Plan, directory: Path, runtime: str) -> None:
        cpus = sum(host.shape.cpus for host in plan.hosts)
        memory_gib = sum(host.shape.memory_bytes for host in plan.hosts) >> 30
        self._say(
            f"olvm demo: {len(plan.vms)} machines of the Azure trace on {len(plan.hosts)} simulated hosts "
            f"({cpus} CPUs, {memory_gib} GiB, Google's mix), runtime {runtime}\n"
            f"{plan.workload_s / 60:.0f} minutes of the trace in {plan.seconds:g} s (x{plan.speed:.0f}; arrivals "
            "spread evenly inside each period of 5 minutes).\n"
            "Simulated hypervisors run on the same clock; the control plane runs in real time, with laboratory "
            f"periods: heartbeats each {LABORATORY['heartbeat_period_s']:g} s, leases of "
            f"{LABORATORY['lease_expiry_s']:g} s, a host is given up after {LABORATORY['host_grace_s']:g} s and a "
            "little for each machine.\n"
            f"Files: {directory}"
        )

    def operations(self, replay: Replay, proof: Proof) -> None:
        ledger, seconds = replay.ledger, replay.plan.seconds
        self._say("\nOperations")
        self._say(
            f"  {ledger.sent} sent, {len(ledger.acknowledged)} acknowledged, "
            f"{len(ledger.acknowledged) / seconds:.0f} a second; refused: {_counts(ledger.refusals)}"
        )
        self._say(f"  in the journal: {proof.in_journal}: {_counts(proof.by_status)}")
        for kind, code, reason, count in proof.failures[:SHOWN_MAX]:
            short = reason if len(reason) <= REASON_CHARS_MAX else reason[: REASON_CHARS_MAX - 1] + "…"
            self._say(f"    {count:5} {kind} {code}: {short}")
        self._latencies(ledger, proof)

    def _latencies(self, ledger: Ledger, proof: Proof) -> None:
        if proof.start_ms:
            p50, p90, p99 = proof.start_ms
            self._say(
                f"  start, request to Up, by the journal: p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms "
                f"({proof.starts} starts; a simulated boot is part of it)"
            )
        seen, accepted = ledger.start_latencies_s, ledger.accept_latencies_s
        self._say(
            f"  start, as the driver saw it:          p50 {percentile(seen, 0.5) * 1e3:.0f} ms, "
            f"p90 {percentile(seen, 0.9) * 1e3:.0f} ms, p99 {percentile(seen, 0.99) * 1e3:.0f} ms\n"
            f"  request to durable acknowledgement:   p50 {percentile(accepted, 0.5) * 1e3:.0f} ms, "
            f"p99 {percentile(accepted, 0.99) * 1e3:.0f} ms"
        )

    def clusters(self, watcher: Watcher) -> None:
        self._say("\nClusters, at their fullest")
        for name, fill in sorted(watcher.fills.items()):
            self._say(
                f"  {name:8} {POLICY_BY_CLUSTER.get(name, ''):20} {fill.vms:5} machines placed, "
                f"{fill.cpus_percent:.0f} % of CPUs, {fill.memory_percent:.0f} % of memory reserved"
            )

    def crashes(self, drills: Drills, replay: Replay, watcher: Watcher) -> None:
        self._say("\nCrashes")
        for cost in (drills.host, drills.engine):
            self._say(f"  {_crash_line(cost)}")
        restarts = sum(tenant.restarts for tenant in replay.tenants.values())
        counts = watcher.count_by_code
        died, by_themselves = counts.get("vm_crashed", 0), counts.get("vm_ha_restart", 0)
        leaving = died - restarts - by_themselves
        self._say(
            f"  machines that died with their host: {died}; started again by their tenants: {restarts}, "
            f"by themselves (highly available): {by_themselves}"
            + (f"; starting or leaving at that moment: {leaving}" if leaving > 0 else "")
        )

    def trials(self, trials: Trials, watcher: Watcher) -> None:
        """With laboratory periods: another configuration gives other times."""
        self._say("\nTrials, with laboratory periods")
        if trials.failed:
            self._say(f"  FAILED: {trials.failed}")
        if trials.move is not None:
            move = trials.move
            self._say(
                f"  live migration of {move.vm} ({move.memory_bytes / 2**30:.0f} GiB) from {move.from_host} to "
                f"{move.to_host}: {move.seconds:.2f} s"
            )
        if trials.drain is not None:
            drain = trials.drain
            self._say(
                f"  maintenance of {drain.host}: {drain.machines} machines left in {drain.seconds:.1f} s"
            )
        self._migrations(watcher)
        self._rack(trials)

    def _migrations(self, watcher: Watcher) -> None:
        counts = watcher.count_by_code
        took = spread_text([float(move["seconds"]) for move in watcher.moves])
        allowed = sorted(int(move["downtime_ms"]) for move in watcher.moves if move["downtime_ms"])
        downtime = f"; downtime allowed at most {allowed[-1]} ms of the guest's clock" if allowed else ""
        self._say(
            f"  migrations: {len(watcher.moves)} ({took}), {counts.get('vm_migration_failed', 0)} failed{downtime}"
        )

    def _rack(self, trials: Trials) -> None:
        loss = trials.loss
        if not loss.at_ns:
            self._say("  no rack was lost")
            return
        back = (
            "not back"
            if loss.hosts_back_s is None
            else f"powered on by fencing, up after {loss.hosts_back_s:.1f} s"
        )
        self._say(
            f"  rack {', '.join(loss.hosts)} (process {loss.pid}): {loss.vms_hit} machines ran there, "
            f"{loss.vms_hit_ha} of them highly available; {back}"
        )
        self._say(f"    restarts: {len(loss.comebacks)} of {loss.vms_hit_ha} ({_took(loss.comebacks)})")
        leased = [one for one in loss.comebacks if one.by_lease]
        fenced = [one for one in loss.comebacks if not one.by_lease]
        if leased:
            self._say(f"    by lease: {len(leased)} ({_took(leased)})")
        for priority in sorted({one.priority for one in fenced}, reverse=True):
            of_priority = [one for one in fenced if one.priority == priority]
            self._say(f"    after fencing, priority {priority}: {len(of_priority)} ({_took(of_priority)})")

    def verdict(self, proof: Proof) -> None:
        self._say("\nProof, from the journal")
        self._say(
            f"  machines: {_counts(proof.vms_by_status)}; the driver expects: {_counts(proof.vms_expected)}"
        )
        for line in proof.vms_otherwise[:SHOWN_MAX]:
            self._say(f"    differs: {line}")
        for operation_id in (proof.missing + proof.ended_otherwise)[:SHOWN_MAX]:
            self._say(f"    lost: {operation_id}")
        self._say(
            f"  lost acknowledgements: {proof.lost} of {proof.acknowledged}; "
            f"machines not as expected: {len(proof.vms_otherwise)}"
        )

    # ------------------------------------------------------------------ what can be asked

    def queries(self, dc: DataCenter, plan: Plan) -> None:
        for title, template in QUERIES:
            sql = template.replace("{host}", plan.host_to_kill.shape.name)
            self._say(f"\n{title}\n\n  {sql.replace(chr(10), chr(10) + '  ')}\n")
            try:
                answer = str(dc.sql(sql))
            except OlvmError as error:
                answer = f"no answer: {error.message}"
            self._say("  " + answer.replace("\n", "\n  "))

    def copies(self, proof: CopyProof) -> None:
        """Read after the data center stopped."""
        self._say(
            f"\nProof, from the {proof.hosts_asked} journals that the hosts wrote\n"
            f"  machines that run: {proof.running}; on two hosts: {len(proof.twice)}; "
            f"other than the engine says: {len(proof.otherwise)}"
        )
        for line in (proof.twice + proof.otherwise)[:SHOWN_MAX]:
            self._say(f"    {line}")

    def broken_off(self, doing: str, directory: Path) -> None:
        self._say(
            f"\nThe story broke off at: {doing}. The data center is stopped; its files stay in {directory}"
        )

    def closing(self, directory: Path, wall_s: float, *, stays: bool) -> None:
        self._say(f"\nThe whole story took {wall_s:.0f} s.")
        if not stays:
            self._say("Its files were removed, as --discard asked.")
            return
        self._say(
            f"Its files stay in {directory}\n"
            f"  olvm up -d {directory}                      brings the data center up again\n"
            f"  olvm vm list -d {directory}\n"
            f'  olvm sql "{NEXT_QUERY}" -d {directory}'
        )


def _took(comebacks: list[Comeback]) -> str:
    return spread_text([one.seconds for one in comebacks])


def spread_text(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.1f} s, max {max(seconds):.1f} s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _crash_line(cost: CrashCost) -> str:
    if not cost.at_ns:
        return f"{cost.what}: {cost.note or 'not killed, the replay was over before'}"
    back = "not seen back" if cost.serving_again_s is None else f"back after {cost.serving_again_s:.2f} s"
    hit = (
        f"; {cost.vms_hit} machines ran there, {cost.vms_hit_ha} of them highly available"
        if cost.vms_hit
        else ""
    )
    return f"{cost.what} (process {cost.pid}): {back}{hit}{'; ' + cost.note if cost.note else ''}"

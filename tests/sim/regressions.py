"""Plans that once found something, as values: what a seed draws may change, these do not.

Add one for each finding, shrunk: the plan of `olvm sim replay <token>` (`--json` prints it), or its token. `open` says
that the defect is known and not mended yet; when it is, the test of this plan says so, and the word goes away.
"""

from __future__ import annotations

from typing import NamedTuple

from sim.plan import Knobs, Plan, Shape, Step


class Regression(NamedTuple):
    name: str
    found: str  # which oracle, and what was wrong
    plan: Plan | str  # a plan, or a token
    open: bool = False


REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        name="balancer_and_affinity_swap_two_machines_for_ever",
        found=(
            "L5: in one round power_saving moved one of two machines that a soft group keeps together, and the "
            "group's enforcement moved the other one to where the first had been; so again each minute"
        ),
        plan=Plan(
            seed=70046,
            hours=0.08,
            shape=Shape(
                hosts=2,
                vms=4,
                host_cpus=8,
                host_memory_gib=4,
                vm_vcpus=2,
                vm_memory_gib=1,
                running_percent=100,
                ha_percent=100,
                lease_percent=0,
                fence_percent=0,
                policy="power_saving",
            ),
            knobs=Knobs(boot_s_max=2, quick_timers=1),
            steps=(
                Step(112_455, "affinity", "", 0, 814),
                Step(203_829, "shutdown", "v4", 0, 42),
                Step(283_671, "migrate", "v3", 0, 19),
            ),
        ),
    ),
    Regression(
        name="host_activated_after_its_storage_came_back_is_drained_for_ever",
        found=(
            "L5: a NonOperational host whose problems were gone already was activated by a person; nobody told the "
            "cluster to stop draining it, and its machines wandered"
        ),
        plan=Plan(
            seed=4,
            hours=0.03,
            shape=Shape(
                hosts=3, vms=6, host_memory_gib=24, running_percent=100, ha_percent=0, fence_percent=0
            ),
            steps=(
                *(Step(20_000, "host_problem", host, 30_000) for host in ("H1", "H2", "H3")),
                *(Step(80_000, "activate", host) for host in ("H1", "H2", "H3")),
            ),
        ),
    ),
    Regression(
        name="calls_that_fail_by_chance_while_the_world_is_built",
        found="simulator: start failures drawn by chance ended the building of the world, and the seed tested nothing",
        plan=Plan(
            seed=80040,
            hours=0.02,
            shape=Shape(hosts=4, vms=20, running_percent=100),
            knobs=Knobs(call_fault_per_10k=900),
        ),
    ),
    Regression(
        name="old_copy_of_a_migrated_machine_is_ended",
        found=(
            "oracle L5: the end of a source that was never told of the hand-over counted as the machine's own end, so "
            "that its restart after its host's crash looked like one that nobody had asked for"
        ),
        plan=Plan(
            seed=80063,
            hours=0.25,
            shape=Shape(
                hosts=4,
                vms=20,
                host_cpus=4,
                host_memory_gib=45,
                vm_vcpus=2,
                vm_memory_gib=4,
                ha_percent=50,
                lease_percent=100,
                fence_percent=0,
                kdump_percent=100,
            ),
            knobs=Knobs(quick_timers=1),
            steps=(
                Step(157_705, "migration_loses_confirm", "H1", 0, 3),
                Step(587_432, "migrate", "v13", 0, 732),
                Step(889_149, "crash_host", "H2", 28_567, 8),
            ),
        ),
    ),
    Regression(
        name="guest_crashes_before_its_old_copy_is_ended",
        found=(
            "oracle S2: a machine whose migration's source was not told of the hand-over crashed on its target, and "
            "its restart counted as one beside a living copy"
        ),
        plan="p-u63j73jaZZK_btRAEMZtI3okEM-ARMNxTWigQykpEc1qbY99i_eP2Zm1sGjoIiFEuqOhiC44uTvFhAQBPS06Kp6DN0Bi15e7K-hmft_u9-2s5uAjAuS_ovj3n9PamkJIOEmtIy67iXEWfz6av394-9Zf1uGE13DoKRJeP24U3ukszyqMFwGxrHZ443woFShjW1aKdDxvFGuClPS-2glJEFBIg9G5dVoLXbIabAaaniwnfFPnvQSOsGmjvgCdwU6tcqfqrXpSGymy9qu3hga0bFkukKxIHUG-IJCggGz7o6u0SfFwKTl5u5Y5jBbPBRHYUJ4RFzJ4stG9KjrzT8Rtd5G72kf4e1v0Lbiw__mXTJqsYrkVBbG69sPzl9HnNUSCmuFA-swoJfyfrdsLMlazzQuGqS4zLiUruJO0Nb_MhaWW2avA4dwyNYauXJdG5oyXHvt5XjjhM0kosBh3IRun09WHxakSZXCYNeNolbw9mvotiN_s6J6nd2f7o8BvftrxB9EqfjecJtjQ4-b-yOPHs_2xF5JnT7-vBWE08z8IyDKjC2GV94vicDl5ddCXDsLmWI4TwBB47WiOQOS3AV__A1njEys",
    ),
    Regression(
        name="second_takeover_is_refused_while_the_first_one_runs_unheard",
        found=(
            "S8: H1 died, and a takeover to H3, which was cut off, ran unheard; the next one, to H5, was not heard of "
            "either and counted as the machine. H5 came back, said that it did not get the lease, and the machine was "
            "called down"
        ),
        plan=Plan(
            seed=172_006_639,
            profile="brutal",
            hours=0.092,
            shape=Shape(
                hosts=8,
                vms=8,
                racks=2,
                host_cpus=8,
                host_memory_gib=17,
                vm_vcpus=2,
                vm_memory_gib=4,
                vm_silos=0,
                running_percent=100,
                ha_percent=100,
                lease_percent=50,
                fence_percent=100,
                kdump_percent=100,
                policy="power_saving",
                migration_policy="suspend_workload",
                telemetry=False,
            ),
            knobs=Knobs(latency_us=0, jitter_us=0),
            steps=(
                Step(43_957, "crash_host", "H1", 186_840, 2),
                Step(68_520, "isolate_host", "H3", 296_000, 928),
                Step(78_416, "cut_one_way", "engine|host-5", 236_828, 1),
                Step(90_293, "pause_agent", "H2", 97_755, 1),
            ),
        ),
    ),
    Regression(
        name="waiting_copy_of_a_restarted_agent_loses_its_lease_and_is_ended_without_an_order",
        found=(
            "S9: the storage was away when a restarted agent asked anew for the lease of an incoming copy that it had "
            "made; it told the engine that nothing had begun, and ended the copy without an order"
        ),
        plan=Plan(
            seed=6200227,
            profile="brutal",
            hours=0.05301361111111111,
            shape=Shape(
                hosts=3,
                vms=6,
                racks=3,
                host_cpus=8,
                host_memory_gib=5,
                vm_vcpus=2,
                vm_memory_gib=1,
                vm_silos=0,
                running_percent=50,
                ha_percent=50,
                lease_percent=50,
                fence_percent=60,
                kdump_percent=0,
                policy="vm_evenly_distributed",
                migration_policy="suspend_workload",
                telemetry=False,
            ),
            knobs=Knobs(),
            steps=(
                Step(133658, "crash_after_turn", "host-3", 0, 8),
                Step(166767, "start", "v4", 0, 0),
                Step(167843, "kill_libvirtd", "H2", 10489, 3),
                Step(173658, "slow_disk", "engine", 5610, 8),
                Step(176588, "migrate", "v4", 0, 464),
                Step(178121, "isolate_fully", "H3", 67500, 299),
            ),
        ),
    ),
    Regression(
        name="stop_of_a_failed_cluster_shutdown_is_taken_for_the_answer_to_the_start",
        found=(
            "L2: a stop that the cluster's shutdown had ordered outlived it; its end was counted as the answer "
            "to the cluster's start, and the machine stayed down"
        ),
        plan=Plan(
            seed=6400739,
            profile="brutal",
            hours=0.25,
            shape=Shape(
                hosts=4,
                vms=8,
                racks=2,
                host_cpus=8,
                host_memory_gib=6,
                vm_vcpus=2,
                vm_memory_gib=1,
                vm_silos=0,
                running_percent=80,
                ha_percent=100,
                lease_percent=100,
                fence_percent=0,
                kdump_percent=100,
                policy="evenly_distributed",
                migration_policy="suspend_workload",
                telemetry=False,
            ),
            knobs=Knobs(clock_step_s_max=10800),
            steps=(
                Step(469042, "isolate_fully", "H4", 68000, 485),
                Step(470966, "cluster_shutdown", "", 0, 16),
                Step(496368, "crash_after_turn", "engine", 0, 3),
                Step(510151, "cluster_start", "", 0, 731),
            ),
        ),
    ),
    Regression(
        name="machine_comes_to_a_target_that_had_given_up_as_its_source_began",
        found=(
            "S8 (S9 and S2 in other seeds): the target's agent had told that nothing ever ran there; the machine "
            "counted as down while it ran, and was ended without an order"
        ),
        plan=Plan(
            seed=1007,
            hours=0.11,
            shape=Shape(
                hosts=3,
                vms=9,
                racks=2,
                host_cpus=8,
                host_memory_gib=8,
                vm_vcpus=1,
                vm_memory_gib=1,
                running_percent=80,
                ha_percent=0,
                lease_percent=0,
                fence_percent=60,
                kdump_percent=100,
                policy="vm_evenly_distributed",
                migration_policy="suspend_workload",
            ),
            knobs=Knobs(clock_drift_ppm_max=100, old_agents=1),
            steps=(
                Step(181_599, "arrival_is_late", "H1", 0, 8),
                Step(199_779, "arrival_is_late", "H1", 0, 3),
                Step(239_114, "migrate", "v5", 0, 955),
                Step(340_014, "migrate", "v5", 0, 538, "H1"),
                Step(350_088, "suppress_events", "H1", 19_502, 8),
            ),
        ),
    ),
    Regression(
        name="machine_that_was_sent_whole_to_a_host_whose_agent_hangs_is_migrating_for_ever",
        found=(
            "S11: nobody fences the host, and only it knows whether the machine runs there; the machine was said to be "
            "migrating all that time, and not to be unknown"
        ),
        plan=Plan(
            seed=50083,
            hours=0.384,
            shape=Shape(
                hosts=8,
                vms=24,
                racks=2,
                host_cpus=4,
                host_memory_gib=29,
                vm_vcpus=2,
                vm_memory_gib=4,
                running_percent=80,
                ha_percent=0,
                lease_percent=50,
                fence_percent=0,
                kdump_percent=0,
                policy="none",
                migration_policy="minimal_downtime",
                telemetry=True,
            ),
            knobs=Knobs(quick_timers=1),
            steps=(
                Step(47_426, "migrate", "v6", 0, 513, "H1"),
                Step(121_723, "migration_loses_confirm", "H1", 0, 8),
                Step(121_724, "hang_agent", "H1", 0, 2),
            ),
        ),
    ),
    Regression(
        name="target_whose_libvirtd_was_away_when_it_was_to_be_ended_waits_for_ever",
        found=(
            "S7: the source is gone, so its target is ordered to end; that fails and is not ordered again, and the "
            "machine is unknown for ever and holds its place"
        ),
        plan=Plan(
            seed=5018,
            hours=0.25,
            shape=Shape(
                hosts=5,
                vms=40,
                racks=3,
                host_cpus=8,
                host_memory_gib=26,
                vm_vcpus=1,
                vm_memory_gib=1,
                running_percent=80,
                ha_percent=100,
                lease_percent=100,
                fence_percent=0,
                kdump_percent=100,
                policy="power_saving",
                migration_policy="post_copy",
                disks=True,
            ),
            knobs=Knobs(quick_timers=1),
            steps=(
                Step(636_007, "policy", "", 0, 21),
                Step(654_240, "migrate", "v17", 0, 1),
                Step(800_326, "crash_host", "H1", 25_642, 3),
                Step(805_346, "migrate", "v9", 0, 1),
                Step(812_240, "kill_libvirtd", "H5", 16_614, 3),
            ),
        ),
    ),
    Regression(
        name="order_to_send_that_comes_after_its_target_was_ended",
        found=(
            "S3: a source that sent nothing was believed once its target had ended; the order to send was still on its "
            "way, the target took the machine in all the same and ended it, and the source was told to go on"
        ),
        plan=Plan(
            seed=7_801_711,
            profile="brutal",
            hours=0.13686722222222222,
            shape=Shape(
                hosts=3,
                vms=2,
                host_cpus=4,
                host_memory_gib=6,
                running_percent=100,
                ha_percent=100,
                lease_percent=0,
                fence_percent=60,
                kdump_percent=30,
                migration_policy="suspend_workload",
                disks=True,
            ),
            steps=(
                Step(20_676, "stop", "v1", 0, 794),
                Step(318_859, "migration_loses_confirm", "H2", 0, 2),
                Step(322_279, "stop", "v2", 0, 68),
                Step(330_779, "clog", "host-1|engine", 30_540, 2),
                Step(352_845, "start", "v1", 0, 483),
                Step(358_859, "storm", "", 60_628, 2),
                Step(387_469, "arrival_is_late", "H3", 0, 1),
                Step(394_294, "migrate", "v1", 0, 971, "H3"),
            ),
        ),
    ),
    Regression(
        name="report_that_history_refused_as_too_late_was_acknowledged",
        found=(
            "S14: copies of reports that their agent had dropped since came minutes later, past the window; history "
            "did not take them, and the telemetry actor said that it has them"
        ),
        plan=Plan(
            seed=900_116,
            profile="brutal",
            hours=0.24328833333333333,
            shape=Shape(
                hosts=8,
                vms=16,
                host_memory_gib=29,
                vm_memory_gib=4,
                running_percent=100,
                ha_percent=100,
                lease_percent=100,
                fence_percent=0,
                kdump_percent=100,
                telemetry=True,
            ),
            knobs=Knobs(late_duplicate_per_10k=150, quick_timers=1),
            steps=(
                Step(94_285, "storm", "", 325_950, 2),
                Step(474_710, "storm", "", 273_468, 1),
                Step(538_325, "disks_fail", "H2", 8_112, 8),
                Step(685_622, "crash_telemetry", "", 82_197, 2),
            ),
        ),
    ),
)

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
)

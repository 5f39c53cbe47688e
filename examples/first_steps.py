"""A data center, eight hosts and one machine: the shortest useful driver script.

python examples/first_steps.py [ray|local]      state stays in ./lab; `--directory DIR` puts it elsewhere
"""

from __future__ import annotations

import argparse

import olvm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime", nargs="?", choices=["ray", "local"], default="ray")
    parser.add_argument("--directory", default="lab")
    arguments = parser.parse_args()

    # Simulated machines live twenty times as fast, or 8 GiB at 52 MiB/s would take two and a half minutes to migrate.
    settings = {"simulated": {"time_scale": 20}}
    with olvm.DataCenter.open(
        arguments.directory, backend="simulated", runtime=arguments.runtime, **settings
    ) as dc:
        prod = dc.clusters.create("prod", policy="evenly_distributed")
        for n in range(8):
            prod.hosts.add(f"kvm{n:02}", cpus=32, memory="256GiB")
        web = prod.vms.create("web-1", vcpus=4, memory="8GiB", high_availability=True)
        web.start().wait(timeout=60)  # every command returns a durable Operation
        elsewhere = "kvm03" if web.host != "kvm03" else "kvm04"
        web.migrate(to=elsewhere).wait(timeout=120)
        print(dc.sql("select name, status, host from vms"))  # rows; .df(), .arrow(), .pl()


if __name__ == "__main__":
    main()

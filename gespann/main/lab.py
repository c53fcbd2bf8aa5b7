"""The lab that stays: ``python -m gespann.main.lab up | down | status``, which is `make up` and `make down`.

``up`` starts what is not there and says where everything is; again, it repairs. ``down`` takes all of it away, data
too, also after an ``up`` that was interrupted. Exit status 0, or 1 with the reason on stderr.
"""

import argparse
import sys
import time
from pathlib import Path

from gespann.demo.doors import describe
from gespann.demo.site import PROJECT, Site, SiteError
from gespann.lab import LabError, name_and_net
from gespann.system.processes import CommandFailed

DIRECTORY = PROJECT / "var/lab"
NAME = "gespann"
NET = "198.18.90"
BESIDE = """\
a lab beside others needs a name and three networks of its own; `make down` then takes it away as usual:
  .venv/bin/python -m gespann.main.lab up --name NAME --net 198.18.NUMBER"""


def site() -> Site:
    """The one of `make up`."""
    return Site(DIRECTORY, *(name_and_net(DIRECTORY) or (NAME, NET)))


def up(site: Site, hosts: int) -> None:
    if site.is_up and len(site.lab.nodes()) > hosts:
        print("The lab is up already.\n")
    else:
        began = time.monotonic()
        print("starting the machines of the lab", flush=True)
        site.up_nodes(hosts)
        print("starting the array group", flush=True)
        site.start_group()
        print("starting the pool", flush=True)
        site.start_pool()
        print(f"The lab is up, after {time.monotonic() - began:.1f} s.\n")
    print(describe(site.access))


def down(site: Site) -> None:
    there = site.lab.directory.exists()
    site.down()
    print("The lab is down; nothing of it is left." if there else "There is no lab.")


def status(site: Site) -> None:
    print(describe(site.access) if site.is_up else "The lab is not up.")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gespann-lab", description="An array group and a pool, in namespaces.")
    parser.add_argument("command", choices=("up", "down", "status"), help="down deletes its data")
    parser.add_argument("--hosts", type=int, default=1, help="how many hosts the pool has, at least (default: 1)")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where it lives (default: var/lab)")
    parser.add_argument("--name", help=f"begins the names of its namespaces (default: {NAME}, or as it was made)")
    parser.add_argument("--net", help=f"first three octets of its first network (default: {NET}, or as it was made)")
    options = parser.parse_args(words)
    name, net = name_and_net(options.directory) or (NAME, NET)
    try:
        site = Site(options.directory, options.name or name, options.net or net)
        if options.command == "up":
            up(site, hosts=options.hosts)
        elif options.command == "down":
            down(site)
        else:
            status(site)
    except SiteError as error:
        print(f"{error}\n{site.log_tails()}", file=sys.stderr)
        return 1
    except (LabError, CommandFailed) as error:
        print(error, file=sys.stderr)
        if options.command == "up" and isinstance(error, LabError):
            print(BESIDE, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `make down` takes away what is there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

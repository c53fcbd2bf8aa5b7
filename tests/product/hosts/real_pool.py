"""A pool of two hosts, as machines of namespaces with a real libvirtd each, and `xe` on the first one."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from gespann.demo.site import AGENT_DATA, AGENT_RUN, DOOR_PORT, POOL_RUN, XE, Site
from gespann.lab.node import wait_until
from gespann.system import processes
from tests.own_nets import OWN, net_of

WAIT_S = 240.0


class Pool:
    def __init__(self, directory: Path) -> None:
        self.site = Site(directory, f"tr{OWN}", net_of(4))
        self.hosts: dict[str, str] = {}

    def begin(self) -> None:
        self.site.up_nodes(hosts=2)
        self.site.start_pool()
        for name in ("host1", "host2"):
            self.hosts[name] = self.xe(f"host-list hostname={name} --minimal")

    def xe(self, line: str) -> str:
        socket = self.site.lab.directory / "host1" / POOL_RUN[1:] / "xapi"
        env = {**os.environ, "GESPANN_XAPI_SOCKET": str(socket)}
        return processes.run([XE, *shlex.split(line)], env=env, timeout_s=300).stdout.strip()

    def until(self, line: str, answer: str) -> None:
        def said() -> bool:
            try:
                return self.xe(line) == answer
            except processes.CommandFailed:
                return False  # the coordinator is not up yet

        wait_until(said, WAIT_S, f"{line}: {answer}")

    def started_vm(self, name: str, host: str) -> str:
        vm = self.xe(f"vm-create name-label={name}")
        sizes = " ".join(f"{limit}=64MiB" for limit in ("static-min", "dynamic-min", "dynamic-max", "static-max"))
        self.xe(f"vm-memory-limits-set uuid={vm} {sizes}")
        self.xe(f"vm-start uuid={vm} on={self.hosts[host]}")
        return vm

    def give_systemctl(self, name: str) -> Callable[[], str]:
        """The agent of that host finds ours; gives what was asked of it, once it was asked."""
        node = self.site.lab.node(name)
        node.path("/run/systemctl").mkdir()
        script, asked = node.path("/run/systemctl/systemctl"), node.path("/run/systemctl/asked")
        script.write_text('#!/bin/sh\ncd /run/systemctl && echo "$*" > new && mv new asked\n')
        script.chmod(0o755)
        words = [sys.executable, "-m", "gespann.main.agent", "--run", AGENT_RUN, "--data", AGENT_DATA]
        env = {**os.environ, "PATH": f"/run/systemctl:{os.environ['PATH']}:/usr/sbin:/sbin"}
        node.uninstall("agent")
        node.install("agent", [*words, "--door", f"{node.address('mgmt')}:{DOOR_PORT}"], env=env)

        def wanted() -> str:
            wait_until(asked.exists, WAIT_S, "systemctl is asked")
            return asked.read_text().strip()

        return wanted

    def start_anew(self, name: str) -> None:
        """As an orderly reboot: peers hear that its processes have ended."""
        node = self.site.lab.node(name)
        node.power_off()
        node.boot()

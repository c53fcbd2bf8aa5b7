"""A lab comes, breaks as told, and goes without a trace."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gespann.lab import Lab, LabError, Node
from gespann.system import processes
from tests.own_nets import OWN, net_of

pytestmark = pytest.mark.real


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def traces(lab: Lab) -> list[str]:
    """What a machine shows of a lab."""
    found = [line for line in processes.run(["ip", "netns", "list"]).stdout.split() if line.startswith(f"{lab.name}-")]
    links = json.loads(processes.run(["ip", "-j", "link"]).stdout)
    found += [link["ifname"] for link in links if link["ifname"].startswith(f"{lab.name}-")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(lab.directory) in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(lab.directory) in command:
            found.append(command)
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab") / "l", name=f"tl{OWN}", net=net_of(8))
    try:
        lab.up(hosts=2)
        yield lab
    finally:
        lab.down()
    assert traces(lab) == []


@pytest.fixture
def host(lab: Lab) -> Node:
    lab.up(hosts=2)
    return lab.node("host1")


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=0.3).close()
    except OSError:
        return False
    return True


def listen(node: Node, log: Path) -> None:
    code = "import socket,time; s=socket.create_server(('',7000)); print('up',flush=True); time.sleep(1000)"
    node.start(["python3", "-c", code], log=log)
    until(lambda: "up" in log.read_text())


def test_each_host_is_a_machine_of_its_own(lab: Lab, host: Node):
    other = lab.node("host2")
    assert host.run(["hostname"]).stdout.strip() == "host1"
    assert host.address("stor") in host.run(["ip", "-br", "addr"]).stdout
    host.path("/var/lib/mark").write_text("of host1")
    assert host.run(["cat", "/var/lib/mark"]).stdout == "of host1"
    assert other.run(["ls", "/var/lib/mark"], check=False).exit_code != 0
    assert not Path("/var/lib/mark").exists()
    assert len(host.run(["ls", "/proc"]).stdout) < len(os.listdir("/proc")) * 20


def test_a_person_reaches_a_node_until_the_cable_is_out(host: Node, tmp_path: Path):
    listen(host, tmp_path / "log")
    assert answers(host.address(), 7000)
    host.cut("mgmt")
    assert not answers(host.address(), 7000)
    host.heal("mgmt")
    until(lambda: answers(host.address(), 7000))
    host.drop("mgmt")
    assert not answers(host.address(), 7000)
    host.undrop("mgmt")
    until(lambda: answers(host.address(), 7000))


def test_services_come_back(host: Node):
    until(lambda: host.service_pid("libvirtd") is not None)
    before = host.service_pid("libvirtd")
    os.kill(before, signal.SIGKILL)
    until(lambda: host.service_pid("libvirtd") not in (None, before))
    until(host.libvirtd_answers)


def test_a_service_starts_at_boot_and_ends_when_uninstalled(lab: Lab, host: Node):
    host.install("idle", ["sleep", "100000"])
    until(lambda: host.service_pid("idle") is not None)
    host.crash()
    assert not host.is_on
    assert not lab.is_up
    host.boot()
    until(lambda: host.service_pid("idle") is not None)
    host.uninstall("idle")
    assert host.service_pid("idle") is None


def test_power_loss_takes_every_process(host: Node, tmp_path: Path):
    process = host.start(["sh", "-c", "sleep 5000 & sleep 5000"], log=tmp_path / "log")
    host.power_off()
    process.wait()
    assert host.pids() == []
    host.boot()
    assert host.path("/run").is_dir()


def test_a_signal_reaches_the_command_itself(host: Node, tmp_path: Path):
    process = host.start(["sleep", "5000"], log=tmp_path / "log")
    process.signal(signal.SIGKILL)
    assert process.wait() != 0


def test_two_labs_and_what_a_killed_one_leaves(lab: Lab, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("two") / "l"
    second = Lab(directory, name=f"tm{OWN}", net=net_of(12))
    second.up(hosts=1)
    try:
        with pytest.raises(LabError, match="another lab"):
            Lab(directory.with_name("m"), name=f"tm{OWN}", net=net_of(16)).up()
        with pytest.raises(LabError, match="in use"):
            Lab(directory.with_name("n"), name=f"tn{OWN}", net=net_of(11)).up()
        (directory / "host1/boot.json").unlink()  # its maker was killed before it noted the host
        second.switch.undrop("host1", "mgmt")
        assert not second.is_up
        second.up(hosts=1)
        assert second.is_up
        (directory / "host1/boot.json").unlink()
    finally:
        Lab(directory, name=f"tm{OWN}", net=net_of(12)).down()
    assert traces(second) == []
    assert lab.is_up

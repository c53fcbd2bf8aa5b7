"""Persistent reservations as cluster software uses them: sg_persist on a path, mpathpersist on a map."""

import signal
from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Configure, Target
from tests.product.engine.engine_process import EngineProcess
from tests.product.engine.kernel_initiator.linux_host import LinuxHost
from tests.product.engine.kernel_initiator.test_multipath import GOOD, LOST, MAP
from tests.product.engine.kernel_initiator.wires import Wires

pytestmark = [pytest.mark.engine, pytest.mark.real]
Serve = Callable[..., Target]
OTHER = "iqn.1993-08.org.debian:01:another"
WRITE = "dd if=/dev/zero bs=4096 count=1 oflag=direct of="


def two_nodes(host: LinuxHost) -> tuple[str, str]:
    """Two disks over the same volume, of two initiator names: what two nodes of a cluster have."""
    first = host.connect()
    iface = "iscsiadm -m iface -I node2 -o"
    host.run(f"{iface} new && {iface} update -n iface.initiatorname -v {OTHER}")
    host.discover(Wires.engine[1], "-I node2")
    return first, host.log_in(Wires.engine[1], words="-I node2")


def test_one_node_keeps_the_other_from_writing(host: LinuxHost, serve: Serve) -> None:
    serve(multihost=True)
    first, second = two_nodes(host)
    for disk, key in ((first, "0xa1"), (second, "0xb2")):
        host.run(f"sg_persist --out --register --param-sark={key} {disk}")
    keys = host.run(f"sg_persist --in --read-keys {first}")
    assert ("2 registered reservation keys" in keys, "0xa1" in keys, "0xb2" in keys) == (True, True, True)
    host.run(f"sg_persist --out --reserve --param-rk=0xa1 --prout-type=1 {first}")  # write exclusive
    assert "Write Exclusive" in host.run(f"sg_persist --in --read-reservation {second}")
    host.run(WRITE + first)
    assert host.guest.attempt(WRITE + second).status != 0
    assert "reservation conflict" in host.run("dmesg")
    host.run(f"dd if={second} of=/dev/null bs=4096 count=1 iflag=direct")
    # The first node is lost: the second takes its place, and then the first may not write any more.
    host.run(f"sg_persist --out --preempt --param-rk=0xb2 --param-sark=0xa1 --prout-type=1 {second}")
    host.run(WRITE + second)
    assert host.guest.attempt(WRITE + first).status != 0
    host.run(f"sg_persist --out --clear --param-rk=0xb2 {second}")
    host.run(WRITE + first)


def test_a_reservation_outlives_the_engine(host: LinuxHost, engine: EngineProcess, serve: Serve) -> None:
    target = serve(multihost=True)
    first, second = two_nodes(host)
    host.run(f"sg_persist --out --register --param-sark=0xa1 --param-aptpl {first}")
    host.run(f"sg_persist --out --reserve --param-rk=0xa1 --prout-type=5 {first}")
    engine.end(signal.SIGKILL)
    control = engine.start()
    control.call(Configure(targets=[target], chap_users=[]))
    control.close()
    assert "0xa1" in host.run(f"sg_persist --in --read-reservation {second}")
    assert host.guest.attempt(WRITE + second).status != 0
    host.run(WRITE + first)


def test_through_multipath(host: LinuxHost, wires: Wires, serve: Serve) -> None:
    """Both paths are registered, a write may take either, and one that comes back is registered still."""
    serve(multihost=True)
    host.start_multipath("reservation_key file")
    host.connect(Wires.engine[0])
    host.connect(Wires.engine[1])
    host.wait_for_paths(GOOD, GOOD)
    host.run(f"mpathpersist --out --register --param-sark=0xa1 {MAP}")
    host.run(f"mpathpersist --out --reserve --param-rk=0xa1 --prout-type=5 {MAP}")
    assert host.run(f"mpathpersist --in --read-full-status {MAP}").count("Key = 0xa1") >= 1
    assert host.run(f"mpathpersist --in --read-keys {MAP}").count("0xa1") == 2
    host.run(f"for i in 1 2 3 4; do {WRITE}{MAP} || exit 1; done")
    wires.cut(1)
    host.wait_for_paths(GOOD, LOST)
    wires.heal(1)
    host.wait_for_paths(GOOD, GOOD)
    assert host.run(f"mpathpersist --in --read-keys {MAP}").count("0xa1") == 2
    host.run(f"mpathpersist --out --release --param-rk=0xa1 --prout-type=5 {MAP}")
    assert "there is NO reservation held" in host.run(f"mpathpersist --in --read-reservation {MAP}")

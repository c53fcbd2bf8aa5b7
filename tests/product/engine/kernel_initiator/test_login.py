"""The Linux kernel's initiator: discovery, login, CHAP, digests."""

from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import Access, ChapUser, Configure, SessionList, Target
from tests.product.engine.conftest import NAME, VOLUME
from tests.product.engine.engine_process import Control
from tests.product.engine.kernel_initiator.linux_host import INITIATOR, LinuxHost
from tests.product.engine.kernel_initiator.wires import PORT, Wires

pytestmark = [pytest.mark.engine, pytest.mark.real]
SECRET, GROUP_SECRET = "a-secret-of-vm1", "the-secret-of-the-group"
Serve = Callable[..., Target]


def demand_chap(control: Control, mutual: bool = False) -> None:
    target = Target(volume=VOLUME, name=NAME, online=True, access=[Access(chap_user="vm1")])
    group = ChapUser(user="group1", secret=GROUP_SECRET) if mutual else None
    control.call(Configure(targets=[target], chap_users=[ChapUser(user="vm1", secret=SECRET)], mutual=group))


def test_discovery_login_logout(host: LinuxHost, control: Control, serve: Serve) -> None:
    serve(Access(initiator=INITIATOR), vendor="EQLOGIC", product="100E-00", revision="4.3")
    for address in Wires.engine:
        assert host.discover(address) == f"{address}:{PORT},1 {NAME}\n"
    disk = host.log_in()
    (session,) = control.call(SessionList(volume=VOLUME)).sessions
    assert (session.initiator, session.address) == (INITIATOR, Wires.guest[0])
    shown = host.run(f"sg_inq {disk}")
    assert "Vendor identification: EQLOGIC" in shown
    assert "Product identification: 100E-00" in shown
    # What udev names the disk by on a real host.
    assert host.run(f"readlink -f /dev/disk/by-id/scsi-3{VOLUME}").strip() == disk
    host.run(f"iscsiadm -m node -T {NAME} --logout")
    assert control.call(SessionList(volume=VOLUME)).sessions == []


def test_another_name_finds_nothing_and_opens_nothing(host: LinuxHost, serve: Serve) -> None:
    serve(Access(initiator="iqn.1993-08.org.debian:01:another"))
    assert "No portals found" in host.guest.attempt(f"iscsiadm -m discovery -t st -p {Wires.engine[0]}").err
    node = f"iscsiadm -m node -T {NAME} -p {Wires.engine[0]}"
    host.run(f"{node} -o new")
    refused = host.guest.attempt(f"{node} --login")
    assert refused.status != 0
    assert "authorization failure" in refused.err


@pytest.mark.parametrize("algorithm", ["MD5", "SHA1", "SHA256", "SHA3-256"])
def test_chap(host: LinuxHost, control: Control, algorithm: str) -> None:
    demand_chap(control)
    host.discover(Wires.engine[0])
    host.chap("vm1", SECRET, algorithms=algorithm)
    host.log_in()
    (session,) = control.call(SessionList(volume=VOLUME)).sessions
    assert session.chap_user == "vm1"


def test_chap_with_a_wrong_secret_or_none(host: LinuxHost, control: Control) -> None:
    demand_chap(control)
    host.discover(Wires.engine[0])
    login = f"iscsiadm -m node -T {NAME} -p {Wires.engine[0]} --login"
    assert "authorization failure" in host.guest.attempt(login).err
    host.chap("vm1", SECRET + "x")
    assert "authorization failure" in host.guest.attempt(login).err
    assert control.call(SessionList(volume=VOLUME)).sessions == []


def test_mutual_chap(host: LinuxHost, control: Control) -> None:
    demand_chap(control, mutual=True)
    host.discover(Wires.engine[0])
    host.chap("vm1", SECRET, mutual=("group1", GROUP_SECRET))
    disk = host.log_in()
    host.run(f"dd if={disk} of=/dev/null bs=1M count=1")
    host.run(f"iscsiadm -m node -T {NAME} --logout")
    host.chap("vm1", SECRET, mutual=("group1", GROUP_SECRET + "x"))
    refused = host.guest.attempt(f"iscsiadm -m node -T {NAME} -p {Wires.engine[0]} --login")
    assert refused.status != 0, "the host believes an array that does not know the secret"
    assert control.call(SessionList(volume=VOLUME)).sessions == []


@pytest.mark.parametrize("header", ["CRC32C", "None"])
@pytest.mark.parametrize("data", ["CRC32C", "None"])
def test_digests(host: LinuxHost, serve: Serve, header: str, data: str) -> None:
    serve()
    host.discover(Wires.engine[0])
    host.set_node(**{"node__conn[0]__iscsi__HeaderDigest": header, "node__conn[0]__iscsi__DataDigest": data})
    disk = host.log_in()
    agreed = host.run("cat /sys/class/iscsi_connection/*/header_digest /sys/class/iscsi_connection/*/data_digest")
    assert agreed.split() == [str(int(digest == "CRC32C")) for digest in (header, data)]
    # Lengths that need padding do not exist on a disk; all sizes of bursts do.
    host.fio_result(host.fio(disk, ["--rw=randwrite", "--bsrange=512-512k", "--size=3M"])).assert_whole()

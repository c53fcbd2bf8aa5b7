"""Two paths under dm-multipath, with the settings of the how-to page."""

from collections.abc import Callable

import pytest

from gespann.seams.engine_socket import SessionList, Target, VolumeResize
from tests.product.engine.conftest import MIB, VOLUME
from tests.product.engine.engine_process import Control
from tests.product.engine.kernel_initiator.linux_host import LinuxHost
from tests.product.engine.kernel_initiator.wires import Wires

pytestmark = [pytest.mark.engine, pytest.mark.real]
Serve = Callable[..., Target]
MAP = f"/dev/mapper/3{VOLUME}"
GOOD, LOST = ("active", "ready"), ("failed", "faulty")


@pytest.fixture(params=[("EQLOGIC", "100E-00"), ("GESPANN", "VOLUME")], ids=["group", "engine"])
def names(request: pytest.FixtureRequest) -> dict[str, str]:
    vendor, product = request.param
    return {"vendor": vendor, "product": product}


def connect_both(host: LinuxHost) -> None:
    host.start_multipath()
    for address in Wires.engine:
        host.connect(address)
    host.wait_for_paths(GOOD, GOOD)


def test_two_sessions_become_one_device(host: LinuxHost, control: Control, serve: Serve, names: dict[str, str]) -> None:
    serve(**names)
    connect_both(host)
    assert len(control.call(SessionList(volume=VOLUME)).sessions) == 2
    table = host.run(f"dmsetup table 3{VOLUME}")
    # One group of both paths, no hardware handler, and I/O waits when no path is left: what the page asks for.
    assert " multipath 1 queue_if_no_path 0 1 1 service-time 0 2 " in table
    assert host.run("cat /sys/class/iscsi_session/*/recovery_tmo").split() == ["5", "5"]
    before = [session.read_bytes for session in control.call(SessionList(volume=VOLUME)).sessions]
    host.run(f"dd if={MAP} of=/dev/null bs=1M iflag=direct")
    after = [session.read_bytes for session in control.call(SessionList(volume=VOLUME)).sessions]
    assert sum(after) - sum(before) >= 64 * MIB


def test_a_path_is_lost_and_comes_back_under_load(host: LinuxHost, wires: Wires, serve: Serve) -> None:
    serve()
    connect_both(host)
    host.fio_result(host.fio(MAP, ["--rw=write", "--bs=64k", "--size=6M"])).assert_whole()
    load = host.fio_endless(MAP, ["--bsrange=4k-64k", "--offset=16M", "--size=32M"])
    for lost in (0, 1):
        wires.cut(lost)
        host.wait_for_paths(GOOD, LOST)
        wires.heal(lost)
        host.wait_for_paths(GOOD, GOOD)
    result = host.end_fio(load)
    result.assert_whole()
    host.fio_result(host.fio(MAP, ["--rw=write", "--bs=64k", "--size=6M", "--verify_only"])).assert_whole()


def test_all_paths_lost_and_writes_wait(host: LinuxHost, wires: Wires, serve: Serve) -> None:
    serve()
    connect_both(host)
    load = host.fio_endless(MAP, ["--bsrange=4k-64k", "--size=32M"])
    wires.cut(0)
    wires.cut(1)
    host.wait_for_paths(LOST, LOST)
    write = host.guest.start(f"dd if=/dev/urandom of={MAP} bs=4k count=64 seek=12288 oflag=direct")
    host.run("iscsiadm -m session -P 1")  # a while in which nothing is waited for
    assert load.ended() is None
    assert write.ended() is None, "a write ended with no path to the array"
    wires.heal_all()
    host.wait_for_paths(GOOD, GOOD)
    assert write.wait().status == 0
    host.end_fio(load).assert_whole()


def test_a_map_grows_with_the_volume(host: LinuxHost, control: Control, serve: Serve) -> None:
    serve()
    connect_both(host)
    host.run(f"mkfs.ext4 -q {MAP} && mount {MAP} /mnt")
    control.call(VolumeResize(volume=VOLUME, size_bytes=128 * MIB))
    host.run("iscsiadm -m session --rescan")
    assert host.run(f"multipathd resize map 3{VOLUME}") == "ok\n"
    assert host.size(MAP) == 128 * MIB
    host.run(f"resize2fs {MAP} && /usr/bin/fallocate --length 90M /mnt/file")
    host.run("dd if=/dev/zero of=/mnt/file bs=1M seek=82 count=8 conv=notrunc,fsync")

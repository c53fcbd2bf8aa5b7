"""What a machine has used, read from the texts of the kernel and of libvirt."""

from gespann.host.counters import busy_seconds, interface_counters
from gespann.host.libvirt.domain_counters import counters_of, device_of
from gespann.host.libvirt.domain_xml import target_name


def test_busy_time_leaves_out_idle_and_waiting():
    stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 9999 8888 4 5 6 70 0\ncpu1 0 0 0 1 0 0 0 0 0 0\nintr 1 2\n"
    assert busy_seconds(stat) == [1.65, 0.0]


def test_cards_are_told_and_taps_and_bridges_are_not(tmp_path):
    for name, mark in (("eth0", ""), ("xenbr0", "bridge"), ("vnet3", "tun_flags"), ("lo", "")):
        (tmp_path / name).mkdir()
        if mark:
            (tmp_path / name / mark).mkdir()
    dev = "head\nhead\n" + "".join(
        f"  {name}: 1000 2 3 4 5 6 7 8 2000 10 11 12\n" for name in ("lo", "eth0", "xenbr0", "vnet3")
    )
    (card,) = interface_counters(dev, tmp_path)
    assert (card.device, card.received_bytes, card.sent_bytes) == ("eth0", 1000, 2000)


def test_every_disk_is_found_again_by_its_name():
    assert [device_of(target_name(device)) for device in range(255)] == list(range(255))


def test_counters_of_a_machine():
    numbers = {
        "vcpu.current": 2, "vcpu.maximum": 2, "vcpu.0.time": 1_500_000_000, "vcpu.1.time": 500_000_000,
        "balloon.current": 131072, "balloon.usable": 65536,
        "net.count": 2, "net.0.rx.bytes": 10, "net.0.tx.bytes": 20, "net.1.rx.bytes": 30, "net.1.tx.bytes": 40,
        "block.count": 2, "block.0.name": "sdb", "block.0.rd.bytes": 1, "block.0.wr.bytes": 2,
        "block.0.rd.times": 7_999, "block.0.rd.reqs": 3, "block.0.wr.reqs": 4, "block.1.name": "sdc",
    }  # fmt: skip
    found = counters_of("u", "s", {4: "mac", 0: "mac"}, numbers)
    assert found.vcpu_seconds == [1.5, 0.5]
    assert (found.memory_bytes, found.memory_free_bytes) == (128 << 20, 64 << 20)
    assert [(nic.device, nic.received_bytes) for nic in found.nics] == [(4, 10), (0, 30)]
    (disk,) = found.disks  # the other one is an empty drive
    assert (disk.device, disk.read_bytes, disk.written_bytes, disk.reads, disk.writes) == (1, 1, 2, 3, 4)
    assert (disk.reads_us, disk.writes_us) == (7, 0)


def test_machine_that_another_call_holds_tells_what_it_can():
    found = counters_of("u", "s", {}, {})
    assert (found.vcpu_seconds, found.memory_bytes, found.memory_free_bytes, found.disks) == ([], 0, -1, [])

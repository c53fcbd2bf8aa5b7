"""What guests and QEMU say, as the seam tells it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gespann.host.accelerator import judge
from gespann.host.facts import free_bytes, parse_interfaces
from gespann.host.libvirt.guest import networks, os_version


def test_addresses_by_our_nics_only():
    info = {
        "if.count": 3,
        "if.0.hwaddr": "00:00:00:00:00:00",
        "if.0.addr.count": 1,
        "if.0.addr.0.addr": "127.0.0.1",
        "if.1.hwaddr": "02:00:00:00:00:0A",
        "if.1.addr.count": 3,
        "if.1.addr.0.addr": "10.0.0.5",
        "if.1.addr.1.addr": "10.0.0.6",
        "if.1.addr.2.addr": "fe80::1",
        "if.2.hwaddr": "02:00:00:00:00:0b",
        "if.2.addr.count": 1,
        "if.2.addr.0.addr": "<script>",
    }
    assert networks(info, {0: "02:00:00:00:00:0a", 1: "02:00:00:00:00:0b"}) == {
        "0/ip": "10.0.0.5",
        "0/ipv4/0": "10.0.0.5",
        "0/ipv4/1": "10.0.0.6",
        "0/ipv6/0": "fe80::1",
    }


def test_os_of_the_guest():
    info = {"os.id": "ubuntu", "os.pretty-name": "Ubuntu 22.04", "os.version-id": "22.04", "os.kernel-release": "5.15"}
    assert os_version(info) == {
        "name": "Ubuntu 22.04",
        "distro": "ubuntu",
        "major": "22",
        "minor": "04",
        "uname": "5.15",
    }


@given(st.text(max_size=1000))
def test_a_guest_cannot_say_too_much(name: str):
    said = os_version({"os.pretty-name": name})["name"]
    assert len(said) <= 256
    assert said.isprintable()


@pytest.mark.parametrize(
    ("emulated_s", "kvm_s", "found"),
    [
        (0.1, None, "tcg"),
        (0.1, 2.6, "tcg"),
        (0.1, 0.1, "kvm"),
        (0.3, 0.6, "kvm"),
        (None, 0.2, "kvm"),
        (None, None, "tcg"),
    ],
)
def test_an_accelerator_must_accelerate(emulated_s: float | None, kvm_s: float | None, found: str):
    assert judge(emulated_s, kvm_s) == found


def test_cards_and_bridges_of_a_host():
    links = [
        {"ifname": "lo", "link_type": "loopback", "address": "0", "mtu": 65536, "flags": []},
        {
            "ifname": "eth0", "link_type": "ether", "address": "02:00:00:00:00:01", "mtu": 9000, "master": "xenbr0",
            "flags": ["UP", "LOWER_UP"], "linkinfo": {"info_slave_kind": "bridge"},
            "addr_info": [{"local": "fe80::1", "prefixlen": 64, "scope": "link"}],
        },
        {
            "ifname": "xenbr0", "link_type": "ether", "address": "02:00:00:00:00:01", "mtu": 1500, "flags": ["UP"],
            "linkinfo": {"info_kind": "bridge"},
            "addr_info": [{"local": "10.0.0.5", "prefixlen": 24, "scope": "global"}],
        },
        {
            "ifname": "vnet0", "link_type": "ether", "address": "fe:00:00:00:00:01", "mtu": 1500, "flags": [],
            "linkinfo": {"info_kind": "tun"},
        },
    ]  # fmt: skip
    interfaces, _, bridges = parse_interfaces(links)
    assert [(item.device, item.bridge, item.carrier, item.addresses) for item in interfaces] == [
        ("eth0", "xenbr0", True, ["10.0.0.5/24"]),  # a bridge is no card, and its address is its card's
    ]
    assert bridges == ["xenbr0"]


@pytest.mark.parametrize(
    ("available", "promised", "free"),
    [
        (900, 0, 900),  # the machine needs 100 itself
        (900, 600, 400),  # promised, though not used yet
        (300, 600, 300),
        (300, 2000, 0),
    ],
)
def test_memory_that_the_machine_needs_itself_is_not_free(available: int, promised: int, free: int):
    assert free_bytes({"MemTotal": 1000, "MemAvailable": available}, promised) == free

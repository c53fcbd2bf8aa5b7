"""What a lab refuses before it touches the machine."""

from pathlib import Path

import pytest

from gespann.lab import Lab, LabError
from gespann.lab.network import Addressing


def test_networks_follow_each_other():
    addressing = Addressing("198.18.255")
    assert [addressing.address(name, 10) for name in ("mgmt", "stor", "vm")] == [
        "198.18.255.10",
        "198.19.0.10",
        "198.19.1.10",
    ]


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a-b", "x" * 11, "a/b"])
def test_bad_name(name: str):
    with pytest.raises(LabError, match="cannot name a lab"):
        Lab(Path("/tmp/x"), name=name)


@pytest.mark.parametrize("net", ["", "198.18", "198.18.1.0", "198.18.300", "a.b.c"])
def test_bad_net(net: str):
    with pytest.raises(LabError, match="octets"):
        Lab(Path("/tmp/x"), net=net)


def test_sockets_must_fit():
    with pytest.raises(LabError, match="too long"):
        Lab(Path("/tmp") / ("x" * 70))

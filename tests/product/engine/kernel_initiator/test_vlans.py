"""What an agent does for VLANs, done by Debian's kernel: its words to ``ip`` are run in the guest that has modules."""

import pytest

from gespann.host import vlans
from gespann.host.bridges import bridge_ensure
from gespann.seams.host_network import vlan_interface
from gespann.seams.json_lines import SeamError
from gespann.system import processes
from tests.product.engine.kernel_initiator.guest import IP, Guest

CARD, TAG, BRIDGE = "gscard", 100, "gstag"


@pytest.fixture
def guest(ip_of_guest: Guest) -> Guest:
    """A card of it leads to another machine (a network namespace), which has that VLAN."""
    for line in (
        "netns add far",
        f"link add {CARD} type veth peer name wire netns far",
        f"link set {CARD} up",
        "-n far link set wire up",
        f"-n far link add link wire name wire.{TAG} type vlan id {TAG}",
        f"-n far addr add 198.18.77.2/24 dev wire.{TAG}",
        f"-n far link set wire.{TAG} up",
    ):
        ip_of_guest.run(f"{IP} {line}")
    return ip_of_guest


async def test_frames_of_a_tag_get_to_a_bridge_and_from_it(guest: Guest) -> None:
    ping = "ping -c 1 -W 5 198.18.77.2"
    await bridge_ensure("untagged", 1500)
    await processes.run_async(["ip", "link", "set", CARD, "master", "untagged"])  # the card may be a port already
    for _ in range(2):  # again is harmless
        await vlans.vlan_ensure(CARD, TAG, BRIDGE, 1500)
    await processes.run_async(["ip", "addr", "add", "198.18.77.1/24", "dev", BRIDGE])
    guest.run(ping)

    with pytest.raises(SeamError, match="no interface absent"):
        await vlans.vlan_ensure("absent", TAG, BRIDGE, 1500)
    await vlans.vlan_ensure(CARD, TAG + 1, BRIDGE, 1500)  # of another tag nobody answers
    await vlans.vlan_remove(CARD, TAG)
    await vlans.vlan_remove(CARD, TAG)
    assert guest.attempt(ping.replace("-W 5", "-W 1")).status != 0
    await vlans.vlan_remove(CARD, TAG + 1)
    shown = guest.run(f"{IP} -o link")
    assert vlan_interface(CARD, TAG) not in shown
    assert BRIDGE in shown

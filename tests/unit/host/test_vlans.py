"""The words by which the agent makes VLANs, on a kernel that is a set of names."""

from collections.abc import Sequence
from typing import Any

import pytest

from gespann.host import vlans
from gespann.seams.json_lines import SeamError
from gespann.system.processes import CommandFailed, Result


class Kernel:
    """Links by name, each with the bridge that it is a port of."""

    def __init__(self) -> None:
        self.links: dict[str, str] = {"eth2": "xenbr2"}
        self.knows_vlans = True

    async def run(self, words: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        line = " ".join(words)
        match list(words):
            case ["ip", "link", "show", "dev", name]:
                return Result(line, int(name not in self.links), "", "")
            case ["ip", "link", "add", "link", device, "name", name, "type", "vlan", "id", _] if self.knows_vlans:
                assert device in self.links
                assert name not in self.links
                self.links[name] = ""
            case ["ip", "link", "set", name, "master", bridge, "up"]:
                assert name in self.links
                assert bridge in self.links
                self.links[name] = bridge
            case ["ip", "link", "del", name]:
                del self.links[name]
            case _:
                raise CommandFailed(line, 2, "Unknown device type.")
        return Result(line, 0, "", "")

    async def bridge_ensure(self, bridge: str, mtu: int) -> None:
        self.links.setdefault(bridge, "")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(vlans.processes, "run_async", kernel.run)
    monkeypatch.setattr(vlans, "bridge_ensure", kernel.bridge_ensure)
    return kernel


async def test_a_vlan_is_a_port_of_its_bridge_until_it_is_removed(kernel: Kernel) -> None:
    for bridge in ("br100", "br100", "br200"):  # again, and then at another bridge
        await vlans.vlan_ensure("eth2", 100, bridge, 1500)
        assert kernel.links["v100.eth2"] == bridge
    for _ in range(2):
        await vlans.vlan_remove("eth2", 100)
        assert "v100.eth2" not in kernel.links
    assert kernel.links["eth2"] == "xenbr2"


async def test_a_card_that_is_not_there_and_a_kernel_without_vlans(kernel: Kernel) -> None:
    with pytest.raises(SeamError, match="this host has no interface eth7"):
        await vlans.vlan_ensure("eth7", 100, "br100", 1500)
    assert "br100" not in kernel.links
    kernel.knows_vlans = False
    with pytest.raises(SeamError, match="Unknown device type"):
        await vlans.vlan_ensure("eth2", 100, "br100", 1500)

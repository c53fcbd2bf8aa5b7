"""An agent with the fake hypervisor, and a client of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gespann.host.fake import FakeHypervisor, LedgerStorage
from gespann.host.server import AgentServer
from gespann.seams.host_agent import EVENTS, Disk, DomainSpec, Event, Hello, IscsiSource, Nic
from gespann.system.json_lines import JsonLinesClient

UUID = "0b0f6c1e-7d3e-4b64-9e0a-111111111111"


def iscsi(device: int = 0, start: int = 1) -> IscsiSource:
    return IscsiSource(
        host="198.51.100.1",
        port=3260,
        target=f"iqn.2026-01.org.example:volume-{device}",
        initiator=f"iqn.2026-01.org.example:start-{start}",
        chap_user=f"start-{start}",
        chap_secret=f"secret-of-start-{start}",
    )


def disk(device: int = 0, start: int = 1) -> Disk:
    return Disk(device=device, serial=f"serial-{device}", source=iscsi(device, start), bootable=device == 0)


def spec(start: int = 1, uuid: str = UUID, **changed: object) -> DomainSpec:
    fields: dict[str, object] = {
        "uuid": uuid,
        "start_id": f"start-{start}",
        "name_label": "web1",
        "memory_bytes": 128 * 1024**2,
        "vcpus": 1,
        "disks": [disk(0, start)],
        "nics": [Nic(device=0, mac="02:00:00:00:07:09", bridge="xenbr0")],
    }
    return DomainSpec(**{**fields, **changed})


@dataclass
class Agent:
    fake: FakeHypervisor
    storage: LedgerStorage
    client: JsonLinesClient
    events: list[Event] = field(default_factory=list)

    def grant(self, device: int = 0, start: int = 1) -> None:
        source = iscsi(device, start)
        self.storage.grant(source.target, source.initiator, source.chap_user, source.chap_secret)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    storage = LedgerStorage()
    fake = FakeHypervisor(storage=storage)
    fake.bridges["xenbr0"] = 1500
    server = AgentServer(fake, tmp_path / "agent.sock")
    await server.start()
    events: list[Event] = []
    client = JsonLinesClient(
        tmp_path / "agent.sock", hello=Hello(version=1), events=EVENTS, on_event=events.append, timeout_s=10
    )
    client.start()
    yield Agent(fake, storage, client, events)
    await client.close()
    await server.stop()

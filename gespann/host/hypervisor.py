"""What the agent needs of a hypervisor. Two implementations, ``libvirt`` and ``fake``; one conformance suite over both
(``tests/product/host/test_conformance.py``).

Each method is one request of seam 5 and keeps its promises; the specs given to it have passed ``spec_check``.
Refusals and failures are ``SeamError`` with a code of ``host_agent.ERROR_CODES``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gespann.host.bonds import CardPlace
from gespann.seams.host_addresses import InterfaceAddresses
from gespann.seams.host_agent import (
    CountersReply,
    CpuTuning,
    Disk,
    Domain,
    DomainSpec,
    Event,
    FactsReply,
    FileSource,
    GuestMetricsReply,
    IscsiSource,
    Nic,
)
from gespann.seams.host_bonds import BondShape
from gespann.seams.host_machine import Trigger
from gespann.seams.host_migration import Landing, MigrateSend
from gespann.seams.host_mirror import MirrorTarget

Told = Callable[[Event], None]  # called in the event loop's thread, must not block


class Hypervisor(Protocol):
    name: str  # as HelloReply.hypervisor
    migration_socket: Path | None  # by which a machine arrives from another host; none: by another way (a fake's)

    async def open(self, told: Told) -> None:
        """Connects, and tells of every change from now on. Domains that run already are adopted."""
        ...

    async def close(self) -> None:
        """Lets go. Domains go on running; image exports end."""
        ...

    async def facts(self) -> FactsReply: ...

    async def create(self, spec: DomainSpec) -> Domain: ...

    async def shutdown(self, uuid: str, *, reboot: bool, timeout_s: float) -> None: ...

    async def destroy(self, uuid: str, start_id: str | None) -> None: ...

    async def reset(self, uuid: str) -> None: ...

    async def pause(self, uuid: str) -> None: ...

    async def unpause(self, uuid: str) -> None: ...

    async def vcpus(self, uuid: str, vcpus: int) -> None: ...

    async def memory_target(self, uuid: str, target_bytes: int) -> None: ...

    async def tune(self, uuid: str, tuning: CpuTuning, before: CpuTuning) -> None: ...

    async def trigger(self, uuid: str, trigger: Trigger) -> None: ...

    async def sysrq(self, uuid: str, key: str) -> None: ...

    async def memory_save(
        self, uuid: str, start_id: str, image_id: str, target: IscsiSource | FileSource, timeout_s: float
    ) -> None: ...

    async def memory_progress(self, image_id: str) -> float: ...

    async def memory_stop(self, image_id: str) -> None: ...

    async def restore(
        self, spec: DomainSpec, image_id: str, memory: IscsiSource | FileSource, timeout_s: float
    ) -> Domain: ...

    async def domains(self) -> list[Domain]: ...

    async def disk_attach(self, uuid: str, disk: Disk) -> None: ...

    async def disk_detach(self, uuid: str, device: int, timeout_s: float) -> None: ...

    async def disk_resize(self, uuid: str, device: int, size_bytes: int) -> None: ...

    async def nic_attach(self, uuid: str, nic: Nic) -> None: ...

    async def nic_detach(self, uuid: str, device: int, timeout_s: float) -> None: ...

    async def guest_metrics(self, uuid: str) -> GuestMetricsReply: ...

    async def guest_freeze(self, uuid: str) -> None:
        """On failure it may be frozen all the same, or be so later (``holds`` sees to it)."""
        ...

    async def guest_thaw(self, uuid: str) -> bool:
        """True: it was frozen, and says that it is not any more; False: it says that it was not."""
        ...

    async def counters(self) -> CountersReply: ...

    async def image_open(self, image_id: str, source: IscsiSource | FileSource, read_only: bool) -> str:
        """Gives the path of the NBD socket."""
        ...

    async def image_close(self, image_id: str) -> None: ...

    async def bridge_ensure(self, bridge: str, mtu: int) -> None: ...

    async def vlan_ensure(self, device: str, tag: int, bridge: str, mtu: int) -> None: ...

    async def vlan_remove(self, device: str, tag: int) -> None: ...

    async def bond_places(self, device: str, members: list[str]) -> dict[str, CardPlace]:
        """Where those of the cards are that are not in the bond already. NOT_FOUND, BAD_STATE."""
        ...

    async def bond_set(self, shape: BondShape) -> None:
        """It is made, or changed. Its cards have no addresses."""
        ...

    async def bond_remove(self, device: str, places: dict[str, CardPlace]) -> None:
        """Gone already: nothing to do but to put the cards where they were."""
        ...

    async def card_gro_set(self, device: str, *, on: bool) -> None: ...

    async def addresses_show(self, device: str) -> InterfaceAddresses:
        """What a card, or the bridge that it is a port of, has now. NOT_FOUND."""
        ...

    async def addresses_lease(self, device: str) -> InterfaceAddresses:
        """What the network's DHCP server offers; nothing is changed. REFUSED if none answers."""
        ...

    async def addresses_set(self, device: str, wanted: InterfaceAddresses) -> None:
        """Exactly these; with ``dhcp`` those of the lease, which is looked after from then on."""
        ...

    async def hostname_set(self, hostname: str) -> None: ...

    async def power(self, *, reboot: bool) -> None:
        """Of the host itself."""
        ...

    async def kernel_log(self, *, clear: bool) -> str:
        """The messages of the host's kernel; ``clear``: and they are forgotten."""
        ...

    async def migrate_receive(self, spec: DomainSpec, ticket: str) -> Landing: ...

    async def migrate_send(self, request: MigrateSend, relay: Path | None) -> float | None:
        """``relay``: a Unix socket that leads to the other host's ``migration_socket``. How long the machine has stood
        still when this is answered, in seconds, if that is known."""
        ...

    async def migrate_progress(self, uuid: str) -> float:
        """0.0 to 1.0."""
        ...

    async def migrate_abort(self, uuid: str) -> None:
        """What is being sent stays. Nothing under way: nothing to do."""
        ...

    async def migrate_end(self, uuid: str, ticket: str) -> None: ...

    async def disk_mirror(
        self, uuid: str, start_id: str, device: int, source: IscsiSource, volume_bytes: int
    ) -> None: ...

    async def disk_mirror_progress(self, uuid: str, device: int) -> float:
        """0.0 to 1.0."""
        ...

    async def disk_mirror_stop(self, uuid: str, device: int, to: MirrorTarget) -> None: ...

    async def disk_pivot(self, uuid: str, start_id: str, device: int, to: MirrorTarget) -> None: ...

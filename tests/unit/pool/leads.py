"""In place of what processes do when they start: whose coordinator leads a world."""

from pathlib import Path
from typing import TYPE_CHECKING

from gespann.host.server import AgentServer
from gespann.pool.succession import doubt
from gespann.pool.succession.copies import Taking, install
from gespann.seams.host_succession import PoolFollow, PoolTake, PoolTakeWithdraw, next_epoch
from gespann.system.mutual_tls import certificate_of
from tests.unit.pool.far_hosts import FarHost

if TYPE_CHECKING:
    from tests.unit.pool.world import World


async def lead_where_it_belongs(world: "World") -> None:
    """Doubts are resolved first; then the world is that of the machine whose agent says that its coordinator leads."""
    membership = world.agent_server.membership
    assert membership is not None
    handing = doubt.noted(world.data)
    if handing is not None:
        far = world.far[handing.door_address]
        said = await far.membership.handlers()[PoolTakeWithdraw](PoolTakeWithdraw(copy_id=handing.copy_id))
        leader = doubt.judge(handing, said)
        if leader is not None:
            follow = PoolFollow(
                pool_uuid=handing.pool_uuid,
                epoch=leader[0],
                certificate=certificate_of(world.data / "agents.pem"),
                coordinator_address=leader[1],
            )
            await membership.handlers()[PoolFollow](follow)
        doubt.take_away(world.data)
    if membership.reply().state == "member":
        (far,) = [far for far in world.far.values() if far.membership.reply().state == "alone"]
        await _move(world, far)


async def take_over(world: "World", address: str, *, cut_off: bool = False) -> None:
    """The coordinator is gone; another machine leads from the copy that it has. ``cut_off``: so is its machine."""
    await world.power_cut()
    far, before = world.far[address], world.address
    about = far.membership.copy.about
    assert about is not None
    take = PoolTake(pool_uuid=about.pool_uuid, epoch=next_epoch(about.epoch), copy_id=about.copy_id, how="emergency")
    await far.membership.handlers()[PoolTake](take)
    await _move(world, far)
    world.far[before].reachable = not cut_off
    await world.boot()


async def _move(world: "World", far: FarHost) -> None:
    membership = world.agent_server.membership
    assert membership is not None
    del world.far[far.address]
    world.far[world.address] = FarHost(world.address, world.hypervisor, membership)
    world.hypervisor, world.address = far.hypervisor, far.address
    assert far.hypervisor.run_dir is not None
    world.agent_server = AgentServer(far.hypervisor, far.hypervisor.run_dir / "agent.sock", far.membership)
    world.data = world.path / far.hostname if far.hostname != "fakehost" else world.path
    said, about = far.membership.reply(), far.membership.copy.show()
    assert about.about is not None
    assert about.about.copy_id == said.taken_copy
    host_uuid = (await far.hypervisor.facts()).host_uuid
    taking = Taking(Path(about.path), said.epoch, said.taken_how, about.about.taken_at, host_uuid)
    install(world.data, taking)

"""``volume select V lease ...``: which of the initiators that are logged in may write."""

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs
from gespann.array.model.records import Volume


@command(
    "volume select <volume> lease grant <initiator>",
    "Gives the right to write to one initiator. The others stay connected and may read.",
    Option("instead-of", "initiator", key="instead_of", help="refuses unless this one has it now"),
)
async def grant(session: Session, volume: Volume, initiator: str, instead_of: str | None = None) -> Lines:
    await session.control.leases.grant(volume, initiator, instead_of)
    return []


@command("volume select <volume> lease release", "Whoever is connected may write, as before any grant.")
async def release(session: Session, volume: Volume) -> Lines:
    await session.control.leases.release(volume)
    return []


@command("volume select <volume> lease show", "Shows who has the right to write.", changes=False)
async def show(session: Session, volume: Volume) -> Lines:
    values = [("Holder", volume.lease_holder or "none"), ("Generation", str(volume.lease_generation))]
    return pairs(values, session.settings.formatoutput)


COMMANDS: list[Command] = [grant, release, show]

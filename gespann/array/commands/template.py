"""Templates and thin clones: a volume that never changes any more, and volumes that begin as it is."""

from typing import Any

from gespann.array.commands.declare import Command, Lines, command
from gespann.array.commands.session import Session
from gespann.array.commands.volume import clone_options, cloned
from gespann.array.model.records import Volume


@command("volume select <volume> convert-to template", "Makes it a template: it must be thin, offline and read-only.")
async def to_template(session: Session, volume: Volume) -> Lines:
    await session.control.templates.convert(volume)
    return []


@command("volume select <volume> convert-to volume", "Makes a template without thin clones a volume again.")
async def to_volume(session: Session, volume: Volume) -> Lines:
    await session.control.templates.convert_back(volume)
    return []


@command(
    "volume select <volume> create-thin-clone <name:new-volume>",
    "Makes a thin clone of the template and prints its target name.",
    *clone_options(),
)
async def create_thin_clone(
    session: Session, volume: Volume, name: str, unrestricted: bool = False, **settings: Any
) -> Lines:
    return await cloned(session, volume, name, unrestricted, settings, None, thin_clone=True)


@command("volume select <volume> detach", "Makes a thin clone a standard volume, attached to no template.")
async def detach(session: Session, volume: Volume) -> Lines:
    await session.control.templates.detach(volume)
    return []


COMMANDS: list[Command] = [to_template, to_volume, create_thin_clone, detach]

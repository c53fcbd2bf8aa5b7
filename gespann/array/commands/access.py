"""``volume select V access ...``: who may use a volume."""

from typing import Any

from gespann.array.commands.declare import Command, Lines, Option, command
from gespann.array.commands.session import Session
from gespann.array.commands.table import pairs
from gespann.array.commands.volume_views import access_table
from gespann.array.model.records import Volume


@command(
    "volume select <volume> access create",
    "Adds a record. Who matches all that it says is admitted.",
    Option("initiator", "initiator", help="iSCSI name of the initiator; default: any"),
    Option("ipaddress", "address-pattern", key="address", help="its address; default *.*.*.*"),
    Option("authmethod", "chap|none", key="auth_method", help="default: chap if a user is named, else none"),
    Option("username", "user-name", key="chap_user", help="CHAP user as whom the initiator proves itself"),
    Option("apply-to", "volume|snapshot|both", help="default both"),
)
async def create(session: Session, volume: Volume, **fields: Any) -> Lines:
    record = await session.control.policy.create_record(volume, **fields)
    return ["Access control record creation succeeded.", f"Access control record ID is {record.number}."]


@command("volume select <volume> access show", "Lists the records.", changes=False)
async def show(session: Session, volume: Volume) -> Lines:
    return access_table(session.control.access.of(volume.id))


@command("volume select <volume> access select <record> show", "Shows a record.", changes=False)
async def select_show(session: Session, volume: Volume, record: int) -> Lines:
    one = session.control.access.get(volume.id, record)
    values = [
        ("ID", str(one.number)),
        ("Initiator", one.initiator),
        ("IPAddress", one.address),
        ("AuthMethod", one.auth_method),
        ("UserName", one.chap_user),
        ("Apply-To", one.apply_to),
    ]
    return pairs(values, session.settings.formatoutput)


@command("volume select <volume> access delete <record>", "Deletes a record. Connections that it admitted stay.")
async def delete(session: Session, volume: Volume, record: int) -> Lines:
    await session.control.policy.delete_record(volume, record)
    return ["Access control record deletion succeeded."]


COMMANDS: list[Command] = [create, show, select_show, delete]

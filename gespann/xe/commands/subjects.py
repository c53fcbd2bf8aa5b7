"""Users and groups of a directory who may use the pool."""

from gespann.xe.call import Call, Handler


async def subject_add(call: Call) -> None:
    """The directory is asked who that is, and what it says is kept with the subject."""
    identifier = str(await call.request("auth.get_subject_identifier", call.arguments.required("subject-name")))
    told = await call.request("auth.get_subject_information_from_identifier", identifier)
    subject = str(await call.request("subject.create", {"subject_identifier": identifier, "other_config": dict(told)}))
    await call.printer.values([await call.uuid_of("subject", subject)])


COMMANDS: dict[str, Handler] = {"subject-add": subject_add}

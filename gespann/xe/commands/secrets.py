"""Secrets that the pool keeps for SRs and others."""

from gespann.xe.call import Call, Handler


async def secret_create(call: Call) -> None:
    record = {
        "value": call.arguments.required("value"),
        "other_config": call.arguments.mapping("other-config"),
    }
    secret = str(await call.request("secret.create", record))
    await call.printer.values([await call.uuid_of("secret", secret)])


COMMANDS: dict[str, Handler] = {"secret-create": secret_create}

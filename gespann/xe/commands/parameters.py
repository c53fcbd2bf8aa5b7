"""Where a parameter of a declared call comes from: each function here makes a reader of the command line."""

from collections.abc import Awaitable, Callable
from typing import Any

from gespann.xe.call import Call
from gespann.xe.failures import CommandFailure
from gespann.xe.records.spelling import parsed

Parameter = Callable[[Call], Awaitable[Any]]


def by_uuid(class_name: str, key: str = "uuid") -> Parameter:
    """The reference of the object whose uuid is given."""

    async def read(call: Call) -> Any:
        return await call.ref_of(class_name, call.arguments.required(key))

    return read


def all_by_uuid(class_name: str, key: str) -> Parameter:
    """References of comma-separated uuids."""

    async def read(call: Call) -> Any:
        return [await call.ref_of(class_name, uuid) for uuid in call.arguments.words(key)]

    return read


def the_pool() -> Parameter:
    """The pool named by ``uuid=``, or the only one there is."""

    async def read(call: Call) -> Any:
        uuid = call.arguments.text("uuid")
        return await call.ref_of("pool", uuid) if uuid else await call.only_pool()

    return read


def text(key: str, default: str | None = None) -> Parameter:
    """Required unless there is a default."""

    async def read(call: Call) -> Any:
        return call.arguments.required(key) if default is None else call.arguments.text(key, default)

    return read


def integer(key: str, default: int | None = None) -> Parameter:
    async def read(call: Call) -> Any:
        return call.arguments.integer(key, default)

    return read


def decimal(key: str) -> Parameter:
    async def read(call: Call) -> Any:
        try:
            return float(call.arguments.required(key))
        except ValueError:
            raise CommandFailure(f"Failed to parse parameter '{key}': expecting a floating-point number") from None

    return read


def size(key: str) -> Parameter:
    """Bytes, typed with or without a suffix."""

    async def read(call: Call) -> Any:
        return call.arguments.size(key)

    return read


def boolean(key: str, default: bool = False) -> Parameter:
    async def read(call: Call) -> Any:
        return call.arguments.boolean(key, default)

    return read


def mapping(name: str) -> Parameter:
    async def read(call: Call) -> Any:
        return call.arguments.mapping(name)

    return read


def words(key: str) -> Parameter:
    """A set of comma-separated words."""

    async def read(call: Call) -> Any:
        return call.arguments.words(key)

    return read


def enum(name: str, key: str, default: str | None = None) -> Parameter:
    """A value of an enum, in any case."""

    async def read(call: Call) -> Any:
        return enum_value(
            name, key, call.arguments.required(key) if default is None else call.arguments.text(key, default)
        )

    return read


def enum_value(name: str, key: str, typed: str) -> str:
    value = parsed(name, typed)
    if value is None:
        raise CommandFailure(f"Parameter {key} cannot be '{typed}'")
    return value


def constant(value: Any) -> Parameter:
    async def read(call: Call) -> Any:
        return value

    return read


def client_file(key: str) -> Parameter:
    """The text of a file on the client's side."""

    async def read(call: Call) -> Any:
        return (await call.client.load(call.arguments.required(key))).decode("utf-8", "replace")

    return read


def file_name(key: str) -> Parameter:
    """The last part of a path, such as a certificate's name."""

    async def read(call: Call) -> Any:
        return call.arguments.required(key).rsplit("/", 1)[-1]

    return read

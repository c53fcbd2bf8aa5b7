"""``console``: a VM's text console in the user's terminal."""

from urllib.parse import urlsplit

from gespann.xe.api import Record
from gespann.xe.call import Call, Handler
from gespann.xe.failures import CommandFailure, ExitWith
from gespann.xe.selectors import one_vm


async def console(call: Call) -> None:
    vm = await one_vm(call)
    consoles = await call.tables.all("console")
    found = [record for ref in vm.record["consoles"] if (record := consoles.get(ref))]
    text_consoles = [record for record in found if record["protocol"] == "vt100"]
    if not text_consoles:
        raise CommandFailure("No text console found for this VM; it has one only while it runs")
    if not await call.client.http_connect(await _console_url(call, text_consoles[0])):
        await call.printer.remark_on_stderr("The console could not be opened")
        raise ExitWith(1)


async def _console_url(call: Call, record: Record) -> str:
    """The console's address with our session. On the coordinator itself only the path: however the client got here,
    it gets there too."""
    location = urlsplit(str(record["location"]))
    master = await call.request("pool.get_master", await call.only_pool())
    here = location.hostname in (None, str(await call.request("host.get_address", master)))
    start = "" if here else f"{location.scheme}://{location.netloc}"
    query = f"{location.query}&" if location.query else ""
    return f"{start}{location.path}?{query}session_id={call.session}"


COMMANDS: dict[str, Handler] = {"console": console}
